"""The predictor `auto`: two Gaussian processes and the power law, weighted by how each predicts trials it has not seen.

The weights minimise the squared leave-one-out error of the weighted mean (stacking: Wolpert 1992, Breiman 1996), shrunk
to equal weights by as much as a few trials are worth. The standard deviation is scaled toward 80 % intervals that hold
80 % of the leave-one-out errors. Ridge is no member: leave-one-out errors say nothing about far mixtures, where its
log w runs away and the search runs after it (bench/search).
"""

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.search.predictors.gp import GaussianProcess
from openclimb.search.predictors.outliers import OutlierCompression
from openclimb.search.predictors.power_law import PowerLaw
from openclimb.search.predictors.predictor import near

Floats = NDArray[np.float64]

EQUAL_TRIALS = 50.0  # the equal weights count as much as this many trials
INSIDE = 0.8  # share of the errors that calibrated intervals of that level hold
CALIBRATION_TRIALS = 30.0  # the members' own deviation counts as much as this many trials
LEAST_SHARE = 0.01  # of a member that helps to screen mixtures
LEAST_FOR_LAW = 6  # with fewer trials only the Gaussian processes are fitted


@dataclass
class Ensemble:
    """`fit(weights, scores)`, `predict(weights)`. Scores (n,), or (n, columns) of like tasks with one fit."""

    columns: int = 0  # 0: one task, scores (n,)
    # Compressed scores are predicted. The processes learn from these, the power law from the scores as they are.
    compression: OutlierCompression | None = None

    def fit(self, weights: Weights, scores: Floats) -> "Ensemble":
        """Fit every member, then the shares and the calibration. Returns itself."""
        n = len(scores)
        raw = scores.reshape(n, -1)
        table = raw if self.compression is None else self.compression.apply(raw)
        self.members: list[tuple[str, Any]] = [
            ("gp on w^1/3", GaussianProcess(1 / 3).fit(weights, table)),
            ("gp on w", GaussianProcess(1.0).fit(weights, table)),
        ]
        if n >= LEAST_FOR_LAW:
            self.members.append(("power law", Each(_power_laws(weights, raw), self.compression)))
        guesses = np.stack([member.loo_mean for _, member in self.members])  # (members, n, columns)
        deviations = np.stack([member.loo_sd for _, member in self.members])
        noises = np.stack([member.noise for _, member in self.members])
        self.shares = np.stack([stack_shares(guesses[:, :, j].T, column) for j, column in enumerate(table.T)], axis=1)
        self.loo_mean = (guesses * self.shares[:, None]).sum(0).reshape(scores.shape)
        spread = np.sqrt((deviations**2 * self.shares[:, None]).sum(0))
        errors = table - self.loo_mean.reshape(n, -1)
        self.scale = np.array([calibration(errors[:, j], spread[:, j]) for j in range(table.shape[1])])
        self.loo_sd = (spread * self.scale).reshape(scores.shape)
        self.noise = self.scale * np.sqrt((noises**2 * self.shares).sum(0))
        return self

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the score that a trial of each mixture would get, noise included."""
        used = [
            (share, member.predict(weights))
            for share, (_, member) in zip(self.shares, self.members, strict=True)
            if share.any()
        ]
        mean = np.sum([share * pair[0] for share, pair in used], axis=0)
        variance = np.sum([share * (pair[1] ** 2 + (pair[0] - mean) ** 2) for share, pair in used], axis=0)
        deviation = np.sqrt(variance) * self.scale
        return (mean, deviation) if self.columns else (mean[:, 0], deviation[:, 0])

    def near(self, weights: Weights) -> "Ensemble":
        """Return an ensemble for mixtures round these (n, n_domains), quicker where trials are many."""
        small = copy(self)
        counts = np.flatnonzero(self.shares.max(1) >= LEAST_SHARE)
        small.members = [(name, near(member, weights)) for name, member in (self.members[i] for i in counts)]
        small.shares = self.shares[counts] / self.shares[counts].sum(0)
        return small

    @property
    def description(self) -> str:
        """The members with their mean shares, as "gp on w 0.60 + power law 0.40"."""
        parts = sorted(zip(self.shares.mean(1), (name for name, _ in self.members), strict=True), reverse=True)
        return " + ".join(f"{name} {share:.2f}" for share, name in parts if share >= 0.005)


@dataclass
class Each:
    """A predictor for each column, side by side."""

    parts: list[Any]
    compression: OutlierCompression | None = None  # of what they predict

    def __post_init__(self) -> None:
        means, deviations = (
            np.stack([getattr(p, name) for p in self.parts], axis=1) for name in ("loo_mean", "loo_sd")
        )
        self.loo_mean, self.loo_sd = self._compress(means, deviations)
        self.noise = np.array([part.noise for part in self.parts])

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation, each (n, columns)."""
        pairs = [part.predict(weights) for part in self.parts]
        return self._compress(*(np.stack(some, axis=1) for some in zip(*pairs, strict=True)))

    def _compress(self, means: Floats, deviations: Floats) -> tuple[Floats, Floats]:
        if self.compression is None:
            return means, deviations
        return self.compression.apply(means), deviations * self.compression.slope(means)


def _power_laws(weights: Weights, table: Floats) -> list[PowerLaw]:
    """Fit a power law to each column; like columns start from the fit of their mean, which spares most of the work."""
    if table.shape[1] == 1:
        return [PowerLaw().fit(weights, table[:, 0])]
    standard = (table - table.mean(0)) / np.maximum(table.std(0), 1e-12)
    start = PowerLaw().fit(weights, standard.mean(1)).theta
    return [PowerLaw(steps=24, start=start).fit(weights, column) for column in table.T]


def stack_shares(guesses: Floats, scores: Floats) -> Floats:
    """Return shares (n_members,), ≥ 0 and sum 1, with the least squared error of guesses (n, n_members) @ shares."""
    from scipy.optimize import nnls

    n, m = guesses.shape
    rest = guesses - scores[:, None]
    size = max(float(np.sqrt(np.mean(rest**2))), 1e-12)
    rest = rest / size
    # rows: the errors; a heavy row that makes the shares sum to 1; a pull to equal shares, in units of errors
    pull = np.sqrt(EQUAL_TRIALS / m) * np.eye(m) * 0.5
    heavy = 1e3 * np.sqrt(n)
    table = np.concatenate([rest, pull, np.full((1, m), heavy)])
    shares, _ = nnls(table, np.concatenate([np.zeros(n), pull.sum(1) / m, [heavy]]))
    total = float(shares.sum())
    return shares / total if total > 0 else np.full(m, 1.0 / m)


def calibration(errors: Floats, deviations: Floats) -> float:
    """Return the factor by which deviations must grow for 80 % of the errors (n,) to lie inside 80 % intervals.

    The quantile is that of conformal prediction, of n + 1 errors. The factor is shrunk to 1: the members' settings and
    shares were chosen with these errors in sight, so that those of few trials are smaller than what is to come.
    """
    from scipy.stats import norm

    n = len(errors)
    sizes = np.sort(np.abs(errors) / np.maximum(deviations, 1e-300))
    ratio = float(sizes[min(n, int(np.ceil(INSIDE * (n + 1)))) - 1] / norm.ppf(0.5 + INSIDE / 2))
    return float(np.sqrt((n * ratio**2 + CALIBRATION_TRIALS) / (n + CALIBRATION_TRIALS)))
