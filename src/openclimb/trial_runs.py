"""Runs trials that wait: one process a core, or stacked on a GPU. A failed trial is retried once and stops nothing.

Where all failed the run ends, and the next one tries them again.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.console import Progress
from openclimb.engine import Engine
from openclimb.errors import OpenclimbError
from openclimb.proxy.checkpoint import shaped
from openclimb.proxy.program import silent
from openclimb.proxy.train import plan_stack, run_stack
from openclimb.settings import ProxySettings, RunSettings, TasksSettings
from openclimb.trials import Trial, claim, fail, open_trials, read_trial, told_trials, trial_folder

Items = dict[int, dict[str, NDArray[np.floating[Any]]]]  # trial → "<task>/<part>/<measure>" → one number an item


def run_trials(
    folder: Path,
    asked: Sequence[Trial],
    tokens: Path,
    proxy: ProxySettings,
    tasks: TasksSettings,
    where: RunSettings,
    parts: tuple[str, ...],
    label: str,
    engine: Engine,
    progress: Progress,
) -> list[Trial]:
    """Run the trials that have no scores yet and return all of them with scores; failed ones are left out.

    `parts` are the parts of the tasks to score: "search", or "search" and "report".
    Raises SearchError when every trial failed.
    """
    paths = open_trials(folder, asked)
    proxy = shaped(proxy)
    progress.start(label, len(paths), "trials")
    progress.advance(sum(read_trial(path).state != "waiting" for path in paths))
    while waiting := [path for path in paths if read_trial(path).state == "waiting"]:
        device, size = plan_stack(where.device, where.stack, len(waiting), proxy, tokens, where.compile)
        stacks = [waiting[i : i + size] for i in range(0, len(waiting), size)]
        work = partial(
            _run,
            tokens=tokens,
            proxy=proxy,
            tasks=tasks,
            parts=parts,
            device=device,
            where=replace(where, stack=size),
            note=silent if device == "cpu" else progress.note,  # another process has no view to write to
        )
        for _, messages in engine.map(work, stacks, workers=None if device == "cpu" else 1):
            progress.advance(sum(read_trial(path).state != "waiting" for path in messages))
            for path, message in messages.items():
                if message:
                    progress.note(f"trial {path.name} failed: {message}")
    progress.finish()
    return told_trials(paths, label)


def _run(
    stack: Sequence[Path],
    tokens: Path,
    proxy: ProxySettings,
    tasks: TasksSettings,
    parts: tuple[str, ...],
    device: str,
    where: RunSettings,
    note: Callable[[str], None],
) -> dict[Path, str]:
    """Run the trials of one stack; return the message of each that failed ("" for success)."""
    for path in stack:
        claim(path)
    try:
        failed = run_stack(stack, tokens, proxy, tasks, parts, device, where, note=note)
    except (OpenclimbError, RuntimeError, ValueError, OSError, MemoryError) as error:
        failed = dict.fromkeys(stack, f"{type(error).__name__}: {error}")
    for path, message in failed.items():
        fail(path, message)
    return {path: failed.get(path, "") for path in stack}


def read_items(folder: Path, trials: Sequence[Trial]) -> Items:
    """Return the per-item results of trials, by number. A trial that was scored elsewhere has one item a task."""
    items: Items = {}
    for trial in trials:
        if not (trial_folder(folder, trial.number) / "items.npz").is_file():
            items[trial.number] = {
                f"{task}/{part}/score": np.array([score], dtype=np.float64)
                for task, score in trial.scores.items()
                for part in ("search", "report")
            }
            continue
        with np.load(trial_folder(folder, trial.number) / "items.npz", allow_pickle=False) as stored:
            items[trial.number] = {name: stored[name] for name in stored.files}
    return items
