"""Signals that ask to stop now and go on later: SIGTERM and SIGUSR1, which Slurm and Kubernetes send before the end.

A process that catches them (`catch`) raises Interrupted where it is, or, inside `postponed`, at the next `check`: a
step of training must not be cut in two. A signal that comes again changes nothing, as one often comes twice: to the
process group, and from the parent.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: go on later
SETTLING = 0.5  # seconds within which a signal that ended a child of ours reaches this process too


class Interrupted(BaseException):
    """A signal asked to stop. Not an Exception: it is no fault of a trial, a stage or a function of the user's."""


class _Process:
    """What this process knows of signals."""

    asked = False  # a signal came
    first = 0  # its number
    depth = 0  # of `postponed`


def catch() -> None:
    """Catch the signals in this process from now on."""
    _Process.asked, _Process.first, _Process.depth = False, 0, 0
    for number in SIGNALS:
        signal.signal(number, _come)


def catch_in_worker() -> None:
    """Catch the signals in a worker: between its calls they are only noted, so that it can still say that it stops."""
    catch()
    _Process.depth = 1
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def asked() -> bool:
    """Return whether a signal came."""
    return _Process.asked


def first_signal() -> int:
    """Return the number of the signal that came first, 0 where none came."""
    return _Process.first


def check() -> None:
    """Raise Interrupted if a signal came."""
    if _Process.asked:
        raise Interrupted


def asked_within_a_moment() -> bool:
    """Return whether a signal came or comes within a moment: something of ours may have been ended by it."""
    deadline = time.monotonic() + SETTLING
    while not _Process.asked and time.monotonic() < deadline:
        time.sleep(0.02)
    return _Process.asked


def check_settled() -> None:
    """Raise Interrupted if a signal came or comes within a moment."""
    asked_within_a_moment()
    check()


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Only note signals inside the block. Who uses it asks now and then."""
    _Process.depth += 1
    try:
        yield
    finally:
        _Process.depth -= 1


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Raise Interrupted wherever a signal comes inside the block, also where it is called in `postponed`."""
    before, _Process.depth = _Process.depth, 0
    try:
        check()
        yield
    finally:
        _Process.depth = before


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Keep the signals waiting inside the block, also for processes that are started there, until they catch them."""
    with postponed():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _come(number: int, _frame: FrameType | None) -> None:
    first, _Process.asked = not _Process.asked, True
    _Process.first = _Process.first or number
    if first and not _Process.depth:
        raise Interrupted
