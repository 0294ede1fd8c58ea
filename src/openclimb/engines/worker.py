"""One worker: a spawned process that is handed items through a pipe and sends their results back.

It has one thread for its libraries, ignores Ctrl-C (the parent stops it) and ends with its parent, also when that is
killed. What it is handed while it works waits in it, so that neither side ever waits for the other to read.
"""

import atexit
import contextlib
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from openclimb.engines import interruption
from openclimb.engines.devices import VISIBLE, is_fault
from openclimb.engines.engine import DeviceLost
from openclimb.engines.interruption import Interrupted
from openclimb.errors import OpenclimbError
from openclimb.masking import mask_error, without_secrets

THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
WITH_ONE_THREAD = {**dict.fromkeys(THREAD_SETTINGS, "1"), "TOKENIZERS_PARALLELISM": "false"}
DONE, RAISED, STOPPED, FAILED = "done", "raised", "stopped", "failed"  # what a worker says of an item


_STARTED: weakref.WeakSet["Worker"] = weakref.WeakSet()


@atexit.register  # behind the imports: this comes before multiprocessing waits for its processes, whose pipes are open
def _kill_the_rest() -> None:
    """End workers that nobody released."""
    for worker in list(_STARTED):
        worker.signal(signal.SIGKILL)


class Worker:
    """A process, the GPU it may see ("" for none), and the items that it was handed, in order."""

    def __init__(self, device: str | None) -> None:
        self.device = device
        self.items: deque[int] = deque()
        self.function = b""  # the one it has
        context = get_context("spawn")
        self.connection, other = context.Pipe()
        # No daemon: those may have no children of their own, and a user's function may load data in some.
        self.process = context.Process(target=_serve, args=(other,), daemon=False)
        changed = dict(WITH_ONE_THREAD) if device is None else {**WITH_ONE_THREAD, VISIBLE: device}
        with interruption.blocked():
            resource_tracker.ensure_running()  # it unblocks SIGTERM here
        # Libraries read these when they load.
        with _environment(changed), _without_unguarded_script(), interruption.blocked():
            self.process.start()
        other.close()
        _STARTED.add(self)

    def hand(self, index: int, function: bytes, item: Any) -> bool:
        """Hand over an item, and the function where it has another one. Return False where the worker is dead."""
        try:
            self.connection.send((function if function != self.function else b"", index, item))
        except ConnectionError:
            return False
        self.function = function
        self.items.append(index)
        return True

    def receive(self) -> tuple[str, Any] | None:
        """Return (DONE, result), (RAISED, error), (STOPPED, None) or (FAILED, message) of its first item.

        None where the worker died instead.
        """
        try:
            kind, payload = self.connection.recv()
        except (EOFError, OSError):
            return None
        return kind, payload

    def how_it_ended(self) -> str:
        """Wait for a dead process and return how it ended, for a person."""
        self.process.join()
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL:
            return "killed with signal 9, often for want of memory"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.kill(self.process.pid, number)  # type: ignore[arg-type]

    def end(self) -> None:
        """Have it end after what it was handed, and wait for it."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join()
        self.connection.close()

    def kill(self) -> None:
        """End it now."""
        self.signal(signal.SIGKILL)
        self.process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interruption.catch_in_worker()
    handed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, handed), daemon=True).start()
    function: Callable[[Any], Any] | None = None
    while (message := handed.get()) is not None:
        code, _, item = message
        said: tuple[str, Any]
        try:
            if code:
                function = pickle.loads(code)  # noqa: S301 - from our own parent, through a pipe
            assert function is not None
            with interruption.at_once():
                said = (DONE, function(item))
        except Interrupted:
            said = (STOPPED, None)
        except DeviceLost as error:
            said = (FAILED, str(error))
        except BaseException as error:
            said = (FAILED, str(error)) if is_fault(error) else (RAISED, portable(error))
        _send(connection, said)
        if said[0] == FAILED:
            break  # the device cannot be used again from this process


def _send(connection: Connection, said: tuple[str, Any]) -> None:
    payload = packed(*said)
    with contextlib.suppress(ConnectionError):  # the parent is gone, and `_read` ends us
        connection.send_bytes(payload)


def packed(kind: str, payload: Any) -> bytes:
    """Return (kind, payload) pickled; where that cannot be, an error that says so."""
    try:
        return pickle.dumps((kind, payload), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return pickle.dumps((RAISED, TypeError(f"a result cannot be sent to another process: {error}")))


def portable(error: BaseException) -> BaseException:
    """Return an error that can be sent, without secrets; one that nobody foresaw has its traceback as a note."""
    mask_error(error)
    if not isinstance(error, OpenclimbError):
        error.add_note(without_secrets("".join(traceback.format_exception(error))))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was dumped here
    except Exception:  # some errors cannot be made again from their arguments
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.__notes__ = list(getattr(error, "__notes__", []))
        return told
    return error


def _read(connection: Connection, handed: "queue.SimpleQueue[Any]") -> None:
    """Take what comes; end with a parent that was killed: an orphan would write into what another run holds."""
    try:
        while (message := connection.recv()) is not None:
            handed.put(message)
        handed.put(None)
    except (EOFError, OSError):
        os._exit(1)


@contextlib.contextmanager
def _environment(changed: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
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


def signal_all(workers: Sequence[Worker], number: int) -> None:
    """Send all a signal."""
    for worker in workers:
        worker.signal(number)
