"""The mixtures of the confirmation beside one another: results on report items by seeds that selected nothing.

Noise is learnt from the trials of the rounds too, but these enter as mixtures of their own, so that the scores by which
a mixture was selected move no margin (`stats/compare.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb import seeds
from openclimb.stats.compare import Comparison, Margin, read_scored
from openclimb.stats.intervals import Estimate, estimate
from openclimb.stats.noise import seed_noise
from openclimb.stats.objective import objective
from openclimb.stats.paired import draw_items, draw_means, score_table
from openclimb.tasks.measures import MEASURES, Items, ItemTable, item_table, task_names
from openclimb.workspace.results import ComparedRow, ReportScore, SearchScore
from openclimb.workspace.trials import Trial

Floats = NDArray[np.float64]

FEW_CHAINS, FEW_KEPT = 40, 50  # for the table of single tasks, whose intervals decide nothing


@dataclass(frozen=True)
class Compared:
    """A mixture that was trained with several seeds, and its trials by seed."""

    name: str
    weights: tuple[float, ...]
    trials: tuple[Trial, ...]


class Confirmation:
    """The mixtures of the confirmation with their scores by seed, and draws of their means."""

    def __init__(
        self,
        compared: Sequence[Compared],
        rest: Sequence[Compared],
        items: Items,
        share: dict[str, float],
        metric: str,
        seed: int,
    ) -> None:
        """`compared` with their trials of the confirmation, `rest`: the same and others with those of the rounds."""
        self.compared, self.everything, self.items, self.seed = compared, [*compared, *rest], items, seed
        self.search = [{t.seed: objective(t.scores, share) for t in m.trials} for m in self.everything]
        self.search_noise = seed_noise(self.search, paired=False)
        self.has_items = bool(task_names(items, "report")) and not all(
            name.endswith("/score") for one in items.values() for name in one
        )
        scored = [read_scored(m.name, m.trials, items, share, metric, "report") for m in self.everything]
        n = len(compared)
        self.comparison = Comparison(scored[:n], share, seed, scored[n:])
        self.measures = self._measures()

    def margin(self, found: Compared, base: Compared) -> Margin:
        """Return found minus base on report items."""
        return self.comparison.margin(self.compared.index(found), self.compared.index(base))

    def row(self, mixture: Compared) -> ComparedRow:
        """Return a mixture's entry in mixture.json."""
        i = self.compared.index(mixture)
        search = list(self.search[i].values())
        error = self.search_noise[0] / np.sqrt(len(search)) if self.search_noise[1] else 0.0
        report = self.comparison.score(i)
        return ComparedRow(
            name=mixture.name,
            weights=mixture.trials[0].mixture.as_dict(),
            trials=[trial.number for trial in mixture.trials],
            seeds=[trial.seed for trial in mixture.trials],
            search=SearchScore(float(np.mean(search)), float(error)),
            report=ReportScore(report.mean, report.interval, self._tasks(i)),
        )

    def _tasks(self, place: int) -> dict[str, Any]:
        rows: dict[str, Any] = {task: {} for task in task_names(self.items, "report")}
        for (task, metric), found in self.measures.items():
            table = found.tables[place]
            if table is not None:
                one = found.estimate(place, seeds.stream(self.seed, "confirmation", 5, place))
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
                    found[task, metric] = _measured(tables, seeds.stream(self.seed, "confirmation", 4, len(found)))
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
