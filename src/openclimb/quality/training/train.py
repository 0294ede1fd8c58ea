"""Students from labels: cross-validation, what is kept, and the models. A stage of its own, `students/`.

Reads a file of labels (`labels.py`). Writes `students/models/` (`quality/student.py` reads it), report.json and
report.md. While it works, `students.partial/work/` holds vectors, and the predictions of each fold: what is there is
not made again after a kill. Memory holds the labels' numbers (about 40 bytes a label) and never texts or vectors.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.engines.engine import Resources
from openclimb.errors import InputError
from openclimb.progress import counted
from openclimb.quality.scorers import Vectors
from openclimb.quality.student import HEADS, MODELS, Student, plain, write_table
from openclimb.quality.training import fasttext
from openclimb.quality.training.agreement import Rows, agreements, rows_of
from openclimb.quality.training.head import Heads
from openclimb.quality.training.labels import FOLDS, Labels, classes, read_labels, read_lines
from openclimb.quality.training.report import write_report
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic, file_names

WORK = "work"
BLOCK = 4096  # labels embedded by one call of a worker
ENOUGH = 100_000  # labels in the folds that are predicted: more folds would narrow no interval that matters

Placed = tuple[Vectors, NDArray[np.int32] | None]  # vectors (n, dim) and clusters (n,) of texts


@dataclass(frozen=True)
class Embedding:
    """The workspace's embedder: its fingerprint, a function to vectors and clusters, its share of a GPU."""

    fingerprint: str
    place: Callable[[Sequence[str]], Placed]
    gpu_share: float


def train_students(
    context: StageContext, path: Path, kinds: Sequence[str], embedding: Embedding | None
) -> dict[str, Any]:
    """Train and compare the students of every scale in a file of labels; return the facts of the record.

    `kinds`: of `student.KINDS`; `embedding` is needed for heads. Raises InputError for labels that cannot be used, and
    where no student of any scale is better than a constant.
    """
    out, work = context.folder, context.folder / WORK
    if "fasttext" in kinds:
        fasttext.library()  # one that is not there is told before the work
    work.mkdir(exist_ok=True)
    labels = _read(context, path, work)
    n_folds = min(FOLDS, max(1, -(-ENOUGH * FOLDS // len(labels))))
    files = [f"{name}.bin" for name in file_names(labels.scales)]
    found: dict[str, NDArray[np.float32]] = {}
    clusters = heads = None
    if "head" in kinds and embedding is not None:
        blocks = _embed(context, labels, embedding)
        heads, clusters = Heads.fitted(labels, blocks), _clusters(blocks)
        found["head"] = heads.predictions(labels, blocks)
    trainer = fasttext.Work(path, labels.scales, work, tuple(out / MODELS / name for name in files))
    if "fasttext" in kinds:
        found["fasttext"] = _predicted_by_fasttext(context, trainer, labels, n_folds)
    rows = [_rows(labels, scale, found, labels.folds < n_folds) for scale in range(len(labels.scales))]
    judged = [agreements(name, one, len(found) * len(rows)) for name, one in zip(labels.scales, rows, strict=True)]
    for one in (one for several, _ in judged for one in several if one.refused):
        context.progress.note(f"refused: {one.kind} of {one.scale}: {one.refused}")
    write_report(out, labels, rows, judged, clusters)
    students = _students(labels, [kind for _, kind in judged], files)
    if not students:
        raise InputError(
            f"no student is better than a constant: {', '.join(labels.scales)}",
            f"see {out / 'report.md'}; more labels, or labels that agree with one another, may help",
        )
    if heads and any(one.kind == "head" for one in students):
        heads.write(out / MODELS / HEADS, [labels.scales.index(one.scale) for one in students if one.kind == "head"])
    wanted = [labels.scales.index(one.scale) for one in students if one.kind == "fasttext"]
    _run(context, trainer, [fasttext.Job(scale, fasttext.WHOLE) for scale in wanted], "train fastText, all labels")
    write_table(out / MODELS, students, embedding.fingerprint if embedding else "")
    shutil.rmtree(work)
    return {"labels": len(labels), "students": {one.scale: one.kind for one in students}}


def _read(context: StageContext, path: Path, work: Path) -> Labels:
    context.progress.start("read labels")
    labels = read_labels(path)
    labels.save(work)
    context.progress.finish(f"{counted(len(labels), 'labels')}: {', '.join(labels.scales)}")
    return labels


def _embed(context: StageContext, labels: Labels, embedding: Embedding) -> list[Path]:
    """Return files of the texts' vectors, in the labels' order, made where they are not there yet."""
    folder = context.folder / WORK
    begins = range(0, len(labels), BLOCK)
    blocks = [
        _Block(
            labels.path, folder / f"vectors-{i:05d}.npy", int(labels.offsets[begin]), min(BLOCK, len(labels) - begin)
        )
        for i, begin in enumerate(begins)
    ]
    waiting = [block for block in blocks if not block.out.is_file()]
    context.progress.start("embed labelled texts", len(blocks), "blocks")
    context.progress.advance(len(blocks) - len(waiting))
    resources = Resources(gpus=embedding.gpu_share)
    for _ in context.engine.map(partial(_embed_block, embedding.place), waiting, resources, folder=folder):
        context.progress.advance()
    context.progress.finish()
    return [block.out for block in blocks]


@dataclass(frozen=True)
class _Block:
    """Some labels of a file, one after the other: the first one's offset, how many, and where their vectors go."""

    path: Path
    out: Path
    offset: int
    n: int


def _embed_block(place: Callable[[Sequence[str]], Placed], block: _Block) -> None:
    texts = [plain(text) for _, text, _ in islice(read_lines(block.path, block.offset), block.n)]
    vectors, clusters = place(texts)
    found = {_clusters_of(block.out): clusters, block.out: vectors}  # the vectors last: they say that it is done
    for path, values in found.items():
        if values is not None:
            with atomic(path) as temporary, open(temporary, "wb") as file:
                np.save(file, values)


def _clusters_of(vectors: Path) -> Path:
    return vectors.with_name(vectors.name.replace("vectors", "clusters"))


def _clusters(blocks: Sequence[Path]) -> NDArray[np.int32] | None:
    """Return the cluster of each text, None where there are no clusters."""
    paths = [_clusters_of(path) for path in blocks]
    return np.concatenate([np.load(path, allow_pickle=False) for path in paths]) if paths[0].is_file() else None


def _predicted_by_fasttext(
    context: StageContext, trainer: fasttext.Work, labels: Labels, n_folds: int
) -> NDArray[np.float32]:
    """Return what fastText says of the texts of the first folds, (n, n_scales), trained on the others; else NaN."""
    fasttext.write_texts(labels, trainer.folder)
    jobs = fasttext.jobs_of(len(labels.scales), n_folds)
    _run(context, trainer, jobs, "train fastText, folds")
    found = np.full(labels.scores.shape, np.nan, np.float32)
    for job in jobs:
        held_out = labels.known(job.scale) & (labels.folds == job.fold)
        found[held_out, job.scale] = np.load(fasttext.prediction_path(trainer.folder, job), allow_pickle=False)
    return found


def _run(context: StageContext, trainer: fasttext.Work, jobs: Sequence[fasttext.Job], label: str) -> None:
    if not jobs:
        return
    context.progress.start(label, len(jobs), "trainings")
    for _ in context.engine.map(partial(fasttext.run_job, trainer), jobs, folder=trainer.folder):
        context.progress.advance()
    context.progress.finish()


def _rows(labels: Labels, scale: int, found: Mapping[str, NDArray[np.float32]], predicted: NDArray[np.bool_]) -> Rows:
    """Return the different texts of a scale that were predicted, beside the mean label of the other folds."""
    known = labels.known(scale)
    scores = np.where(known, labels.scores[:, scale], 0).astype(np.float64)
    sums, counts = (np.bincount(labels.folds[known], weights=w, minlength=FOLDS) for w in (scores[known], None))
    constants = (sums.sum() - sums) / np.maximum(1, counts.sum() - counts)
    at = np.flatnonzero(known & predicted)
    by_kind = {kind: table[at, scale].astype(np.float64) for kind, table in found.items()}
    return rows_of(scores[at], by_kind, constants[labels.folds[at]], labels.hashes[at], at)


def _students(labels: Labels, kinds: Sequence[str], files: Sequence[str]) -> list[Student]:
    """Return the students that are kept: of each scale the chosen kind, none where that is empty."""
    found = []
    for scale, kind in enumerate(kinds):
        if kind:
            values, _ = classes(labels.scores[labels.known(scale), scale])
            file = files[scale] if kind == "fasttext" else HEADS
            found.append(Student(labels.scales[scale], kind, tuple(values.tolist()), file))
    return found
