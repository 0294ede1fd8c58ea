"""The best mixture that the told trials speak for, without training anything: what `climb best` prints."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Domain, Weights, effective_domains, natural, repetitions
from openclimb.search.baselines import natural_mixture
from openclimb.search.forecast import Forecast, fit_forecast
from openclimb.search.history import History, read_history
from openclimb.search.least import expected_tasks
from openclimb.search.loop import NORMAL_80, finalists, one_thread
from openclimb.search.region import TOLERANCE, Region, allowed, bend, region_of
from openclimb.search.reuse import Reuse
from openclimb.settings import PickSettings, SearchSettings, TargetSettings
from openclimb.trials import Trial

Floats = NDArray[np.float64]

MOVED = 0.05  # weight that is taken from a domain to tell what it is worth
TRIES = 4  # halvings of it, where constraints do not let it all go


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
    expected score loses when MOVED of the weight goes from it to the others in proportion, or as much as constraints
    let go (`move`).
    """
    moved = move(weights, region_of(reuse.domains, reuse.required.constraints))
    read = reuse.reduced(weights[None])
    mean, deviation = (float(value[0]) for value in forecast.true_score(read))
    distance = 0.5 * np.abs(history.weights - read).sum(1)
    return {
        "expected": mean,
        "interval_80": [mean - NORMAL_80 * deviation, mean + NORMAL_80 * deviation],
        "distance": float(distance.min()),
        "nearest_trial": reuse.label(history.numbers[int(distance.argmin())]),
        "effective_domains": effective_domains(weights),
        "domains": _rows(weights, moved, mean - forecast.predict(reuse.reduced(moved))[0], reuse.domains, target),
        "prior": reuse.said,
    }


def move(weights: Weights, region: Region, size: float = MOVED) -> Weights:
    """Return one mixture a domain, (n_domains, n_domains): row i has `size` less of domain i, shared by the others.

    The others gain in proportion to what they have, as far as caps, floors, fixed weights, groups and the number of
    domains allow. Where no allowed mixture takes so much, a half, a quarter or an eighth is tried; where these fail
    too, row i is the mixture itself.
    """
    rows = np.tile(weights, (len(weights), 1))
    for i, weight in enumerate(weights):
        for taken in np.minimum(size, weight - region.floors[i]) * 0.5 ** np.arange(TRIES):
            moved = _moved(weights, region, i, float(taken))
            if taken > 0 and allowed(moved[None], region)[0] and abs(moved[i] - weight + taken) < TOLERANCE:
                rows[i] = moved
                break
    return rows


def _moved(weights: Weights, region: Region, i: int, taken: float) -> Weights:
    """Return the mixture with `taken` less of domain i, bent into the region as far as it goes."""
    raw, floors, caps = weights.copy(), region.floors.copy(), region.caps.copy()
    raw[i] = floors[i] = caps[i] = weights[i] - taken
    if raw.sum() <= raw[i]:  # no other has any
        raw[np.arange(len(raw)) != i] = 1.0
    return bend(raw, replace(region, floors=floors, caps=caps))


def _rows(
    weights: Weights, moves: Weights, losses: Floats, domains: Sequence[Domain], target: TargetSettings
) -> list[dict[str, Any]]:
    taken = weights - np.diag(moves)
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
            "moved": float(taken[i]),
            "loss": float(losses[i]) if taken[i] > 0 else 0.0,
            "words": list(domain.words),
        }
        for i, domain in enumerate(domains)
    ]
