"""The seam "objective": what scores trials. The local proxy, a command and a function go through one loop (`run.py`).

An objective says how the trials that wait are run: how many as one program, how many programs at once. What goes wrong
in one (an exit status, a time-out, scores that are missing, not finite or of other tasks) makes a failed trial.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from openclimb.errors import SearchError
from openclimb.workspace.trials import Outcome, Trial

Score = Callable[[Trial, Path], Mapping[str, float]]  # one trial and its folder → {task: score}, higher is better


@dataclass(frozen=True)
class Work:
    """How trials are run."""

    run: Callable[[Sequence[Path]], list[Outcome]]  # folders of trials that run as one program → an outcome each
    together: int = 1  # trials as one program
    at_once: int | None = None  # programs at once; None: one a core


class Objective(Protocol):
    """What scores trials."""

    def work(self, n_waiting: int, /) -> Work:
        """Return how trials are run when so many wait. `run` goes to other processes: it can be pickled."""
        ...


def checked_scores(found: Any, what: str) -> dict[str, float]:
    """Return scores as {task: number}. Raises SearchError when they are not: no mapping, empty, not finite numbers."""
    if not isinstance(found, Mapping) or not found:
        raise SearchError(f'{what} must hold {{"task": score}}, one number a task')
    for task, score in found.items():
        if (
            not isinstance(score, (int, float, np.integer, np.floating))
            or isinstance(score, bool)
            or not math.isfinite(score)
        ):
            raise SearchError(f"{what}: the score of '{task}' is {score!r}, no finite number")
    return {str(task): float(score) for task, score in found.items()}
