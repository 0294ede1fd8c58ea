"""Hints: cheap scores of many mixtures, as the mean that the forecast of full trials starts from.

score(w) = slope × hint(w) + difference(w): autoregressive co-kriging (Kennedy and O'Hagan 2000). The hint at a mixture
is a Gaussian process through the cheap scores, which have no noise; the slope follows from the trials, task by task,
and the predictor of the settings learns the difference. A hint that has nothing to do with the scores gets a slope
near 0. Hints come among the trials, with a role of their own.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.search.gp import GaussianProcess
from openclimb.trials import Trial

Floats = NDArray[np.float64]

ROLE = "hint"
POWER = 1 / 3  # of the weights, in the process through the hints: what ranks mixtures that were left out best
SLOPE_TRIALS = 2.0  # that a hint says nothing counts as much as this many trials
SHARE_TRIALS = 12.0  # that a perfect hint leaves nothing to predict counts as much as this many trials
NOTHING = 0.05  # a hint that explains less of the variance is not reckoned with


@dataclass(frozen=True, eq=False)
class Hint:
    """Cheap scores (n, n_tasks) of mixtures (n, n_domains), higher is better; NaN for tasks without."""

    weights: Weights
    scores: Floats

    def at(self, weights: Weights, columns: NDArray[np.intp]) -> Floats:
        """Return the hint for mixtures, (n, n_columns); 0 for tasks without."""
        known = self._known
        found = np.zeros((len(weights), self.scores.shape[1]))
        if len(known):
            found[:, known] = self._process.predict(weights)[0].reshape(len(weights), -1)
        return found[:, columns]

    def joined(self, importance: Floats) -> "Hint | None":
        """Return the hint for the objective as the only task; None where a task that counts has none."""
        counts = np.flatnonzero(importance > 0)
        if not set(counts.tolist()) <= set(self._known.tolist()):
            return None
        return Hint(self.weights, self.scores[:, counts] @ importance[counts, None])

    @functools.cached_property
    def _known(self) -> NDArray[np.intp]:
        return np.flatnonzero(np.isfinite(self.scores).all(0))

    @functools.cached_property
    def _process(self) -> GaussianProcess:
        return GaussianProcess(POWER).fit(self.weights, self.scores[:, self._known])


class Hinted:
    """A predictor on top of a hint: `fit(weights, scores)`, `predict(weights)`, as the predictor that it is made from.

    What the hint leaves is predicted by the predictor and by its mean, weighted by the squared error on trials that
    were left out; a predictor without leave-one-out errors (`loo_mean`) has all the weight.
    """

    def __init__(self, predictor: Any, hint: Hint, columns: NDArray[np.intp]) -> None:
        self.predictor, self.hint, self.columns = predictor, hint, columns

    def fit(self, weights: Weights, scores: Floats) -> "Hinted":
        """Fit the slopes, then the predictor on what they leave. Returns itself."""
        n = len(scores)
        table, hinted = scores.reshape(n, -1), self.hint.at(weights, self.columns)
        self.center = hinted.mean(0)
        self.slope = slopes(hinted - self.center, table - table.mean(0))
        base = (hinted - self.center) * self.slope
        left = table - base
        self.mean, self.spread = left.mean(0), left.std(0)
        self.doubt = self.spread / np.sqrt(((hinted - self.center) ** 2).sum(0) + SLOPE_TRIALS * hinted.var(0) + 1e-300)
        self.predictor.fit(weights, left.reshape(scores.shape))
        self.share = np.ones(len(self.mean))
        if hasattr(self.predictor, "loo_mean"):
            guess, deviation = (part.reshape(n, -1) for part in (self.predictor.loo_mean, self.predictor.loo_sd))
            explained = 1.0 - (left.var(0) / np.maximum(table.var(0), 1e-300))
            self.share = shares(guess - self.mean, left - self.mean, explained)
            mean, deviation = self._shrunk(guess, deviation, hinted)
            self.loo_mean: Floats = (mean + base).reshape(scores.shape)
            self.loo_sd: Floats = deviation.reshape(scores.shape)
            self.noise = self.predictor.noise
        return self

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the score that a trial of each mixture would get, noise included."""
        pair = self.predictor.predict(weights)
        hinted = self.hint.at(weights, self.columns)
        mean, deviation = self._shrunk(pair[0].reshape(hinted.shape), pair[1].reshape(hinted.shape), hinted)
        base = (hinted - self.center) * self.slope
        return (mean + base).reshape(pair[0].shape), deviation.reshape(pair[1].shape)

    @property
    def description(self) -> str:
        """The mean slope of the hint, the mean weight of the predictor, and the predictor."""
        name = getattr(self.predictor, "description", type(self.predictor).__name__)
        return f"{self.slope.mean():.2f} × hint + {self.share.mean():.2f} × ({name})"

    def _shrunk(self, mean: Floats, deviation: Floats, hinted: Floats) -> tuple[Floats, Floats]:
        """Return the predictor's mean and deviation mixed with those of a constant, and with the slope's doubt.

        All of shape (n, n_columns).
        """
        off = mean - self.mean
        variance = self.share * deviation**2 + (1 - self.share) * self.spread**2
        variance += self.share * (1 - self.share) * off**2 + (self.doubt * (hinted - self.center)) ** 2
        return self.mean + self.share * off, np.sqrt(variance)


def slopes(hinted: Floats, scores: Floats) -> Floats:
    """Return the slope of each task (n_columns,) from centred hints and scores (n, n_columns).

    The mean of the posterior under a normal prior round 0 that is worth SLOPE_TRIALS trials.
    """
    spread, height = hinted.std(0), scores.std(0)
    flat = spread * height <= 0
    agreement = (hinted * scores).sum(0) / np.where(flat, 1.0, spread * height)
    found: Floats = agreement / (len(scores) + SLOPE_TRIALS)
    return np.where(flat, 0.0, found * height / np.where(flat, 1.0, spread))


def shares(guesses: Floats, scores: Floats, explained: Floats) -> Floats:
    """Return what share (n_columns,) of centred leave-one-out guesses (n, n_columns) fits centred scores best.

    Least squares, drawn to 0 by as much as SHARE_TRIALS trials are worth, times the share of the variance that the hint
    has `explained` (n_columns,); where it explains nothing, the guesses are all there is.
    """
    prior = SHARE_TRIALS * np.maximum(explained, 0.0) * scores.var(0)
    variance = (guesses**2).sum(0) + prior
    found = np.clip((guesses * scores).sum(0) / np.where(variance > 0, variance, 1.0), 0.0, 1.0)
    return np.where(explained > NOTHING, found, 1.0)


def split_hints(trials: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
    """Return the trials that are none, and the hints."""
    return [trial for trial in trials if trial.role != ROLE], [trial for trial in trials if trial.role == ROLE]


def read_hint(hints: Sequence[Trial], names: Sequence[str], tasks: Sequence[str]) -> Hint | None:
    """Return the hints, with domains and tasks in these orders; None where none has a score of a task."""
    rows = sorted(
        (tuple(hint.mixture.as_dict()[name] for name in names), tuple(hint.scores.get(task, np.nan) for task in tasks))
        for hint in hints
        if set(hint.domains) == set(names)
    )
    scores = np.array([row[1] for row in rows], dtype=np.float64).reshape(len(rows), len(tasks))
    if not len(rows) or not np.isfinite(scores).any():
        return None
    return Hint(np.array([row[0] for row in rows]), scores)
