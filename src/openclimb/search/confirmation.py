"""The mixtures of the claim beside one another: margins on report items by seeds that had no part in the choice.

Noise is learnt from the trials of the rounds too, but these enter as mixtures of their own, so that the scores by which
a mixture was chosen move no margin (`stats/paired.py`). The choice of items adds the variance
of their paired differences over their number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.search.measures import MEASURES, Items, ItemTable, item_table, objective_table, task_names
from openclimb.search.statistics import seed_noise
from openclimb.stats.intervals import Estimate, estimate
from openclimb.stats.paired import connected, draw_items, draw_means, score_table
from openclimb.trials import Trial

Floats = NDArray[np.float64]

DRAW = 30_000  # stands for the claim in the seed of a draw
FEW_CHAINS, FEW_KEPT = 40, 50  # for the table of single tasks, whose intervals decide nothing


@dataclass(frozen=True)
class Compared:
    """A mixture that was trained with several seeds, and its trials by seed."""

    name: str
    weights: tuple[float, ...]
    trials: tuple[Trial, ...]


class Comparison:
    """The mixtures of the claim with their scores by seed, and draws of their means."""

    def __init__(
        self,
        compared: Sequence[Compared],
        rest: Sequence[Compared],
        items: Items,
        share: Mapping[str, float],
        metric: str,
        seed: int,
    ) -> None:
        """`compared` with their trials of the claim, `rest`: the same and other mixtures with those of the rounds."""
        self.compared, self.everything, self.items, self.share = compared, [*compared, *rest], items, share
        self.key = (seed, DRAW)
        self.search = [{t.seed: sum(share[k] * t.scores[k] for k in share) for t in m.trials} for m in self.everything]
        self.search_noise = seed_noise(self.search, paired=False)
        tables = [
            {task: objective_table(m.trials, items, task, "report", metric) for task in share} for m in self.everything
        ]
        self.report = {m.name: table for m, table in zip(compared, tables, strict=False)}
        self.has_items = bool(task_names(items, "report")) and not all(
            name.endswith("/score") for one in items.values() for name in one
        )
        self.scores = score_table([_objective(table, share) for table in tables])
        self.component = connected(np.isfinite(self.scores))
        self.single = draw_means(self.scores, np.random.default_rng([*self.key, 0]), paired=False)
        self.paired = draw_means(self.scores, np.random.default_rng([*self.key, 1]), paired=True)
        self.measures = self._measures()

    def margin(self, found: Compared, base: Compared) -> Estimate:
        """Return found minus base on report items, over the seeds that both have (all seeds where they share none)."""
        i, j = self.compared.index(found), self.compared.index(base)
        if i == j:
            return Estimate(0.0, 0.0, 0.0)
        there = np.isfinite(self.scores[[i, j]])
        shared = there.all(0)
        used = (shared, shared) if shared.any() else (there[0], there[1])
        draws = self.paired if self.component[i] == self.component[j] and self.paired is not None else self.single
        if draws is None:
            means = [float(self.scores[row, seeds].mean()) for row, seeds in zip((i, j), used, strict=True)]
            drawn = np.full(FEW_CHAINS * FEW_KEPT, means[0] - means[1])
        else:
            drawn = draws[:, i] - draws[:, j]
        rng = np.random.default_rng([*self.key, 2, j])
        for task, share in self.share.items():
            of_items = [
                self.report[m.name][task].scores[seeds[row_seeds]].mean(0)
                for m, seeds, row_seeds in zip((found, base), used, there, strict=True)
            ]
            drawn = drawn + share * draw_items((of_items[0] - of_items[1])[None], len(drawn), rng)[:, 0]
        found_margin = estimate(drawn)
        return found_margin if draws is not None else replace(found_margin, p=1.0)  # of items alone

    def row(self, mixture: Compared) -> dict[str, Any]:
        """Return a mixture's entry in mixture.json."""
        i = self.compared.index(mixture)
        search = list(self.search[i].values())
        error = self.search_noise[0] / np.sqrt(len(search)) if self.search_noise[1] else 0.0
        return {
            "name": mixture.name,
            "weights": mixture.trials[0].mixture.as_dict(),
            "trials": [trial.number for trial in mixture.trials],
            "seeds": [trial.seed for trial in mixture.trials],
            "search": {"mean": float(np.mean(search)), "standard_error": float(error)},
            "report": {**self._report(i), "tasks": self._tasks(mixture)},
        }

    def _report(self, i: int) -> dict[str, Any]:
        drawn = self.single[:, i] if self.single is not None else np.nanmean(self.scores[i]) * np.ones(FEW_KEPT)
        rng = np.random.default_rng([*self.key, 3, i])
        for task, share in self.share.items():
            scores = self.report[self.compared[i].name][task].scores.mean(0)
            drawn = drawn + share * draw_items(scores[None], len(drawn), rng)[:, 0]
        found = estimate(drawn)
        return {"mean": found.mean, "interval": found.interval}

    def _tasks(self, mixture: Compared) -> dict[str, Any]:
        place = self.compared.index(mixture)
        rows: dict[str, Any] = {task: {} for task in task_names(self.items, "report")}
        for (task, metric), found in self.measures.items():
            table = found.tables[place]
            if table is not None:
                one = found.estimate(place, np.random.default_rng([*self.key, 5, place]))
                rows[task][metric] = {"mean": one.mean, "interval": one.interval}
                rows[task]["n"] = table.scores.shape[1]
        return rows

    def _measures(self) -> "dict[tuple[str, str], _Measured]":
        """Return (task, metric) → what the trials say of it, for every measure that report items have."""
        found: dict[tuple[str, str], _Measured] = {}
        for task in task_names(self.items, "report"):
            for metric in MEASURES:
                tables = [item_table(m.trials, self.items, task, "report", metric) for m in self.everything]
                if any(tables):
                    found[task, metric] = _measured(tables, np.random.default_rng([*self.key, 4, len(found)]))
        return found


@dataclass(frozen=True)
class _Measured:
    """One measure of one task: the table of each mixture, None where it has none, and draws of the means of those."""

    tables: Sequence[ItemTable | None]
    draws: Floats | None

    def estimate(self, place: int, rng: np.random.Generator) -> Estimate:
        """Return the estimate of the mean of the mixture at a place, which has a table."""
        column = sum(table is not None for table in self.tables[:place])
        table = self.tables[place]
        assert table is not None
        drawn = self.draws[:, column] if self.draws is not None else np.full(FEW_KEPT, table.scores.mean())
        return estimate(drawn + draw_items(table.scores.mean(0)[None], len(drawn), rng)[:, 0])


def _measured(tables: Sequence[ItemTable | None], rng: np.random.Generator) -> _Measured:
    scores = score_table([table.by_seed for table in tables if table is not None])
    return _Measured(tables, draw_means(scores, rng, paired=False, chains=FEW_CHAINS, keep=FEW_KEPT))


def _objective(tables: Mapping[str, ItemTable], share: Mapping[str, float]) -> dict[int, float]:
    """Return the objective by seed of one mixture's tables by task."""
    by_task = {task: table.by_seed for task, table in tables.items()}
    seeds = next(iter(by_task.values()))
    return {seed: sum(share[task] * by_task[task][seed] for task in share) for seed in seeds}
