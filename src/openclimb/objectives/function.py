"""Objectives that score one trial at a time: functions of the user's, and commands."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from openclimb.config.registry import load_named
from openclimb.engines import interruption
from openclimb.engines.engine import Engine, Resources
from openclimb.errors import ConfigError, SearchError
from openclimb.objectives.base import Score, Work, checked_scores
from openclimb.system_errors import is_systems
from openclimb.workspace.trials import Outcome, Trial, read_trial


@dataclass(frozen=True)
class OneByOne:
    """An objective from a function (trial, folder) → {task: score}."""

    score: Score
    parallel: int = 1

    def work(self, _n_waiting: int, _engine: Engine, /) -> Work:
        """Return how trials are run: each by itself, `parallel` at once."""
        return Work(partial(_measure, self.score), resources=Resources(at_once=self.parallel))


def _measure(score: Score, folders: Sequence[Path]) -> list[Outcome]:
    outcomes = []
    for folder in folders:
        began = time.monotonic()
        try:
            scores = dict(score(read_trial(folder), folder))
            outcomes.append(Outcome({"scores": scores, "seconds": round(time.monotonic() - began, 3)}))
        except ConfigError:
            raise
        except Exception as error:  # a function of the user's may raise anything; it fails its trial, not the search
            if is_systems(error):
                raise
            interruption.check()  # what it started was ended by the signal that asks us to stop
            message = error.message if isinstance(error, SearchError) else f"{type(error).__name__}: {error}"
            outcomes.append(Outcome(failure=message))
    return outcomes


@dataclass(frozen=True)
class Named:
    """A function by its name in the settings: `package.module:function`."""

    name: str

    def __call__(self, trial: Trial, folder: Path) -> dict[str, float]:
        """Return the function's scores, checked. Raises SearchError for what is no score."""
        return checked_scores(find_function(self.name)(trial, folder), self.name)


def find_function(name: str) -> Score:
    """Return the function that `package.module:function` names. Raises ConfigError when there is none."""
    what = f"objective.kind = '{name}'"
    found: Score = load_named(name, what)
    if not callable(found):
        raise ConfigError(f"{what} is not a function", "write package.module:function")
    return found
