"""Per-item results of trials as scores: items.npz holds "<task>/<part>/<measure>" arrays, one number an item.

Measures are bits per byte (`bpb`, of the gold answer or of the text) and, for choice tasks, `correct` and
`correct_norm` (0 or 1) and `margin` (bits per byte by which the gold answer is likelier than the best wrong one). A
trial that was scored elsewhere has `score`, one number a task, higher is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import SearchError
from openclimb.workspace.trials import Trial

Floats = NDArray[np.float64]
Items = Mapping[int, Mapping[str, NDArray[Any]]]  # trial number → array name → one number an item

MEASURES = {  # metric → array
    "bpb": "bpb",
    "accuracy": "correct",
    "accuracy_norm": "correct_norm",
    "margin": "margin",
    "score": "score",
}


@dataclass(frozen=True)
class ItemTable:
    """One mixture's scores of one measure of one task: seeds × items."""

    seeds: tuple[int, ...]
    scores: Floats  # (n_seeds, n_items)

    @property
    def by_seed(self) -> dict[int, float]:
        """Mean over the items, for each seed."""
        return dict(zip(self.seeds, self.scores.mean(1).tolist(), strict=True))


def task_names(items: Items, part: str) -> list[str]:
    """Return the tasks that have items in a part, sorted."""
    arrays = {name for one in items.values() for name in one}
    return sorted({name.rsplit("/", 2)[0] for name in arrays if name.endswith((f"/{part}/bpb", f"/{part}/score"))})


def item_table(trials: Sequence[Trial], items: Items, task: str, part: str, metric: str) -> ItemTable | None:
    """Return the scores of a mixture's trials, or None where a task has no such measure (text has no accuracy).

    Raises SearchError when trials were scored on different items.
    """
    name = f"{task}/{part}/{MEASURES[metric]}"
    if not all(name in items.get(trial.number, {}) for trial in trials):
        return None
    rows = [np.asarray(items[trial.number][name], dtype=np.float64) for trial in trials]
    if len({len(row) for row in rows}) > 1:
        raise SearchError(f"trials were scored on different items of {task}", "move trials/ aside and run again")
    table = np.stack(rows)
    if not table.size or (metric.startswith("accuracy") and table.min() < 0):
        return None
    return ItemTable(tuple(trial.seed for trial in trials), table)


def objective_table(trials: Sequence[Trial], items: Items, task: str, part: str, metric: str) -> ItemTable:
    """Return a task's scores in the objective's sense, higher is better: bits per byte change sign.

    A task without the metric (text under accuracy) gives bits per byte. Raises SearchError when it has no items.
    """
    found = item_table(trials, items, task, part, "score")
    if found is not None:
        return found
    found = item_table(trials, items, task, part, metric)
    if found is not None and metric != "bpb":
        return found
    found = item_table(trials, items, task, part, "bpb")
    if found is None:
        raise SearchError(
            f"task {task} has no {part} items in the trials that were compared", "give the task more items"
        )
    return ItemTable(found.seeds, -found.scores)
