"""What the stages of a workspace really took, by the rows of a plan: from records and trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from openclimb import seeds
from openclimb.config.schema import Config
from openclimb.workspace.files import read_json
from openclimb.workspace.records import STAGES
from openclimb.workspace.trials import read_trials, trial_folder

ROWS = {"replicate": "replicates", "search": "search"}  # role of a trial → row; the others are of the selection


@dataclass(frozen=True)
class Real:
    """What was done: seconds of each row, trials of each batch of a row, and whether there is an answer."""

    seconds: Mapping[str, float]
    batches: Mapping[str, list[int]]
    answered: bool


def real(root: Path, config: Config, workers: int) -> Real:
    """Return what the stages took that are done. `workers`: trials that ran at once, which the trials do not say.

    Trials that were completed by hand have no seconds and are left out. A batch lasts as long as its trials, one after
    the other on each worker; those of a GPU share their seconds already.
    """
    took = {}
    for stage in STAGES:
        path = root / stage / "record.json"
        if path.is_file():
            took[stage] = float(read_json(path)["seconds"])
    whole = took.pop("mixture", 0.0)
    trials = _trials(root, config)
    took |= {row: sum(_seconds(one, workers) for one in batches.values()) for row, batches in trials.items()}
    if whole and trials:
        took["predictions"] = max(0.0, whole - sum(took[row] for row in trials))
    return Real(took, {row: [len(one) for one in batches.values()] for row, batches in trials.items()}, bool(whole))


def _trials(root: Path, config: Config) -> Mapping[str, Mapping[tuple[str, int], list[tuple[float, bool]]]]:
    """Return {row: {batch: (seconds, on a GPU?) of each trial}}."""
    rounds = seeds.rounds(config.seed, config.selection.seeds)
    found: dict[str, dict[tuple[str, int], list[tuple[float, bool]]]] = {}
    for trial in read_trials(root / "trials"):
        path = trial_folder(root / "trials", trial.number) / "scores.json"
        about = read_json(path) if path.is_file() else {}
        if "seconds" not in about or trial.role == "external":
            continue
        row = ROWS.get(trial.role, "selection")
        turn = trial.iteration if row != "selection" else rounds.index(trial.seed) if trial.seed in rounds else -1
        one = (float(about["seconds"]), about.get("device") == "cuda")
        found.setdefault(row, {}).setdefault((row, turn), []).append(one)
    return found


def _seconds(trials: Sequence[tuple[float, bool]], workers: int) -> float:
    seconds = [each for each, _ in trials]
    if any(on_gpu for _, on_gpu in trials):
        return sum(seconds)
    return fmean(seconds) * math.ceil(len(seconds) / workers)
