"""The contamination stage: which items of the tasks stand in the corpus, in which documents, of which clusters.

The label pass looks for them while it reads; what it did not look at, as when the tasks changed after it, is read here.
Reads the input files, `labels/` and the task files. Writes `contamination/`: unit-00012.parquet for each unit (position
of a document, run of words that it shares with an item), items.csv (one row an item), tasks.csv (one row a task) and
documents.csv (task, cluster or source, documents).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import CorpusSettings, TasksSettings
from openclimb.corpus.contamination import read_unit_runs, unit_path
from openclimb.corpus.reading.parse import Document
from openclimb.corpus.reading.read import Unit, read_unit
from openclimb.progress import counted
from openclimb.quality.ngrams import Index
from openclimb.tasks.items import Item, read_items, split, task_files
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic, file_stamps
from openclimb.workspace.tables import read_rows, write_csv

ITEMS = ("task", "part", "hash", "runs", "found")
TASKS = ("task", "items", "overlap", "report_items", "report_overlap", "too_short", "runs", "found", "documents")
BATCH = 256  # documents looked at together
INDEX = "index.npz"  # stands in the folder while units are looked at


def make_index(out: Path, tasks: TasksSettings) -> Path:
    """Write the index of all items of the tasks' parts to `out` where it is not there yet; return `out`."""
    if not (out / INDEX).is_file():
        rows, index = _index_of(tasks)
        write_csv(out / "items.csv", ITEMS, [(*row, int(n), 0) for row, n in zip(rows, index.n_runs, strict=True)])
        index.save(out / INDEX)
    return out


def _index_of(tasks: TasksSettings) -> tuple[list[tuple[str, str, float]], Index]:
    """Return (task, part, hash) of all items of the tasks' parts, and their index."""
    rows: list[tuple[str, str, float]] = []
    texts: list[str] = []
    for name, path in task_files(tasks).items():
        for part, items in split(name, read_items(path), tasks).items():
            rows += [(name, part, item.hash) for item in items]
            texts += map(item_text, items)
    return rows, Index.of(texts)


class SampleOverlap:
    """Looks for the items of tasks in some texts: what a plan says before the corpus is read."""

    def __init__(self, tasks: TasksSettings) -> None:
        self.rows, self.index = _index_of(tasks)
        self.n_texts = self.n_found = 0
        self.items: set[int] = set()

    def look(self, texts: Sequence[str]) -> None:
        """Look at some texts."""
        text, run = self.index.find(texts)
        self.n_texts += len(texts)
        self.n_found += len(np.unique(text))
        self.items.update(self.index.items_of(run)[1].tolist())

    def facts(self) -> dict[str, Any]:
        """Return the documents that were looked at and those with an item, the items, and those found of each task."""
        tasks = Counter(self.rows[item][0] for item in sorted(self.items))
        found = {"documents": self.n_texts, "overlap": self.n_found, "items": len(self.rows)}
        return {**found, "tasks": dict(tasks.most_common())}


def item_text(item: Item) -> str:
    """Return what is looked for of an item: its context and its right option."""
    context, option = item.pairs[item.gold]
    return f"{context} {option}"


class UnitOverlap:
    """Looks for the runs of items in the documents of a unit, a batch at a time, and writes what it found."""

    def __init__(self, folder: Path, unit: Unit) -> None:
        self.path = unit_path(folder, unit.number)
        self.index = load_index(folder / INDEX)
        self.found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def look(self, documents: Sequence[Document]) -> None:
        """Look at some documents."""
        document, run = self.index.find([document.text for document in documents])
        if len(run):
            position = np.array([document.position for document in documents], dtype=np.int64)
            self.found.append((position[document], run))

    def write(self) -> None:
        """Write the unit's file, which says that it was looked at."""
        write_runs(self.path, self.found)


def write_runs(path: Path, found: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> None:
    """Write a unit's file: pairs of arrays of positions and runs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    position, run = (np.concatenate([np.empty(0, np.int64), *(pair[i] for pair in found)]) for i in (0, 1))
    with atomic(path) as temporary:
        pq.write_table(pa.table({"position": position, "run": run}), temporary, compression="zstd")


def load_index(path: Path) -> Index:
    """Return the index, kept in memory until its file changes."""
    return _loaded(path, tuple(file_stamps(str(path))))


@lru_cache(maxsize=1)
def _loaded(path: Path, _stamps: tuple[tuple[str, int, int], ...]) -> Index:
    return Index.load(path)


@dataclass(frozen=True)
class _Work:
    """What a process needs to look at units."""

    out: Path
    labels: Path
    corpus: CorpusSettings
    task: NDArray[np.int32]  # number of each item's task


@dataclass(frozen=True)
class _Counts:
    """What was found in a unit: runs, documents, and documents by (task's number, cluster or source)."""

    runs: NDArray[np.int64]
    documents: int
    by_task: Counter[int]
    by_place: Counter[tuple[int, str]]


def find_contamination(
    context: StageContext, units: Sequence[Unit], labels: Path, corpus: CorpusSettings, tasks: TasksSettings
) -> dict[str, Any]:
    """Look at what the label pass did not look at, count by task and cluster, write the tables; return the facts."""
    out, progress = context.folder, context.progress
    make_index(out, tasks)
    rows = read_rows(out / "items.csv")
    names = list(dict.fromkeys(row["task"] for row in rows))
    task = np.array([names.index(row["task"]) for row in rows], dtype=np.int32)
    work = _Work(out, labels, corpus, task)
    found = np.zeros(len(load_index(out / INDEX).hashes), dtype=np.bool_)
    n_documents, by_task, by_place = 0, Counter[int](), Counter[tuple[int, str]]()
    progress.start("overlap with tasks", len(units), "units")
    for _, counts in context.engine.map(partial(_count_unit, work), units, folder=out, lost=partial(_given_up, out)):
        found[counts.runs] = True
        n_documents += counts.documents
        by_task.update(counts.by_task)
        by_place.update(counts.by_place)
        progress.advance()
    items = [{**row, "found": n} for row, n in zip(rows, _found_of_items(out, found, len(rows)), strict=True)]
    write_csv(out / "items.csv", ITEMS, [[row[name] for name in ITEMS] for row in items])
    table = [_task_row(name, [row for row in items if row["task"] == name]) for name in names]
    table = [{**row, "documents": by_task[i]} for i, row in enumerate(table)]
    write_csv(out / "tasks.csv", TASKS, [[row[name] for name in TASKS] for row in table])
    places = sorted(by_place.items(), key=lambda pair: (pair[0][0], -pair[1], pair[0][1]))
    write_csv(out / "documents.csv", ("task", "place", "documents"), [(names[t], place, n) for (t, place), n in places])
    (out / INDEX).unlink()
    n_items = sum(int(row["overlap"]) for row in table)
    progress.finish(f"{counted(n_items, 'items')} of {len(items):,}, in {counted(n_documents, 'documents')}")
    return {"items": len(items), "overlap": n_items, "documents": n_documents}


def _count_unit(work: _Work, unit: Unit) -> _Counts:
    """Return what is in a unit, looking at its documents where the label pass did not."""
    import pyarrow.parquet as pq

    labels = pq.read_table(work.labels / f"unit-{unit.number:05d}.parquet", columns=["position", "cluster", "source"])
    if not unit_path(work.out, unit.number).is_file():
        overlap = UnitOverlap(work.out, unit)
        for batch in document_batches(unit, work.corpus, labels.num_rows):
            overlap.look(batch)
        overlap.write()
    position, run = read_unit_runs(work.out, unit.number)
    known = np.isin(position, labels.column("position").to_numpy())
    position, run = position[known], run[known]
    if not len(run):
        return _nothing()
    place_of = dict(zip(labels.column("position").to_pylist(), places_of(labels), strict=True))
    at, item = load_index(work.out / INDEX).items_of(run)
    pairs = sorted(set(zip(position[at].tolist(), work.task[item].tolist(), strict=True)))
    by_place = Counter((task, place_of[where]) for where, task in pairs)
    return _Counts(np.unique(run), len(np.unique(position)), Counter(task for _, task in pairs), by_place)


def _given_up(out: Path, unit: Unit, _how: str) -> _Counts:
    """Return what stands for a unit that kills its workers, and write that nothing was found in it."""
    write_runs(unit_path(out, unit.number), [])
    return _nothing()


def _nothing() -> _Counts:
    return _Counts(np.empty(0, np.int64), 0, Counter(), Counter())


def document_batches(unit: Unit, corpus: CorpusSettings, n_documents: int) -> Iterator[list[Document]]:
    """Yield the documents of a unit, BATCH at a time; none of a unit that was given up."""
    batch: list[Document] = []
    for found in read_unit(unit, corpus) if n_documents else ():
        if isinstance(found, Document):
            batch.append(found)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def places_of(labels: Any) -> Iterable[str]:
    """Return the cluster of each row of labels; where there are none, its source."""
    clusters = labels.column("cluster").to_pylist()
    return (str(c) if c >= 0 else s for c, s in zip(clusters, labels.column("source").to_pylist(), strict=True))


def _found_of_items(out: Path, found: NDArray[np.bool_], n_items: int) -> list[int]:
    """Return how many of each item's runs were found anywhere."""
    _, item = load_index(out / INDEX).items_of(np.flatnonzero(found))
    return [int(n) for n in np.bincount(item, minlength=n_items)]


def _task_row(name: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    report = [row for row in items if row["part"] == "report"]
    return {
        "task": name,
        "items": len(items),
        "overlap": sum(row["found"] > 0 for row in items),
        "report_items": len(report),
        "report_overlap": sum(row["found"] > 0 for row in report),
        "too_short": sum(row["runs"] == "0" for row in items),
        "runs": sum(int(row["runs"]) for row in items),
        "found": sum(row["found"] for row in items),
    }
