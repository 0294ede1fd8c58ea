"""Told trials as arrays: the only thing that predictors and proposers learn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import SearchError, nearest
from openclimb.mixture import Domain, Weights
from openclimb.search.hint import Hint, read_hint, split_hints
from openclimb.trials import Trial

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """The told trials, in an order that does not depend on when they were told."""

    weights: Weights  # (n, n_domains)
    scores: Floats  # (n, n_tasks), higher is better; NaN where a trial has no finite score
    tasks: tuple[str, ...]
    importance: Floats  # (n_tasks,), sums to 1: the objective is scores @ importance
    numbers: tuple[int, ...]
    hint: Hint | None = None  # cheap scores of the same tasks

    @property
    def objective(self) -> Floats:
        """The objective of each trial (n,); NaN where a task that counts has no score."""
        counts = self.importance > 0
        objective: Floats = self.scores[:, counts] @ self.importance[counts]
        return objective

    @property
    def counts(self) -> dict[str, int]:
        """How many of the trials are this search's, and how many come from another workspace (`search/reuse.py`)."""
        n_old = sum(number < 0 for number in self.numbers)
        return {"trials": len(self.numbers) - n_old, "old_trials": n_old}

    def only(self, chosen: NDArray[np.bool_]) -> "History":
        """The history of the trials that `chosen` (n,) marks."""
        numbers = tuple(number for number, one in zip(self.numbers, chosen, strict=True) if one)
        return replace(self, weights=self.weights[chosen], scores=self.scores[chosen], numbers=numbers)

    def believing(self, running: Weights, expected: Floats) -> "History":
        """The history with running mixtures (m, n_domains) as if they had scored what is expected (m, n_tasks).

        Numbers of running mixtures are 0; tasks that do not count stay without a score.
        """
        scores = np.where(self.importance > 0, expected, np.nan)
        return replace(
            self,
            weights=np.concatenate([self.weights, running]),
            scores=np.concatenate([self.scores, scores]),
            numbers=self.numbers + (0,) * len(running),
        )

    def aggregated(self) -> "History":
        """The same trials with the objective as their only task; those without one are left out."""
        known = np.isfinite(self.objective)
        numbers = tuple(number for number, one in zip(self.numbers, known, strict=True) if one)
        hint = self.hint and self.hint.joined(self.importance)
        return History(self.weights[known], self.objective[known, None], ("objective",), np.ones(1), numbers, hint)


def read_history(trials: Sequence[Trial], domains: Sequence[Domain], task_weights: Mapping[str, float]) -> History:
    """Return the history of the trials that have scores, with columns in the order of `domains`; hints stand apart.

    Raises SearchError when a trial has other domains, or `task_weights` names a task that no trial has.
    """
    names = [domain.name for domain in domains]
    own, hints = split_hints(trials)
    told = [trial for trial in own if _has_score(trial)]
    for trial in told:
        _check_domains(trial, names)
    rows = [
        (
            tuple(trial.mixture.as_dict()[name] for name in names),
            trial.seed,
            tuple(sorted(trial.scores.items())),
            trial.number,
            trial,
        )
        for trial in told
    ]
    told = [row[-1] for row in sorted(rows, key=lambda row: row[:-1])]
    tasks = tuple(sorted({task for trial in told for task in trial.scores}))
    scores = np.array([[trial.scores.get(task, np.nan) for task in tasks] for trial in told]).reshape(
        len(told), len(tasks)
    )
    scores[~np.isfinite(scores)] = np.nan
    weights = np.array([[trial.mixture.as_dict()[name] for name in names] for trial in told]).reshape(
        len(told), len(names)
    )
    numbers = tuple(trial.number for trial in told)
    return History(weights, scores, tasks, importance(tasks, task_weights), numbers, read_hint(hints, names, tasks))


def read_running(trials: Sequence[Trial], domains: Sequence[Domain]) -> Weights:
    """Return the mixtures (n, n_domains) that were asked for and have no scores: running, or failed. Sorted."""
    names = [domain.name for domain in domains]
    without = [trial for trial in trials if not _has_score(trial)]
    for trial in without:
        _check_domains(trial, names)
    rows = sorted({tuple(trial.mixture.as_dict()[name] for name in names) for trial in without})
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(names))


def _has_score(trial: Trial) -> bool:
    return any(np.isfinite(value) for value in trial.scores.values())


def _check_domains(trial: Trial, names: Sequence[str]) -> None:
    if set(trial.domains) != set(names):
        raise SearchError(
            f"trial {trial.number} has other domains than the present ones",
            "start a new workspace, or put the old domains back",
        )


def importance(tasks: Sequence[str], task_weights: Mapping[str, float]) -> Floats:
    """Return the weight of each task in the objective, sum 1. A task that `task_weights` does not name counts 1."""
    unknown = [name for name in task_weights if name not in tasks]
    if unknown and tasks:
        raise SearchError(
            f"[tasks] names '{unknown[0]}', which is no task of the search{nearest(unknown[0], tasks)}",
            f"tasks are: {', '.join(tasks)}",
        )
    raw = np.array([max(0.0, float(task_weights.get(task, 1.0))) for task in tasks])
    if len(raw) and raw.sum() == 0:
        raise SearchError(
            "every task has weight 0 in the objective", "give at least one task a positive weight in tasks.weights"
        )
    return raw / raw.sum() if len(raw) else raw
