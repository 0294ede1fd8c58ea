"""The seam "proposer": (trials, domains, n, Generator, Aim) → weights (n, n_domains).

A proposer is a pure function of the told trials. What it returns is under the caps, on the grid and without repeats;
`climb`, ours, is here, the others are in `baselines.py`.
"""

import importlib
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.errors import ConfigError, DomainError, nearest
from openclimb.mixture import Domain, Weights
from openclimb.search.baselines import (
    propose_best_of_n,
    propose_natural,
    propose_olmix,
    propose_paper,
    propose_regmix,
    propose_uniform,
)
from openclimb.search.design import Aim, Proposer, first_design, search_region, topped_up, unseen
from openclimb.search.forecast import Forecast
from openclimb.search.gp import GaussianProcess
from openclimb.search.history import History, read_history, read_running
from openclimb.search.least import DARING, forecast_for
from openclimb.search.pareto import propose_pareto
from openclimb.search.region import Region, allowed, rounded
from openclimb.search.tame import Taming
from openclimb.trials import Trial

Floats = NDArray[np.float64]

CAUTION = 1.2  # mean of the weights of the deviation in a batch: how much is explored
BATCH_APART = 0.02  # least total variation in a batch: nearer mixtures tell trials hardly more than one of them


def propose_climb(trials: Sequence[Trial], domains: Sequence[Domain], n: int, rng: Generator, aim: Aim) -> Weights:
    """Return n mixtures. Without told trials: the natural mixture and a design that fills the region under the caps.

    Then: upper confidence bounds of the forecast, each with its own weight of the deviation, so that a batch holds
    careful and bold mixtures; after each choice the deviation shrinks around it as if it had been measured (Desautels
    et al. 2014, GP-BUCB), which keeps a batch diverse. Mixtures that are running are taken as measured.
    """
    region = aim.region(domains)
    history = read_history([*trials, *aim.hints], domains, aim.task_weights)
    running = read_running(trials, domains)
    if not len(history.weights):
        return first_design(region, n, rng, running)
    at_least = aim.required.at_least
    forecast = forecast_for(history, aim.predictor, at_least, DARING)
    if len(running):  # as if they had scored what is expected: no surprise, and nothing left to learn there
        history = history.believing(running, forecast.predict_tasks(running)[0])
        forecast = forecast_for(history, aim.predictor, at_least, DARING)
    guide = _guide(history, forecast)

    def optimism(weights: Weights) -> Floats:
        mean, deviation = forecast.true_score(weights)
        return mean + CAUTION * deviation

    candidates = search_region(optimism, history, forecast, region, rng)
    candidates = unseen(rounded(candidates, region), history.weights)
    if len(candidates) < n:
        return topped_up(candidates, n, region, rng, history.weights)
    chosen = _batch(candidates, n, forecast, guide, rng, running)
    return candidates[chosen]


def _guide(history: History, forecast: Forecast) -> GaussianProcess:
    """Return a process on the objective: how the scores of two mixtures go together. Missing scores are forecast."""
    scores = Taming.of(history.scores).apply(history.scores)
    filled = np.where(np.isfinite(scores), scores, forecast.predict_tasks(history.weights)[0])
    return GaussianProcess(0.5).fit(history.weights, filled @ history.importance)


def _batch(
    candidates: Weights, n: int, forecast: Forecast, guide: GaussianProcess, rng: Generator, running: Weights
) -> list[int]:
    mean, deviation = forecast.true_score(candidates)
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
    if name in PROPOSERS:
        return PROPOSERS[name]
    if ":" not in name:
        raise ConfigError(
            f"proposer '{name}' is not known{nearest(name, PROPOSERS)}", f"use one of: {', '.join(PROPOSERS)}"
        )
    module, _, function = name.partition(":")
    try:
        found: Proposer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"proposer '{name}' cannot be loaded: {error}", "write package.module:function") from None
    return found


def check_proposed(weights: Weights, region: Region, n: int, name: str) -> Weights:
    """Return the weights (n, n_domains) as they are, or raise DomainError when they are not in the region."""
    rows = np.asarray(weights, dtype=np.float64)
    if rows.shape != (n, len(region.share)) or not np.isfinite(rows).all():
        raise DomainError(
            f"proposer '{name}' returned shape {rows.shape}, not {(n, len(region.share))} of finite numbers",
            "mend the proposer",
        )
    if not allowed(rows, region).all():
        raise DomainError(
            f"proposer '{name}' broke the caps, the constraints or the simplex", "use openclimb.search.region.bend"
        )
    return rows


PROPOSERS: dict[str, Proposer] = {
    "climb": propose_climb,
    "pareto": propose_pareto,
    "paper": propose_paper,
    "regmix": propose_regmix,
    "olmix": propose_olmix,
    "best_of_n": propose_best_of_n,
    "natural": propose_natural,
    "uniform": propose_uniform,
}
