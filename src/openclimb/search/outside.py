"""Trials that `climb run` did not make: asked for with `climb ask` and told, or imported. Its search learns from them.

They are history, not trials of the iterations. Reads and writes `iterations/NN/batch.json`: which of them a batch was
proposed from. A trial that comes in later does not change a batch that was proposed before, so that no trial which was
trained for it is lost; it counts for the batches and the finalists that follow.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from openclimb.trials import Trial
from openclimb.workspace import fingerprint, read_json, write_json

ROLE = "outside"


def outside_trials(trials: Sequence[Trial], data: str) -> list[Trial]:
    """Return the outside trials of this data by number, with scores or without."""
    return sorted((t for t in trials if t.role == ROLE and t.data == data), key=lambda trial: trial.number)


def told_fingerprint(trials: Sequence[Trial], data: str) -> str:
    """Return what stands for the told outside trials in a recipe: how many, and a fingerprint; "" without any."""
    told = sorted((t.identity, sorted(t.scores.items())) for t in outside_trials(trials, data) if t.scores)
    return f"{len(told)} ({fingerprint(told)[:8]})" if told else ""


def of_tasks(trials: Sequence[Trial], tasks: Collection[str]) -> tuple[list[Trial], list[int]]:
    """Return the trials with the scores of these tasks only, and the numbers of the told ones that have none of them.

    The latter are left out of the former.
    """
    kept, without = [], []
    for trial in trials:
        scores = {task: score for task, score in trial.scores.items() if task in tasks}
        if trial.scores and not scores:
            without.append(trial.number)
        else:
            kept.append(replace(trial, scores=scores))
    return kept, without


def batch_history(folder: Path, key: str, trials: Sequence[Trial]) -> list[Trial]:
    """Return the outside trials as they stood when the batch of this key was first proposed: now, if it was not yet.

    Those that had no scores then have none here. `folder` is the iteration's, where this is written down.
    """
    path = folder / "batch.json"
    found = read_json(path) if path.is_file() else {}
    if found.get("key") != key:
        told = [trial.number for trial in trials if trial.scores]
        found = {"key": key, "told": told, "running": [trial.number for trial in trials if not trial.scores]}
        write_json(path, found)
    had_scores, known = set(found["told"]), {*found["told"], *found["running"]}
    return [
        trial if trial.number in had_scores else replace(trial, scores={}) for trial in trials if trial.number in known
    ]
