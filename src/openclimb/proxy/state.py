"""Where a trial that was killed goes on: `trials/0017/state.safetensors`, written now and then, gone when it is done.

One file, renamed when it is whole: weights, moments of the optimiser, and in its header the step, the log rows and
whose state it is.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from openclimb.workspace.files import atomic

NAME = "state.safetensors"
VERSION = 4  # raise it when training gives other numbers for the same trial
SHARE = 0.02  # of the time that writing states may take
SPEED = 500e6  # bytes a second, assumed until a state was written


class Pace:
    """When states are written: no more often than every `seconds`, and so that it takes at most SHARE of the time.

    `n_bytes`: of all states that are written at once. `now`: a clock, seconds.
    """

    def __init__(self, n_bytes: int, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.now = seconds, now
        self.cost = n_bytes / SPEED  # seconds that writing takes
        self.last = now()

    def due(self) -> bool:
        """Return whether it is time to write."""
        return self.now() - self.last >= max(self.seconds, self.cost * (1.0 / SHARE - 1.0))

    def write(self, save: Callable[[], None]) -> None:
        """Write by calling `save`, and note how long it took."""
        began = self.now()
        save()
        self.last = self.now()
        self.cost = self.last - began


@dataclass(frozen=True)
class About:
    """Whose state it is, and what is not a tensor."""

    identity: str  # of the trial: mixture, proxy, seed, budget and data
    step: int  # steps that are done
    last: float | None  # the last loss that was looked at, nats a token
    log: list[dict[str, Any]] = field(default_factory=list)
    version: int = VERSION


def save_state(folder: Path, tensors: dict[str, Tensor], about: About) -> None:
    """Write the state of a trial in place of an earlier one."""
    with atomic(folder / NAME) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(asdict(about))})


def read_about(folder: Path) -> About | None:
    """Return what a trial's state is of; None when there is none, or none that can be used."""
    try:
        with safe_open(folder / NAME, "pt") as file:
            about = json.loads(file.metadata()["about"])
    except (FileNotFoundError, SafetensorError):
        return None
    return About(**about) if about.get("version") == VERSION else None


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a trial's state."""
    with safe_open(folder / NAME, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def remove_state(folder: Path) -> None:
    """Remove a trial's state, if there is one."""
    (folder / NAME).unlink(missing_ok=True)
