"""The seam "objective": (trial, its folder) → {task: score}, higher is better. Here: commands and strangers' functions.

The local proxy is `trial_runs.py`. A command finds in the environment CLIMB_TRIAL, the path of a JSON file with the
mixture, seed, token budget, repetitions, domains and the folder `output`, into which it writes scores.json. What goes
wrong (exit status, time-out, scores that are missing or no numbers, other tasks) makes a failed trial, which is retried
once and keeps its log; where all failed, the next run tries them again. Writes trials/NNNN/request.json, log.txt,
output-N/ and, last, scores.json | failure.json.
"""

import contextlib
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from openclimb.console import Progress
from openclimb.engine import Engine
from openclimb.errors import ConfigError, SearchError, nearest
from openclimb.mixture import Domain, repetitions
from openclimb.settings import Config, ObjectiveSettings, TasksSettings
from openclimb.trials import Trial, claim, fail, open_trials, read_trial, read_trials, tell, told_trials
from openclimb.workspace import write_json

Objective = Callable[[Trial, Path], Mapping[str, float]]

GRACE = 2.0  # seconds between asking a command's processes to end and killing them
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
            file.write(f"{output.name}: {json.dumps(self.words)}\n".encode())
            file.flush()
            status = self._run(request, file)
        if status is None:
            raise SearchError(f"the command ran longer than {self.timeout:g} s and was killed{_end_of(log)}")
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
        try:
            process = subprocess.Popen(
                self.words, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise SearchError(f"the command cannot be started: {error}", "correct objective.command") from None
        with process, _leash(process.pid):
            try:
                return process.wait(self.timeout or None)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _end(process)


@dataclass(frozen=True)
class Named:
    """A function of the user's, by its name in the settings: `package.module:function`."""

    name: str

    def __call__(self, trial: Trial, folder: Path) -> dict[str, float]:
        """Return the function's scores, checked. Raises SearchError for what is no score."""
        return checked_scores(find_function(self.name)(trial, folder), self.name)


def find_function(name: str) -> Objective:
    """Return the function that `package.module:function` names. Raises ConfigError when there is none."""
    module, _, function = name.partition(":")
    try:
        found: Objective = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"objective.kind = '{name}' cannot be loaded: {error}", "write package.module:function"
        ) from None
    return found


def load_objective(
    settings: ObjectiveSettings, root: Path, domains: Sequence[Domain], target_tokens: int, tokens: Path | None
) -> Objective:
    """Return the objective of the settings, which must not be the proxy. Raises ConfigError when it cannot be used."""
    if settings.resolved == "command":
        if not settings.command:
            raise ConfigError(
                "objective.kind is 'command' and there is none", 'set objective.command = "python train.py"'
            )
        packed = tokens.absolute() if tokens else None
        return Command(settings.command, settings.timeout, root.absolute(), tuple(domains), target_tokens, packed)
    find_function(settings.kind)
    return Named(settings.kind)


def run_objective(
    folder: Path,
    asked: Sequence[Trial],
    objective: Objective,
    parallel: int,
    tasks: TasksSettings,
    label: str,
    engine: Engine,
    progress: Progress,
) -> list[Trial]:
    """Run the trials that have no scores yet by an objective and return all with scores; failed ones are left out.

    All trials of the same data must have scores of the same tasks. Raises SearchError when every trial failed.
    """
    paths = open_trials(folder, asked)
    progress.start(label, len(paths), "trials")
    progress.advance(sum(read_trial(path).state != "waiting" for path in paths))
    expected = {task for one in read_trials(folder, asked[0].data) for task in one.scores}
    while waiting := [path for path in paths if read_trial(path).state == "waiting"]:
        for index, result in engine.map(partial(_measure, objective), waiting, workers=parallel):
            path = waiting[index]
            message = result.message or _other_tasks(result.scores, expected, tasks)
            if message:
                fail(path, message)
                progress.note(f"trial {path.name} failed: {message}")
            else:
                tell(path, {"scores": result.scores, "seconds": round(result.seconds, 3)})
                expected |= set(result.scores)
            progress.advance(read_trial(path).state != "waiting")
    progress.finish()
    return told_trials(paths, label)


@dataclass(frozen=True)
class _Result:
    scores: dict[str, float]
    message: str
    seconds: float


def _measure(objective: Objective, path: Path) -> _Result:
    claim(path)
    began = time.monotonic()
    try:
        scores = dict(objective(read_trial(path), path))
    except ConfigError:
        raise
    except Exception as error:  # a stranger's function may raise anything; it fails its trial, not the search
        message = error.message if isinstance(error, SearchError) else f"{type(error).__name__}: {error}"
        return _Result({}, message, time.monotonic() - began)
    return _Result(scores, "", time.monotonic() - began)


def read_scores(path: Path) -> dict[str, float]:
    """Return the scores that a program wrote. Raises SearchError when they are missing or cannot be used."""
    try:
        return checked_scores(json.loads(path.read_text(encoding="utf-8")), path.name)
    except FileNotFoundError:
        raise SearchError("the command wrote no scores.json into its output folder") from None
    except (ValueError, OSError) as error:
        raise SearchError(f"scores.json cannot be read: {error}") from None


def checked_scores(found: Any, what: str) -> dict[str, float]:
    """Return scores as {task: number}. Raises SearchError when they are not: no mapping, empty, not finite numbers."""
    if not isinstance(found, Mapping) or not found:
        raise SearchError(f'{what} must hold {{"task": score}}, one number a task')
    for task, score in found.items():
        if (
            not isinstance(score, (int, float, np.integer, np.floating))
            or isinstance(score, bool)
            or not math.isfinite(score)
        ):
            raise SearchError(f"{what}: the score of '{task}' is {score!r}, no finite number")
    return {str(task): float(score) for task, score in found.items()}


def _other_tasks(scores: Collection[str], expected: Collection[str], tasks: TasksSettings) -> str:
    """Return why these are not the scores that the search expects, or ""."""
    named = sorted({*tasks.weights, *tasks.at_least} - set(scores))
    if named:
        return f"there is no score for '{named[0]}'{nearest(named[0], scores)}, which [tasks] in climb.toml names"
    unknown, lacking = sorted(set(scores) - set(expected)), sorted(set(expected) - set(scores))
    if expected and unknown:
        return f"there is a score for '{unknown[0]}', which no trial so far has{nearest(unknown[0], expected)}"
    if lacking:
        return f"there is no score for '{lacking[0]}'{nearest(lacking[0], scores)}, which the other trials have"
    return ""


def stop_if_idle(config: Config) -> None:
    """Raise ConfigError when a command is given that the settings do not use."""
    if config.objective.command and config.objective.resolved != "command":
        raise ConfigError(
            f"objective.command is given, and objective.kind = '{config.objective.kind}' does not use it",
            "take one of them out of climb.toml",
        )


def _fresh(folder: Path) -> Path:
    """Make a new output folder: what an earlier attempt left is kept apart, and nothing of it counts."""
    n = 1
    while (output := folder.absolute() / f"output-{n}").exists():
        n += 1
    output.mkdir(parents=True)
    return output


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    text = "\n".join(lines[-LAST_LINES:])[-LAST_CHARACTERS:]
    return f"; its log ends with:\n{text}" if text.strip() else ""


@contextlib.contextmanager
def _leash(group: int) -> Iterator[None]:
    """Have a process group killed when this process dies inside the block."""
    program = str(Path(__file__).with_name("leash.py"))
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
