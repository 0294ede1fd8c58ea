"""The lock of a workspace: one run at a time. It is the operating system's, on the file `.lock`, which says who."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from openclimb.errors import HeldError


@contextlib.contextmanager
def held(root: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold a workspace while the block runs; raise HeldError when another process does, so long after waiting."""
    with open(root / ".lock", "a+", encoding="utf-8") as file:
        deadline = time.monotonic() + wait_seconds
        while not _locked(file):
            if time.monotonic() >= deadline:
                file.seek(0)
                raise HeldError(
                    f"{root} is held by {file.read().strip() or 'another process'}",
                    "wait for it or stop it; `climb status` reads without holding",
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder(root: Path) -> str:
    """Return who holds a workspace, or "" when nobody does."""
    lock = root / ".lock"
    if not lock.is_file():
        return ""
    with open(lock, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return file.read().strip() or "another process"
    return ""


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
