"""Scores far below all others, drawn nearer: what an outlier must not do to a predictor that standardises.

A mixture without a domain that a task cannot do without can score a hundred spreads below all others. Standardised
with it, the good mixtures look alike. Below FAR spreads a deficit counts by its logarithm; the order stays.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FAR = 8.0  # times (ninth decile − median) below the median: a score lower still is an outlier


@dataclass(frozen=True)
class OutlierCompression:
    """Where outliers begin in each task's scores, and by what a deficit is measured."""

    edge: Floats  # (n_tasks,); minus infinity where there is no spread to tell an outlier by
    unit: Floats

    @classmethod
    def of(cls, scores: Floats) -> "OutlierCompression":
        """Return the compression of scores (n, n_tasks); NaN where a trial has none."""
        known = np.isfinite(scores).any(0)
        median, upper = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
        median[known] = np.nanmedian(scores[:, known], axis=0)
        upper[known] = np.nanquantile(scores[:, known], 0.9, axis=0) - median[known]
        return cls(np.where(upper > 0, median - FAR * upper, -np.inf), np.where(upper > 0, upper, 1.0))

    def only(self, columns: NDArray[np.intp]) -> "OutlierCompression":
        """Return the compression of some tasks."""
        return OutlierCompression(self.edge[columns], self.unit[columns])

    def apply(self, scores: Floats) -> Floats:
        """Return scores (n, n_tasks) in the same order; those that are not FAR off stay as they are."""
        deficit = np.maximum(self.edge - scores, 0.0)
        drawn: Floats = scores + deficit - self.unit * np.log1p(deficit / self.unit)
        return drawn

    def slope(self, scores: Floats) -> Floats:
        """Return by what a small difference of a score (n, n_tasks) shrinks."""
        slope: Floats = 1.0 / (1.0 + np.maximum(self.edge - scores, 0.0) / self.unit)
        return slope
