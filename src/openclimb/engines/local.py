"""Where per-unit work runs: processes on this machine.

Workers are spawned with one thread each (threads that fight are several times slower than processes),
ignore Ctrl-C (the parent stops them) and end with their parent, also when it is killed. A signal that asks to stop
(`interruption`), to the parent, a worker or all of them, is passed on to all workers, which have a while to save.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from openclimb.engines import interruption
from openclimb.engines.interruption import Interrupted
from openclimb.errors import OpenclimbError
from openclimb.masking import mask_error

Item = TypeVar("Item")
Result = TypeVar("Result")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
AHEAD = 3  # items a process that are handed over at once: a million units are not pickled before the first is read
POLL = 0.2  # seconds between two looks whether a signal came
GRACE = 20.0  # seconds that workers have to save after one; Slurm kills 30 seconds after it asked to stop
THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


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


class LocalEngine:
    """The engine `local`: `workers` processes (0: one a core), kept from one map to the next until released."""

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers or n_cores()
        self._pool: ProcessPoolExecutor | None = None
        self._size = 0

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], workers: int | None = None
    ) -> Iterator[tuple[int, Result]]:
        """Yield (index, function(item)) as results come; the order of completion is not that of the items.

        `function` must be importable by name (or a partial of such). At most `workers` calls run at once, also where
        there are more processes. With one worker or one item it runs here. Raises OpenclimbError when a worker died,
        and Interrupted when a signal asked to stop, after the results that workers still gave.
        """
        n = min(workers or self.workers, len(items))
        if n <= 1:
            for index, item in enumerate(items):
                interruption.check()
                yield index, function(item)
            return
        if self._pool is None or self._size < n:
            self.release()
            self._pool, self._size = _start(n), n
        pool = self._pool
        try:
            # A pool of more processes would start all that it is handed, so it is handed no more than may run.
            with interruption.postponed():
                yield from _results(pool, function, items, AHEAD * n if n == self._size else n)
        except BrokenProcessPool:
            self._pool = None
            interruption.check_settled()
            raise OpenclimbError(
                "a worker process died (often: out of memory)", "run again with fewer workers: [run] workers = 1"
            ) from None
        except BaseException:
            self._pool = None
            _kill(pool)
            pool.shutdown(wait=True, cancel_futures=True)
            raise

    def release(self) -> None:
        """End the worker processes and what they hold in memory; the next map starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _results(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item], most: int
) -> Iterator[tuple[int, Result]]:
    """Yield (index, result) as results come, with at most `most` items handed to the pool at once.

    After a signal no more are handed over, and workers are asked to stop. Raises Interrupted when all have, or GRACE is
    over.
    """
    waiting: dict[Future[Result], int] = {}
    upcoming: Iterator[tuple[int, Item]] = iter(enumerate(items))
    stopping, deadline = False, float("inf")
    while time.monotonic() < deadline:
        if (stopping or interruption.asked()) and deadline == float("inf"):
            _signal(pool, signal.SIGTERM)
            upcoming, stopping, deadline = iter(()), True, time.monotonic() + GRACE
        while len(waiting) < most and (following := next(upcoming, None)) is not None:
            waiting[pool.submit(_call, function, following[1])] = following[0]
        if not waiting:
            break
        for future in wait(waiting, POLL, FIRST_COMPLETED).done:
            index = waiting.pop(future)
            try:
                result = future.result()
            except Interrupted:  # the signal went to that worker alone
                stopping = True
                continue
            except Exception as error:
                mask_error(error)  # its traceback in the worker comes along as text
                raise
            yield index, result
    if stopping:
        raise Interrupted


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    with interruption.at_once():
        return function(item)


def _start(n: int) -> ProcessPoolExecutor:
    before = {name: os.environ.get(name) for name in THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(THREAD_SETTINGS, "1"))  # libraries read these when they load
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        context = get_context("spawn")
        with _without_unguarded_script():
            with interruption.blocked():  # starts multiprocessing's tracker of resources, which unblocks SIGTERM here
                pool = ProcessPoolExecutor(n, mp_context=context, initializer=_initialise, initargs=(os.getpid(),))
            with interruption.blocked():
                for future in [pool.submit(time.sleep, 0.0) for _ in range(n)]:
                    future.result()  # processes start here, while the settings stand
        return pool
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_unguarded_script() -> Iterator[None]:
    """Have workers that start inside not run the user's script again where it has no `if __name__ == "__main__"`.

    A spawned process imports the script that started it, which would call `run` once more in each worker. We hand over
    functions of modules alone, so workers need nothing of it. A script with such a line is imported as ever, for the
    functions that it names as `__main__:NAME`.
    """
    script = sys.modules["__main__"]
    if _is_guarded(getattr(script, "__file__", None)):
        yield
        return
    sys.modules["__main__"] = ModuleType("__main__")  # what multiprocessing looks at
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _is_guarded(file: str | None) -> bool:
    """Return whether a script asks for its `__name__`; True too without one, as in a notebook.

    A program that comes through a pipe has a file that is none ("<stdin>"): workers cannot import it. One that cannot
    be read is left to multiprocessing.
    """
    try:
        return file is None or "__name__" in Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True


def _initialise(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interruption.catch_in_worker()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # the parent was killed: an orphan would write into a workspace that another run holds


def _kill(pool: ProcessPoolExecutor) -> None:
    _signal(pool, signal.SIGKILL)


def _signal(pool: ProcessPoolExecutor, number: int) -> None:
    processes: dict[int, Any] = getattr(pool, "_processes", None) or {}
    for process in list(processes):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
