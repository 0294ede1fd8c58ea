"""Trials that `climb run` did not make: asked for and completed by hand, or imported. Its search learns from them.

They are history, not trials of the iterations. Reads and writes `iterations/NN/batch.json`: which of them a batch was
proposed from. A trial that comes in later does not change a batch that was proposed before, so that no trial which was
trained for it is lost; it counts for the batches and the finalists that follow.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from openclimb.config.schema import TasksSettings
from openclimb.tasks.items import search_tasks
from openclimb.workspace.files import fingerprint, read_json, write_json
from openclimb.workspace.observations import EXTERNAL_ROLE
from openclimb.workspace.trials import Trial


def external_trials(trials: Sequence[Trial], data: str) -> list[Trial]:
    """Return the external trials of this data by number, with scores or without."""
    return sorted((t for t in trials if t.role == EXTERNAL_ROLE and t.data == data), key=lambda trial: trial.number)


def external_fingerprint(trials: Sequence[Trial], data: str) -> str:
    """Return what stands for the completed external trials in a recipe: how many, and a fingerprint; "" without any."""
    completed = sorted((t.identity, sorted(t.scores.items())) for t in external_trials(trials, data) if t.scores)
    return f"{len(completed)} ({fingerprint(completed)[:8]})" if completed else ""


def usable_external(trials: Sequence[Trial], tasks: TasksSettings, note: Callable[[str], None]) -> list[Trial]:
    """Return the external trials among these of one data, with the scores that the search asks for."""
    external = [trial for trial in sorted(trials, key=lambda trial: trial.number) if trial.role == EXTERNAL_ROLE]
    if not tasks.paths:
        return external
    external, useless = of_tasks(external, search_tasks(tasks))  # a trainer of the user's may bring tasks of its own
    if useless:
        note(f"trials without a score of the search's tasks are left out: {', '.join(map(str, useless))}")
    return external


def of_tasks(trials: Sequence[Trial], tasks: Collection[str]) -> tuple[list[Trial], list[int]]:
    """Return the trials with the scores of these tasks only, and the numbers of those that have none of them.

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
    """Return the external trials as they stood when the batch of this key was first proposed: now, if it was not yet.

    Those that had no scores then have none here. `folder` is the iteration's, where this is written down.
    """
    path = folder / "batch.json"
    found = read_json(path) if path.is_file() else {}
    if found.get("key") != key:
        completed = [trial.number for trial in trials if trial.scores]
        found = {"key": key, "completed": completed, "running": [trial.number for trial in trials if not trial.scores]}
        write_json(path, found)
    had_scores, known = set(found["completed"]), {*found["completed"], *found["running"]}
    return [
        trial if trial.number in had_scores else replace(trial, scores={}) for trial in trials if trial.number in known
    ]
