"""An objective that is a program of the user's, started once for each trial.

It finds in the environment CLIMB_TRIAL, the path of a JSON file with the mixture, seed, token budget, repetitions,
domains and the folder `output`, into which it writes scores.json. Writes request.json, log.txt and output-N/ in the
trial's folder.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from openclimb.engines import interruption, watchdog
from openclimb.errors import SearchError
from openclimb.masking import StreamMask, masked_words, secret_values
from openclimb.mixture import Domain, repetitions
from openclimb.objectives.base import parse_scores
from openclimb.workspace.files import write_json
from openclimb.workspace.trials import Trial

GRACE = 2.0  # seconds between asking a command's processes to end and killing them
SIGNALLED = {n for number in interruption.SIGNALS for n in (-number, 128 + number)}  # exit statuses: itself, its shell
POLL = 200  # milliseconds between two looks whether the command has ended
DRAIN = 2.0  # seconds for what stands in its pipe then
PIPE_BYTES = 1 << 16  # read at once
LAST_LINES = 6  # of the log, in the message of a failure
LAST_CHARACTERS = 600


@dataclass(frozen=True)
class Command:
    """An external trainer: a program that is started once for each trial, in the workspace's folder."""

    words: tuple[str, ...]
    timeout: float  # seconds; 0: none
    root: Path
    domains: tuple[Domain, ...]
    target_tokens: int
    tokens: Path | None  # the packed tokens of a workspace with a corpus

    def __call__(self, trial: Trial, folder: Path) -> dict[str, float]:
        """Run the program for a trial and return its scores. Raises SearchError with the end of its log."""
        folder = folder.absolute()  # the program's own folder is the workspace's
        output = _fresh(folder)
        request = folder / "request.json"
        write_json(request, self.request(trial, output))
        log = folder / "log.txt"
        with open(log, "ab") as file:
            file.write(f"{output.name}: {json.dumps(masked_words(self.words))}\n".encode())
            file.flush()
            status = self._run(request, file)
        if status is None:
            raise SearchError(f"the command ran longer than {self.timeout:g} s and was killed{_end_of(log)}")
        if status in SIGNALLED:  # perhaps the signal went to us too, and means no fault of the trial
            interruption.check_settled()
        if status:
            what = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise SearchError(f"the command ended with {what}{_end_of(log)}")
        try:
            return read_scores(output / "scores.json")
        except SearchError as error:
            raise SearchError(error.message + _end_of(log), error.fix) from None

    def request(self, trial: Trial, output: Path) -> dict[str, Any]:
        """Return what the program is told of a trial."""
        mixture = trial.mixture.as_dict()
        weights = np.array([mixture[domain.name] for domain in self.domains])
        times = repetitions(weights, [domain.n_tokens for domain in self.domains], self.target_tokens)
        return {
            "trial": trial.number,
            "mixture": mixture,
            "seed": trial.seed,
            "token_budget": trial.token_budget,
            "repetitions": dict(zip(mixture, times.tolist(), strict=True)),  # of each domain, in the target run
            "domains": [{"name": domain.name, "tokens": domain.n_tokens} for domain in self.domains],
            "tokens": str(self.tokens) if self.tokens else None,
            "output": str(output),
        }

    def _run(self, request: Path, log: IO[bytes]) -> int | None:
        """Return the program's exit status, or None when its time was over. Leaves no process behind."""
        environment = {**os.environ, "CLIMB_TRIAL": str(request)}
        with interruption.postponed():  # from when it is started to when its end is seen to
            try:
                process = subprocess.Popen(
                    self.words, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, bufsize=0, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise SearchError(f"the command cannot be started: {error}", "correct objective.command") from None
            assert process.stdout is not None
            mask = StreamMask(secret_values(self.words))
            with process, _watched(process.pid), _copied(process.stdout.fileno(), log, mask):
                try:
                    with interruption.at_once():
                        return process.wait(self.timeout or None)
                except subprocess.TimeoutExpired:
                    return None
                finally:
                    _end(process)


def read_scores(path: Path) -> dict[str, float]:
    """Return the scores that a program wrote. Raises SearchError when they are missing or cannot be used."""
    try:
        return parse_scores(path.read_bytes(), path.name)
    except FileNotFoundError:
        raise SearchError("the command wrote no scores.json into its output folder") from None
    except OSError as error:
        raise SearchError(f"scores.json cannot be read: {error}") from None


def _fresh(folder: Path) -> Path:
    """Make a new output folder: what an earlier attempt left is kept apart, and nothing of it counts."""
    n = 1
    while (output := folder.absolute() / f"output-{n}").exists():
        n += 1
    output.mkdir(parents=True)
    return output


@contextlib.contextmanager
def _copied(source: int, log: IO[bytes], mask: StreamMask) -> Iterator[None]:
    """Have what comes through a pipe written to `log` inside the block, masked, as it comes.

    A process that outlives the command and holds the pipe is waited for no longer than DRAIN seconds. Raises OSError
    after the block when the log could not be written.
    """
    ended = threading.Event()
    faults: list[OSError] = []
    copier = threading.Thread(target=_copy, args=(source, log, mask, ended, faults), daemon=True)
    copier.start()
    try:
        yield
    finally:
        ended.set()
        copier.join()
    if faults:
        raise faults[0]


def _copy(source: int, log: IO[bytes], mask: StreamMask, ended: threading.Event, faults: list[OSError]) -> None:
    """Copy a pipe until it is closed or, once `ended` is set, empty. What cannot be written is read all the same."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the thread that waits
    ready = select.poll()
    ready.register(source, select.POLLIN)
    deadline = float("inf")
    while time.monotonic() < deadline:
        last = ended.is_set()
        deadline = min(deadline, time.monotonic() + DRAIN) if last else deadline
        if not ready.poll(0 if last else POLL):
            if last:
                break
            continue
        data = os.read(source, PIPE_BYTES)
        if not data:
            break
        _write(log, mask.feed(data), faults)
    _write(log, mask.rest(), faults)


def _write(log: IO[bytes], data: bytes, faults: list[OSError]) -> None:
    if faults:
        return
    try:
        log.write(data)
        log.flush()
    except OSError as error:
        faults.append(error)


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    text = "\n".join(lines[-LAST_LINES:])[-LAST_CHARACTERS:]
    return f"; its log ends with:\n{text}" if text.strip() else ""


@contextlib.contextmanager
def _watched(group: int) -> Iterator[None]:
    """Have a process group killed when this process dies inside the block."""
    program = str(Path(watchdog.__file__))
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", program, str(group)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):
            watcher.communicate(b".")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End all processes of a program's group: ask, wait a little, kill."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):  # all gone; macOS says the second of a group of zombies
            return
        if process.poll() is None and number == signal.SIGTERM:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
