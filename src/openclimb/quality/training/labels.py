"""A file of labels: JSON lines of "text" and "scores", read as a stream.

What is kept of a label in memory are its numbers (8 bytes for the place of its line, 8 for the hash of its text, 4 a
score), never its text.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.corpus.reading.read import content_hash
from openclimb.errors import InputError
from openclimb.quality.scorers import RESERVED
from openclimb.quality.student import plain
from openclimb.workspace.files import atomic

FOLDS = 5
LEAST_TEXTS = 100  # different ones with a label of a scale; fewer cannot tell a student from a constant
MOST_VALUES = 20  # different labels of a scale that are classes of fastText; more are cut into as many by quantiles
NUMBERS = "labels.npz"
EXAMPLE = '{"text": "…", "scores": {"quality": 3}}'


@dataclass(frozen=True)
class Labels:
    """The labels of a file, in its order; a score that a line lacks is NaN."""

    path: Path
    scales: tuple[str, ...]
    scores: NDArray[np.float32]  # (n, n_scales)
    hashes: NDArray[np.uint64]  # (n,), of what a student reads of the text
    offsets: NDArray[np.int64]  # (n,), of the lines in the file, in bytes

    def __len__(self) -> int:
        return len(self.hashes)

    @cached_property
    def folds(self) -> NDArray[np.int8]:
        """The fold of each label, (n,): equal texts are in one."""
        return (self.hashes % np.uint64(FOLDS)).astype(np.int8)

    def save(self, folder: Path) -> None:
        """Write what is kept of the labels to a folder, for processes that work on them."""
        with atomic(folder / NUMBERS) as temporary, open(temporary, "wb") as file:
            np.savez(file, scores=self.scores, hashes=self.hashes, offsets=self.offsets)

    @classmethod
    def load(cls, folder: Path, path: Path, scales: tuple[str, ...]) -> "Labels":
        """Return what `save` wrote."""
        with np.load(folder / NUMBERS, allow_pickle=False) as arrays:
            return cls(path, scales, arrays["scores"], arrays["hashes"], arrays["offsets"])

    def known(self, scale: int) -> NDArray[np.bool_]:
        """Return which labels have a score of a scale, (n,)."""
        return ~np.isnan(self.scores[:, scale])


def read_labels(path: Path) -> Labels:
    """Return the labels of a file. Raises InputError for a line that is none, and for too few."""
    offsets, hashes = array("q"), array("Q")
    columns: dict[str, array[float]] = {}
    for offset, text, scores in read_lines(path):
        for name in scores:
            if name not in columns:
                columns[name] = array("f", [np.nan]) * len(offsets)
        offsets.append(offset)
        hashes.append(content_hash(plain(text)))
        for name, column in columns.items():
            column.append(scores.get(name, np.nan))
    if not columns:
        raise InputError(f"{path} has no labels", f"write a label a line: {EXAMPLE}")
    table = np.stack([np.frombuffer(columns[name], np.float32) for name in columns], axis=1)
    found = Labels(path, tuple(columns), table, np.array(hashes, np.uint64), np.array(offsets, np.int64))
    for scale, name in enumerate(found.scales):
        n_texts = len(np.unique(found.hashes[found.known(scale)]))
        if n_texts < LEAST_TEXTS:
            raise InputError(
                f"{path} has labels of '{name}' for {n_texts} different texts",
                f"label at least {LEAST_TEXTS}, or leave that score out",
            )
    return found


def read_lines(path: Path, start: int = 0) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Yield (offset in bytes, text, scores) of each line of a file of labels from an offset on; blank ones are none.

    Raises InputError for a file that is not there and for a line that is no label.
    """
    try:
        with open(path, "rb") as file:
            file.seek(start)
            offset = start
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield offset, *_parsed(line, f"{path}, at byte {offset}" if start else f"{path}, line {number}")
                offset += len(line)
    except OSError as error:
        raise InputError(
            f"the labels {path} cannot be read: {error.strerror}",
            f"climb annotate makes them; or give a file with a label a line: {EXAMPLE}",
        ) from None


def _parsed(line: bytes, where: str) -> tuple[str, dict[str, float]]:
    import orjson

    try:
        row: Any = orjson.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}", f"write a label a line: {EXAMPLE}") from None
    text = row.get("text") if isinstance(row, dict) else None
    scores = row.get("scores") if isinstance(row, dict) else None
    if not isinstance(text, str) or not isinstance(scores, dict) or not scores:
        raise InputError(f'{where}: there is no "text" with "scores"', f"write a label a line: {EXAMPLE}")
    for name, value in scores.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not abs(value) < 1e6:  # JSON has no NaN, but a number may be too large
            raise InputError(f"{where}: the score of '{name}' is not a number", f"write a label a line: {EXAMPLE}")
        if not name.strip() or name in RESERVED:
            raise InputError(f"{where}: '{name}' cannot be the name of a score", "give it another name")
    return text, scores


def classes(scores: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the labels of a scale as at most MOST_VALUES ascending numbers, and the number of each score, (n,).

    More different ones are cut into as many groups by quantiles, each known by its mean.
    """
    values, which = np.unique(scores, return_inverse=True)
    if len(values) <= MOST_VALUES:
        return values.astype(np.float64), which.ravel()
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, MOST_VALUES + 1))[1:-1])
    which = np.searchsorted(edges, scores, side="right")
    groups, which = np.unique(which, return_inverse=True)
    sums = np.bincount(which, weights=scores, minlength=len(groups))
    return sums / np.bincount(which, minlength=len(groups)), which.ravel()
