"""The one loop that runs trials. A failed trial is tried once more and stops nothing.

Where all of them failed the run ends, and the next one tries them again. Writes trials/NNNN/scores.json | failure.json.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import Config, ObjectiveSettings, TasksSettings
from openclimb.engines.devices import is_fault
from openclimb.engines.engine import DeviceLost, Engine
from openclimb.errors import ConfigError, OpenclimbError, nearest
from openclimb.masking import without_secrets
from openclimb.mixture import Domain
from openclimb.objectives.base import Objective, Score
from openclimb.objectives.command import Command
from openclimb.objectives.function import Named, OneByOne, find_function
from openclimb.progress import Progress, silent
from openclimb.system_errors import is_systems
from openclimb.workspace.context import StageContext
from openclimb.workspace.records import trial_settings
from openclimb.workspace.trials import (
    Outcome,
    Proposal,
    Trial,
    ask,
    claim,
    completed_trials,
    fail,
    open_trials,
    read_trial,
    read_trials,
    tell,
    trial_folder,
)


@dataclass(frozen=True)
class TrialRunner:
    """Where the trials of one search or validation are, and what scores them."""

    folder: Path  # of the trials
    root: Path  # of the workspace
    config: Config
    domains: Sequence[Domain]
    tokens: Path | None  # the packed ones; None for custom domains
    data: str  # the fingerprint of what trials read
    context: StageContext

    def run(self, proposals: Iterable[Proposal], label: str, parts: tuple[str, ...] = ("search",)) -> list[Trial]:
        """Return the proposals' trials that have scores, trained where they have none yet."""
        names, config, progress = [domain.name for domain in self.domains], self.config, self.context.progress
        asked = ask(self.folder, list(proposals), names, trial_settings(config), self.data)
        objective = objective_of(config, self.root, self.domains, self.tokens, parts, progress.note)
        return run_trials(self.folder, asked, objective, config.tasks, label, self.context.engine, progress)


Items = dict[int, dict[str, NDArray[np.floating[Any]]]]  # trial → "<task>/<part>/<measure>" → one number an item


def run_trials(
    folder: Path,
    asked: Sequence[Trial],
    objective: Objective,
    tasks: TasksSettings,
    label: str,
    engine: Engine,
    progress: Progress,
) -> list[Trial]:
    """Run the trials that have no scores yet and return all with scores; failed ones are left out.

    All trials of the same data must have scores of the same tasks. Raises SearchError when every trial failed.
    """
    paths = open_trials(folder, asked)
    progress.start(label, len(paths), "trials")
    progress.advance(sum(read_trial(path).state != "waiting" for path in paths))
    expected = {task for one in read_trials(folder, asked[0].data) for task in one.scores}
    while waiting := [path for path in paths if read_trial(path).state == "waiting"]:
        work = objective.work(len(waiting), engine)
        groups = [waiting[i : i + work.together] for i in range(0, len(waiting), work.together)]
        for index, outcomes in engine.map(partial(_run, work.run), groups, work.resources, folder=folder, lost=_killed):
            for path, outcome in zip(groups[index], outcomes, strict=True):
                scores = outcome.told.get("scores", {})
                message = outcome.failure or _other_tasks(scores, expected, tasks)
                if message:
                    fail(path, message)
                    progress.note(f"trial {path.name} failed: {without_secrets(message)}")
                else:
                    tell(path, outcome.told)
                    expected |= set(scores)
                progress.advance(read_trial(path).state != "waiting")
    progress.finish()
    return completed_trials(paths, label)


def _run(run: Callable[[Sequence[Path]], list[Outcome]], folders: Sequence[Path]) -> list[Outcome]:
    for folder in folders:
        claim(folder)
    try:
        return run(folders)
    except ConfigError:
        raise
    except RuntimeError as error:
        if is_fault(error):  # no fault of a trial; another GPU may do it
            raise DeviceLost(str(error)) from error
        return _all_failed(folders, error)
    except (OpenclimbError, ValueError, OSError, MemoryError) as error:
        if is_systems(error):  # a full disk is no fault of a trial: its number would be lost, and all others fail too
            raise
        return _all_failed(folders, error)


def _all_failed(folders: Sequence[Path], error: Exception) -> list[Outcome]:
    return [Outcome(failure=f"{type(error).__name__}: {error}")] * len(folders)


def _killed(folders: Sequence[Path], how: str) -> list[Outcome]:
    """Return what becomes of trials that kill the processes they run in."""
    return [Outcome(failure=how)] * len(folders)


def _other_tasks(scores: Collection[str], expected: Collection[str], tasks: TasksSettings) -> str:
    """Return why these are not the scores that the search expects, or ""."""
    named = sorted({*tasks.weights, *tasks.thresholds} - set(scores))
    if named:
        return f"there is no score for '{named[0]}'{nearest(named[0], scores)}, which [tasks] in climb.toml names"
    unknown, lacking = sorted(set(scores) - set(expected)), sorted(set(expected) - set(scores))
    if expected and unknown:
        return f"there is a score for '{unknown[0]}', which no trial so far has{nearest(unknown[0], expected)}"
    if lacking:
        return f"there is no score for '{lacking[0]}'{nearest(lacking[0], scores)}, which the other trials have"
    return ""


def objective_of(
    config: Config,
    root: Path,
    domains: Sequence[Domain],
    tokens: Path | None,
    parts: tuple[str, ...] = ("search",),
    note: Callable[[str], None] = silent,
) -> Objective:
    """Return the objective of the settings. `tokens` are the packed ones, None for domains given by hand.

    `parts` are the parts of the tasks that the local proxy scores: "search", or "search" and "report"; `note` is given
    what a person should know. Raises ConfigError when it cannot be used.
    """
    if config.objective.external:
        score = load_score(config.objective, root, domains, config.target.token_budget, tokens)
        return OneByOne(score, config.objective.parallel)
    from openclimb.objectives.proxy import LocalProxy

    assert tokens is not None  # without a corpus there is another objective
    return LocalProxy(tokens, config.proxy, config.tasks, config.run, parts, note)


def load_score(
    settings: ObjectiveSettings, root: Path, domains: Sequence[Domain], target_tokens: int, tokens: Path | None
) -> Score:
    """Return what scores a trial by the settings, which do not name the proxy. Raises ConfigError for what cannot."""
    if settings.resolved != "command":
        find_function(settings.kind)
        return Named(settings.kind)
    if not settings.command:
        raise ConfigError("objective.kind is 'command' and there is none", 'set objective.command = "python train.py"')
    packed = tokens.absolute() if tokens else None
    return Command(settings.command, settings.timeout, root.absolute(), tuple(domains), target_tokens, packed)


def stop_if_idle(config: Config) -> None:
    """Raise ConfigError when a command is given that the settings do not use."""
    if config.objective.command and config.objective.resolved != "command":
        raise ConfigError(
            f"objective.command is given, and objective.kind = '{config.objective.kind}' does not use it",
            "take one of them out of climb.toml",
        )


def read_items(folder: Path, trials: Sequence[Trial]) -> Items:
    """Return the per-item results of trials, by number. A trial that was scored elsewhere has one item a task."""
    items: Items = {}
    for trial in trials:
        if not (trial_folder(folder, trial.number) / "items.npz").is_file():
            items[trial.number] = {
                f"{task}/{part}/score": np.array([score], dtype=np.float64)
                for task, score in trial.scores.items()
                for part in ("search", "report")
            }
            continue
        with np.load(trial_folder(folder, trial.number) / "items.npz", allow_pickle=False) as stored:
            items[trial.number] = {name: stored[name] for name in stored.files}
    return items
