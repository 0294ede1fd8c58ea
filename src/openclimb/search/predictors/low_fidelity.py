"""Low-fidelity scores: cheap scores of many mixtures, from which the prediction of full trials starts.

score(w) = slope × cheap(w) + difference(w): autoregressive co-kriging (Kennedy and O'Hagan 2000). The cheap score at a
mixture is a Gaussian process through the low-fidelity scores, which have no noise; the slope follows from the trials,
task by task, and the predictor of the settings learns the difference. Cheap scores that have nothing to do with the
trials' get a slope near 0.
"""

import functools
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.search.predictors.gp import GaussianProcess
from openclimb.search.predictors.predictor import near
from openclimb.workspace.observations import Observation

Floats = NDArray[np.float64]

POWER = 1 / 3  # of the weights, in the process through the cheap scores: what ranks mixtures that were left out best
SLOPE_TRIALS = 2.0  # a slope of 0 counts as much as this many trials
SHARE_TRIALS = 12.0  # that perfect cheap scores leave nothing to predict counts as much as this many trials
NOTHING = 0.05  # cheap scores that explain less of the variance are not counted


@dataclass(frozen=True, eq=False)
class LowFidelity:
    """Cheap scores (n, n_tasks) of mixtures (n, n_domains), higher is better; NaN for tasks without."""

    weights: Weights
    scores: Floats

    def at(self, weights: Weights, columns: NDArray[np.intp]) -> Floats:
        """Return the cheap scores of mixtures, (n, n_columns); 0 for tasks without."""
        known = self._known
        found = np.zeros((len(weights), self.scores.shape[1]))
        if len(known):
            found[:, known] = self._process.predict(weights)[0].reshape(len(weights), -1)
        return found[:, columns]

    def joined(self, importance: Floats) -> "LowFidelity | None":
        """Return the cheap scores of the objective as the only task; None where a task that counts has none."""
        counts = np.flatnonzero(importance > 0)
        if not set(counts.tolist()) <= set(self._known.tolist()):
            return None
        return LowFidelity(self.weights, self.scores[:, counts] @ importance[counts, None])

    @functools.cached_property
    def _known(self) -> NDArray[np.intp]:
        return np.flatnonzero(np.isfinite(self.scores).all(0))

    @functools.cached_property
    def _process(self) -> GaussianProcess:
        return GaussianProcess(POWER).fit(self.weights, self.scores[:, self._known])


class CoKriging:
    """A predictor on top of cheap scores: `fit(weights, scores)`, `predict(weights)`, as the one that it is made from.

    What the cheap scores leave is predicted by the predictor and by its mean, weighted by the squared error on trials
    that were left out; a predictor without leave-one-out errors (`loo_mean`) has all the weight.
    """

    def __init__(self, predictor: Any, low_fidelity: LowFidelity, columns: NDArray[np.intp]) -> None:
        self.predictor, self.low_fidelity, self.columns = predictor, low_fidelity, columns

    def fit(self, weights: Weights, scores: Floats) -> "CoKriging":
        """Fit the slopes, then the predictor on what they leave. Returns itself."""
        n = len(scores)
        table, cheap = scores.reshape(n, -1), self.low_fidelity.at(weights, self.columns)
        self.center = cheap.mean(0)
        self.slope = slopes(cheap - self.center, table - table.mean(0))
        base = (cheap - self.center) * self.slope
        left = table - base
        self.mean, self.spread = left.mean(0), left.std(0)
        self.doubt = self.spread / np.sqrt(((cheap - self.center) ** 2).sum(0) + SLOPE_TRIALS * cheap.var(0) + 1e-300)
        self.predictor.fit(weights, left.reshape(scores.shape))
        self.share = np.ones(len(self.mean))
        if hasattr(self.predictor, "loo_mean"):
            guess, deviation = (part.reshape(n, -1) for part in (self.predictor.loo_mean, self.predictor.loo_sd))
            explained = 1.0 - (left.var(0) / np.maximum(table.var(0), 1e-300))
            self.share = shares(guess - self.mean, left - self.mean, explained)
            mean, deviation = self._shrunk(guess, deviation, cheap)
            self.loo_mean: Floats = (mean + base).reshape(scores.shape)
            self.loo_sd: Floats = deviation.reshape(scores.shape)
            self.noise = self.predictor.noise
        return self

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the score that a trial of each mixture would get, noise included."""
        pair = self.predictor.predict(weights)
        cheap = self.low_fidelity.at(weights, self.columns)
        mean, deviation = self._shrunk(pair[0].reshape(cheap.shape), pair[1].reshape(cheap.shape), cheap)
        base = (cheap - self.center) * self.slope
        return (mean + base).reshape(pair[0].shape), deviation.reshape(pair[1].shape)

    def near(self, weights: Weights) -> "CoKriging":
        """Return a predictor for mixtures round these (n, n_domains), quicker where trials are many."""
        small = copy(self)
        small.predictor = near(self.predictor, weights)
        return small

    @property
    def description(self) -> str:
        """The mean slope of the cheap scores, the mean weight of the predictor, and the predictor."""
        name = getattr(self.predictor, "description", type(self.predictor).__name__)
        return f"{self.slope.mean():.2f} × low-fidelity + {self.share.mean():.2f} × ({name})"

    def _shrunk(self, mean: Floats, deviation: Floats, cheap: Floats) -> tuple[Floats, Floats]:
        """Return the predictor's mean and deviation mixed with those of a constant, and with the slope's doubt.

        All of shape (n, n_columns).
        """
        off = mean - self.mean
        variance = self.share * deviation**2 + (1 - self.share) * self.spread**2
        variance += self.share * (1 - self.share) * off**2 + (self.doubt * (cheap - self.center)) ** 2
        return self.mean + self.share * off, np.sqrt(variance)


def slopes(cheap: Floats, scores: Floats) -> Floats:
    """Return the slope of each task (n_columns,) from centred cheap scores and scores (n, n_columns).

    The mean of the posterior under a normal prior round 0 that is worth SLOPE_TRIALS trials.
    """
    spread, height = cheap.std(0), scores.std(0)
    flat = spread * height <= 0
    agreement = (cheap * scores).sum(0) / np.where(flat, 1.0, spread * height)
    found: Floats = agreement / (len(scores) + SLOPE_TRIALS)
    return np.where(flat, 0.0, found * height / np.where(flat, 1.0, spread))


def shares(guesses: Floats, scores: Floats, explained: Floats) -> Floats:
    """Return what share (n_columns,) of centred leave-one-out guesses (n, n_columns) fits centred scores best.

    Least squares, shrunk to 0 by as much as SHARE_TRIALS trials are worth, times the share of the variance that the
    cheap scores have `explained` (n_columns,); where they explain nothing, the guesses are all there is.
    """
    prior = SHARE_TRIALS * np.maximum(explained, 0.0) * scores.var(0)
    variance = (guesses**2).sum(0) + prior
    found = np.clip((guesses * scores).sum(0) / np.where(variance > 0, variance, 1.0), 0.0, 1.0)
    return np.where(explained > NOTHING, found, 1.0)


def read_low_fidelity(
    observations: Sequence[Observation], names: Sequence[str], tasks: Sequence[str]
) -> LowFidelity | None:
    """Return the low-fidelity scores, with domains and tasks in these orders; None where none has a score of a task."""
    rows = sorted(
        (
            tuple(one.mixture.as_dict()[name] for name in names),
            tuple(one.scores.get(task, np.nan) for task in tasks),
        )
        for one in observations
        if set(one.domains) == set(names)
    )
    scores = np.array([row[1] for row in rows], dtype=np.float64).reshape(len(rows), len(tasks))
    if not len(rows) or not np.isfinite(scores).any():
        return None
    return LowFidelity(np.array([row[0] for row in rows]), scores)
