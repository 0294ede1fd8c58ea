"""The front of two goals that the completed trials speak for: what `climb best --pareto` prints."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb import seeds
from openclimb.mixture import Weights, effective_domains
from openclimb.search.acquisition.design import search_region
from openclimb.search.acquisition.pareto import bounds, goal_predictors, scale_of, undominated
from openclimb.search.acquisition.spec import Goals, SearchSpec
from openclimb.search.acquisition.value import Value, climb
from openclimb.search.history import History, read_history
from openclimb.search.predictors.objective import ObjectivePredictor
from openclimb.search.propose import CAUTION, NORMAL_80, one_thread
from openclimb.search.space.local_search import KEPT
from openclimb.search.space.region import Region, allowed, bend, natural_mixture, rounded
from openclimb.workspace.observations import Observation

Floats = NDArray[np.float64]

LEANINGS = 21  # scalarisations from one goal to the other
POINTS = 15  # most points that are given
ALIKE = 1e-3  # of the goals' ranges: points nearer than this are one


@one_thread
def front(observations: Sequence[Observation], spec: SearchSpec, goals: Goals, seed: int) -> dict[str, Any]:
    """Return mixtures that no allowed mixture is predicted to beat in both goals, evenly along the front.

    The first is best in the first goal, the last in the second. As with finalists, predictions are marked down by
    CAUTION deviations: far from all trials, a mixture must promise more. Given are expected scores, 80 % intervals of
    the mixtures' own scores, weights and the distance (total variation) to the nearest trial. One point when the goals
    do not conflict. Raises SearchError when no trial has scores or a goal names an unknown task.
    """
    ordered, back = spec.by_name()
    region = ordered.region
    history = read_history(observations, ordered.domains, spec.task_weights)
    predictors = goal_predictors(history, goals, spec.predictor, spec.thresholds, 0.0)
    rows = _search(history, predictors, region, seeds.stream(seed, "front"))
    if spec.thresholds:  # what is said of a mixture is not marked down for tasks that fall short
        predictors = goal_predictors(history, goals, spec.predictor, {}, 0.0)
    natural = bounds(predictors, natural_mixture(ordered.domains, spec.constraints)[None], 0.0)[0]
    names = [domain.name for domain in spec.domains]
    return {
        "goals": {name: dict(weights) for name, weights in goals.items()},
        **history.counts,
        "natural": dict(zip(goals, natural.tolist(), strict=True)),
        "points": [_point(row, list(goals), predictors, history, names, back) for row in rows],
    }


def _search(
    history: History, predictors: Sequence[ObjectivePredictor], region: Region, rng: np.random.Generator
) -> Weights:
    """Return the points of the front (n, n_domains), on the grid, the best of the first goal first."""

    def bent(rows: Weights) -> Weights:
        return bend(rows, region)

    pools = [history.weights[allowed(history.weights, region)]]
    for predictor in predictors:
        alone = Value((predictor,), lambda one, rows: bounds(one, rows, -CAUTION)[:, 0])
        drawn = search_region(alone, history, predictor, region, rng)
        pools += [drawn, climb(alone, drawn[:KEPT], bent, rng)]
    pool = np.concatenate(pools)
    values = bounds(predictors, pool, -CAUTION)
    scale = scale_of(values)
    found = [pool[undominated(values)]]
    for leaning in np.linspace(0.0, 1.0, LEANINGS):

        def leaning_to(some: Sequence[ObjectivePredictor], rows: Weights, lean: float = float(leaning)) -> Floats:
            return scale.scalarise(bounds(some, rows, -CAUTION), lean)

        start = np.concatenate([pool, *found])
        value_of = Value(tuple(predictors), leaning_to)
        best = np.argsort(-value_of(start), kind="stable")[:KEPT]
        found.append(climb(value_of, start[best], bent, rng))
    rows = rounded(np.concatenate(found), region)
    values = bounds(predictors, rows, -CAUTION)
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
    row: Weights,
    goals: list[str],
    predictors: Sequence[ObjectivePredictor],
    history: History,
    names: list[str],
    back: list[int],
) -> dict[str, Any]:
    distance = 0.5 * np.abs(history.weights - row).sum(1)
    scores = {name: predictor.true_score(row[None]) for name, predictor in zip(goals, predictors, strict=True)}
    return {
        "expected": {name: float(mean[0]) for name, (mean, _) in scores.items()},
        "interval_80": {
            name: [float(mean[0] - NORMAL_80 * sd[0]), float(mean[0] + NORMAL_80 * sd[0])]
            for name, (mean, sd) in scores.items()
        },
        "distance": float(distance.min()),
        "nearest_trial": history.names[int(distance.argmin())],
        "effective_domains": effective_domains(row),
        "weights": dict(zip(names, row[back].tolist(), strict=True)),
    }
