"""Two named goals: their predictions, scalarisations that lead along their front, and a proposer that uses them.

A goal is a set of tasks with weights. A mixture is on the front when no other is better in both goals. Points of the
front are the best mixtures of a scalarisation (augmented Chebyshev, as in ParEGO: Knowles 2006), which unlike a
weighted mean also finds points where the front bends inward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.config.schema import TasksSettings
from openclimb.errors import ConfigError, SearchError, nearest
from openclimb.mixture import Weights
from openclimb.search.acquisition.design import first_design, search_region, topped_up, unseen
from openclimb.search.acquisition.spec import Goals, SearchSpec
from openclimb.search.acquisition.thresholds import DARING, objective_for
from openclimb.search.acquisition.value import Value
from openclimb.search.history import History, read_history, read_running
from openclimb.search.predictors.objective import ObjectivePredictor
from openclimb.search.space.region import rounded
from openclimb.workspace.observations import Observation

Floats = NDArray[np.float64]

AUGMENTED = 0.05  # weight of the mean beside the Chebyshev distance: of equal ones, the mixture that no other beats
CAUTION = 1.0  # mean of the weights of the deviation in a batch, as in `propose.py`
BATCH_APART = 0.02  # least total variation in a batch, as in `propose.py`
LEANINGS = (0.0, 0.5, 1.0)  # candidates are looked for at both ends and in the middle of the front


@dataclass(frozen=True)
class Scale:
    """What goals are measured by: the best of each, and what it falls to where the other is best."""

    ideal: Floats  # (2,)
    nadir: Floats  # (2,)

    def scalarise(self, values: Floats, leaning: float) -> Floats:
        """Return one number (n,) for values of the goals (n, 2): `leaning` 0 is the first goal alone, 1 the second."""
        missing = (self.ideal - values) / np.maximum(self.ideal - self.nadir, 1e-12)
        share = np.array([1.0 - leaning, leaning])
        return -(share * missing).max(1) - AUGMENTED * missing.mean(1)


def goals_of(tasks: TasksSettings, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the goals of these names: their tasks with the weights that `tasks.weights` gives them (1 where none).

    Raises ConfigError for a name that `tasks.goals` does not have, and unless there are two.
    """
    for name in names:
        if name not in tasks.goals:
            raise ConfigError(
                f"'{name}' is no goal{nearest(name, tasks.goals)}",
                'name goals under [tasks] in climb.toml: goals = { "general" = ["task", "task"], "code" = ["task"] }',
            )
    if len(set(names)) != 2:
        raise ConfigError(f"a front has two goals, not {len(set(names))}", "name two different goals")
    return {name: {task: tasks.weights.get(task, 1.0) for task in tasks.goals[name]} for name in names}


def goal_predictors(
    history: History, goals: Goals, predictor: str, thresholds: Mapping[str, float], caution: float
) -> list[ObjectivePredictor]:
    """Return the prediction of each goal, with tasks' thresholds as in `thresholds.objective_for`.

    Raises SearchError without trials that have scores and for a task that none of them has.
    """
    if not len(history.weights):
        raise SearchError("no trial has scores yet", "run or tell at least one trial")
    found = []
    for name, weights in goals.items():
        for task in weights:
            if task not in history.tasks:
                raise SearchError(
                    f"goal '{name}' names '{task}', which is no task of the search{nearest(task, history.tasks)}",
                    f"tasks are: {', '.join(history.tasks)}",
                )
        raw = np.array([weights.get(task, 0.0) for task in history.tasks])
        if raw.sum() <= 0:
            raise SearchError(
                f"every task of goal '{name}' has weight 0", "give one a positive weight in tasks.weights"
            )
        found.append(objective_for(replace(history, importance=raw / raw.sum()), predictor, thresholds, caution))
    return found


def bounds(predictors: Sequence[ObjectivePredictor], weights: Weights, bold: float) -> Floats:
    """Return the prediction of each goal (n, n_goals), marked up by `bold` deviations of the mixture's own score."""
    pairs = [predictor.true_score(weights) for predictor in predictors]
    return np.stack([mean + bold * deviation for mean, deviation in pairs], axis=1)


def scale_of(values: Floats) -> Scale:
    """Return the scale of goals by their values (n, 2) at many mixtures."""
    ends = values[values.argmax(0)]  # row g: where goal g is best
    return Scale(np.diag(ends).copy(), ends.min(0))


def undominated(values: Floats) -> NDArray[np.bool_]:
    """Return which rows (n, 2) no other row beats in one goal and equals or beats in the other; of equal rows one."""
    order = np.lexsort((-values[:, 1], -values[:, 0]))
    kept = np.zeros(len(values), dtype=bool)
    best = -np.inf
    for i in order:
        if values[i, 1] > best:
            kept[i], best = True, values[i, 1]
    return kept


def propose_pareto(spec: SearchSpec, observations: Sequence[Observation], n: int, rng: Generator) -> Weights:
    """Return n mixtures along the front of the two goals in `spec.goals`.

    As `propose.propose_climb`, but each mixture of a batch has its own leaning between the goals, spread evenly, and is
    the best of its scalarisation of the goals' upper confidence bounds. Raises ConfigError unless there are two goals.
    """
    goals = spec.goals
    if len(goals) != 2:
        raise ConfigError(
            f"search.proposer = 'pareto' needs two goals; tasks.goals has {len(goals)}",
            'write under [tasks]: goals = { "general" = ["task", "task"], "code" = ["task"] }',
        )
    region = spec.region
    history = read_history(observations, spec.domains, spec.task_weights)
    running = read_running(observations, spec.domains)
    if not len(history.weights):
        return first_design(region, n, rng, running)
    predictors = goal_predictors(history, goals, spec.predictor, spec.thresholds, DARING)
    scale = scale_of(bounds(predictors, history.weights, 0.0))

    def towards(leaning: float) -> Value:
        return Value(tuple(predictors), lambda some, rows: scale.scalarise(bounds(some, rows, CAUTION), leaning))

    pools = [search_region(towards(leaning), history, predictors[0], region, rng) for leaning in LEANINGS]
    seen = np.concatenate([history.weights, running])
    candidates = unseen(rounded(np.concatenate(pools), region), seen)
    if len(candidates) < n:
        return topped_up(candidates, n, region, rng, seen)
    mean = bounds(predictors, candidates, 0.0)
    deviation = bounds(predictors, candidates, 1.0) - mean
    scale = scale_of(mean)
    middle = (np.arange(n) + 0.5) / n
    leanings, boldness = rng.permutation(middle), CAUTION * rng.permutation(-np.log(1.0 - middle))
    near = np.zeros(len(candidates), dtype=bool)
    for row in running:
        near |= 0.5 * np.abs(candidates - row).sum(1) < BATCH_APART
    chosen: list[int] = []
    for lean, bold in zip(leanings, boldness, strict=True):
        value = scale.scalarise(mean + bold * deviation, float(lean))
        for blocked in (near, np.isin(np.arange(len(candidates)), chosen)):
            if not blocked.all():
                value = np.where(blocked, -np.inf, value)
                break
        chosen.append(int(value.argmax()))
        near |= 0.5 * np.abs(candidates - candidates[chosen[-1]]).sum(1) < BATCH_APART
    return candidates[chosen]
