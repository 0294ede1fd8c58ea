"""One worker of the engine `ray`: an actor, which is a process on some node, and what the driver knows of it.

The actor runs calls on its main thread, so that a signal raises Interrupted inside them as in a local worker. Whoever
may send one is on the same node: a small task of Ray's, `ring`.
"""

import os
import pickle
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openclimb.engines import interruption
from openclimb.engines.devices import VISIBLE, is_fault
from openclimb.engines.engine import DeviceLost
from openclimb.engines.interruption import Interrupted
from openclimb.engines.worker import DONE, FAILED, RAISED, STOPPED, WITH_ONE_THREAD, portable
from openclimb.errors import ConfigError

GB = 1_000_000_000


@dataclass(frozen=True)
class Shape:
    """What Ray reserves for a worker; memory in bytes. Ray does not enforce it, it only counts."""

    cpus: int
    gpus: float
    memory: int

    def of_a_node(self, resources: dict[str, float]) -> int:
        """Return how many such workers a node holds when nobody else uses it."""
        n = min(resources.get("CPU", 0) // self.cpus, resources.get("memory", 0) // self.memory)
        if self.gpus:
            n = min(n, resources.get("GPU", 0) // 1 * (1 / self.gpus // 1))  # a part of a GPU lies on one GPU
        return int(n)

    def __str__(self) -> str:
        gpus = f"{self.gpus:g} GPU, " if self.gpus else ""
        return f"{self.cpus} CPU, {gpus}{self.memory / GB:g} GB of memory"


@dataclass(frozen=True)
class Place:
    """Where an actor runs: the node's id and host name, the process, the GPUs that it sees ("" for none)."""

    node: str
    host: str
    process: int
    gpus: str


@dataclass(eq=False)
class RayWorker:
    """An actor and what it was handed, in order. It has no place before it says so for the first time."""

    actor: Any
    beginning: Any = None  # reference to what it says of the map's beginning, while that is awaited
    place: Place | None = None
    calls: deque[tuple[int, Any]] = field(default_factory=deque)  # (index, reference)

    @property
    def awaited(self) -> Any:
        """The reference that is ready next; None where nothing is."""
        return self.beginning if self.beginning is not None else self.calls[0][1] if self.calls else None


class Actor:
    """What runs in the worker's process. What goes in and out is pickled here, so that arrays can be written to."""

    def __init__(self, gpus: float) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the driver ends us
        interruption.catch_in_worker()
        if 0 < gpus < 1:
            import torch

            if torch.cuda.is_available():  # others have the rest; a stack is planned for the memory of this share
                torch.cuda.set_per_process_memory_fraction(gpus)
        self.function: Callable[[Any], Any] | None = None

    def begin(self, function: bytes, folder: str, mark: str) -> Place:
        """Take the function of a map. `folder`: where the driver works; `mark`: a file of its, or "".

        Raises ConfigError where this node does not see the file, or lacks a module.
        """
        import ray

        host = socket.gethostname()
        if Path(folder).is_dir():
            os.chdir(folder)  # for paths that are relative to it
        if mark and not Path(mark).is_file():
            raise ConfigError(
                f"node {host} does not see the folder {Path(mark).parent}",
                "put the workspace on a file system that all nodes mount at the same place; see docs/clusters.md",
            )
        try:
            self.function = pickle.loads(function)  # noqa: S301 - from our own driver, through Ray
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"node {host} has no module {error.name}",
                "install on every node what this machine has, or use one image; see docs/clusters.md",
            ) from None
        node = ray.get_runtime_context().get_node_id()
        return Place(node, host, os.getpid(), os.environ.get(VISIBLE, ""))

    def call(self, item: bytes) -> bytes:
        """Return (DONE, result), (RAISED, error), (STOPPED, None) or (FAILED, message), pickled."""
        assert self.function is not None
        said: tuple[str, Any]
        try:
            with interruption.at_once():
                said = (DONE, self.function(pickle.loads(item)))  # noqa: S301 - from our own driver, through Ray
        except Interrupted:
            said = (STOPPED, None)
        except DeviceLost as error:
            said = (FAILED, str(error))
        except BaseException as error:
            said = (FAILED, str(error)) if is_fault(error) else (RAISED, portable(error))
        try:
            return pickle.dumps(said, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            return pickle.dumps((RAISED, TypeError(f"a result cannot be sent to another process: {error}")))


def start(ray: Any, shape: Shape) -> RayWorker:
    """Start an actor of this shape; Ray places it when a node has room."""
    environment = dict(WITH_ONE_THREAD) if shape.gpus else {**WITH_ONE_THREAD, VISIBLE: ""}
    actor = ray.remote(Actor).options(
        num_cpus=shape.cpus,
        num_gpus=shape.gpus,
        memory=shape.memory,
        max_restarts=0,
        runtime_env={"env_vars": environment},
    )
    return RayWorker(actor.remote(shape.gpus))


def signal_all(ray: Any, workers: Iterable[RayWorker]) -> list[Any]:
    """Send the workers that have begun SIGTERM, on their nodes. Return references, to be kept until it came."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    by_node: dict[str, list[int]] = {}
    for worker in workers:
        if worker.place:
            by_node.setdefault(worker.place.node, []).append(worker.place.process)
    return [
        ray.remote(_ring)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(processes)
        for node, processes in by_node.items()
    ]


def _ring(processes: list[int]) -> None:
    for process in processes:
        try:
            os.kill(process, signal.SIGTERM)
        except ProcessLookupError:
            pass
