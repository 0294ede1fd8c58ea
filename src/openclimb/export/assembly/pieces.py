"""Pieces of a dataset: the documents that it may hold, read once from the input.

Writes `OUT.partial/pieces-…/unit-00012.parquet`, a row a document in the input's order: domain, order, tokens, bytes,
place, id, text, and the columns of the labels that the dataset keeps. Formats of tokens have `ids` in place of the
text. A piece appears when it is complete and is not made again.
"""

from collections.abc import Iterator, Sequence
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
from openclimb.export.assembly.plan import Counts
from openclimb.progress import Progress
from openclimb.workspace.files import atomic

STRETCH_CHARS = 8_000_000  # of text in a row group
WIDE = 1 << 16  # entries of a vocabulary beyond which an id has four bytes, not two
BATCH = 256  # documents tokenised at once
TEMPORARY = "zstd"  # compression of what is removed when the dataset is whole
LEVEL = 1


@dataclass(frozen=True)
class Work:
    """What a worker needs to make pieces, deals or shards."""

    choice: DocumentChoice  # its last rate, of held-out documents, is 0
    tokenizer: Path | None  # None: tokens are the labels' estimates
    ids: dict[str, Any]  # for a format of tokens: `vocab_size`, `end` and `start` of the tokenizer; else empty
    labels: tuple[str, ...]  # columns of the labels that each row keeps
    corpus: CorpusSettings
    names: tuple[str, ...]
    folder: Path  # OUT.partial
    pieces: Path
    format: str


def make_pieces(work: Work, units: Sequence[Unit], engine: Engine, progress: Progress) -> Counts:
    """Make the piece of every unit that has none; return the counts over all of them."""
    import pyarrow.parquet as pq

    progress.start("gather documents", len(units), "units")
    waiting = [unit for unit in units if not _piece(work, unit.number).is_file()]
    progress.advance(len(units) - len(waiting))
    for _ in engine.map(partial(_make_piece, work), waiting, folder=work.folder):
        progress.advance()
    counts = Counts.empty(len(work.names))
    columns = ["domain", "order", "tokens", "bytes"]
    for path in find_pieces(work):
        for rows in pq.ParquetFile(path).iter_batches(1 << 16, columns=columns):
            counts.add(*(rows.column(name).to_numpy() for name in columns))
    progress.finish(f"{int(counts.documents.sum()):,} documents")
    return counts


def find_pieces(work: Work) -> list[Path]:
    """Return the files of all pieces, in the order of the units."""
    return sorted(work.pieces.glob("unit-*.parquet"))


def _piece(work: Work, number: int) -> Path:
    return work.pieces / f"unit-{number:05d}.parquet"


def piece_schema(ids: dict[str, Any], labels: Sequence[str]) -> Any:
    """Return the columns of a piece, for what `Work.ids` and `Work.labels` say; ids have two bytes where all fit."""
    import pyarrow as pa

    number = pa.uint16() if ids.get("vocab_size", 0) <= WIDE else pa.uint32()
    types = {"cluster": pa.int32(), "hash": pa.string()}  # JSON has no whole numbers of 64 bits
    return pa.schema(
        [
            ("domain", pa.int16()),
            ("order", pa.uint64()),
            ("tokens", pa.int32()),
            ("bytes", pa.int32()),
            ("position", pa.int64()),
            ("id", pa.string()),
            ("ids", pa.list_(number)) if ids else ("text", pa.string()),
            *((name, types.get(name, pa.float32())) for name in labels),
        ]
    )


def _make_piece(work: Work, unit: Unit) -> None:
    """Write the documents of a unit that the dataset may hold, tokenised."""
    import pyarrow.parquet as pq

    chosen = work.choice.documents(unit)
    schema = piece_schema(work.ids, work.labels)
    with (
        atomic(_piece(work, unit.number)) as temporary,
        pq.ParquetWriter(temporary, schema, compression=TEMPORARY, compression_level=LEVEL) as writer,
    ):
        n_read = 0
        for stretch in _stretches(work, unit, chosen):
            n_read += len(stretch)
            writer.write_table(_table(work, unit, stretch, chosen))
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


def _table(work: Work, unit: Unit, stretch: list[Document], chosen: dict[int, tuple[int, int]]) -> Any:
    """Return the rows of some documents, in their order."""
    import pyarrow as pa

    schema = piece_schema(work.ids, work.labels)
    positions = np.array([document.position for document in stretch], np.int64)
    labels = work.choice.columns(unit, positions, [*work.labels, *([] if work.tokenizer else ["tokens"])])
    texts = [document.text.encode("utf-8", "replace") for document in stretch]  # a lone surrogate has no UTF-8
    n_tokens, ids = _tokens(work, stretch) if work.tokenizer else (labels.column("tokens"), None)
    columns = {
        "domain": [chosen[document.position][0] for document in stretch],
        "order": [chosen[document.position][1] for document in stretch],
        "tokens": n_tokens,
        "bytes": [len(text) for text in texts],
        "position": positions,
        "id": [document.id for document in stretch],
        "text": pa.array(texts, pa.binary()).cast(pa.string()) if ids is None else None,
        "ids": ids,
    }
    for name in work.labels:
        values = labels.column(name)
        columns[name] = [f"{one:016x}" for one in values.to_pylist()] if name == "hash" else values
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _tokens(work: Work, stretch: list[Document]) -> tuple[Any, Any]:
    """Return how many tokens each document has, and for a format of tokens which they are; else None."""
    import pyarrow as pa

    assert work.tokenizer
    tokenizer = load_tokenizer(work.tokenizer)
    before, after = ends_of(work.tokenizer).around
    number = np.uint16 if work.ids.get("vocab_size", 0) <= WIDE else np.uint32
    n_tokens: list[int] = []
    ids: list[Any] = []
    for i in range(0, len(stretch), BATCH):
        for found in encode_batch(tokenizer, [document.text for document in stretch[i : i + BATCH]]):
            n_tokens.append(len(before) + len(found) + len(after))
            if work.ids:
                ids.append(np.array([*before, *found, *after], number))
    if not work.ids:
        return n_tokens, None
    ends = np.concatenate([[0], np.cumsum(n_tokens)]).astype(np.int32)
    return n_tokens, pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(ids)))
