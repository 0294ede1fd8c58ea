"""Where a trial that was killed goes on: `trials/0017/state.safetensors`, written now and then, gone when it is done.

One file, renamed when it is whole: weights, moments of the optimiser, and in its header the step, the log rows and
whose state it is, with a checksum of all.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
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
    text = json.dumps(asdict(about))
    with atomic(folder / NAME) as temporary:
        save_file(tensors, temporary, metadata={"about": text, "checksum": _checksum(text, tensors)})


def read_state(folder: Path) -> tuple[About, dict[str, Tensor]] | None:
    """Return what a trial's state is of, and its tensors; None when there is none, or one that is damaged."""
    try:
        with safe_open(folder / NAME, "pt") as file:
            found = file.metadata()
            about = json.loads(found["about"])
            if about["version"] != VERSION:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (FileNotFoundError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return (About(**about), tensors) if found.get("checksum") == _checksum(found["about"], tensors) else None


def _checksum(about: str, tensors: dict[str, Tensor]) -> str:
    """Return a hash of all that a state holds."""
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def remove_state(folder: Path) -> None:
    """Remove a trial's state, if there is one."""
    (folder / NAME).unlink(missing_ok=True)
