"""Pieces of a dataset: the documents that it may hold, read once from the input, tokenised and sorted.

Writes `OUT.partial/pieces-…/unit-00012.parquet`: domain, order, exact tokens, bytes, place, id and text. A row group
holds documents of one domain in order, so that a reader skips what it does not need. Formats of tokens have `ids` in
place of the text. A piece appears when it is complete and is not made again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.parse import Document
from openclimb.corpus.reading.read import Unit, read_unit
from openclimb.corpus.select_documents import DocumentChoice, stop_if_fewer
from openclimb.corpus.tokenizer import encode_batch, ends_of, load_tokenizer
from openclimb.engines.engine import Engine
from openclimb.export.plan import Counts
from openclimb.progress import Progress
from openclimb.workspace.files import atomic

STRETCH_CHARS = 32_000_000  # of text sorted at once
GROUP_CHARS = 1_000_000  # of text in a row group
WIDE = 1 << 16  # entries of a vocabulary beyond which an id has four bytes, not two
BATCH = 256  # documents tokenised at once


@dataclass(frozen=True)
class Work:
    """What a worker needs to make pieces or shards."""

    choice: DocumentChoice  # its last rate, of held-out documents, is 0
    tokenizer: Path
    ids: dict[str, Any]  # for a format of tokens: `vocab_size`, `end` and `start` of the tokenizer; else empty
    corpus: CorpusSettings
    names: tuple[str, ...]
    pieces: Path
    data: Path
    format: str


def make_pieces(work: Work, units: Sequence[Unit], engine: Engine, progress: Progress) -> Counts:
    """Make the piece of every unit that has none; return exact counts over all of them."""
    import pyarrow.parquet as pq

    progress.start("gather documents", len(units), "units")
    waiting = [unit for unit in units if not _piece(work, unit.number).is_file()]
    progress.advance(len(units) - len(waiting))
    for _ in engine.map(partial(_make_piece, work), waiting, folder=work.pieces.parent):
        progress.advance()
    counts = Counts.empty(len(work.names))
    for path in sorted(work.pieces.glob("unit-*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["domain", "order", "tokens"])
            counts.add(*(rows.column(name).to_numpy() for name in ("domain", "order", "tokens")))
    progress.finish(f"{int(counts.documents.sum()):,} documents")
    return counts


def _piece(work: Work, number: int) -> Path:
    return work.pieces / f"unit-{number:05d}.parquet"


def piece_schema(ids: dict[str, Any]) -> Any:
    """Return the columns of a piece, for what `Work.ids` says; ids have two bytes where all of them fit."""
    import pyarrow as pa

    number = pa.uint16() if ids.get("vocab_size", 0) <= WIDE else pa.uint32()
    content = ("ids", pa.list_(number)) if ids else ("text", pa.string())
    return pa.schema(
        [
            ("domain", pa.int16()),
            ("order", pa.uint64()),
            ("tokens", pa.int32()),
            ("bytes", pa.int32()),
            ("position", pa.int64()),
            ("id", pa.string()),
            content,
        ]
    )


def _make_piece(work: Work, unit: Unit) -> None:
    """Write the documents of a unit that the dataset may hold, tokenised: stretches sorted by domain and order."""
    import pyarrow.parquet as pq

    chosen = work.choice.documents(unit)
    with (
        atomic(_piece(work, unit.number)) as temporary,
        pq.ParquetWriter(temporary, piece_schema(work.ids), compression="zstd", compression_level=1) as writer,
    ):
        n_read = 0
        for stretch in _stretches(work, unit, chosen):
            n_read += len(stretch)
            for table in _groups(work, stretch, chosen):
                writer.write_table(table)
    stop_if_fewer(unit.name, n_read, len(chosen))


def _stretches(work: Work, unit: Unit, chosen: dict[int, tuple[int, int]]) -> Iterator[list[Document]]:
    """Yield the chosen documents of a unit, about `STRETCH_CHARS` of text at a time."""
    stretch: list[Document] = []
    n_chars = 0
    for found in read_unit(unit, work.corpus, chosen.__contains__) if chosen else ():
        if isinstance(found, Document):
            stretch.append(found)
            n_chars += len(found.text)
            if n_chars >= STRETCH_CHARS:
                yield stretch
                stretch, n_chars = [], 0
    if stretch:
        yield stretch


def _groups(work: Work, stretch: list[Document], chosen: dict[int, tuple[int, int]]) -> Iterator[Any]:
    """Yield tables of at most about `GROUP_CHARS` of one domain's text, by order; each becomes a row group."""
    import pyarrow as pa

    schema = piece_schema(work.ids)
    tokenizer = load_tokenizer(work.tokenizer)
    before, after = ends_of(work.tokenizer).around
    number = np.uint16 if work.ids.get("vocab_size", 0) <= WIDE else np.uint32
    n_tokens: list[int] = []
    ids: list[Any] = []
    for i in range(0, len(stretch), BATCH):
        for found in encode_batch(tokenizer, [d.text for d in stretch[i : i + BATCH]]):
            n_tokens.append(len(before) + len(found) + len(after))
            if work.ids:
                ids.append(np.array([*before, *found, *after], number))
    rows = sorted((*chosen[d.position], i) for i, d in enumerate(stretch))
    group: list[dict[str, Any]] = []
    n_chars = 0
    for domain, order, i in rows:
        if group and (n_chars >= GROUP_CHARS or group[0]["domain"] != domain):
            yield pa.Table.from_pylist(group, schema=schema)
            group, n_chars = [], 0
        document = stretch[i]
        text = document.text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no UTF-8
        content = ids[i] if work.ids else text
        row = (domain, order, n_tokens[i], len(text.encode("utf-8")), document.position, document.id, content)
        group.append(dict(zip(schema.names, row, strict=True)))
        n_chars += len(text)
    if group:
        yield pa.Table.from_pylist(group, schema=schema)


def row_groups(path: Path, wanted: Callable[[int, int, int], bool], columns: list[str]) -> Iterator[tuple[int, Any]]:
    """Yield (domain, table) of the row groups of a piece for which wanted(domain, lowest, highest order) is true."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        found = file.metadata.row_group(group)
        domain, order = found.column(0).statistics, found.column(1).statistics
        if wanted(int(domain.min), int(order.min), int(order.max)):
            yield int(domain.min), file.read_row_group(group, columns=columns)
