"""Folds over mixtures, and the standard deviation of a trial's score over seeds.

The standard deviation is pooled over mixtures and has no defence against outliers: it describes, and weighs beliefs in
the rounds. Intervals and claims are by `stats/paired.py`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.workspace.trials import DIGITS


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
