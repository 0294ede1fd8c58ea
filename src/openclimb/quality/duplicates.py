"""The duplicates stage: which documents repeat an earlier one of the corpus, word for word or nearly.

A document that is left out has an earlier duplicate, and no two that stay are duplicates of one another: of documents
that all repeat one another the first in the order of units and positions stays. Where B repeats A and C repeats B, but
C not A, B goes, and C does where it has a band with B that A has not.

For "near" the label pass makes the signatures while it reads; what it did not sign, as when the setting changed after
it, is read here. For "exact" the labels have what is needed. Memory does not grow with the corpus: documents are
compared in parts, ranges of the keys' values, of which each holds about PART keys; with more documents there are more
parts. Of documents in one block that share a key and do not repeat one another, at most MOST_COMPARED are compared
outside it, so that a frequent key fills no part.

Reads `labels/` and, where they are not signed, the input files. Writes `duplicates/`: unit-00012.parquet for each unit
(positions of the documents left out), places.csv (a row for each cluster or ready-made source) and sources.csv (one for
each folder of the input, or ready-made source). `keys/` and `parts/` stand in the folder while it is made.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.duplicates import COUNTS, PLACES, SOURCES, read_positions, unit_path
from openclimb.corpus.reading.parse import Document
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.select_documents import stop_if_fewer
from openclimb.progress import counted
from openclimb.quality.contamination import document_batches, places_of
from openclimb.quality.keys import (
    EXACT,
    MOST_COMPARED,
    Block,
    Form,
    form_of,
    keys_path,
    n_documents,
    read_blocks,
    repeats,
    writing_keys,
)
from openclimb.quality.minhash import Signatures, sign
from openclimb.quality.ngrams import Hashes
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic
from openclimb.workspace.tables import write_csv

PART = 4_000_000  # keys of a part: about 250 MB with what it takes to compare them (bench/dedup.py)
SIZES = "sizes.npy"  # (2, units): number of each unit, and its documents
KEYS = 1 << 64

Counts = Counter[tuple[str, str]]  # {(name, one of COUNTS): n}


@contextmanager
def signing_unit(folder: Path, unit: Unit) -> Iterator[Callable[[Sequence[Document]], None]]:
    """Give a function that signs documents of a unit, a batch at a time, in their order; its file appears at the end.

    `folder` is that of the stage.
    """
    form = form_of("near")
    with writing_keys(keys_path(folder, form, unit.number)) as add:
        yield lambda documents: add(*sign([document.text for document in documents]))


@dataclass(frozen=True)
class _Work:
    """What a process needs to compare the documents of a part, or to count those of a unit."""

    out: Path
    labels: Path
    corpus: CorpusSettings
    form: Form
    n_parts: int = 0


def find_duplicates(
    context: StageContext, units: Sequence[Unit], labels: Path, corpus: CorpusSettings
) -> dict[str, Any]:
    """Sign what the label pass did not sign, compare, write what is left out and the tables; return the facts.

    Raises MissingDependency where `corpus.dedup` is "near" and rensa is not installed, InputError when labelled
    documents cannot be read any more.
    """
    out, progress = context.folder, context.progress
    work = _Work(out, labels, corpus, form_of(corpus.dedup))
    sizes = np.array([[unit.number for unit in units], [0] * len(units)], dtype=np.int64)
    progress.start("read what is compared", len(units), "units")
    lost = partial(_given_up, work)
    for index, n in context.engine.map(partial(_sign_unit, work), units, folder=out, lost=lost):
        sizes[1, index] = n
        progress.advance()
    with atomic(out / SIZES) as temporary, open(temporary, "wb") as file:
        np.save(file, sizes, allow_pickle=False)
    work = _Work(out, labels, corpus, work.form, max(1, -(-int(sizes[1].sum()) * work.form.keys // PART)))
    progress.start("find duplicates", work.n_parts, "parts")
    for _ in context.engine.map(partial(_compare_part, work), range(work.n_parts), folder=out):
        progress.advance()
    places, sources = Counts(), Counts()
    progress.start("count duplicates", len(units), "units")
    for _, (by_place, by_source) in context.engine.map(partial(_count_unit, work), units, folder=out):
        places.update(by_place)
        sources.update(by_source)
        progress.advance()
    _write_counts(out / PLACES, "place", places)
    _write_counts(out / SOURCES, "source", sources)
    shutil.rmtree(out / "parts")
    shutil.rmtree(out / work.form.folder)
    (out / SIZES).unlink()
    n, gone = int(sizes[1].sum()), sum(count for (_, what), count in places.items() if what == "duplicates")
    progress.finish(f"{counted(gone, 'documents')} of {n:,} left out")
    return {"documents": n, "duplicates": gone}


def _sign_unit(work: _Work, unit: Unit) -> int:
    """Write the keys of a unit where the label pass did not; return the number of its documents."""
    import pyarrow.parquet as pq

    path, labels = keys_path(work.out, work.form, unit.number), _labels_path(work.labels, unit)
    n = int(pq.read_metadata(labels).num_rows)
    if path.is_file() and n_documents(path, work.form) == n:
        return n
    if work.form == EXACT:
        with writing_keys(path) as add:
            add(pq.read_table(labels, columns=["hash"]).column("hash").to_numpy()[:, None], None)
    else:
        with signing_unit(work.out, unit) as look:
            for batch in document_batches(unit, work.corpus, n):
                look(batch)
    stop_if_fewer(unit.name, n_documents(path, work.form), n)
    return n


def _given_up(work: _Work, unit: Unit, _how: str) -> int:
    """Return what stands for a unit that kills its workers, and write that nothing in it is compared."""
    import pyarrow.parquet as pq

    with writing_keys(keys_path(work.out, work.form, unit.number)):
        return int(pq.read_metadata(_labels_path(work.labels, unit)).num_rows)


def _compare_part(work: _Work, part: int) -> None:
    """Write the numbers, in the corpus, of documents that repeat an earlier one by a key of the part's range."""
    path = _part_path(work, part)
    if path.is_file():
        return
    low, high = (KEYS * edge // work.n_parts for edge in (part, part + 1))
    numbers, starts = _starts(work.out)
    found: list[NDArray[np.int64]] = []
    keys, documents = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for number, start in zip(numbers.tolist(), starts.tolist(), strict=False):
        for block in read_blocks(keys_path(work.out, work.form, number), work.form):
            some, place = block.between(low, high)
            again = repeats(some, partial(_of_block, block, place) if work.form.signature else None)
            found.append(start + block.first + place[again])
            some, place = some[~again], place[~again]
            few = _rank(some) < MOST_COMPARED
            keys.append(some[few])
            documents.append(start + block.first + place[few])
    every, owner = np.concatenate(keys), np.concatenate(documents)
    del keys, documents
    order = np.argsort(every, kind="stable")  # documents that share a key stay in the corpus' order
    every, owner = every[order], owner[order]
    signatures = _Signatures(work, numbers, starts)
    again = repeats(every, (lambda place: signatures.of(owner[place])) if work.form.signature else None)
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.unique(np.concatenate([*found, owner[again]])), allow_pickle=False)


def _of_block(block: Block, documents: NDArray[np.int64], place: NDArray[np.int64]) -> Signatures:
    return np.asarray(block.signatures[documents[place]])


def _rank(keys: Hashes) -> NDArray[np.int64]:
    """Return how many of the same stand before each key; they are in ascending order."""
    first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    place = np.arange(len(keys))
    return place - np.maximum.accumulate(np.where(first, place, 0))


@dataclass(frozen=True)
class _Signatures:
    """The signatures of documents by their number in the corpus."""

    work: _Work
    numbers: NDArray[np.int64]
    starts: NDArray[np.int64]

    def of(self, documents: NDArray[np.int64]) -> Signatures:
        """Return the signatures of some documents, (n, bytes)."""
        found = np.empty((len(documents), self.work.form.signature), dtype=np.uint8)
        unit = np.searchsorted(self.starts, documents, side="right") - 1
        order = np.argsort(unit, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(unit[order])) + 1):
            if not len(mine):
                continue
            at = int(unit[mine[0]])
            within = documents[mine] - self.starts[at]
            for block in read_blocks(keys_path(self.work.out, self.work.form, int(self.numbers[at])), self.work.form):
                inside = (within >= block.first) & (within < block.first + len(block.signatures))
                found[mine[inside]] = block.signatures[within[inside] - block.first]
        return found


def _count_unit(work: _Work, unit: Unit) -> tuple[Counts, Counts]:
    """Write what is left out of a unit; return its counts by cluster or source, and by folder or source."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = pq.read_table(_labels_path(work.labels, unit), columns=["position", "cluster", "source", "tokens"])
    position = labels.column("position").to_numpy()
    path = unit_path(work.out, unit.number)
    if not path.is_file():
        with atomic(path) as temporary:
            kept = pa.table({"position": position[_left_out(work, unit)]})
            pq.write_table(kept, temporary, compression="zstd")
    gone = np.isin(position, read_positions(work.out, unit.number))
    tokens = labels.column("tokens").to_numpy()
    sources = [source or unit.folder for source in labels.column("source").to_pylist()]
    return _counts(list(places_of(labels)), tokens, gone), _counts(sources, tokens, gone)


def _left_out(work: _Work, unit: Unit) -> NDArray[np.int64]:
    """Return which rows of a unit's labels are left out, as the parts have it."""
    numbers, starts = _starts(work.out)
    at = int(np.flatnonzero(numbers == unit.number)[0])
    found = [np.empty(0, np.int64)]
    for part in range(work.n_parts):
        documents = np.load(_part_path(work, part), mmap_mode="r", allow_pickle=False)
        begin, end = np.searchsorted(documents, starts[at : at + 2])
        found.append(np.array(documents[begin:end]))
    return np.unique(np.concatenate(found)) - starts[at]


def _counts(names: Sequence[str], tokens: NDArray[Any], gone: NDArray[np.bool_]) -> Counts:
    known, owner = np.unique(np.array(names, dtype=object), return_inverse=True)
    columns = dict(zip(COUNTS, (np.ones(len(owner)), tokens, gone, tokens * gone), strict=True))
    sums = {what: np.bincount(owner, weights, len(known)) for what, weights in columns.items()}
    return Counts({(name, what): round(float(sums[what][i])) for i, name in enumerate(known) for what in COUNTS})


def _write_counts(path: Path, what: str, counts: Counts) -> None:
    """Write a table with a row for each name, those with most duplicates first."""
    names = sorted({name for name, _ in counts}, key=lambda name: (-counts[name, "duplicates"], name))
    write_csv(path, (what, *COUNTS), [(name, *(counts[name, each] for each in COUNTS)) for name in names])


def _starts(out: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of each unit, (n,), and that of its first document in the corpus, (n + 1,)."""
    numbers, sizes = np.load(out / SIZES, allow_pickle=False)
    return numbers, np.append(0, np.cumsum(sizes))


def _labels_path(labels: Path, unit: Unit) -> Path:
    return labels / f"unit-{unit.number:05d}.parquet"


def _part_path(work: _Work, part: int) -> Path:
    return work.out / "parts" / f"{part:05d}-of-{work.n_parts}.npy"
