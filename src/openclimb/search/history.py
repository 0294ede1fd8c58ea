"""Observations as arrays: the only thing that predictors and proposers learn from."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import SearchError, nearest
from openclimb.mixture import Domain, Weights
from openclimb.search.predictors.low_fidelity import LowFidelity, read_low_fidelity
from openclimb.workspace.observations import LOW_FIDELITY, PENDING, TRANSFERRED, Observation

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """Observations with scores, in an order that does not depend on when they came."""

    weights: Weights  # (n, n_domains)
    scores: Floats  # (n, n_tasks), higher is better; NaN where a trial has no finite score
    tasks: tuple[str, ...]
    importance: Floats  # (n_tasks,), sums to 1: the objective is scores @ importance
    names: tuple[int | str, ...]  # of the observations
    sources: tuple[str, ...]
    low_fidelity: LowFidelity | None = None  # cheap scores of the same tasks

    @property
    def objective(self) -> Floats:
        """The objective of each trial (n,); NaN where a task that counts has no score."""
        counts = self.importance > 0
        objective: Floats = self.scores[:, counts] @ self.importance[counts]
        return objective

    @property
    def counts(self) -> dict[str, int]:
        """How many of the observations are this workspace's, and how many come from another one."""
        n_old = self.sources.count(TRANSFERRED)
        return {"trials": len(self.sources) - n_old, "transferred": n_old}

    def only(self, chosen: NDArray[np.bool_]) -> "History":
        """The history of the observations that `chosen` (n,) marks."""
        names = tuple(itertools.compress(self.names, chosen.tolist()))
        sources = tuple(itertools.compress(self.sources, chosen.tolist()))
        return replace(self, weights=self.weights[chosen], scores=self.scores[chosen], names=names, sources=sources)

    def fantasized(self, running: Weights, expected: Floats) -> "History":
        """The history with running mixtures (m, n_domains) as if they had scored what is expected (m, n_tasks).

        They are named 0; tasks that do not count stay without a score.
        """
        scores = np.where(self.importance > 0, expected, np.nan)
        return replace(
            self,
            weights=np.concatenate([self.weights, running]),
            scores=np.concatenate([self.scores, scores]),
            names=self.names + (0,) * len(running),
            sources=self.sources + (PENDING,) * len(running),
        )

    def aggregated(self) -> "History":
        """The same with the objective as the only task; observations without one are left out."""
        known = self.only(np.isfinite(self.objective))
        low_fidelity = self.low_fidelity and self.low_fidelity.joined(self.importance)
        return replace(
            known,
            scores=known.objective[:, None],
            tasks=("objective",),
            importance=np.ones(1),
            low_fidelity=low_fidelity,
        )


def read_history(
    observations: Sequence[Observation], domains: Sequence[Domain], task_weights: Mapping[str, float]
) -> History:
    """Return the history of the observations with scores, columns in the order of `domains`; cheap scores stand apart.

    Raises SearchError when one has other domains, or `task_weights` names a task that none has.
    """
    names = [domain.name for domain in domains]
    cheap = [one for one in observations if one.source == LOW_FIDELITY]
    found = [one for one in observations if one.source not in (LOW_FIDELITY, PENDING)]
    rows = [(_weights(one, names), one.seed, tuple(sorted(one.scores.items())), _order(one), one) for one in found]
    found = [row[-1] for row in sorted(rows, key=lambda row: row[:-1])]
    tasks = tuple(sorted({task for one in found for task in one.scores}))
    scores = np.array([[one.scores.get(task, np.nan) for task in tasks] for one in found]).reshape(
        len(found), len(tasks)
    )
    scores[~np.isfinite(scores)] = np.nan
    weights = np.array([_weights(one, names) for one in found]).reshape(len(found), len(names))
    return History(
        weights,
        scores,
        tasks,
        importance(tasks, task_weights),
        tuple(one.name for one in found),
        tuple(one.source for one in found),
        read_low_fidelity(cheap, names, tasks),
    )


def read_running(observations: Sequence[Observation], domains: Sequence[Domain]) -> Weights:
    """Return the mixtures (n, n_domains) that were asked for and have no scores: running, or failed. Sorted."""
    names = [domain.name for domain in domains]
    rows = sorted({_weights(one, names) for one in observations if one.source == PENDING})
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(names))


def in_order(observations: Sequence[Observation]) -> list[Observation]:
    """Return observations in an order that does not depend on when they came: own trials by number, then the rest."""
    return sorted(observations, key=_order)


def _order(one: Observation) -> tuple[str, int, str]:
    return (one.source, one.name, "") if isinstance(one.name, int) else (one.source, 0, one.name)


def _weights(one: Observation, names: Sequence[str]) -> tuple[float, ...]:
    _check_domains(one, names)
    mixture = one.mixture.as_dict()
    return tuple(mixture[name] for name in names)


def _check_domains(one: Observation, names: Sequence[str]) -> None:
    if set(one.domains) != set(names):
        raise SearchError(
            f"trial {one.name} has other domains than the present ones",
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
