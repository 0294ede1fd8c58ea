"""Tasks with a threshold: the objective is maximised among the mixtures that reach it.

the prediction of the objective is marked down by how far a mixture falls short, in deviations of the trials' scores, so
steeply that no gain of the objective makes up for it. Where no mixture reaches the thresholds, the one that falls
short least is best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.search.history import History
from openclimb.search.predictors.objective import ObjectivePredictor, fit_objective
from openclimb.workspace.trials import Trial

Floats = NDArray[np.float64]

STEEP = 100.0  # deviations of the objective for one deviation that a task falls short
DARING = -1.0  # deviations by which a task is taken for worse than expected: when proposing, for better


@dataclass
class ThresholdPredictor(ObjectivePredictor):
    """A predictor of the objective, marked down where tasks fall short of their thresholds."""

    tasks: ObjectivePredictor | None = None  # predicts the tasks that have a threshold
    columns: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    least: Floats = field(default_factory=lambda: np.zeros(0))
    price: Floats = field(default_factory=lambda: np.zeros(0))  # of the objective, for a unit that a task falls short
    caution: float = 0.0

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation (n,) of the objective, the mean marked down."""
        mean, deviation = super().predict(weights)
        reached, doubt = task_scores(self.tasks, self.columns, weights)
        return mean - np.maximum(0.0, self.least - reached + self.caution * doubt) @ self.price, deviation

    def near(self, weights: Weights) -> Self:
        """Return a predictor for mixtures round these (n, n_domains), quicker where trials are many; itself else."""
        small = super().near(weights)
        return small if small is self or self.tasks is None else replace(small, tasks=self.tasks.near(weights))


def objective_for(
    history: History,
    name: str,
    thresholds: Mapping[str, float],
    caution: float,
    plain: ObjectivePredictor | None = None,
) -> ObjectivePredictor:
    """Return the prediction of the objective under thresholds of tasks (none: the plain one).

    A task is taken for `caution` deviations worse than expected. `plain`: the prediction without thresholds, where it
    is fitted already. Raises SearchError when no trial has scores.
    """
    plain = plain or fit_objective(history, name)
    columns = np.array([history.tasks.index(task) for task in thresholds], dtype=np.intp)
    if not len(columns):
        return plain
    spread = max(_spread(history.objective), 1e-9)
    scale = np.array([max(_spread(history.scores[:, column]), 1e-9) for column in columns])
    return ThresholdPredictor(
        **vars(plain),
        tasks=_fit_tasks(history, name, columns),
        columns=columns,
        least=np.array(list(thresholds.values())),
        price=STEEP * spread / scale,
        caution=caution,
    )


def expected_tasks(
    history: History, name: str, thresholds: Mapping[str, float], weights: Weights
) -> list[dict[str, Any]]:
    """Return for each task with a threshold what one mixture (n_domains,) is expected to reach, and how surely."""
    from scipy.stats import norm

    if not thresholds:
        return []
    columns = np.array([history.tasks.index(task) for task in thresholds], dtype=np.intp)
    mean, deviation = task_scores(_fit_tasks(history, name, columns), columns, weights[None])
    return [
        {
            "task": task,
            "least": least,
            "expected": float(mean[0, j]),
            "probability": float(norm.sf((least - mean[0, j]) / max(deviation[0, j], 1e-12))),
        }
        for j, (task, least) in enumerate(thresholds.items())
    ]


def task_scores(
    predictor: ObjectivePredictor | None, columns: NDArray[np.intp], weights: Weights
) -> tuple[Floats, Floats]:
    """Return mean and standard deviation (n, n_columns) of the tasks' own scores, without the noise of a trial."""
    assert predictor is not None
    mean, deviation = (values[:, columns] for values in predictor.predict_tasks(weights))
    return mean, np.sqrt(np.maximum(deviation**2 - predictor.noise[columns] ** 2, (0.05 * deviation) ** 2))


def threshold_sentence(trials: Sequence[Trial], thresholds: Mapping[str, float], has_items: bool = True) -> str:
    """Return in plain words which thresholds a mixture's trials reach ("" where there are none)."""
    parts = []
    for task, least in thresholds.items():
        mean = float(np.mean([trial.scores[task] for trial in trials]))
        parts.append(f"{task} {'reaches' if mean >= least else 'falls short of'} {least:+.4f} with {mean:+.4f}")
    where = "On search items" if has_items else "Thresholds:"
    return f" {where} {', '.join(parts)}." if parts else ""


def _spread(scores: Floats) -> float:
    known = scores[np.isfinite(scores)]
    return float(known.std()) if len(known) else 1.0


def _fit_tasks(history: History, name: str, columns: NDArray[np.intp]) -> ObjectivePredictor:
    importance = np.zeros(len(history.tasks))
    importance[columns] = 1.0 / len(columns)
    return fit_objective(replace(history, importance=importance), name)
