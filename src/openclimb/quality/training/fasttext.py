"""fastText students: training on labels, and predictions for the fold that was left out.

Texts lie in one file, normalised, a line each; a training writes a file of its own with labels before them, in the
order of the texts' hashes, which is as good as a random one: fastText reads from top to bottom, and labels may be
sorted. One thread trains, so that the same labels give the same model.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import InputError, MissingDependency
from openclimb.quality.fasttext import label_scores, labels_of, values_of
from openclimb.quality.student import PREFIX, prepared
from openclimb.quality.training.labels import FOLDS, Labels, classes, read_lines
from openclimb.workspace.files import atomic

DIM, BUCKETS = 32, 1 << 18  # of vectors, and of pairs of words: a model takes 34 MB and 128 bytes a word
RATE, SEEN = 0.5, 500_000  # learning rate; texts that are read, all epochs together, within EPOCHS
EPOCHS = (5, 50)  # few labels need many: 300 of a rule, rank correlation .12 with 15 at .3, .29 with 50
LEAST_COUNTS = (1, 3, 5)  # of a word that counts, for up to 10⁴, 10⁵ and more labels
TEXTS = "texts.txt"
WHOLE = -1  # in place of a fold: all labels train


@dataclass(frozen=True)
class Work:
    """What a process needs to train: the file of labels, the folder of numbers, texts and predictions, the models."""

    path: Path
    scales: tuple[str, ...]
    folder: Path
    models: tuple[Path, ...]  # one a scale

    def labels(self) -> Labels:
        """Return the labels."""
        return Labels.load(self.folder, self.path, self.scales)


@dataclass(frozen=True)
class Job:
    """One training: a scale, and the fold that is left out and predicted (WHOLE: none, the model is kept)."""

    scale: int
    fold: int

    @property
    def name(self) -> str:
        """What the engine calls it in a message."""
        return f"fastText on scale {self.scale + 1}, fold {self.fold + 1}"


def library() -> Any:
    """Return the package that trains. Raises MissingDependency where it is not there or can but predict."""
    try:
        import fasttext
    except ImportError:
        raise MissingDependency("fasttext", "pip install 'openclimb[fasttext]'; or --student head") from None
    if not hasattr(fasttext, "train_supervised"):
        raise MissingDependency(
            "a fastText that trains",
            "pip uninstall fasttext-predict, then pip install 'openclimb[fasttext]'; or --student head",
        )
    return fasttext


def write_texts(labels: Labels, folder: Path) -> None:
    """Write the texts as students read them, a line each, and where each begins."""
    begins, at = np.zeros(len(labels) + 1, np.int64), 0
    with atomic(folder / TEXTS) as temporary, open(temporary, "wb") as file:
        for i, (_, text, _scores) in enumerate(read_lines(labels.path)):
            line = prepared(text).encode("utf-8", "replace") + b"\n"
            file.write(line)
            at += len(line)
            begins[i + 1] = at
    np.save(folder / "begins.npy", begins)


def run_job(work: Work, job: Job) -> Path:
    """Train once; return the file of predictions, (n_fold,) in the labels' order, or of the model."""
    out = work.models[job.scale] if job.fold == WHOLE else prediction_path(work.folder, job)
    if out.is_file():
        return out
    labels = work.labels()
    known = labels.known(job.scale)
    rows = np.flatnonzero(known & (labels.folds != job.fold))
    rows = rows[np.argsort(labels.hashes[rows], kind="stable")]
    values, which = classes(labels.scores[rows, job.scale])
    model = _train(work, job, rows, [f"{value:.6g}" for value in values], which)
    with atomic(out) as temporary:
        if job.fold == WHOLE:
            model.save_model(str(temporary))
        else:
            held_out = np.flatnonzero(known & (labels.folds == job.fold))
            numbers = values_of(labels_of(model))
            texts = (line[:-1].decode() for line in _lines(work.folder, held_out))
            found = [label_scores(model, numbers, "expected", [text])[0, 0] for text in texts]
            with open(temporary, "wb") as file:
                np.save(file, np.array(found, np.float32))
    return out


def prediction_path(folder: Path, job: Job) -> Path:
    """Return where the predictions of a job are."""
    return folder / f"predicted-{job.scale}-{job.fold}.npy"


def _train(work: Work, job: Job, rows: NDArray[np.intp], names: list[str], which: NDArray[np.intp]) -> Any:
    """Return the model of some labels; `names` are those of the classes, `which` the class of each row."""
    path = work.folder / f"train-{job.scale}-{job.fold}-{os.getpid()}.txt"
    heads = [f"{PREFIX}{name} ".encode() for name in names]
    n = len(rows)
    epochs = int(np.clip(SEEN // max(1, n), *EPOCHS))
    least = LEAST_COUNTS[(n > 10_000) + (n > 100_000)]
    try:
        with open(path, "wb") as file:
            file.writelines(heads[c] + line for c, line in zip(which, _lines(work.folder, rows), strict=True))
        return library().train_supervised(
            input=str(path), lr=RATE, dim=DIM, epoch=epochs, minCount=least, wordNgrams=2, bucket=BUCKETS,
            loss="softmax", label=PREFIX, thread=1, verbose=0,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:  # numbers that overflowed; no word at all
        raise InputError(
            f"fastText cannot be trained on the labels of '{work.scales[job.scale]}': {error}",
            "look at the labels, or train heads alone: --student head",
        ) from None
    finally:
        path.unlink(missing_ok=True)


def _lines(folder: Path, rows: NDArray[np.intp]) -> Iterator[bytes]:
    """Yield the texts of some labels, each with its line's end."""
    begins = np.load(folder / "begins.npy", allow_pickle=False)
    with open(folder / TEXTS, "rb") as file:
        for row in rows:
            yield os.pread(file.fileno(), int(begins[row + 1] - begins[row]), int(begins[row]))


def jobs_of(n_scales: int, n_folds: int) -> list[Job]:
    """Return the trainings that predict the first folds of each scale."""
    return [Job(scale, fold) for scale in range(n_scales) for fold in range(min(n_folds, FOLDS))]
