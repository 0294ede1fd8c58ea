"""The machine that a plan counts with: cores of a calibrated speed and, where there are some, GPUs.

Reads and writes `core.json` in the user's cache: the speed of one core, measured once, so that a plan says the same
whenever it is asked and no workspace changes.
"""

import contextlib
import json
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.engines.local import n_cores
from openclimb.errors import ConfigError, nearest
from openclimb.planning.rates import CARDS, KNOWN, REFERENCE, Card
from openclimb.workspace.files import write_json

CARD_CORES = 16  # beside each card, where a plan is not given them
TURNS = 40  # of each measurement, of which the fastest counts
CPUINFO = Path("/proc/cpuinfo")
NVIDIA = Path("/dev/nvidiactl")  # there where a GPU is


@dataclass(frozen=True)
class Core:
    """One core: FLOP/s of a matrix product in fp32, bytes of text a second of a fixed job, bf16 tiles or not."""

    processor: str
    products: float
    text: float
    tiles: bool

    @property
    def products_share(self) -> float:
        """How fast it multiplies, as a multiple of the core that the rates were measured on."""
        return self.products / REFERENCE.products

    @property
    def text_share(self) -> float:
        """How fast it works on text, as a multiple of the core that the rates were measured on."""
        return self.text / REFERENCE.text


@dataclass(frozen=True)
class Machine:
    """What a plan counts with. Without a card, proxies train on the cores."""

    core: Core
    cores: int
    card: Card | None = None
    gpus: int = 0
    here: bool = True  # this machine, as `climb run` would use it
    unknown: str = ""  # a GPU of this machine that is not in the table

    @property
    def described(self) -> str:
        """As people call it: "8 × NVIDIA H100, 128 cores"."""
        cores = f"{self.cores:,} {'core' if self.cores == 1 else 'cores'}"
        return f"{self.gpus} × {self.card.title}, {cores}" if self.card else cores


def machine_of(workers: int, device: str, gpus: int = 0, gpu: str = "", cores: int = 0) -> Machine:
    """Return the machine to count with: this one, or the one that `gpus`, `gpu` and `cores` describe.

    `workers` and `device` are the settings of [run]. Raises ConfigError for a card that is not in the table.
    """
    core = core_here()
    if not (gpus or gpu or cores):
        found = "" if device == "cpu" else card_here()
        card = CARDS.get(card_name(found)) if found else None
        return Machine(core, workers or n_cores(), card, 1 if card else 0, unknown="" if card else found)
    if gpus or gpu:
        card = find_card(gpu or card_name(card_here()) or "h100")
        gpus = gpus or 1
        return Machine(core, cores or CARD_CORES * gpus, card, gpus, here=False)
    return Machine(core, cores, here=False)


def find_card(name: str) -> Card:
    """Return the card of that name in the table. Raises ConfigError for another name."""
    if name.lower() not in CARDS:
        raise ConfigError(f"--gpu '{name}' is not known{nearest(name, CARDS)}", f"use one of: {', '.join(CARDS)}")
    return CARDS[name.lower()]


def card_here() -> str:
    """Return the name of this machine's GPU as its driver says it; empty without one."""
    if not NVIDIA.exists():
        return ""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def card_name(found: str) -> str:
    """Return the table's name of a card by what its driver calls it; empty for one that is not there."""
    plain = found.lower().replace(" ", "")
    return next((name for name in sorted(CARDS, key=len, reverse=True) if name in plain), "")


def core_here() -> Core:
    """Return the speed of this machine's cores: by the table, or as the cache has it, or measured now and kept there.

    It is measured again for another processor and, where the cache cannot be written, at every call.
    """
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openclimb" / "core.json"
    processor, tiles = processor_here()
    if processor in KNOWN:
        return Core(processor, KNOWN[processor].products, KNOWN[processor].text, tiles)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # whoever damaged it, it is only measured again
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["processor"] == processor:
            return Core(processor, float(known["products"]), float(known["text"]), tiles)
    core = calibrate()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**asdict(core), "date": f"{datetime.now(UTC):%Y-%m-%d}"})
    return core


def processor_here() -> tuple[str, bool]:
    """Return the processor's name, and whether it multiplies bf16 in tiles (Intel AMX)."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown", False
    known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    return known.get("model name", "unknown"), "amx_bf16" in known.get("flags", "").split()


def calibrate() -> Core:
    """Measure one core by its processor time, which other work on the machine hardly changes; a second."""
    from threadpoolctl import threadpool_limits

    matrix = np.ones((512, 512), dtype=np.float32)
    words = b" ".join(b"%d" % (i * i % 7919) for i in range(60_000))

    def count() -> None:
        counts: dict[bytes, int] = {}
        for word in words.split():
            counts[word] = counts.get(word, 0) + 1
        zlib.compress(words, 1)

    with threadpool_limits(limits=1):
        products = 2 * 512.0**3 / _fastest(lambda: matrix @ matrix)
    text = len(words) / _fastest(count)
    processor, tiles = processor_here()
    return Core(processor, products, text, tiles)


def _fastest(work: Callable[[], Any]) -> float:
    """Return the processor seconds of this thread for a call, the least of TURNS."""
    work()
    found = []
    for _ in range(TURNS):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return max(min(found), 1e-9)
