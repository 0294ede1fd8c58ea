"""What the search learnt, as the page shows it: scores of trials, the finalists in order, what tasks can tell."""

from collections.abc import Sequence
from typing import Any

from openclimb.report.facts import Facts
from openclimb.stats.objective import objective
from openclimb.workspace.results import CandidateRow, SignalRow

TELLS = 2.0  # a task tells mixtures apart well when its scores spread so many times as far as its noise


def objective_by_trial(facts: Facts) -> dict[int, float]:
    """Return trial → objective: the mean of its tasks under the settings' weights (1 where none is given)."""
    given = facts.config.get("tasks", {}).get("weights", {})
    given = facts.answer.objective.tasks if facts.answer else given  # as weighed by signal
    found = {}
    for trial in facts.trials:
        weights = {task: float(given.get(task, 1.0)) for task in trial.scores}
        total = sum(weights.values())
        if total > 0:
            found[trial.number] = objective(trial.scores, weights) / total
    return found


def finalists(facts: Facts) -> list[CandidateRow]:
    """Return the mixtures of the rounds: those that stayed longest first, then by expected score."""
    rounds = facts.answer.rounds if facts.answer else []
    if not facts.answer or not rounds:
        return []
    candidates = {row.name: row for row in facts.answer.candidates}
    return sorted(
        (candidates[name] for name in rounds[0].probability_best),
        key=lambda row: (sum(row.name in one.left for one in rounds), row.expected),
        reverse=True,
    )


def tasks(facts: Facts) -> list[dict[str, Any]]:
    """Return noise and spread of the objective and of each task, after the last iteration."""
    if not facts.iterations:
        return []
    last = facts.iterations[-1]
    rows = []
    for task in ("objective", *(task for task in last.rank_correlation if task != "objective")):
        noise, spread = last.noise.get(task), last.spread.get(task)
        times = spread / noise if noise and spread is not None else None
        weak = times is not None and times < TELLS
        rows.append({"task": task, "noise": noise, "spread": spread, "times": times, "weak": weak})
    return rows


def signal(facts: Facts) -> Sequence[SignalRow]:
    """Return how far each task tells mixtures apart: as the answer says, or else the last iteration that says it."""
    said = [facts.answer.signal if facts.answer else [], *(one.signal for one in reversed(facts.iterations))]
    return next((rows for rows in said if rows), [])
