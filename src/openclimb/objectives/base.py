"""The seam "objective": what scores trials. The local proxy, a command and a function go through one loop (`run.py`).

An objective says how the trials that wait are run: how many as one program, how many programs at once. What goes wrong
in one (an exit status, a time-out, scores that are missing, not finite or of other tasks) makes a failed trial.
"""

import codecs
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from openclimb.engines.engine import ONE_CORE, Engine, Resources
from openclimb.errors import SearchError
from openclimb.workspace.sheet import LARGEST
from openclimb.workspace.trials import Outcome, Trial

EXAMPLE = '{"task": 0.5}'
Score = Callable[[Trial, Path], Mapping[str, float]]  # one trial and its folder → {task: score}, higher is better


@dataclass(frozen=True)
class Work:
    """How trials are run."""

    run: Callable[[Sequence[Path]], list[Outcome]]  # folders of trials that run as one program → an outcome each
    together: int = 1  # trials as one program
    resources: Resources = ONE_CORE  # of a program


class Objective(Protocol):
    """What scores trials."""

    def work(self, n_waiting: int, engine: Engine, /) -> Work:
        """Return how trials are run when so many wait. `run` goes to other processes: it can be pickled."""
        ...


def parse_scores(data: bytes, what: str) -> dict[str, float]:
    """Return the scores in a JSON file: {"task": number}. Raises SearchError, with where it is wrong and what to do."""
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as a shell of Windows writes it
    try:
        found = json.loads(data.decode("utf-16" if marked else "utf-8-sig"), object_pairs_hook=_pairs)
    except RecursionError:
        raise SearchError(f"{what} cannot be read as JSON: it is nested too deep", EXAMPLE) from None
    except ValueError as error:
        raise SearchError(f"{what} cannot be read as JSON: {error}", EXAMPLE) from None
    return checked_scores(found, what)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' is in it twice")
    return found


def checked_scores(found: Any, what: str) -> dict[str, float]:
    """Return scores as {task: number}.

    Raises SearchError when they are not: no mapping, empty, a task without a name, no finite numbers up to LARGEST.
    """
    if not isinstance(found, Mapping) or not found:
        raise SearchError(f'{what} must hold {{"task": score}}, one number a task', EXAMPLE)
    for task, score in found.items():
        number = isinstance(score, (int, float, np.integer, np.floating)) and not isinstance(score, bool)
        if not str(task).strip():
            raise SearchError(f"{what} has a score for a task without a name", EXAMPLE)
        if not number or not -LARGEST <= score <= LARGEST:
            shown = repr(score) if len(repr(score)) <= 40 else f"{repr(score)[:40]}…"
            what_not = "out of range" if number and score == score and abs(score) != math.inf else "no finite number"
            raise SearchError(
                f"{what}: the score of '{task}' is {shown}, {what_not}",
                f"it must be a number between -{LARGEST:g} and {LARGEST:g}; leave out a task that was not measured",
            )
    return {str(task): float(score) for task, score in found.items()}
