"""Where a trial that was killed goes on: `trials/0017/state.safetensors`, written now and then, gone when it is done.

One file, renamed when it is whole: weights, moments of the optimiser, and in its header the step, the log rows and
whose state it is.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from openclimb.workspace import atomic

NAME = "state.safetensors"
VERSION = 4  # raise it when training gives other numbers for the same trial


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
