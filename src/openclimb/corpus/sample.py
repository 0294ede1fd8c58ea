"""A uniform sample of documents: those with the smallest salted hash of their place, whatever the file borders.

The draw follows from places and seed alone: not from workers, units or the order of files. Memory holds about
40 bytes a drawn document and the texts of the first `SHOWN`; the other texts wait on disk to be embedded.

Writes `drawn/unit-00012.parquet` for each unit that is looked at: hash, position, bytes, source, id and text of the
documents that may be drawn. Who asked for the draw removes the folder. A unit's file is not made again.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.parse import Document
from openclimb.corpus.reading.read import CUT, PACKED, Unit, place_hash, read_unit
from openclimb.engines.engine import Engine
from openclimb.progress import Progress
from openclimb.workspace.files import atomic

MAX_UNITS = 2000  # of a larger corpus that many units, chosen by hash, are looked at, or as many as the sample needs
SPARE_UNITS = 2.0  # times the documents that are drawn lie in the units that are looked at, by a guess
SHOWN = 100_000  # documents whose texts are held: for the tokenizer, words, rates, examples
KEPT_CHARS = 8000  # of the text of one that is shown
SHORT_CHARS = 2500  # of the others: more than any embedder reads
BLOCK = 512  # documents in a row group: what is embedded by one call of a worker
HASHES = 1 << 64


@dataclass(frozen=True)
class SampledDocument:
    """A document of the sample, its text cut to `KEPT_CHARS`."""

    unit: int
    position: int
    text: str
    source: str
    n_bytes: int  # of the whole text
    id: str
    hash: int


@dataclass(frozen=True)
class Block:
    """Some documents of the sample in a row group on disk, and their places in the sample, in the group's order."""

    path: Path
    group: int
    rows: NDArray[np.int32]  # in the group
    places: NDArray[np.int64]

    @property
    def unit(self) -> int:
        """The number of the unit that its documents are of."""
        return int(self.path.stem.removeprefix("unit-"))

    def texts(self) -> list[str]:
        """Return their texts, each cut to `SHORT_CHARS` or more."""
        return list(self._read(["text"])["text"])

    def documents(self) -> list[SampledDocument]:
        """Return the documents, their texts cut as those of `texts`."""
        names = ["position", "text", "source", "bytes", "id", "hash"]
        columns = self._read(names)
        return [SampledDocument(self.unit, *row) for row in zip(*(columns[name] for name in names), strict=True)]

    def _read(self, columns: list[str]) -> dict[str, list[Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            table = file.read_row_group(self.group, columns=columns)
        return dict(table.take(pa.array(self.rows)).to_pydict())


@dataclass(frozen=True)
class Sample:
    """The drawn documents in the order of their hash: the first of them with texts, and the blocks that hold all."""

    n_bytes: NDArray[np.int64]  # (n,), of the whole texts
    shown: list[SampledDocument]
    blocks: list[Block]

    def __len__(self) -> int:
        return len(self.n_bytes)


class Smallest:
    """The n smallest hashes of those that are added, with what belongs to them; holds at most about 2 n."""

    def __init__(self, n: int) -> None:
        self.n, self.held = n, 0
        self.parts: dict[int, NDArray[Any]] = {}  # of each unit: hash, row in its file, bytes

    def add(self, unit: int, part: NDArray[Any]) -> None:
        """Add a unit's documents: an array with the fields hash, row, bytes, by row."""
        self.parts[unit] = part
        self.held += len(part)
        if self.held > 2 * self.n + 1000:
            self.cut()

    def cut(self) -> None:
        """Forget what is not among the n smallest."""
        if self.held > self.n:
            hashes = np.concatenate([part["hash"] for part in self.parts.values()])
            most = np.partition(hashes, self.n - 1)[self.n - 1]
            self.parts = {unit: part[part["hash"] <= most] for unit, part in self.parts.items()}
            self.held = sum(map(len, self.parts.values()))


FIELDS = np.dtype([("hash", np.uint64), ("row", np.int32), ("bytes", np.int32)])


def draw_sample(
    units: Sequence[Unit],
    settings: CorpusSettings,
    n: int,
    seed: int,
    engine: Engine,
    progress: Progress,
    out: Path,
    n_shown: int = SHOWN,
) -> Sample:
    """Return the n documents of the corpus with the smallest place hash (all, when there are fewer).

    Their texts lie in `out`/drawn, which is to be removed when they were read; those of the first `n_shown` are also
    held in memory.
    """
    order = sorted(units, key=lambda unit: place_hash(unit.name, unit.start, seed))
    guess = max(1, _guess_documents(order, settings))
    most = max(MAX_UNITS, int(min(1.0, SPARE_UNITS * n / guess) * len(units)))
    share = n / max(1.0, guess * min(1.0, most / max(1, len(units))))
    while True:  # the bound only saves work: the n smallest are the same whatever it was
        bound = min(HASHES, int(1.2 * share * HASHES) + 1)
        looked = sorted(order[:most], key=lambda unit: unit.number)
        folder = out / "drawn" / f"{bound:017x}"
        look = partial(_look, settings=settings, seed=seed, bound=bound, shown=min(1.0, 2 * n_shown / n), folder=folder)
        progress.start("sample", len(looked), "units")
        smallest, total = Smallest(n), 0
        for index, (part, n_documents) in engine.map(look, looked, folder=out):
            smallest.add(index, part)
            total += n_documents
            progress.advance()
        smallest.cut()
        progress.finish(f"{min(n, smallest.held):,} of {total:,} documents")
        if smallest.held >= n or (bound == HASHES and most >= len(units)):
            return _sample(smallest, looked, folder, engine, n_shown)
        shutil.rmtree(folder)
        if bound == HASHES:
            most *= 2
        share = 2.0 * max(share, n / max(1, total))


def _sample(smallest: Smallest, looked: Sequence[Unit], folder: Path, engine: Engine, n_shown: int) -> Sample:
    """Return the sample: the order of its documents, and the texts of the first `n_shown`."""
    indices = sorted(index for index, part in smallest.parts.items() if len(part))
    if not indices:
        return Sample(np.empty(0, np.int64), [], [])
    hashes = np.concatenate([smallest.parts[index]["hash"] for index in indices])
    order = np.argsort(hashes, kind="stable")[: smallest.n]  # equal hashes: by unit and position
    place = np.full(len(hashes), -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    n_bytes = np.concatenate([smallest.parts[index]["bytes"] for index in indices])[order].astype(np.int64)
    blocks: list[Block] = []
    first: list[Block] = []
    begin = 0
    for index in indices:
        part, unit = smallest.parts[index], looked[index]
        mine = place[begin : begin + len(part)]
        begin += len(part)
        part, mine = part[mine >= 0], mine[mine >= 0]
        groups = part["row"] // BLOCK
        for group in np.unique(groups).tolist():
            rows, places = part["row"][groups == group] % BLOCK, mine[groups == group]
            block = Block(_path(folder, unit), group, rows, places)
            blocks.append(block)
            if (some := places < n_shown).any():
                first.append(replace(block, rows=rows[some], places=places[some]))
    texts: list[SampledDocument | None] = [None] * min(n_shown, len(order))
    for at, documents in engine.map(_documents, first, folder=folder):
        for where, document in zip(first[at].places.tolist(), documents, strict=True):
            texts[where] = document
    return Sample(n_bytes, [document for document in texts if document is not None], blocks)


def _documents(block: Block) -> list[SampledDocument]:
    return block.documents()


def _path(folder: Path, unit: Unit) -> Path:
    return folder / f"unit-{unit.number:05d}.parquet"


def _look(
    unit: Unit, settings: CorpusSettings, seed: int, bound: int, shown: float, folder: Path
) -> tuple[NDArray[Any], int]:
    """Write the documents of a unit whose hash is below `bound`; return those (`FIELDS`), and how many the unit has.

    Of those that cannot be among the first `shown` share of the sample, less of the text is kept.
    """
    import pyarrow.parquet as pq

    path = _path(folder, unit)
    if not path.is_file():
        _write(unit, settings, seed, bound, int(shown * bound), path)
    with pq.ParquetFile(path) as file:
        table = file.read(columns=["hash", "bytes"])
        total = int((file.metadata.metadata or {})[b"documents"])
    part = np.empty(table.num_rows, dtype=FIELDS)
    part["hash"], part["bytes"] = table.column("hash").to_numpy(), table.column("bytes").to_numpy()
    part["row"] = np.arange(table.num_rows)
    return part, total


def _write(unit: Unit, settings: CorpusSettings, seed: int, bound: int, shown: int, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = 0

    def wanted(position: int) -> bool:
        nonlocal total
        total += 1
        return place_hash(unit.name, position, seed) < bound

    rows: list[dict[str, Any]] = []
    with atomic(path) as temporary, pq.ParquetWriter(temporary, _schema(), compression="zstd") as writer:
        for document in read_unit(unit, settings, wanted):
            if not isinstance(document, Document):
                continue
            found = place_hash(unit.name, document.position, seed)
            rows.append(
                {
                    "hash": found,
                    "position": document.position,
                    "bytes": len(document.text.encode("utf-8", "replace")),
                    "source": document.source,
                    "id": document.id,
                    "text": document.text[: KEPT_CHARS if found <= shown else SHORT_CHARS],
                }
            )
            if len(rows) == BLOCK:
                writer.write_table(pa.Table.from_pylist(rows, schema=_schema()))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=_schema()))
        writer.add_key_value_metadata({"documents": str(total)})


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        {
            "hash": pa.uint64(),
            "position": pa.int64(),
            "bytes": pa.int32(),
            "source": pa.string(),
            "id": pa.string(),
            "text": pa.string(),
        }
    )


def _guess_documents(units: Sequence[Unit], settings: CorpusSettings) -> int:
    """Return a guess of the documents in the units, from the sizes of the first ones in a few of them."""
    n_bytes = n_documents = 0
    for unit in units[:: max(1, len(units) // 8)][:8]:
        for document, _ in zip(read_unit(unit, settings), range(200), strict=False):
            if isinstance(document, Document):
                n_bytes += len(document.text) + 40
                n_documents += 1
    total = sum(unit.n_bytes * (1 if unit.format in CUT or "." not in unit.format else PACKED) for unit in units)
    return round(total * n_documents / n_bytes) if n_bytes else 1
