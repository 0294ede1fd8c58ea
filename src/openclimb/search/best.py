"""The best mixture that the told trials speak for, without training anything: what `climb best` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openclimb.config import PickSettings, SearchSettings, TargetSettings
from openclimb.mixture import Domain, Weights, effective_domains, natural, repetitions
from openclimb.search.baselines import natural_mixture
from openclimb.search.forecast import Forecast, fit_forecast
from openclimb.search.history import read_history
from openclimb.search.least import expected_tasks
from openclimb.search.loop import NORMAL_80, NOTHING, finalists, one_thread
from openclimb.search.required import Required
from openclimb.trials import Trial

MOVED = 0.05  # weight that is taken from a domain to tell what it is worth


@one_thread
def best(
    trials: Sequence[Trial],
    domains: Sequence[Domain],
    target: TargetSettings,
    search: SearchSettings,
    task_weights: Mapping[str, float],
    seed: int,
    required: Required = NOTHING,
    found: Weights | None = None,
) -> dict[str, Any]:
    """Return the mixture of the best expected score under the caps and constraints, and how sure and how sharp that is.

    With `found` (n_domains,) it tells that of this mixture instead.

    The 80 % interval is of the mixture's own score, without the luck of a trial's seed. `distance` is the total
    variation to the nearest mixture with scores. `loss` of a domain is what the expected score loses when MOVED of the
    weight (or all it has) goes from it to the others in proportion. Raises SearchError when no trial has scores.
    """
    history = read_history(trials, domains, task_weights)
    forecast = fit_forecast(history, search.predictor)
    if found is None:
        one = PickSettings(finalists=1)
        found = np.array(finalists(trials, domains, search, one, task_weights, seed, required)[0][1])
    weights = found
    mean, deviation = (float(value[0]) for value in forecast.true_score(weights[None]))
    distance = 0.5 * np.abs(history.weights - weights).sum(1)
    objective = history.objective
    top = int(np.nanargmax(objective)) if np.isfinite(objective).any() else None
    return {
        "expected": mean,
        "interval_80": [mean - NORMAL_80 * deviation, mean + NORMAL_80 * deviation],
        "expected_natural": float(forecast.predict(natural_mixture(domains, required.constraints)[None])[0][0]),
        "best_measured": None if top is None else {"trial": history.numbers[top], "score": float(objective[top])},
        "distance": float(distance.min()),
        "nearest_trial": history.numbers[int(distance.argmin())],
        "effective_domains": effective_domains(weights),
        "tasks": dict(zip(history.tasks, history.importance.tolist(), strict=True)),
        "at_least": expected_tasks(history, search.predictor, required.at_least, weights),
        "trials": len(history.weights),
        "target": {"token_budget": target.token_budget, "max_repetitions": target.max_repetitions},
        "domains": _rows(weights, domains, target, forecast, mean),
    }


def move(weights: Weights, size: float = MOVED) -> Weights:
    """Return one mixture a domain, (n_domains, n_domains): row i has `size` less of domain i, shared by the others.

    The others gain in proportion to what they have; where they have nothing, equally. No weight falls below 0.
    """
    d = len(weights)
    taken = np.minimum(size, weights)
    others = np.where(np.eye(d, dtype=bool), 0.0, weights)
    empty = others.sum(1) <= 0
    others[empty] = (1.0 - np.eye(d))[empty]
    return weights - np.diag(taken) + taken[:, None] * others / np.maximum(others.sum(1, keepdims=True), 1e-300)


def _rows(
    weights: Weights, domains: Sequence[Domain], target: TargetSettings, forecast: Forecast, mean: float
) -> list[dict[str, Any]]:
    losses = mean - forecast.predict(move(weights))[0]
    times = repetitions(weights, [domain.n_tokens for domain in domains], target.token_budget)
    share = natural(domains)
    return [
        {
            "name": domain.name,
            "tokens": domain.n_tokens,
            "weight": float(weights[i]),
            "natural": float(share[i]),
            "cap": domain.cap,
            "repetitions": float(times[i]),
            "moved": float(min(MOVED, weights[i])),
            "loss": float(losses[i]) if weights[i] > 0 else 0.0,
        }
        for i, domain in enumerate(domains)
    ]
