"""Climbing a prediction: many small moves from good mixtures, each kept only if it is better.

Random draws alone leave much on the table with twenty domains and more: the part of the region that is better than a
good mixture is small, and few draws fall into it.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.search.space.simplex import local

Floats = NDArray[np.float64]

ROUNDS = 40
MOVES = 300  # tried in a round, shared by the mixtures that are kept
KEPT = 10


def local_search(
    value: Callable[[Weights], Floats],
    start: Weights,
    bend: Callable[[Weights], Weights],
    rng: Generator,
    rounds: int = ROUNDS,
) -> Weights:
    """Return the KEPT best mixtures found, best first, from `start` (n, n_domains) by moves that `bend` makes allowed.

    `value` gives the number (n,) to climb.
    """
    rows, values = start, value(start)
    for _ in range(rounds):
        moved = bend(local(MOVES, rows, rng))
        rows, values = np.concatenate([rows, moved]), np.concatenate([values, value(moved)])
        best = np.argsort(-values, kind="stable")[:KEPT]
        rows, values = rows[best], values[best]
    return rows
