"""An estimate from draws of its distribution: median, interval and p-value, which always agree.

The interval's ends are order statistics of the same draws that the p-value counts, so the interval leaves zero out
exactly when p ≤ 1 − LEVEL.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, and the two-sided p-value of its being zero."""

    mean: float
    low: float
    high: float
    p: float = 1.0

    @property
    def interval(self) -> list[float]:
        """[low, high]."""
        return [self.low, self.high]


def estimate(draws: Floats) -> Estimate:
    """Return the median of draws (n,), their equal-tailed interval and the two-sided p-value of zero.

    p = 2 · max(1, k) / n with k the draws on zero's far side, so at least 2 / n: Gelman et al. 2013, "Bayesian Data
    Analysis", section 4.5, on tail areas of a posterior as p-values. Without spread the draws cannot claim: p = 1.
    """
    ordered = np.sort(draws)
    n = len(ordered)
    cut = int(n * (1 - LEVEL) / 2 + 1e-9)
    if ordered[0] == ordered[-1]:
        return Estimate(float(ordered[0]), float(ordered[0]), float(ordered[0]))
    beyond = min(int((ordered <= 0).sum()), int((ordered >= 0).sum()))
    p = min(1.0, 2 * max(beyond, 1) / n)
    return Estimate(float(np.median(ordered)), float(ordered[cut]), float(ordered[n - 1 - cut]), p)
