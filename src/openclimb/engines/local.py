"""Where per-unit work runs: processes on this machine, one a core, or for work on GPUs one a GPU.

Workers have one thread each (threads that fight are several times slower than processes). One that dies is replaced,
and its item is tried again. A signal that asks to stop (`interruption`), to the parent, a worker or all of them, is
passed on to all workers, which have a while to save.
"""

import contextlib
import ctypes
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from openclimb.config.schema import EngineSettings, RunSettings
from openclimb.engines import interruption
from openclimb.engines.devices import visible_devices
from openclimb.engines.engine import ONE_CORE, DeviceLost, Lost, Resources, Tries, name_of
from openclimb.engines.interruption import Interrupted
from openclimb.engines.worker import FAILED, RAISED, STOPPED, Worker, signal_all
from openclimb.errors import OpenclimbError
from openclimb.progress import silent

Item = TypeVar("Item")
Result = TypeVar("Result")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
SHORT = 1.0  # seconds: a worker whose last item took less is handed the next one before it asks
POLL = 0.2  # seconds between two looks whether a signal came
GRACE = 20.0  # seconds that workers have to save after one; Slurm kills 30 seconds after it asked to stop
GPU_FAULTS = 2  # of a GPU one after the other, and it is left out


def set_allocator(n_bytes: int) -> None:
    """Let this process keep freed blocks below `n_bytes` and give larger ones back to the system at once (glibc only).

    Left to itself, glibc raises that limit to 32 MB as it meets large blocks. That is too high for a stream of
    documents, whose memory then creeps up, and too low for training, which asks for the same large blocks again and
    again: new pages cost a third of its speed.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, n_bytes)
        mallopt(M_TRIM_THRESHOLD, n_bytes)


def n_cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make(settings: RunSettings, _own: EngineSettings, note: Callable[[str], None]) -> "LocalEngine":
    """Return the engine of the settings."""
    return LocalEngine(settings.workers, None if settings.device == "auto" else visible_devices(settings.device), note)


class LocalEngine:
    """The engine `local`: `workers` processes (0: one a core), kept from one map to the next until released.

    `devices` are names of GPUs, of which each worker sees one; None: those that this process may use.
    """

    def __init__(
        self, workers: int = 0, devices: Sequence[str] | None = None, note: Callable[[str], None] = silent
    ) -> None:
        self.workers = workers or n_cores()
        self._named = devices
        self.note = note
        self._failed: dict[str, int] = {}  # GPU → faults one after the other
        self._pool: list[Worker] = []

    here = True

    @property
    def gpus(self) -> int:
        """How many GPUs there are that have not failed."""
        return len(self._devices)

    @property
    def _devices(self) -> list[str]:
        if self._named is None:
            self._named = visible_devices("auto")
        return [name for name in self._named if self._failed.get(name, 0) < GPU_FAULTS]

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        resources: Resources = ONE_CORE,
        *,
        folder: Path | None = None,  # noqa: ARG002 - workers end with this process, and nothing of them is kept
        lost: Lost[Item, Result] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Yield (index, function(item)) as results come; the order of completion is not that of the items.

        See `Engine.map`. With one worker or one item it runs here, where a death cannot be survived. Raises Interrupted
        when a signal asked to stop, after the results that workers still gave.
        """
        devices = self._devices if resources.gpus else []
        each = int(1 / resources.gpus) if devices else 0  # processes of a GPU
        most = min(resources.at_once or self.workers, len(items), *([each * len(devices)] if devices else []))
        if most <= 1:
            yield from _here(function, items)
            return
        workers = self._on_gpus(most, devices, each) if devices else self._on_cores(most)
        work = _Map(self, pickle.dumps(function, pickle.HIGHEST_PROTOCOL), items, workers)
        with interruption.postponed():
            try:
                yield from work.results(lost)
            except BaseException:
                self._kill()
                raise

    def release(self) -> None:
        """End the worker processes and what they hold in memory; the next map starts new ones."""
        for worker in self._pool:
            worker.end()
        self._pool = []

    def _on_gpus(self, n: int, devices: Sequence[str], each: int) -> list[Worker]:
        """Return n workers, at most `each` of a GPU and spread over all; those that live are taken first."""
        found = list[Worker]()
        for device in [device for _ in range(each) for device in devices][:n]:
            worker = next((one for one in self._pool if one.device == device and one not in found), None)
            found.append(worker or self._start(device))
        return found

    def _on_cores(self, n: int) -> list[Worker]:
        hidden = "" if self._named == () else None
        while len(self._pool) < n:
            self._start(hidden)
        return self._pool[:n]

    def replace(self, worker: Worker) -> Worker | None:
        """Return a new worker for a dead one, on a GPU that works; None where there is none for it."""
        self.forget(worker)
        if worker.device and worker.device not in self._devices:
            return None
        return self._start(worker.device)

    def forget(self, worker: Worker) -> None:
        """Leave a dead worker out."""
        worker.kill()
        self._pool = [one for one in self._pool if one is not worker]

    def gpu_failed(self, device: str, message: str) -> None:
        """Note a fault of a GPU; after GPU_FAULTS one after the other it is left out, and a person is told."""
        self._failed[device] = self._failed.get(device, 0) + 1
        if self._failed[device] == GPU_FAULTS:
            self.note(f"GPU {device} failed {GPU_FAULTS} times and is left out: {message.splitlines()[0]}")

    def gpu_worked(self, device: str) -> None:
        """Note that a GPU gave a result."""
        self._failed.pop(device, None)

    def _start(self, device: str | None) -> Worker:
        worker = Worker(device)
        self._pool.append(worker)
        return worker

    def _kill(self) -> None:
        for worker in self._pool:
            worker.signal(signal.SIGKILL)
        for worker in self._pool:
            worker.kill()
        self._pool = []


def _here(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
    for index, item in enumerate(items):
        interruption.check()
        try:
            result = function(item)
        except DeviceLost as error:
            raise OpenclimbError(f"the GPU failed: {error}", "what is done is kept; run again to go on") from None
        yield index, result


class _Map:
    """One map: its items, who works on what, and what is left to do."""

    def __init__(self, engine: LocalEngine, function: bytes, items: Sequence[Any], workers: list[Worker]) -> None:
        self.engine, self.function, self.items, self.workers = engine, function, items, workers
        self.tries = Tries(len(items))
        self.short: set[Worker] = set()  # those whose last item took less than SHORT
        self.began: dict[Worker, float] = {}
        self.stopping = False  # a signal came, here or to a worker

    def results(self, lost: Lost[Any, Any] | None) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as results come.

        After a signal nothing more is handed over, and workers are asked to stop. Raises Interrupted when all have, or
        GRACE is over.
        """
        deadline = float("inf")
        while not self.tries.finished() and time.monotonic() < deadline:
            if (self.stopping or interruption.asked()) and deadline == float("inf"):
                signal_all(self.workers, signal.SIGTERM)
                self.tries.drop()
                self.stopping, deadline = True, time.monotonic() + GRACE
            if not self.stopping:
                self._hand_out()
            for worker in self._heard():
                heard = worker.receive()
                if heard is None or heard[0] == FAILED:
                    yield from self._died(worker, heard, lost)
                else:
                    yield from self._said(worker, *heard)
        if self.stopping:
            raise Interrupted

    def _said(self, worker: Worker, kind: str, payload: Any) -> Iterator[tuple[int, Any]]:
        """Take what a worker says of its first item. Raises what its call raised."""
        index = worker.items.popleft()
        self._timed(worker)
        if kind == RAISED:
            raise payload
        if kind == STOPPED:  # the signal went to that worker alone
            self.tries.running.discard(index)
            self.stopping = True
            return
        self.tries.done(index)
        if worker.device:
            self.engine.gpu_worked(worker.device)
        yield index, payload

    def _hand_out(self) -> None:
        """Hand idle workers an item each, and one more to those that are quick."""
        for depth in (0, 1):
            for worker in list(self.workers):
                if len(worker.items) != depth or (depth and worker not in self.short):
                    continue
                if (index := self.tries.take()) is None:
                    return
                if not worker.hand(index, self.function, self.items[index]):
                    self.tries.give_back(index)
                    self._replace(worker)
                    continue
                self.began.setdefault(worker, time.monotonic())

    def _heard(self) -> list[Worker]:
        by_connection = {worker.connection: worker for worker in self.workers if worker.items}
        ready = wait(list(by_connection), POLL)
        return [by_connection[one] for one in ready]  # type: ignore[index]

    def _timed(self, worker: Worker) -> None:
        now = time.monotonic()
        quick = now - self.began.pop(worker) < SHORT
        (self.short.add if quick else self.short.discard)(worker)
        if worker.items:
            self.began[worker] = now

    def _died(
        self, worker: Worker, heard: tuple[str, Any] | None, lost: Lost[Any, Any] | None
    ) -> Iterator[tuple[int, Any]]:
        """Put another worker in a dead one's place; its item waits again or, after its last death, is set aside."""
        self.stopping = self.stopping or (heard is None and interruption.asked_within_a_moment())
        if self.stopping:
            self._forget(worker)
            return
        first, others = worker.items[0], list(worker.items)[1:]
        for index in reversed(others):
            self.tries.give_back(index)
        if heard is None:
            how = worker.how_it_ended()
            self.engine.note(f"a worker on {name_of(self.items[first])} {how}; it is tried again")
        else:
            how = f"its GPU failed: {heard[1]}"
            self.engine.gpu_failed(worker.device or "", heard[1])
        self._replace(worker)
        if self.tries.died(first):
            yield first, self.tries.result_of_lost(self.items[first], how, lost)

    def _replace(self, worker: Worker) -> None:
        another = self.engine.replace(worker)
        self.began.pop(worker, None)
        self.short.discard(worker)
        self.workers = [one for one in self.workers if one is not worker] + ([another] if another else [])
        if not self.workers:
            raise OpenclimbError("every GPU has failed", "see the messages above; run again with run.device = 'cpu'")

    def _forget(self, worker: Worker) -> None:
        for index in worker.items:
            self.tries.running.discard(index)
        self.engine.forget(worker)
        self.workers.remove(worker)
