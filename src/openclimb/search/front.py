"""The front of two goals that the told trials speak for: what `climb best --pareto` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Domain, Weights, effective_domains
from openclimb.search.ascend import KEPT, ascend
from openclimb.search.baselines import natural_mixture
from openclimb.search.design import search_region
from openclimb.search.forecast import Forecast
from openclimb.search.history import History, read_history
from openclimb.search.loop import CAUTION, NORMAL_80, NOTHING, one_thread
from openclimb.search.pareto import Goals, bounds, goal_forecasts, scale_of, undominated
from openclimb.search.region import Region, allowed, bend, by_name, region_of, rounded
from openclimb.search.required import Required
from openclimb.settings import SearchSettings
from openclimb.trials import Trial

Floats = NDArray[np.float64]

DRAW = 30_000  # stands for "the front" in the seed of a draw
LEANINGS = 21  # scalarisations from one goal to the other
POINTS = 15  # most points that are given
ALIKE = 1e-3  # of the goals' ranges: points nearer than this are one


@one_thread
def front(
    trials: Sequence[Trial],
    domains: Sequence[Domain],
    search: SearchSettings,
    goals: Goals,
    task_weights: Mapping[str, float],
    seed: int,
    required: Required = NOTHING,
) -> dict[str, Any]:
    """Return mixtures that no allowed mixture is forecast to beat in both goals, from the best of the first goal to

    the best of the second, evenly along the front. As with finalists, forecasts are marked down by CAUTION deviations:
    far from all trials, a mixture must promise more. Given are expected scores, 80 % intervals of the mixtures' own
    scores, weights and the distance (total variation) to the nearest trial. One point when the goals do not conflict.
    Raises SearchError when no trial has scores or a goal names an unknown task.
    """
    ordered, back = by_name(domains)
    region = region_of(ordered, required.constraints)
    history = read_history(trials, ordered, task_weights)
    forecasts = goal_forecasts(history, goals, search.predictor, required.at_least, 0.0)
    rows = _search(history, forecasts, region, np.random.default_rng([seed, DRAW]))
    if required.at_least:  # what is said of a mixture is not marked down for tasks that fall short
        forecasts = goal_forecasts(history, goals, search.predictor, {}, 0.0)
    natural = bounds(forecasts, natural_mixture(ordered, required.constraints)[None], 0.0)[0]
    names = [domain.name for domain in domains]
    return {
        "goals": {name: dict(weights) for name, weights in goals.items()},
        **history.counts,
        "natural": dict(zip(goals, natural.tolist(), strict=True)),
        "points": [_point(row, list(goals), forecasts, history, names, back) for row in rows],
    }


def _search(history: History, forecasts: Sequence[Forecast], region: Region, rng: np.random.Generator) -> Weights:
    """Return the points of the front (n, n_domains), on the grid, the best of the first goal first."""

    def bent(rows: Weights) -> Weights:
        return bend(rows, region)

    pools = [history.weights[allowed(history.weights, region)]]
    for forecast in forecasts:

        def alone(rows: Weights, one: Forecast = forecast) -> Floats:
            return bounds([one], rows, -CAUTION)[:, 0]

        drawn = search_region(alone, history, forecast, region, rng)
        pools += [drawn, ascend(alone, drawn[:KEPT], bent, rng)]
    pool = np.concatenate(pools)
    values = bounds(forecasts, pool, -CAUTION)
    scale = scale_of(values)
    found = [pool[undominated(values)]]
    for leaning in np.linspace(0.0, 1.0, LEANINGS):

        def value_of(rows: Weights, lean: float = float(leaning)) -> Floats:
            return scale.scalarise(bounds(forecasts, rows, -CAUTION), lean)

        start = np.concatenate([pool, *found])
        best = np.argsort(-value_of(start), kind="stable")[:KEPT]
        found.append(ascend(value_of, start[best], bent, rng))
    rows = rounded(np.concatenate(found), region)
    values = bounds(forecasts, rows, -CAUTION)
    kept = np.flatnonzero(undominated(values))
    kept = kept[np.argsort(-values[kept, 0], kind="stable")]
    return rows[kept[_spread((values[kept] - scale.nadir) / np.maximum(scale.ideal - scale.nadir, 1e-12))]]


def _spread(values: Floats) -> NDArray[np.intp]:
    """Return the indices of POINTS rows (n, 2) evenly along the front, with both ends; fewer where they are alike."""
    along = np.concatenate([[0.0], np.cumsum(np.sqrt((np.diff(values, axis=0) ** 2).sum(1)))])
    n = min(POINTS, 1 + int(along[-1] / ALIKE))
    wanted = np.linspace(0.0, along[-1], n)
    return np.unique(np.abs(along[None] - wanted[:, None]).argmin(1))


def _point(
    row: Weights, goals: list[str], forecasts: Sequence[Forecast], history: History, names: list[str], back: list[int]
) -> dict[str, Any]:
    distance = 0.5 * np.abs(history.weights - row).sum(1)
    scores = {name: forecast.true_score(row[None]) for name, forecast in zip(goals, forecasts, strict=True)}
    return {
        "expected": {name: float(mean[0]) for name, (mean, _) in scores.items()},
        "interval_80": {
            name: [float(mean[0] - NORMAL_80 * sd[0]), float(mean[0] + NORMAL_80 * sd[0])]
            for name, (mean, sd) in scores.items()
        },
        "distance": float(distance.min()),
        "nearest_trial": history.numbers[int(distance.argmin())],
        "effective_domains": effective_domains(row),
        "weights": dict(zip(names, row[back].tolist(), strict=True)),
    }
