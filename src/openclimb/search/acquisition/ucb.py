"""The seam "proposer": (SearchSpec, observations, n, Generator) → weights (n, n_domains).

A proposer is a pure function of the observations. What it returns is under the caps, on the grid and without repeats;
`climb`, ours, is here, the others are in `baselines/`.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.config.registry import load
from openclimb.errors import DomainError
from openclimb.mixture import Weights
from openclimb.search.acquisition.design import Proposer, first_design, search_region, topped_up, unseen
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.acquisition.thresholds import DARING, objective_for
from openclimb.search.acquisition.value import Value
from openclimb.search.history import History, read_history, read_running
from openclimb.search.predictors.gp import GaussianProcess
from openclimb.search.predictors.objective import ObjectivePredictor
from openclimb.search.predictors.outliers import OutlierCompression
from openclimb.search.space.region import Region, allowed, rounded
from openclimb.workspace.observations import Observation

Floats = NDArray[np.float64]

CAUTION = 1.2  # mean of the weights of the deviation in a batch: how much is explored
MOST_IMAGINED = 300  # of the mixtures that are running; from all of them a batch keeps away
BATCH_APART = 0.02  # least total variation in a batch: nearer mixtures tell trials hardly more than one of them


def propose_climb(spec: SearchSpec, observations: Sequence[Observation], n: int, rng: Generator) -> Weights:
    """Return n mixtures. Without scores: the natural mixture and a design that fills the region under the caps.

    Then: upper confidence bounds of the prediction, each with its own weight of the deviation, so that a batch holds
    careful and bold mixtures; after each choice the deviation shrinks around it as if it had been measured (Desautels
    et al. 2014, GP-BUCB), which keeps a batch diverse. Mixtures that are running are taken as measured.
    """
    region = spec.region
    history = read_history(observations, spec.domains, spec.task_weights)
    running = read_running(observations, spec.domains)
    if not len(history.weights):
        return first_design(region, n, rng, running)
    predictor = objective_for(history, spec.predictor, spec.thresholds, DARING)
    if len(running):  # as if they had scored what is expected: no surprise, and nothing left to learn there
        some = running[np.linspace(0, len(running) - 1, min(len(running), MOST_IMAGINED)).astype(int)]
        history = history.fantasized(some, predictor.predict_tasks(some)[0])
        predictor = objective_for(history, spec.predictor, spec.thresholds, DARING)
    guide = _guide(history, predictor)

    def optimism(predictors: Sequence[ObjectivePredictor], weights: Weights) -> Floats:
        mean, deviation = predictors[0].true_score(weights)
        return mean + CAUTION * deviation

    candidates = search_region(Value((predictor,), optimism), history, predictor, region, rng)
    candidates = unseen(rounded(candidates, region), history.weights)
    if len(candidates) < n:
        return topped_up(candidates, n, region, rng, history.weights)
    chosen = _batch(candidates, n, predictor, guide, rng, running)
    return candidates[chosen]


def _guide(history: History, predictor: ObjectivePredictor) -> GaussianProcess:
    """Return a process on the objective: how the scores of two mixtures go together. Missing scores are predicted."""
    scores = OutlierCompression.of(history.scores).apply(history.scores)
    known = np.isfinite(scores)
    filled = scores if known.all() else np.where(known, scores, predictor.predict_tasks(history.weights)[0])
    return GaussianProcess(0.5).fit(history.weights, filled @ history.importance)


def _batch(
    candidates: Weights, n: int, predictor: ObjectivePredictor, guide: GaussianProcess, rng: Generator, running: Weights
) -> list[int]:
    mean, deviation = predictor.true_score(candidates)
    covariance = guide.covariance(candidates)
    before = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    noise = float(np.exp(2 * guide.theta[3]))
    boldness = CAUTION * rng.permutation(
        -np.log(1.0 - (np.arange(n) + 0.5) / n)
    )  # spread evenly over an exponential's quantiles
    chosen: list[int] = []
    near = np.zeros(len(mean), dtype=bool)
    for row in running:
        near |= 0.5 * np.abs(candidates - row).sum(1) < BATCH_APART
    for bold in boldness:
        left = np.sqrt(np.maximum(np.diag(covariance), 1e-12)) / before
        bound = mean + bold * deviation * left
        bound[near] = -np.inf
        if not np.isfinite(bound).any():
            bound = np.where(np.isin(np.arange(len(mean)), chosen), -np.inf, mean)
        chosen.append(int(bound.argmax()))
        near |= 0.5 * np.abs(candidates - candidates[chosen[-1]]).sum(1) < BATCH_APART
        column = covariance[:, chosen[-1]]
        covariance = covariance - np.outer(column, column) / (column[chosen[-1]] + noise)
    return chosen


def find_proposer(name: str) -> Proposer:
    """Return a built-in proposer by name, or `package.module:function`."""
    return cast(Proposer, load("proposer", name))


def check_proposed(weights: Weights, region: Region, n: int, name: str) -> Weights:
    """Return the weights (n, n_domains) as they are, or raise DomainError when they are not in the region."""
    rows = np.asarray(weights, dtype=np.float64)
    if rows.shape != (n, len(region.share)) or not np.isfinite(rows).all():
        raise DomainError(
            f"proposer '{name}' returned shape {rows.shape}, not {(n, len(region.share))} of finite numbers",
            "fix the proposer",
        )
    if not allowed(rows, region).all():
        raise DomainError(
            f"proposer '{name}' broke the caps, the constraints or the simplex",
            "use openclimb.search.space.region.bend",
        )
    return rows
