"""The best mixture that the told trials speak for, without training anything: what `climb best` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Domain, Weights, effective_domains, natural, repetitions
from openclimb.search.baselines import natural_mixture
from openclimb.search.forecast import Forecast, fit_forecast
from openclimb.search.history import History, read_history
from openclimb.search.least import expected_tasks
from openclimb.search.loop import NORMAL_80, finalists, one_thread
from openclimb.search.reuse import Reuse
from openclimb.settings import PickSettings, SearchSettings, TargetSettings
from openclimb.trials import Trial

Floats = NDArray[np.float64]

MOVED = 0.05  # weight that is taken from a domain to tell what it is worth


@one_thread
def best(
    trials: Sequence[Trial],
    reuse: Reuse,
    target: TargetSettings,
    search: SearchSettings,
    task_weights: Mapping[str, float],
    seed: int,
) -> dict[str, Any]:
    """Return the mixture of the best expected score under the caps and constraints, and its outlook.

    Raises SearchError when no trial has scores.
    """
    one, known = PickSettings(finalists=1), reuse.informed(trials)
    found = finalists(known, reuse.searched, search, one, task_weights, seed, reuse.required)[0][1]
    weights, whole = reuse.expanded(np.array(found)), reuse.whole
    required = whole.required
    history = read_history(whole.informed(trials), whole.searched, task_weights)
    forecast = fit_forecast(history, search.predictor)
    natural = natural_mixture(whole.domains, required.constraints)
    objective = history.objective
    top = int(np.nanargmax(objective)) if np.isfinite(objective).any() else None
    measured = None if top is None else {"trial": reuse.label(history.numbers[top]), "score": float(objective[top])}
    return {
        **outlook(history, forecast, weights, whole, target),
        "expected_natural": float(forecast.predict(whole.reduced(natural[None]))[0][0]),
        "best_measured": measured,
        "tasks": dict(zip(history.tasks, history.importance.tolist(), strict=True)),
        "at_least": expected_tasks(history, search.predictor, required.at_least, whole.reduced(weights)),
        **history.counts,
        "target": {"token_budget": target.token_budget, "max_repetitions": target.max_repetitions},
    }


def outlook(
    history: History, forecast: Forecast, weights: Weights, reuse: Reuse, target: TargetSettings
) -> dict[str, Any]:
    """Return what the told trials say of one mixture (n_domains,): how good, how surely, how sharply.

    `reuse` reads mixtures as the forecast does. The 80 % interval is of the mixture's own score, without the luck of a
    trial's seed. `distance` is the total variation to the nearest mixture with scores. `loss` of a domain is what the
    expected score loses when MOVED of the weight (or all it has) goes from it to the others in proportion.
    """
    read = reuse.reduced(weights[None])
    mean, deviation = (float(value[0]) for value in forecast.true_score(read))
    distance = 0.5 * np.abs(history.weights - read).sum(1)
    return {
        "expected": mean,
        "interval_80": [mean - NORMAL_80 * deviation, mean + NORMAL_80 * deviation],
        "distance": float(distance.min()),
        "nearest_trial": reuse.label(history.numbers[int(distance.argmin())]),
        "effective_domains": effective_domains(weights),
        "domains": _rows(weights, mean - forecast.predict(reuse.reduced(move(weights)))[0], reuse.domains, target),
        "prior": reuse.said,
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


def _rows(weights: Weights, losses: Floats, domains: Sequence[Domain], target: TargetSettings) -> list[dict[str, Any]]:
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
            "words": list(domain.words),
        }
        for i, domain in enumerate(domains)
    ]
