"""All tasks together: each is predicted by itself, then combined to the objective with its uncertainty."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from openclimb.engines.local import n_cores
from openclimb.errors import SearchError
from openclimb.mixture import Weights
from openclimb.search.history import History
from openclimb.search.predictors.ensemble import Ensemble, calibration
from openclimb.search.predictors.gp import MANY
from openclimb.search.predictors.low_fidelity import CoKriging
from openclimb.search.predictors.outliers import OutlierCompression
from openclimb.search.predictors.predictor import make_predictor, near
from openclimb.stats.noise import folds_of

Floats = NDArray[np.float64]

MOST_ALONE = 16  # more tasks than this share hyperparameters with like tasks
GROUPS = 6
PROMISING = 150  # trials that are looked at for the best, of many, and as many others
FOLDS = 5
LEAST_VALIDATED = 6  # fewer trials say nothing of trials that were not seen


@dataclass
class ObjectivePredictor:
    """Mixture → the objective that a trial would get."""

    importance: Floats
    groups: list[tuple[NDArray[np.intp], Any]]  # task columns, and the predictor of these
    loo_mean: Floats  # (n, n_tasks): each trial predicted without its own score
    loo_sd: Floats
    noise: Floats  # (n_tasks,): sd of a task's score over seeds of the same mixture
    correlation: Floats  # (n_tasks, n_tasks) of the errors
    scale: float  # calibrates the objective's deviation

    def predict_tasks(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation, each (n, n_tasks), of what a trial would score."""
        mean = np.zeros((len(weights), len(self.importance)))
        deviation = np.zeros_like(mean)
        for columns, predictor in self.groups:
            one_mean, one_deviation = predictor.predict(weights)
            mean[:, columns] = one_mean.reshape(len(weights), -1)
            deviation[:, columns] = one_deviation.reshape(len(weights), -1)
        return mean, deviation

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation (n,) of the objective that a trial of each mixture would get."""
        mean, deviation = self.predict_tasks(weights)
        return mean @ self.importance, self.joined(deviation)

    def near(self, weights: Weights) -> Self:
        """Return a predictor for mixtures round these (n, n_domains), quicker where trials are many; itself else."""
        if len(self.loo_mean) <= MANY:
            return self
        return replace(self, groups=[(columns, near(predictor, weights)) for columns, predictor in self.groups])

    def true_score(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation (n,) of the objective itself, without the noise of a trial."""
        mean, deviation = self.predict(weights)
        noise = self.joined(self.noise[None])[0]
        return mean, np.sqrt(np.maximum(deviation**2 - noise**2, (0.05 * deviation) ** 2))

    def promising(self) -> NDArray[np.intp]:
        """Return which trials may be the best: all, or of many those of high scores and some others."""
        n = len(self.loo_mean)
        if n <= MANY:
            return np.arange(n)
        counts = self.importance > 0
        guess = self.loo_mean[:, counts] @ self.importance[counts]
        order = np.argsort(-np.nan_to_num(guess, nan=-np.inf), kind="stable")
        return np.concatenate([order[:PROMISING], order[PROMISING :: n // PROMISING]])

    @property
    def objective_noise(self) -> float:
        """Standard deviation of the objective over seeds of the same mixture, as the predictors see it."""
        return float(self.joined(self.noise[None])[0])

    def joined(self, deviation: Floats) -> Floats:
        """Return the objective's standard deviation (n,) from those of the tasks (n, n_tasks)."""
        parts = deviation * self.importance
        joined: Floats = self.scale * np.sqrt(np.maximum(((parts @ self.correlation) * parts).sum(1), 0.0))
        return joined


@dataclass
class Reordered(ObjectivePredictor):
    """A predictor that reads mixtures with the domains in another order: `order` says where each of its own stands."""

    order: Sequence[int] = ()

    def predict_tasks(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation, each (n, n_tasks), of what a trial would score."""
        return super().predict_tasks(weights[:, list(self.order)])


def fit_objective(history: History, name: str) -> ObjectivePredictor:
    """Fit a predictor for each task that counts; `auto` learns from compressed scores.

    Raises SearchError without trials.
    """
    if not len(history.weights):
        raise SearchError("no trial has scores yet", "run or tell at least one trial")
    compression = OutlierCompression.of(history.scores) if name == "auto" else None
    if compression is not None and history.low_fidelity:  # what cheap scores leave has no law that explains outliers
        history, compression = replace(history, scores=compression.apply(history.scores)), None
    shape = history.scores.shape
    loo_mean, loo_sd, noise = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape[1])
    groups = []

    def fitted(columns: NDArray[np.intp]) -> tuple[Any, tuple[Floats, Floats, Floats]]:
        known = np.isfinite(history.scores[:, columns[0]])
        weights, scores = history.weights[known], history.scores[np.ix_(known, columns)]
        make = partial(_made, history, name, columns, compression)
        made = make()
        made.fit(weights, scores if len(columns) > 1 else scores[:, 0])
        return made, _left_out(made, make, weights, scores)

    columns_of = _groups(history, name)
    at_once = n_cores() if name == "auto" and len(history.scores) > MANY else 1  # others' code may not bear threads
    with ThreadPoolExecutor(at_once) as threads:
        for columns, (made, (mean, deviation, one_noise)) in zip(
            columns_of, threads.map(fitted, columns_of), strict=True
        ):
            at = np.ix_(np.isfinite(history.scores[:, columns[0]]), columns)
            loo_mean[at], loo_sd[at], noise[columns] = mean, deviation, one_noise
            groups.append((columns, made))
    if compression is not None:
        history = replace(history, scores=compression.apply(history.scores))
    predictor = ObjectivePredictor(history.importance, groups, loo_mean, loo_sd, noise, np.eye(shape[1]), 1.0)
    predictor.correlation = _correlation((history.scores - loo_mean) / np.maximum(loo_sd, 1e-300))
    whole = np.isfinite(history.objective)
    if whole.any():
        counts = history.importance > 0
        errors = (history.scores - loo_mean)[whole][:, counts] @ history.importance[counts]
        predictor.scale = calibration(errors, predictor.joined(np.nan_to_num(loo_sd[whole])))
    return predictor


def cross_validate(history: History, name: str) -> tuple[Floats, Floats, Floats]:
    """Return each trial's prediction by a fit that never saw it.

    Task means (n, n_tasks), task deviations (n, n_tasks) and the objective's deviation (n,). NaN where trials are too
    few. Everything is fitted anew in each fold, also the shares and scales of `auto`: leave-one-out errors under
    settings that were chosen by them look better than they are.
    """
    shape = history.scores.shape
    mean, deviation, whole = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape[0], np.nan)
    folds, n_mixtures = folds_of(history.weights, FOLDS)
    for fold in np.unique(folds) if n_mixtures >= LEAST_VALIDATED else ():
        held = folds == fold
        predictor = fit_objective(history.only(~held), name)
        mean[held], deviation[held] = predictor.predict_tasks(history.weights[held])
        whole[held] = predictor.joined(deviation[held])
    return mean, deviation, whole


def _groups(history: History, name: str) -> list[NDArray[np.intp]]:
    """Return the task columns that are fitted together; tasks of weight 0 or without scores are left out."""
    known = np.isfinite(history.scores)
    used = np.flatnonzero((history.importance > 0) & known.any(0))
    whole = used[known[:, used].all(0)]
    if name != "auto" or len(whole) <= MOST_ALONE or len(history.scores) < 3:
        return [used[i : i + 1] for i in range(len(used))]
    from scipy.cluster.hierarchy import fcluster, linkage

    scores = history.scores[:, whole]
    standard = (scores - scores.mean(0)) / np.maximum(scores.std(0), 1e-12)
    label = fcluster(linkage(standard.T, "ward"), GROUPS, "maxclust")
    alone = [column for column in used if column not in set(whole)]
    return [whole[label == one] for one in np.unique(label)] + [np.array([column]) for column in alone]


def _made(history: History, name: str, columns: NDArray[np.intp], compression: OutlierCompression | None) -> Any:
    """Return a new predictor for these task columns; where there are cheap scores, of what these leave."""
    if name == "auto":
        small = compression.only(columns) if compression else None
        made: Any = Ensemble(len(columns) if len(columns) > 1 else 0, small)
    else:
        made = make_predictor(name)
    return CoKriging(made, history.low_fidelity, columns) if history.low_fidelity else made


def _left_out(made: Any, make: Callable[[], Any], weights: Weights, scores: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mean and deviation of each score predicted without it, (n, n_columns), and the noise (n_columns,)."""
    n = len(weights)
    if hasattr(made, "loo_mean"):
        return made.loo_mean.reshape(n, -1), made.loo_sd.reshape(n, -1), np.atleast_1d(made.noise)
    mean = np.repeat(scores.mean(0, keepdims=True), n, axis=0)
    deviation = np.full((n, 1), max(float(scores.std()), 1e-9))
    folds, n_mixtures = folds_of(weights, FOLDS)
    for fold in range(FOLDS if n_mixtures >= 2 * FOLDS else 0):
        held = folds == fold
        part = make()
        part.fit(weights[~held], scores[~held, 0])
        mean[held, 0], deviation[held, 0] = part.predict(weights[held])
    return mean, deviation, np.array([0.5 * float(deviation.min())])


def _correlation(errors: Floats) -> Floats:
    """Return the correlation (n_tasks, n_tasks) of standardised errors, shrunk to the identity where trials are few."""
    filled = np.nan_to_num(errors)
    n = len(filled)
    size = np.sqrt((filled**2).mean(0))
    scaled = filled / np.maximum(size, 1e-12)
    found = scaled.T @ scaled / n
    mixed = (n * found + 5.0 * np.eye(found.shape[0])) / (n + 5.0)
    np.fill_diagonal(mixed, 1.0)
    return mixed
