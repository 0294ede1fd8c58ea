"""The engine `ray`: work runs in actors of a Ray cluster, an existing one or one of this machine alone.

Actors live from map to map, so that embedders and compiled programs stay warm; nodes that join are used, and a node
that is lost costs what ran on it. Ray holds no state of ours: what is done is in the workspace, which all nodes see.
"""

import contextlib
import os
import pickle
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from openclimb.config.schema import EngineSettings, RunSettings
from openclimb.engines import interruption
from openclimb.engines.engine import ONE_CORE, Lost, Resources, Tries, name_of
from openclimb.engines.interruption import Interrupted
from openclimb.engines.local import GPU_FAULTS, GRACE, POLL, SHORT
from openclimb.engines.ray_worker import GB, RayWorker, Shape, signal_all, start
from openclimb.engines.worker import FAILED, RAISED, STOPPED
from openclimb.errors import ConfigError, MissingDependency, OpenclimbError
from openclimb.masking import without_secrets
from openclimb.workspace.files import writer

Item = TypeVar("Item")
Result = TypeVar("Result")

LOOK = 2.0  # seconds between two looks at the cluster's nodes
PATIENCE = 60.0  # seconds without any worker, after which a person is told what the cluster has no room for
MOST_LOST_NODES = 5  # under one item, which is no fault of the item's; the next ones count as deaths of its worker
ANSWER = 10.0  # seconds within which a cluster takes a connection
MOST_FAILED_STARTS = 5  # of workers one after the other


def make(settings: RunSettings, own: EngineSettings, note: Callable[[str], None]) -> "RayEngine":
    """Return the engine of the settings. Ray starts, or is called, when the first work comes.

    Raises MissingDependency where it is not installed, ConfigError for an address of Ray's client.
    """
    if own.address.startswith("ray://"):
        raise ConfigError(
            f"engine.address '{own.address}' is that of a Ray client, which cannot stop workers so that they save",
            "run climb on a node of the cluster, or as a Ray job, with engine.address = 'auto'",
        )
    return RayEngine(own, on_gpus=settings.device != "cpu", note=note)


class RayEngine:
    """The engine `ray`. A Ray that runs in this process already is used, and left running."""

    here = False

    def __init__(self, settings: EngineSettings, *, on_gpus: bool, note: Callable[[str], None]) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            if error.name != "ray":
                raise
            raise MissingDependency("ray", "pip install 'openclimb[ray]'") from None
        self.ray: Any = ray
        self.settings, self.on_gpus, self.note = settings, on_gpus, note
        self.pool: list[RayWorker] = []
        self.faults: Counter[tuple[str, str]] = Counter()  # (node, GPU) → faults one after the other
        self._parked: list[RayWorker] = []  # they hold GPUs that failed, so that Ray gives them to no other worker
        self.shape: Shape | None = None  # of the pool's workers
        self._ours = False  # whether we started or joined Ray
        self._nodes: tuple[float, list[dict[str, Any]]] = (0.0, [])

    @property
    def gpus(self) -> int:
        """How many calls that need a GPU run at once; 0 where the settings or the cluster have none."""
        if not self.settings.gpus or not self.on_gpus:
            return 0
        jobs, each = self.settings.jobs, 1 / self.settings.gpus // 1
        n = sum(int(node["Resources"].get("GPU", 0) * each) for node in self.nodes())
        if not n and self.settings.address:
            return jobs  # a cluster that grows on demand has none before they are asked for
        return min(n, jobs or n)

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        resources: Resources = ONE_CORE,
        *,
        folder: Path | None = None,
        lost: Lost[Item, Result] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Yield (index, function(item)) as results come; see `Engine.map`.

        Raises Interrupted when a signal asked to stop, after the results that workers still gave; ConfigError where a
        worker does not see `folder` or lacks a module, or this machine alone has no room for a worker.
        """
        if not items:
            return
        with interruption.postponed():
            try:
                self._take_shape(resources)
                with _mark(folder) as mark:
                    yield from _Map(self, function, items, resources.at_once, mark).results(lost)
            except BaseException:
                self._kill()
                raise

    def release(self) -> None:
        """End the actors, and Ray where we started or joined it; the next map does so again."""
        self._kill()
        self._parked, self.shape = [], None
        self.faults.clear()
        if self._ours and self.ray.is_initialized():
            self.ray.shutdown()
        self._ours = False

    def capacity(self) -> int:
        """Return how many workers there may be: `engine.jobs`, or as many as the nodes hold.

        At least one on a cluster by address, which may grow on demand. Raises ConfigError where a Ray of this machine
        has no room for one, OpenclimbError where every GPU has failed.
        """
        assert self.shape is not None
        room = sum(self.shape.of_a_node(node["Resources"]) for node in self.nodes())
        nodes = {node["NodeID"] for node in self.nodes()}
        n_parked = sum(worker.place is not None and worker.place.node in nodes for worker in self._parked)
        n = (self.settings.jobs or room) - n_parked
        if not room and self._ours and not self.settings.address:
            raise ConfigError(
                f"this machine has no room for a worker: {self.shape}",
                "lower engine.cpus, engine.memory_gb or engine.gpus",
            )
        if n_parked and n < 1 and self.shape.gpus:
            raise OpenclimbError("every GPU has failed", "see the messages above; run again with run.device = 'cpu'")
        return max(1, n)

    def nodes(self) -> list[dict[str, Any]]:
        """Return Ray's rows of the nodes that live, not older than LOOK seconds. Starts or joins Ray."""
        self._connect()
        now = time.monotonic()
        if now - self._nodes[0] > LOOK:
            self._nodes = (now, [node for node in self.ray.nodes() if node["Alive"]])
        return self._nodes[1]

    def lives(self, node: str) -> bool:
        """Return whether a node lives, as Ray knows now."""
        self._nodes = (0.0, [])
        return any(one["NodeID"] == node for one in self.nodes())

    def start(self) -> RayWorker:
        """Add a worker to the pool."""
        assert self.shape is not None
        self.pool.append(start(self.ray, self.shape))
        return self.pool[-1]

    def end(self, worker: RayWorker) -> None:
        """End a worker, if it lives, and leave it out."""
        self.pool = [one for one in self.pool if one is not worker]
        self.ray.kill(worker.actor)

    def gpu_failed(self, worker: RayWorker, message: str) -> None:
        """Leave a worker out whose GPU failed, and the GPU too after GPU_FAULTS one after the other."""
        assert worker.place is not None
        key = (worker.place.node, worker.place.gpus)
        self.faults[key] += 1
        if worker.place.gpus and self.faults[key] >= GPU_FAULTS:
            self.note(
                f"GPU {worker.place.gpus} of {worker.place.host} failed {GPU_FAULTS} times and is left out: "
                f"{message.splitlines()[0]}"
            )
            self.pool = [one for one in self.pool if one is not worker]
            self._parked.append(worker)
        else:
            self.end(worker)

    def _take_shape(self, resources: Resources) -> None:
        """Make the pool one of workers for these resources; others would keep the cores that they wait for."""
        own = self.settings
        shape = Shape(
            cpus=max(own.cpus, resources.cpus),
            gpus=min(own.gpus, resources.gpus) if resources.gpus and self.gpus else 0,
            memory=int(max(own.memory_gb, resources.memory_gb) * GB),
        )
        self._connect()
        if shape != self.shape:
            self._kill()
        self.shape = shape

    def _kill(self) -> None:
        if self.ray.is_initialized():
            for worker in list(self.pool):
                self.end(worker)
        self.pool = []

    def _connect(self) -> None:
        if self.ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read by the processes that Ray starts
        address = self.settings.address
        arguments = {"include_dashboard": False} if not address else {}
        try:
            _call(address)
            with _own_handlers():
                self.ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **arguments)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"Ray at engine.address '{address}'" if address else "a Ray of this machine"
            raise ConfigError(
                f"{where} cannot be used: {without_secrets(str(error)).strip().splitlines()[0]}",
                "see `ray status` there; start one with: ray start --head; versions of Ray and Python must be the same"
                if address
                else "see the logs in /tmp/ray/session_latest/logs",
            ) from None
        self._ours, self._nodes = True, (0.0, [])


class _Map:
    """One map: its items, who works on what, and what is left to do."""

    def __init__(
        self, engine: RayEngine, function: Callable[..., Any], items: Sequence[Any], at_once: int | None, mark: str
    ) -> None:
        self.engine, self.ray, self.items, self.mark = engine, engine.ray, items, mark
        self.function = self.ray.put(self.ray.cloudpickle.dumps(function))
        self.most = min(at_once or len(items), len(items))
        self.tries = Tries(len(items))
        self.workers: list[RayWorker] = []
        self.short: set[RayWorker] = set()  # those whose last item took less than SHORT
        self.began: dict[RayWorker, float] = {}
        self.lost_nodes: Counter[int] = Counter()  # item → nodes that were lost under it
        self.failed_starts = 0
        self.looked, self.waits_since = 0.0, time.monotonic()
        self.stopping = False

    def results(self, lost: Lost[Any, Any] | None) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as results come.

        After a signal nothing more is handed over, and workers are asked to stop. Raises Interrupted when all have, or
        GRACE is over.
        """
        deadline, rung = float("inf"), list[Any]()
        while not self.tries.finished() and time.monotonic() < deadline:
            if interruption.asked() and not self.stopping:
                rung = signal_all(self.ray, (worker for worker in self.workers if worker.calls))
                self.tries.drop()
                self.stopping, deadline = True, time.monotonic() + GRACE
            if not self.stopping:
                self._grow()
                self._hand_out()
            for worker in self._heard():
                yield from self._take(worker, lost)
        del rung
        if self.stopping:
            raise Interrupted

    def _grow(self) -> None:
        """Have as many workers as there may be, and tell a person where there is none for long."""
        now = time.monotonic()
        if any(worker.place for worker in self.workers):
            self.waits_since = now
        elif now - self.waits_since > PATIENCE:
            self.engine.note(f"no node has had room for a worker yet: {self.engine.shape}; see `ray status`")
            self.waits_since = now
        if now - self.looked < LOOK:
            return
        self.looked = now
        n = min(self.most, self.engine.capacity(), len(self.items) - self.tries.n_done - self.tries.n_aside)
        for worker in [one for one in self.engine.pool if one not in self.workers]:
            if len(self.workers) < n:
                self._begin(worker)
        while len(self.workers) < n:
            self._begin(self.engine.start())

    def _begin(self, worker: RayWorker) -> None:
        worker.beginning = worker.actor.begin.remote(self.function, str(Path.cwd()), self.mark)
        self.workers.append(worker)

    def _hand_out(self) -> None:
        """Hand idle workers an item each, and one more to those that are quick."""
        for depth in (0, 1):
            for worker in self.workers:
                if worker.beginning is not None or len(worker.calls) != depth or (depth and worker not in self.short):
                    continue
                if (index := self.tries.take()) is None:
                    return
                worker.calls.append((index, worker.actor.call.remote(self.ray.cloudpickle.dumps(self.items[index]))))
                self.began.setdefault(worker, time.monotonic())

    def _heard(self) -> list[RayWorker]:
        by_reference = {worker.awaited: worker for worker in self.workers if worker.awaited is not None}
        if not by_reference:
            time.sleep(POLL)
            return []
        self.ray.wait(list(by_reference), timeout=POLL)
        ready, _ = self.ray.wait(list(by_reference), num_returns=len(by_reference), timeout=0)
        return [by_reference[one] for one in ready]

    def _take(self, worker: RayWorker, lost: Lost[Any, Any] | None) -> Iterator[tuple[int, Any]]:
        """Take what a worker says of the map's beginning, or of its first item. Raises what its call raised."""
        errors = self.ray.exceptions
        try:
            found = self.ray.get(worker.awaited)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:  # the actor or its node died, or the result was lost with a node
            if worker.beginning is None:
                yield from self._died(worker, error, lost)
            else:
                self._failed_to_start(worker, error)
            return
        if worker.beginning is not None:
            worker.place, worker.beginning, self.failed_starts = found, None, 0
            return
        kind, payload = pickle.loads(found)  # noqa: S301 - from our own actor, through Ray
        yield from self._said(worker, kind, payload, lost)

    def _said(
        self, worker: RayWorker, kind: str, payload: Any, lost: Lost[Any, Any] | None
    ) -> Iterator[tuple[int, Any]]:
        if kind == FAILED:
            yield from self._gpu_failed(worker, payload, lost)
            return
        if kind == STOPPED and not self.stopping:  # its node is about to end, and what it did is saved
            index = self._leave_out(worker)
            assert index is not None
            self.tries.give_back(index)
            self.engine.end(worker)
            return
        index, _ = worker.calls.popleft()
        self._timed(worker)
        if kind == RAISED:
            raise payload
        if kind == STOPPED:
            self.tries.running.discard(index)
            return
        self.tries.done(index)
        assert worker.place is not None
        self.engine.faults.pop((worker.place.node, worker.place.gpus), None)
        yield index, payload

    def _timed(self, worker: RayWorker) -> None:
        now = time.monotonic()
        quick = now - self.began.pop(worker) < SHORT
        (self.short.add if quick else self.short.discard)(worker)
        if worker.calls:
            self.began[worker] = now

    def _died(self, worker: RayWorker, error: Exception, lost: Lost[Any, Any] | None) -> Iterator[tuple[int, Any]]:
        """Have a dead worker's item wait again or, after its last death, set it aside. Others take its place."""
        index = self._leave_out(worker)
        self.engine.end(worker)
        if self.stopping or index is None:
            return
        assert worker.place is not None
        host, name = worker.place.host, name_of(self.items[index])
        if not self.engine.lives(worker.place.node) and self.lost_nodes[index] < MOST_LOST_NODES:
            self.lost_nodes[index] += 1
            self.engine.note(f"node {host} was lost with {name}; it is tried again")
            self.tries.give_back(index)
            return
        how = _how_it_ended(error)
        self.engine.note(f"a worker of {host} on {name} {how}; it is tried again")
        if self.tries.died(index):
            yield index, self.tries.result_of_lost(self.items[index], how, lost)

    def _gpu_failed(self, worker: RayWorker, message: str, lost: Lost[Any, Any] | None) -> Iterator[tuple[int, Any]]:
        index = self._leave_out(worker)
        assert index is not None
        self.engine.gpu_failed(worker, message)
        if not self.stopping and self.tries.died(index):
            yield index, self.tries.result_of_lost(self.items[index], f"its GPU failed: {message}", lost)

    def _failed_to_start(self, worker: RayWorker, error: Exception) -> None:
        self._leave_out(worker)
        self.engine.end(worker)
        self.failed_starts += worker.place is None
        text = str(error)
        if "ModuleNotFoundError" in text or self.failed_starts >= MOST_FAILED_STARTS:
            raise OpenclimbError(
                f"workers do not start: {_last_line(text)}",
                "openclimb, its packages and Python must be the same on every node; see docs/clusters.md",
            ) from None

    def _leave_out(self, worker: RayWorker) -> int | None:
        """Take a worker out; return the item that it worked on. Those that it had not begun wait again."""
        first = worker.calls.popleft()[0] if worker.calls else None
        while worker.calls:
            self.tries.give_back(worker.calls.pop()[0])
        if self.stopping:
            self.tries.drop()
            self.tries.running.discard(-1 if first is None else first)
        self.workers = [one for one in self.workers if one is not worker]
        self.short.discard(worker)
        self.began.pop(worker, None)
        self.looked = 0.0  # another may take its place at once
        return first


def _how_it_ended(error: Exception) -> str:
    """Return how a worker ended, for a person, from what Ray says at length."""
    text = str(error)
    if "OOM" in type(error).__name__ or "memory monitor" in text or isinstance(error, MemoryError):
        return "was ended by Ray, as its node was running out of memory"
    for line in text.splitlines():
        detail = line.partition("Worker exit detail: ")[2]
        if detail:
            return "died: " + detail.split(". ")[0][:200]
    return "died: " + _last_line(text)[:200]


def _last_line(text: str) -> str:
    return without_secrets(([line.strip() for line in text.splitlines() if line.strip()] or ["no reason is known"])[-1])


def _call(address: str) -> None:
    """Raise an OSError where nothing listens at HOST:PORT: Ray tries for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()


@contextlib.contextmanager
def _mark(folder: Path | None) -> Iterator[str]:
    """Have a file in a folder by which a worker knows that it sees it; give its path, "" without a folder."""
    if folder is None:
        yield ""
        return
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder.absolute() / f".ray.{writer()}.tmp"  # `sweep` removes what a killed process left
    mark.touch()
    try:
        yield str(mark)
    finally:
        mark.unlink(missing_ok=True)


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep our handlers of signals: `ray.init` puts one in the place of SIGTERM's that exits."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise Interrupted from None
    finally:
        signal.signal(signal.SIGTERM, before)
