"""Trials on disk: `trials/0017/` with trial.json (asked), claim.json (running), scores.json | failure.json (told).

A trial's state is which files it has. It has one number for life; its identity is the fingerprint of mixture, proxy,
seed, budget and data. Trials are only ever added.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openclimb.errors import SearchError
from openclimb.masking import without_secrets
from openclimb.mixture import Mixture
from openclimb.workspace.files import fingerprint, read_json, write_json

DIGITS = 9  # of a weight: mixtures that differ by less are one
ATTEMPTS = 2  # in one run: a failed trial is retried once
CHECKSUM = "checksum"  # of the rest of trial.json and scores.json but seconds, by which damage is seen
STATE = "state.safetensors"  # of a proxy on its way; gone when the trial is closed


@dataclass(frozen=True)
class Trial:
    """One mixture given to one proxy, with one seed and one token budget, and its scores."""

    number: int
    role: str  # search | finalist | natural | uniform | external (completed or imported by hand)
    iteration: int
    domains: tuple[str, ...]
    weights: tuple[float, ...]
    seed: int
    token_budget: int
    data: str  # fingerprint of the tokens that it reads
    proposer: str
    identity: str
    scores: Mapping[str, float] = field(default_factory=dict)  # search score by task, higher is better
    failure: str = ""
    attempts: int = 0

    @property
    def mixture(self) -> Mixture:
        """The trial's mixture."""
        return Mixture(self.domains, self.weights)

    @property
    def state(self) -> str:
        """done, failed (no attempts left) or waiting."""
        if self.scores:
            return "done"
        return "failed" if self.attempts >= ATTEMPTS else "waiting"


@dataclass(frozen=True)
class Outcome:
    """What became of a trial that was run: what scores.json shall hold, or why it failed."""

    told: Mapping[str, Any] = field(default_factory=dict)  # {"scores": {task: score}, "seconds": …}
    failure: str = ""


@dataclass(frozen=True)
class Proposal:
    """What a trial is asked for, before it has a number."""

    role: str
    iteration: int
    weights: tuple[float, ...]
    seed: int
    proposer: str


def trial_folder(folder: Path, number: int) -> Path:
    """Return the folder of a trial."""
    return folder / f"{number:04d}"


def is_as_written(content: Mapping[str, Any]) -> bool:
    """Return whether what trial.json or scores.json holds is what we wrote; true for a file without a checksum."""
    return CHECKSUM not in content or _checksum(content) == content[CHECKSUM]


def _checksum(content: Mapping[str, Any]) -> str:
    return fingerprint({name: value for name, value in content.items() if name not in (CHECKSUM, "seconds")})


def read_trial(folder: Path) -> Trial:
    """Return the trial in one folder."""
    asked = read_json(folder / "trial.json")
    asked.pop(CHECKSUM, None)
    told: dict[str, Any] = {}
    if (folder / "scores.json").is_file():
        told["scores"] = read_json(folder / "scores.json")["scores"]
    if (folder / "failure.json").is_file():
        failure = read_json(folder / "failure.json")
        told["failure"], told["attempts"] = failure["message"], failure["attempts"]
    mixture = asked.pop("mixture")
    return Trial(domains=tuple(mixture), weights=tuple(mixture.values()), **{**asked, **told})


def read_trials(folder: Path, data: str = "") -> list[Trial]:
    """Return the trials of a workspace by number; with `data`, only those of that fingerprint."""
    if not folder.is_dir():
        return []
    found = [read_trial(path.parent) for path in folder.glob("*/trial.json")]
    return sorted((t for t in found if not data or t.data == data), key=lambda trial: trial.number)


def identity(mixture: Mapping[str, float], seed: int, proxy: Mapping[str, Any], data: str) -> str:
    """Return the fingerprint that two trials share only when they would give the same scores."""
    weights = {name: round(weight, DIGITS) for name, weight in mixture.items() if weight > 0}
    return fingerprint([weights, seed, dict(proxy), data])


def weights_key(weights: Sequence[float]) -> tuple[float, ...]:
    """Return weights as mixtures are told apart by them."""
    return tuple(round(weight, DIGITS) for weight in weights)


def ask(
    folder: Path, proposals: Sequence[Proposal], domains: Sequence[str], proxy: Mapping[str, Any], data: str
) -> list[Trial]:
    """Return a trial for each proposal; those asked before (same identity) keep their number. Writes trial.json."""
    known = {trial.identity: trial for trial in read_trials(folder)}
    number = 1 + max((trial.number for trial in known.values()), default=0)
    trials = []
    for proposal in proposals:
        mixture = dict(zip(domains, map(float, proposal.weights), strict=True))
        key = identity(mixture, proposal.seed, proxy, data)
        if key not in known:
            fields = {k: v for k, v in asdict(proposal).items() if k != "weights"}
            asked = {
                "number": number,
                **fields,
                "token_budget": proxy["token_budget"],
                "data": data,
                "identity": key,
                "mixture": mixture,
            }
            write_json(trial_folder(folder, number) / "trial.json", {**asked, CHECKSUM: _checksum(asked)})
            known[key] = read_trial(trial_folder(folder, number))
            number += 1
        trials.append(known[key])
    return trials


def open_trials(folder: Path, asked: Sequence[Trial]) -> list[Path]:
    """Return the folders of trials that are to be run, each once. Where all of them failed, they may be tried again.

    That all failed ended the run before this one, so nothing was proposed without them; where some succeeded the search
    went on, and a score that came now would change what was proposed after.
    """
    paths = list(dict.fromkeys(trial_folder(folder, trial.number) for trial in asked))
    trials = [read_trial(path) for path in paths]
    if all(trial.state == "failed" for trial in trials):
        reopen(folder, trials)
    return paths


def reopen(folder: Path, trials: Iterable[Trial]) -> list[int]:
    """Let those of these trials that failed be tried again, and return their numbers.

    The message of the failure stays until there is another. A trial that was told as failed by hand stays failed.
    """
    opened = []
    for trial in trials:
        path = trial_folder(folder, trial.number) / "failure.json"
        if trial.state == "failed" and not read_json(path).get("last", False):
            write_json(path, {"message": trial.failure, "attempts": 0})
            opened.append(trial.number)
    return opened


def fitting(folder: Path, proxy: Mapping[str, Any], data: str) -> list[Trial]:
    """Return the trials of these data that were asked under the present settings of what scores them."""
    return [
        trial
        for trial in read_trials(folder, data)
        if trial.identity == identity(trial.mixture.as_dict(), trial.seed, proxy, data)
    ]


def completed_trials(paths: Sequence[Path], label: str) -> list[Trial]:
    """Return those of the closed trials in these folders that have scores. Raises SearchError when all failed."""
    closed = [read_trial(path) for path in paths]
    done = [trial for trial in closed if trial.scores]
    if not done:
        raise SearchError(
            f"all {len(closed)} trials of {label} failed; the last one: {closed[-1].failure}",
            f"see failure.json, and log.txt where there is one, in the folders under {paths[-1].parent}; fix the "
            "cause, and the same command tries them again",
        )
    return done


def claim(folder: Path) -> None:
    """Mark a trial as running in this process."""
    write_json(folder / "claim.json", {"process": os.getpid(), "host": os.uname().nodename})


def tell(folder: Path, scores: Mapping[str, Any]) -> None:
    """Close a trial with its scores: {"scores": {task: number}, …}. Telling the same again changes nothing.

    Raises SearchError when the trial has other scores: a closed trial is never changed.
    """
    if (folder / "scores.json").is_file():
        before = read_json(folder / "scores.json")["scores"]
        if before == scores["scores"]:
            return
        raise SearchError(
            f"trial {int(folder.name)} has its scores already, and they are others: {before}",
            "trials are never changed; ask for a new one",
        )
    write_json(folder / "scores.json", {**scores, CHECKSUM: _checksum(scores)})
    for name in ("claim.json", STATE):
        (folder / name).unlink(missing_ok=True)


def fail(folder: Path, message: str, *, last: bool = False) -> None:
    """Record that an attempt at a trial failed, with its message; after the `last` one it is not tried again.

    Raises SearchError when the trial has scores.
    """
    if (folder / "scores.json").is_file():
        raise SearchError(f"trial {int(folder.name)} has its scores already", "a trial with scores has not failed")
    before = read_json(folder / "failure.json")["attempts"] if (folder / "failure.json").is_file() else 0
    attempts = {"attempts": ATTEMPTS, "last": True} if last else {"attempts": before + 1}
    write_json(folder / "failure.json", {"message": without_secrets(message), **attempts})
    (folder / "claim.json").unlink(missing_ok=True)
