"""Tasks with a least score: the objective is maximised among the mixtures that reach it.

The forecast of the objective is marked down by how far a mixture falls short, in deviations of the trials' scores, so
steeply that no gain of the objective makes up for it. Where no mixture reaches the least scores, the one that falls
short least is best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.search.forecast import Forecast, fit_forecast
from openclimb.search.history import History
from openclimb.trials import Trial

Floats = NDArray[np.float64]

STEEP = 100.0  # deviations of the objective for one deviation that a task falls short
DARING = -1.0  # deviations by which a task is taken for worse than expected: when proposing, for better


@dataclass
class LeastForecast(Forecast):
    """A forecast of the objective, marked down where tasks fall short of their least scores."""

    tasks: Forecast | None = None  # forecasts the tasks that have a least score
    columns: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    least: Floats = field(default_factory=lambda: np.zeros(0))
    price: Floats = field(default_factory=lambda: np.zeros(0))  # of the objective, for a unit that a task falls short
    caution: float = 0.0

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation (n,) of the objective, the mean marked down."""
        mean, deviation = super().predict(weights)
        reached, doubt = task_scores(self.tasks, self.columns, weights)
        return mean - np.maximum(0.0, self.least - reached + self.caution * doubt) @ self.price, deviation


def forecast_for(history: History, predictor: str, at_least: Mapping[str, float], caution: float) -> Forecast:
    """Return the forecast of the objective under least scores of tasks (none: the plain one).

    A task is taken for `caution` deviations worse than expected. Raises SearchError when no trial has scores.
    """
    plain = fit_forecast(history, predictor)
    columns = np.array([history.tasks.index(task) for task in at_least], dtype=np.intp)
    if not len(columns):
        return plain
    spread = max(_spread(history.objective), 1e-9)
    scale = np.array([max(_spread(history.scores[:, column]), 1e-9) for column in columns])
    return LeastForecast(
        **vars(plain),
        tasks=_fit_tasks(history, predictor, columns),
        columns=columns,
        least=np.array(list(at_least.values())),
        price=STEEP * spread / scale,
        caution=caution,
    )


def expected_tasks(
    history: History, predictor: str, at_least: Mapping[str, float], weights: Weights
) -> list[dict[str, Any]]:
    """Return for each task with a least score what one mixture (n_domains,) is expected to reach, and how surely."""
    from scipy.stats import norm

    if not at_least:
        return []
    columns = np.array([history.tasks.index(task) for task in at_least], dtype=np.intp)
    mean, deviation = task_scores(_fit_tasks(history, predictor, columns), columns, weights[None])
    return [
        {
            "task": task,
            "least": least,
            "expected": float(mean[0, j]),
            "probability": float(norm.sf((least - mean[0, j]) / max(deviation[0, j], 1e-12))),
        }
        for j, (task, least) in enumerate(at_least.items())
    ]


def task_scores(forecast: Forecast | None, columns: NDArray[np.intp], weights: Weights) -> tuple[Floats, Floats]:
    """Return mean and standard deviation (n, n_columns) of the tasks' own scores, without the noise of a trial."""
    assert forecast is not None
    mean, deviation = (values[:, columns] for values in forecast.predict_tasks(weights))
    return mean, np.sqrt(np.maximum(deviation**2 - forecast.noise[columns] ** 2, (0.05 * deviation) ** 2))


def least_sentence(trials: Sequence[Trial], at_least: Mapping[str, float], has_items: bool = True) -> str:
    """Return in plain words which least scores a mixture's trials reach ("" where there are none)."""
    parts = []
    for task, least in at_least.items():
        mean = float(np.mean([trial.scores[task] for trial in trials]))
        parts.append(f"{task} {'reaches' if mean >= least else 'falls short of'} {least:+.4f} with {mean:+.4f}")
    where = "On search items" if has_items else "Least scores:"
    return f" {where} {', '.join(parts)}." if parts else ""


def _spread(scores: Floats) -> float:
    known = scores[np.isfinite(scores)]
    return float(known.std()) if len(known) else 1.0


def _fit_tasks(history: History, predictor: str, columns: NDArray[np.intp]) -> Forecast:
    importance = np.zeros(len(history.tasks))
    importance[columns] = 1.0 / len(columns)
    return fit_forecast(replace(history, importance=importance), predictor)
