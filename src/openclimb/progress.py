"""Progress of long work: a live view in a terminal, plain lines in a log, JSON lines, or nothing."""

import json
import sys
import time
from typing import Any, Protocol, TextIO

from openclimb.printable import printable


def silent(text: str) -> None:
    """Say nothing."""


class Progress:
    """Silent progress; the others override its five methods. A stage is told of one, never of a terminal."""

    def start(self, label: str, total: int | None = None, unit: str = "") -> None:
        """Begin a piece of work of `total` units."""

    def advance(self, n: int = 1) -> None:
        """Say that n more units are done."""

    def note(self, text: str) -> None:
        """Say something worth a line."""

    def finish(self, text: str = "") -> None:
        """End the piece of work that was begun last."""

    def close(self) -> None:
        """Put the terminal back."""


class PlainProgress(Progress):
    """One line at the start and the end of a piece of work, and one every `every` seconds between."""

    def __init__(self, stream: TextIO | None = None, every: float = 15.0) -> None:
        self.stream = stream or sys.stderr
        self.every = every
        self.label, self.unit, self.total, self.done = "", "", None, 0  # type: str, str, int | None, int
        self.began = self.told = time.monotonic()

    def start(self, label: str, total: int | None = None, unit: str = "") -> None:
        self.label, self.unit, self.total, self.done = label, unit, total, 0
        self.began = self.told = time.monotonic()
        self._line(f"{label}: {counted(total, unit)}" if total else label)

    def advance(self, n: int = 1) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.told >= self.every:
            self.told = now
            share = f" of {self.total:,}" if self.total else ""
            left = (
                f", about {_span((now - self.began) * (self.total / self.done - 1))} left"
                if self.total and self.done
                else ""
            )
            self._line(f"{self.label}: {self.done:,}{share} {self.unit}{left}")

    def note(self, text: str) -> None:
        self._line(text)

    def finish(self, text: str = "") -> None:
        self._line(f"{self.label}: done in {_span(time.monotonic() - self.began)}{f' · {text}' if text else ''}")

    def _line(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {printable(text)}", file=self.stream, flush=True)


class JsonProgress(Progress):
    """One JSON object a line: event, label, done, total, seconds."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.label, self.done, self.total = "", 0, None  # type: str, int, int | None
        self.began = time.monotonic()

    def start(self, label: str, total: int | None = None, unit: str = "") -> None:
        self.label, self.done, self.total, self.began = label, 0, total, time.monotonic()
        self._event("start", unit=unit)

    def advance(self, n: int = 1) -> None:
        self.done += n
        self._event("advance")

    def note(self, text: str) -> None:
        self._event("note", text=text)

    def finish(self, text: str = "") -> None:
        self._event("finish", text=text)

    def _event(self, event: str, **more: Any) -> None:
        seconds = round(time.monotonic() - self.began, 3)
        row = {"event": event, "label": self.label, "done": self.done, "total": self.total, "seconds": seconds, **more}
        print(json.dumps(row), file=self.stream, flush=True)


class LiveProgress(Progress):
    """A bar for each piece of work; the finished ones stay above, with their time and result."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self.bars = RichProgress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[result]}", style="dim", markup=False),
            console=Console(stderr=True),
        )
        self.bars.start()
        self.task: Any = None

    def start(self, label: str, total: int | None = None, unit: str = "") -> None:
        self.task = self.bars.add_task(label, total=total, unit=unit, result="")

    def advance(self, n: int = 1) -> None:
        if self.task is not None:
            self.bars.advance(self.task, n)

    def note(self, text: str) -> None:
        self.bars.console.print(printable(text), style="dim", markup=False, highlight=False)

    def finish(self, text: str = "") -> None:
        if self.task is not None:
            total = self.bars.tasks[self.task].total or 1
            self.bars.update(self.task, total=total, completed=total, result=printable(text))
            self.task = None

    def close(self) -> None:
        self.bars.stop()


class _HasTty(Protocol):
    def isatty(self) -> bool: ...


def choose_progress(*, quiet: bool, as_json: bool, stream: _HasTty | None = None) -> Progress:
    """Return the progress that fits: JSON lines, nothing, a live view in a terminal, plain lines elsewhere."""
    if as_json:
        return JsonProgress()
    if quiet:
        return Progress()
    return LiveProgress() if (stream or sys.stderr).isatty() else PlainProgress()


def counted(n: int, unit: str) -> str:
    """Return a number with its unit, given in the plural: "1 file", "2,000 files"."""
    return f"{n:,} {unit.removesuffix('s') if n == 1 else unit}".rstrip()


def size_text(n_bytes: float) -> str:
    """Return bytes as people say them: 12 kB, 3.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def _span(seconds: float) -> str:
    """Return seconds as people say them: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
