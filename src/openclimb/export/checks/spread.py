"""How evenly a domain lies in a dataset, and how evenly it must."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRETCHES, DEVIATIONS = 100, 5.0


@dataclass(frozen=True)
class Spread:
    """How far a domain's tokens are from its share, in tokens, and how far is allowed."""

    stretches: NDArray[np.float64]  # (100,)
    of_stretch: NDArray[np.float64]
    first: NDArray[np.float64]  # (99,): in the first 1, 2, … 99 stretches together
    of_first: NDArray[np.float64]

    @property
    def worst(self) -> float:
        """The largest distance, in what is allowed."""
        pairs = ((self.stretches, self.of_stretch), (self.first, self.of_first))
        return max(float((np.abs(off) / np.maximum(1.0, allowed)).max()) for off, allowed in pairs)


def spread_of(mine: NDArray[np.bool_], tokens: NDArray[Any]) -> Spread:
    """Return how a domain is spread over 100 stretches of equal tokens.

    `mine` (n,) says which documents are the domain's, `tokens` (n,) how long each is; one on a border is divided. In a
    random order, each document of a part x of the dataset adds its tokens, less the domain's share of them, or takes
    away the share of another's: with V the sum of their squares, the variance is V x (1 - x). Allowed are five standard
    deviations and two of the domain's longest document, as lengths are far from normal.
    """
    length = tokens.astype(np.float64)
    own = np.where(mine, length, 0.0)
    ends = np.concatenate([[0.0], np.cumsum(length)])
    edges = np.linspace(0.0, ends[-1], STRETCHES + 1)
    share = float(own.sum() / max(1.0, ends[-1]))
    off = np.interp(edges, ends, np.concatenate([[0.0], np.cumsum(own)])) - share * edges
    part = np.arange(1, STRETCHES) / STRETCHES
    variance, longest = float(((own - share * length) ** 2).sum()), float(own.max(initial=0.0))
    allowed = DEVIATIONS * np.sqrt(variance * part * (1 - part)) + 2 * longest
    return Spread(np.diff(off), np.full(STRETCHES, allowed[0]), off[1:-1], allowed)
