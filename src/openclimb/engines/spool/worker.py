"""A worker: a process of a job that takes chunks from the spools of its pool until there is no more work.

Between maps it stays IDLE seconds for the next, so that what it has loaded stays loaded. A signal that asks to stop
(`interruption`) has its call save; then it gives back what it has not done and ends. After SIGUSR1, which comes before
a job's time limit, its job is asked to run again while there is work.
"""

import contextlib
import os
import pickle
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openclimb.engines import interruption
from openclimb.engines.devices import VISIBLE, is_fault
from openclimb.engines.engine import DeviceLost
from openclimb.engines.interruption import Interrupted
from openclimb.engines.spool.files import BEAT, Call, Chunk, Pool, Spool, check_private
from openclimb.engines.worker import DONE, FAILED, RAISED, STOPPED, packed, portable
from openclimb.errors import OpenclimbError

IDLE = 30.0  # seconds that a worker stays for the next work
QUICK, SLOW = 0.05, 1.0  # seconds between two looks for work: at first, and at most


def serve(pool: Path, job: str, gpus: bool, again: Callable[[], None]) -> bool:
    """Work until there is no more; return whether this process is to start anew, for work that is waiting.

    `again` asks for the job to run once more; without `gpus` none is seen here.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interruption.catch_in_worker()
    if not gpus:
        os.environ[VISIBLE] = ""
    worker = _Worker(Pool(pool), job)
    try:
        restart = worker.work()
    except BaseException as error:
        worker.end(f"{type(error).__name__}: {error}")
        raise
    if interruption.first_signal() == signal.SIGUSR1 and worker.has_work():
        again()
    worker.end("")
    return restart


class _Worker:
    """What a worker knows, and what it says of itself."""

    def __init__(self, pool: Pool, job: str) -> None:
        check_private(pool.path)
        self.pool, self.job = pool, job
        self.name = f"{job}-{uuid.uuid4().hex[:8]}"
        self.generation = pool.generation()
        self.facts: dict[str, Any] = {
            "job": job,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "beat": 0,
            "blind": "",
        }
        self.calls: dict[Path, Call] = {}
        self._lock, self._ended = threading.Lock(), threading.Event()
        self.say()
        threading.Thread(target=self._beat, daemon=True).start()

    def say(self, **facts: Any) -> None:
        """Write what is known of this worker now."""
        with self._lock:
            self.facts |= {**facts, "stopping": interruption.first_signal()}
            self.pool.say(self.name, self.facts)

    def end(self, how: str) -> None:
        """Say that this worker ended, and why where something was wrong."""
        self._ended.set()
        with contextlib.suppress(OSError):  # the pool may be gone
            self.say(ended=True, how=how)

    def work(self) -> bool:
        """Take and do chunks; return whether the process is to start anew, for work of a later generation."""
        idle, wait = time.monotonic(), QUICK
        while not interruption.asked() and time.monotonic() - idle < IDLE and self.pool.path.is_dir():
            found = self._take()
            if found is None:
                if self._outdated():
                    return True
                time.sleep(wait)
                wait = min(SLOW, 1.2 * wait)
                continue
            if not self._do(*found):
                return False
            idle, wait = time.monotonic(), QUICK
        return False

    def has_work(self) -> bool:
        """Return whether something waits to be taken."""
        return any(spool.todo() for spool in self.pool.spools())

    def _outdated(self) -> bool:
        return any(spool.todo() and self._generation(spool) > self.generation for spool in self.pool.spools())

    def _generation(self, spool: Spool) -> int:
        try:
            found, blind = spool.generation(), ""
        except FileNotFoundError:  # it is finished, or this machine does not see it
            found, blind = 0, str(spool.path)
        if self.facts["blind"] != blind:
            self.say(blind=blind)
        return found

    def _take(self) -> tuple[Spool, int, Chunk] | None:
        for spool in self.pool.spools():
            if self._generation(spool) > self.generation:
                continue
            waiting = spool.todo()
            first = hash(self.name) % max(1, min(8, len(waiting)))  # not all workers ask for the same one
            for number in [*waiting[first:], *waiting[:first]]:
                if chunk := spool.claim(number, self.name):
                    return spool, number, chunk
        return None

    def _do(self, spool: Spool, number: int, chunk: Chunk) -> bool:
        """Do a chunk's items; return False where this process must end."""
        try:
            results = spool.results(self.name)
        except FileNotFoundError:
            return True  # the map is finished
        rest = list(chunk)
        said = ""
        try:
            while rest and not interruption.asked() and spool.holds(number, self.name):
                key, item = rest[0]
                said, payload = self._call(spool, item)
                results.add(key, packed(said, payload))
                if said == STOPPED:
                    break
                rest.pop(0)
                if said == FAILED:
                    break
        finally:
            results.close()
            with contextlib.suppress(FileNotFoundError):
                spool.give_back(number, self.name, rest)
        return said not in (STOPPED, FAILED)

    def _call(self, spool: Spool, item: bytes) -> tuple[str, Any]:
        try:
            if spool.path not in self.calls or self.calls[spool.path].generation != spool.generation():
                self.calls = {spool.path: _load(spool)}
            with interruption.at_once():
                return DONE, self.calls[spool.path].function(pickle.loads(item))  # noqa: S301 - our own, see `files`
        except Interrupted:
            return STOPPED, None
        except DeviceLost as error:
            return FAILED, str(error)
        except BaseException as error:
            return (FAILED, str(error)) if is_fault(error) else (RAISED, portable(error))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):
                self.say(beat=self.facts["beat"] + 1)


def _load(spool: Spool) -> Call:
    try:
        return spool.call()
    except (ImportError, AttributeError) as error:
        raise OpenclimbError(
            f"{socket.gethostname()} cannot load what it is to call: {error}",
            "have its module on Python's path on all nodes: PYTHONPATH, or install it where all nodes see it",
        ) from error
    except FileNotFoundError as error:
        raise OpenclimbError(
            f"{socket.gethostname()} does not see {error.filename}",
            "give the command in a folder that all nodes see",
        ) from error
