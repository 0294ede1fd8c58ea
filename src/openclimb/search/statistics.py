"""How sure a mean over seeds and items is.

A mean's variance has two parts. Seeds: mixtures × seeds is a table with one number a cell; what its row means (and, for
differences between mixtures, its column means) leave is the noise of a trial, pooled over all mixtures, so that three
seeds of five mixtures give eight degrees of freedom instead of two. Items: the variance of the items' scores, or of
their paired differences, over their number. Intervals are Student's t. *Not* a bootstrap over seeds: of three seeds, it
gives intervals that are far too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.trials import DIGITS

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    mean: float
    low: float
    high: float

    @property
    def interval(self) -> list[float]:
        """[low, high]."""
        return [self.low, self.high]


def folds_of(weights: Weights, n_folds: int) -> tuple[NDArray[np.intp], int]:
    """Return the fold of each row (n,), one for all rows of a mixture, and how many mixtures there are.

    Rows of one mixture in two folds would let a predictor see what it is asked for. Without repeats row i is in fold
    i mod n_folds.
    """
    _, first, mixture = np.unique(weights.round(DIGITS), axis=0, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))  # of each mixture, in the order of the rows
    return place[mixture.ravel()] % n_folds, len(first)


def seed_noise(tables: Sequence[Mapping[int, float]], *, paired: bool) -> tuple[float, int]:
    """Return (standard deviation of a trial's score over seeds, degrees of freedom), pooled over mixtures.

    `tables` give for each mixture its score by seed. `paired`: what is left after the means of mixtures and of seeds,
    for differences between mixtures of the same seeds, which share a seed's luck; otherwise what is left after the
    means of mixtures. A table with holes is fitted by least squares. (0, 0) when nothing is left to estimate it from.
    """
    cells = [(i, seed, value) for i, table in enumerate(tables) for seed, value in table.items()]
    seeds = sorted({seed for _, seed, _ in cells})
    design = np.zeros((len(cells), len(tables) + len(seeds)))
    for k, (i, seed, _) in enumerate(cells):
        design[k, i] = 1.0
        if paired:
            design[k, len(tables) + seeds.index(seed)] = 1.0
    values = np.array([value for _, _, value in cells])
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    left = len(cells) - int(rank)
    if left < 1:
        return 0.0, 0
    return float(np.sqrt(((values - design @ solution) ** 2).sum() / left)), left


def student(mean: float, parts: Sequence[tuple[float, float]]) -> Estimate:
    """Return the interval of a mean whose variance is the sum of `parts`, each (variance, degrees of freedom).

    Degrees of freedom by Welch and Satterthwaite. A part without any (one seed only) cannot be told and is left out.
    """
    from scipy.stats import t

    parts = [part for part in parts if part[1] >= 1]
    total = sum(variance for variance, _ in parts)
    if total <= 0:
        return Estimate(mean, mean, mean)
    freedom = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
    half = float(t.ppf(0.5 + LEVEL / 2, freedom)) * float(np.sqrt(total))
    return Estimate(mean, mean - half, mean + half)
