"""What a search of mixtures climbs: a number made of predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.search.predictors.objective import ObjectivePredictor
from openclimb.search.space.local_search import ROUNDS, local_search

Floats = NDArray[np.float64]

LEGS = 4  # times that a climb of a prediction from many trials looks anew which of them are near


@dataclass(frozen=True)
class Value:
    """A number for each mixture, higher is better: `of(predictors, weights (n, n_domains))` → (n,)."""

    predictors: tuple[ObjectivePredictor, ...]
    of: Callable[[Sequence[ObjectivePredictor], Weights], Floats]

    def __call__(self, weights: Weights) -> Floats:
        """Return the value (n,) of each mixture."""
        return self.of(self.predictors, weights)

    def near(self, weights: Weights) -> "Value":
        """Return the value as the trials near these mixtures tell it, where trials are many; itself else."""
        small = tuple(predictor.near(weights) for predictor in self.predictors)
        few = all(a is b for a, b in zip(small, self.predictors, strict=True))
        return self if few else replace(self, predictors=small)


def climb(value: Value, start: Weights, bend: Callable[[Weights], Weights], rng: Generator) -> Weights:
    """Return the best mixtures that moves from `start` (n, n_domains) find, best first (see `local_search`)."""
    rough = value.near(start)
    if rough is value:
        return local_search(value, start, bend, rng)
    rows = start
    for _ in range(LEGS):
        rows = local_search(value.near(rows), rows, bend, rng, ROUNDS // LEGS)
    return rows[np.argsort(-value(rows), kind="stable")]
