"""The lock of a workspace: one run at a time.

It is the operating system's (flock), on the file `.lock`, which says who. Where the file system has none, as some
network file systems, it is the file `.lock.held`, which is there while somebody holds the workspace. One that a dead
process of this host left is taken over; whether a process of another host still runs cannot be seen from here.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from openclimb.errors import HeldError
from openclimb.progress import silent
from openclimb.workspace.files import is_alive

WAIT = 3.0  # seconds that a run waits for who holds the workspace a moment, as `climb tell` does
LOCKED = (errno.EWOULDBLOCK, errno.EACCES)  # what flock says where another has the lock; all else: there are no locks
FILE, HELD = ".lock", ".lock.held"


@contextlib.contextmanager
def held(root: Path, wait_seconds: float | None = None, note: Callable[[str], None] = silent) -> Iterator[None]:
    """Hold a workspace while the block runs; raise HeldError when another process does, so long after waiting.

    `wait_seconds`: None for WAIT. `note` is given a sentence where the file system has no locks.
    """
    deadline = time.monotonic() + (WAIT if wait_seconds is None else wait_seconds)
    with open(root / FILE, "a+", encoding="utf-8") as file:
        while True:
            locked = _flock(file, fcntl.LOCK_EX)
            other = _holder_by_file(root) if locked else _make(root) if locked is None else _read(file) or {}
            if other is None:
                break
            if locked:
                fcntl.flock(file, fcntl.LOCK_UN)
            if time.monotonic() >= deadline:
                raise _held_error(root, other, by_file=locked is not False)
            time.sleep(0.05)
        if locked:
            file.truncate(0)
            file.write(json.dumps(_me()))
            file.flush()
        else:
            note(f"{root} is on a file system without locks: the file {HELD} keeps other runs out")
        try:
            yield
        finally:
            file.truncate(0)
            if not locked:
                (root / HELD).unlink(missing_ok=True)


def holder(root: Path) -> str:
    """Return who holds a workspace, or "" when nobody does. Takes no lock that keeps a run out."""
    if other := _holder_by_file(root):
        return _named(other)
    lock = root / FILE
    if not lock.is_file():
        return ""
    with open(lock, encoding="utf-8") as file:
        there = _read(file)
        if there and there.get("host") == socket.gethostname():
            return _named(there) if _may_run(there) else ""
        # Another host's, or one that does not say whose it is. A run that comes in this moment waits.
        return _named(there or {}) if _flock(file, fcntl.LOCK_SH) is False else ""


def _flock(file: IO[str], kind: int) -> bool | None:
    """Return whether the lock of a file could be had, or None where the file system has none."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in LOCKED else None
    return True


def _make(root: Path) -> dict[str, Any] | None:
    """Make the file that holds a workspace; return None, or who has made it before."""
    path = root / HELD
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(_me(), file)
        return None
    except FileExistsError:
        other = _holder_by_file(root)
    if other is None:  # nobody any more: the next try makes it
        _take_away(path)
    return other or {}


def _take_away(path: Path) -> None:
    """Remove what a dead process left, unless a living one has just put its own there."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if _may_run(_parsed(aside.read_text(encoding="utf-8"))):
            os.rename(aside, path)
        else:
            aside.unlink()


def _holder_by_file(root: Path) -> dict[str, Any] | None:
    """Return who holds a workspace by a file, {} for who does not say so, and None for nobody who may still run."""
    try:
        there = _parsed((root / HELD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return there if _may_run(there) else None


def _me() -> dict[str, Any]:
    process = os.getpid()
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return {"process": process, "host": socket.gethostname(), "since": since, "started": _started(process)}


def _read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    return _parsed(file.read())


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _may_run(there: dict[str, Any]) -> bool:
    """Return whether a holder may still run: it does here, or is on another host, or does not say where it is."""
    process = there.get("process")
    if not isinstance(process, int) or there.get("host") != socket.gethostname():
        return True
    now = _started(process)
    return is_alive(process) and (not now or not there.get("started") or now == there["started"])


def _started(process: int) -> str:
    """Return when a process started, as Linux counts it; "ended" for one that ended; "" where that cannot be known."""
    try:
        state, *more = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if state in "ZX" else more[18]


def _named(there: dict[str, Any]) -> str:
    if "process" not in there:
        return "another process"
    return f"process {there['process']} on {there.get('host')} since {there.get('since')}"


def _held_error(root: Path, other: dict[str, Any], *, by_file: bool) -> HeldError:
    fix = "wait for it or stop it; `climb status` reads without holding"
    if by_file and other.get("host") != socket.gethostname():
        fix = f"wait for it or stop it; this machine cannot see whether it still runs: if not, remove {root / HELD}"
    return HeldError(f"{root} is held by {_named(other)}", fix)
