"""Scores of a trial before its end, `trials/0017/early.json`: what a search needs to give up on poor trials early.

They are taken while the learning rate stands at its peak, at the same tokens in every trial, so they compare trials
with one another; they are not scores of the finished proxy and never stand in scores.json.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from openclimb.workspace import read_json, write_json

ETA = 3.0  # of so many trials one goes on


@dataclass(frozen=True)
class EarlyScores:
    """A trial's search scores after some tokens of its budget, by task, higher is better."""

    tokens: int
    scores: Mapping[str, float]


def read_early(folder: Path) -> list[EarlyScores]:
    """Return the early scores in a trial's folder, fewest tokens first."""
    path = folder / "early.json"
    return [EarlyScores(**row) for row in read_json(path)] if path.is_file() else []


def write_early(folder: Path, early: EarlyScores) -> None:
    """Add scores to a trial's early.json; those after the same tokens are replaced."""
    others = [row for row in read_early(folder) if row.tokens != early.tokens]
    write_json(folder / "early.json", [asdict(row) for row in sorted([*others, early], key=lambda row: row.tokens)])


def goes_on(value: float, others: Sequence[float], eta: float = ETA) -> bool:
    """Return whether a trial is among the best 1 / eta of those that came as far, itself included.

    `others`: the values of the other trials after the same tokens, however many there are yet: asynchronous successive
    halving (Li et al. 2020), where no trial waits for another. The first always goes on.
    """
    better = sum(other > value for other in others)
    return better < math.ceil((len(others) + 1) / eta)


def best_of(values: Mapping[int, float], eta: float = ETA) -> list[int]:
    """Return the trials, best first, that go on when all of a batch have come as far: one in eta, at least one."""
    ranked = sorted(values, key=lambda number: (-values[number], number))
    return ranked[: math.ceil(len(ranked) / eta)]
