"""Linear heads on the documents' vectors: ridge regression by accumulated normal equations (Hoerl & Kennard 1970).

Sums over documents are all that a fit needs, so that vectors pass by once; the sums of all folds but one give the head
of that fold, and those of the fold its squared error, for every penalty at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openclimb.quality.scorers import Vectors
from openclimb.quality.training.labels import FOLDS, Labels
from openclimb.workspace.files import atomic

Floats = NDArray[np.float64]

PENALTIES = np.logspace(-7, 0, 15)  # of the squared weights, for each document


@dataclass
class Moments:
    """Sums over documents with vectors x (dim) and labels y (n_scales)."""

    n: int
    x: Floats  # (dim,)
    y: Floats  # (n_scales,)
    xx: Floats  # (dim, dim)
    xy: Floats  # (dim, n_scales)
    yy: Floats  # (n_scales,)

    @classmethod
    def empty(cls, dim: int, n_scales: int) -> "Moments":
        """Return the sums over no documents."""
        zeros = np.zeros
        return cls(0, zeros(dim), zeros(n_scales), zeros((dim, dim)), zeros((dim, n_scales)), zeros(n_scales))

    @classmethod
    def of(cls, vectors: Vectors, labels: NDArray[np.float32]) -> "Moments":
        """Return the sums over documents: vectors (n, dim), labels (n, n_scales)."""
        x, y = vectors.astype(np.float64), labels.astype(np.float64)
        return cls(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y, (y * y).sum(0))

    def add(self, other: "Moments") -> None:
        """Add the sums over other documents."""
        self.n += other.n
        for name in ("x", "y", "xx", "xy", "yy"):
            getattr(self, name).__iadd__(getattr(other, name))

    def without(self, other: "Moments") -> "Moments":
        """Return the sums without those of some of the documents."""
        names = ("n", "x", "y", "xx", "xy", "yy")
        return Moments(*(getattr(self, name) - getattr(other, name) for name in names))

    def squared_error(self, weights: Floats, intercepts: Floats) -> Floats:
        """Return Σ (y − w·x − b)² of each column of weights (dim, k), whose labels are all of one scale each.

        `weights` (dim, n_scales) and `intercepts` (n_scales,) stand beside the scales.
        """
        w, b = weights, intercepts
        fitted = (w * (self.xx @ w)).sum(0) + 2 * b * (self.x @ w) + self.n * b * b
        return self.yy - 2 * ((w * self.xy).sum(0) + b * self.y) + fitted


class Solver:
    """The heads that sums give, for any penalty: one decomposition serves all."""

    def __init__(self, sums: Moments) -> None:
        self.mean_x, self.mean_y, self.n = sums.x / sums.n, sums.y / sums.n, sums.n
        centred = sums.xx - sums.n * np.outer(self.mean_x, self.mean_x)
        self.values, self.basis = np.linalg.eigh(centred)
        self.turned = self.basis.T @ (sums.xy - sums.n * np.outer(self.mean_x, self.mean_y))

    def heads(self, penalties: float | Floats) -> tuple[Floats, Floats]:
        """Return weights (dim, n_scales) and intercepts (n_scales,); a penalty for all scales, or one a scale."""
        shrunk = np.maximum(self.values, 0)[:, None] + self.n * np.asarray(penalties)
        weights = self.basis @ (self.turned / shrunk)
        return weights, self.mean_y - self.mean_x @ weights


def best_penalties(folds: Sequence[Moments], solvers: Sequence[Solver]) -> Floats:
    """Return the penalty of each scale with the least squared error over the folds, each left out in turn.

    `solvers`: of all documents but the fold's.
    """
    errors = np.array(
        [
            sum(fold.squared_error(*solver.heads(penalty)) for fold, solver in zip(folds, solvers, strict=True))
            for penalty in PENALTIES
        ]
    )
    return PENALTIES[errors.argmin(axis=0)]


@dataclass(frozen=True)
class Heads:
    """The heads of every scale: of all labels, and of each fold's others. Weights (dim, n_scales), intercepts."""

    whole: tuple[Floats, Floats]
    folds: tuple[tuple[Floats, Floats], ...]

    @classmethod
    def fitted(cls, labels: Labels, blocks: Sequence[Path]) -> "Heads":
        """Return the heads that labels and the vectors in `blocks` (.npy files, in the labels' order) give.

        Scales that have labels for the same texts share their sums.
        """
        n_scales = len(labels.scales)
        fits: list[tuple[Floats, Floats]] = []
        for scales in _groups(labels):
            sums = _sums(labels, scales, blocks)
            total = Moments.empty(len(sums[0].x), len(scales))
            for one in sums:
                total.add(one)
            solvers = [Solver(total.without(one)) for one in sums]
            penalties = best_penalties(sums, solvers)
            found = [solver.heads(penalties) for solver in (Solver(total), *solvers)]
            if not fits:
                dim = len(total.x)
                fits = [(np.zeros((dim, n_scales)), np.zeros(n_scales)) for _ in found]
            for (weights, intercepts), (w, b) in zip(fits, found, strict=True):
                weights[:, scales], intercepts[scales] = w, b
        return cls(fits[0], tuple(fits[1:]))

    def predictions(self, labels: Labels, blocks: Sequence[Path]) -> NDArray[np.float32]:
        """Return what the heads of the other folds say of each text, (n, n_scales), within the labels' range."""
        found = np.empty(labels.scores.shape, np.float32)
        begin = 0
        for path in blocks:
            vectors = np.load(path, allow_pickle=False)
            end = begin + len(vectors)
            for fold, (weights, intercepts) in enumerate(self.folds):
                mine = np.flatnonzero(labels.folds[begin:end] == fold)
                found[begin + mine] = vectors[mine] @ weights + intercepts
            begin = end
        return np.clip(found, np.nanmin(labels.scores, axis=0), np.nanmax(labels.scores, axis=0))

    def write(self, path: Path, scales: Sequence[int]) -> None:
        """Write the heads of some scales, fitted to all labels, as `quality/student.py` reads them."""
        weights, intercepts = (each.astype(np.float32) for each in self.whole)
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, weights=weights.T[scales], intercepts=intercepts[scales])


def _groups(labels: Labels) -> list[list[int]]:
    """Return the scales, those together that have labels for the same texts."""
    found: dict[bytes, list[int]] = {}
    for scale in range(len(labels.scales)):
        found.setdefault(np.packbits(labels.known(scale)).tobytes(), []).append(scale)
    return list(found.values())


def _sums(labels: Labels, scales: list[int], blocks: Sequence[Path]) -> list[Moments]:
    """Return the sums of each fold over the texts with labels of some scales, which are the same for all of them."""
    known = labels.known(scales[0])
    sums: list[Moments] = []
    begin = 0
    for path in blocks:
        vectors = np.load(path, allow_pickle=False)
        end = begin + len(vectors)
        sums = sums or [Moments.empty(vectors.shape[1], len(scales)) for _ in range(FOLDS)]
        for fold, one in enumerate(sums):
            mine = np.flatnonzero(known[begin:end] & (labels.folds[begin:end] == fold))
            one.add(Moments.of(vectors[mine], labels.scores[begin + mine][:, scales]))
        begin = end
    return sums
