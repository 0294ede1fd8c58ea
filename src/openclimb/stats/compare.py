"""How sure the difference between trained mixtures is: the one place that compares them.

Mixtures are trained with the same seeds and scored on the same items. Draws of their objectives are those of the model
of trial noise (`stats/paired.py`) and of the choice of items, the same items for all mixtures. Margins, their intervals
and p-values, and the probability of being the best are all counts of these draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb import seeds
from openclimb.stats.intervals import Estimate, estimate
from openclimb.stats.multiple import comparison, holm, significant
from openclimb.stats.objective import objective
from openclimb.stats.paired import connected, draw_items, draw_means, score_table
from openclimb.tasks.measures import Items, objective_table
from openclimb.workspace.results import MarginRow
from openclimb.workspace.trials import Trial

Floats = NDArray[np.float64]

FEW_DRAWS = 2000  # where there is no model of trial noise to draw from


@dataclass(frozen=True)
class Scored:
    """One mixture's results: for each task seeds × items, higher is better."""

    name: str
    seeds: tuple[int, ...]
    tasks: Mapping[str, Floats]

    def by_seed(self, share: Mapping[str, float]) -> dict[int, float]:
        """Return the objective of each seed."""
        means = {task: scores.mean(1).tolist() for task, scores in self.tasks.items()}
        return {seed: objective({task: means[task][i] for task in share}, share) for i, seed in enumerate(self.seeds)}


def read_scored(
    name: str, trials: Sequence[Trial], items: Items, share: Mapping[str, float], metric: str, part: str
) -> Scored:
    """Return the results of one mixture's trials, one a seed, on a part of the items."""
    tasks = {task: objective_table(trials, items, task, part, metric).scores for task in share}
    return Scored(name, tuple(trial.seed for trial in trials), tasks)


@dataclass(frozen=True)
class Margin:
    """Ours minus another mixture."""

    estimate: Estimate
    seeds: int  # of the one that has fewer
    adjusted: float = 1.0  # p-value after Holm, over the comparisons of ours

    @property
    def better(self) -> bool:
        """Whether ours is better, significantly."""
        return self.estimate.mean > 0 and significant(self.adjusted)

    @property
    def worse(self) -> bool:
        """Whether ours is worse, significantly."""
        return self.estimate.mean < 0 and significant(self.adjusted)

    def row(self) -> MarginRow:
        """Return the margin as mixture.json and validation.json have it."""
        said, found = comparison(self.estimate.mean, self.adjusted), self.estimate
        return MarginRow(found.mean, found.interval, found.p, self.adjusted, said)

    def __str__(self) -> str:
        low, high = self.estimate.interval
        return f"{self.estimate.mean:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, {self.seeds} seeds)"


def correct(margins: Mapping[str, Margin]) -> dict[str, Margin]:
    """Return the margins with p-values adjusted by Holm for their number."""
    adjusted = holm([margin.estimate.p for margin in margins.values()])
    return {name: replace(one, adjusted=p) for (name, one), p in zip(margins.items(), adjusted, strict=True)}


class Comparison:
    """Mixtures beside one another, with draws of their means."""

    def __init__(
        self, scored: Sequence[Scored], share: Mapping[str, float], seed: int, others: Sequence[Scored] = ()
    ) -> None:
        """`share`: task → weight in the objective. `others` tell of the noise only: trials that selected a mixture

        stand there as mixtures of their own, so that the scores by which it was selected move no margin.
        """
        self.scored, self.share, self.seed = scored, share, seed
        self.scores = score_table([one.by_seed(share) for one in [*scored, *others]])
        self.component = connected(np.isfinite(self.scores))
        self.single = draw_means(self.scores, self._stream(0), paired=False)
        self.paired = draw_means(self.scores, self._stream(1), paired=True)

    def margin(self, ours: int, other: int) -> Margin:
        """Return one mixture minus another over the seeds that both have (all seeds where they share none).

        One seed claims nothing: its p-value is 1.
        """
        rows = [ours, other]
        fewest = min(len(self.scored[row].seeds) for row in rows)
        if ours == other:
            return Margin(Estimate(0.0, 0.0, 0.0), fewest)
        there = np.isfinite(self.scores[rows])
        shared = there.all(0)
        used = (shared, shared) if shared.any() else (there[0], there[1])
        same = self.component[ours] == self.component[other]
        draws = self.paired if same and self.paired is not None else self.single
        if draws is None:
            means = [float(self.scores[row, mine].mean()) for row, mine in zip(rows, used, strict=True)]
            drawn = np.full(FEW_DRAWS, means[0] - means[1])
        else:
            drawn = draws[:, ours] - draws[:, other]
        rng = self._stream(2, other)
        for task, weight in self.share.items():
            of_items = [
                self.scored[row].tasks[task][mine[own]].mean(0)
                for row, mine, own in zip(rows, used, there, strict=True)
            ]
            drawn = drawn + weight * draw_items((of_items[0] - of_items[1])[None], len(drawn), rng)[:, 0]
        found = estimate(drawn)
        return Margin(found if draws is not None and fewest > 1 else replace(found, p=1.0), fewest)

    def margins(self, ours: str) -> dict[str, Margin]:
        """Return one mixture minus each other one, by name, corrected by Holm for all of them."""
        names = [one.name for one in self.scored]
        return correct({name: self.margin(names.index(ours), i) for i, name in enumerate(names) if name != ours})

    def score(self, row: int) -> Estimate:
        """Return the objective of one mixture, over seeds and items."""
        drawn = self.single[:, row] if self.single is not None else np.full(FEW_DRAWS, np.nanmean(self.scores[row]))
        rng = self._stream(3, row)
        for task, weight in self.share.items():
            drawn = drawn + weight * draw_items(self.scored[row].tasks[task].mean(0)[None], len(drawn), rng)[:, 0]
        return estimate(drawn)

    def best(self) -> dict[str, float]:
        """Return each mixture's probability of being the best. All were scored on the same items."""
        linked = len(set(self.component[: len(self.scored)].tolist())) == 1
        draws = self.paired if linked and self.paired is not None else self.single
        drawn = draws if draws is not None else np.nanmean(self.scores, axis=1)[None].repeat(FEW_DRAWS, 0)
        drawn = drawn[:, : len(self.scored)]
        rng = self._stream(4)
        for task, weight in self.share.items():
            means = np.stack([one.tasks[task].mean(0) for one in self.scored])
            drawn = drawn + weight * draw_items(means, len(drawn), rng)
        share = np.bincount(drawn.argmax(1), minlength=len(self.scored)) / len(drawn)
        return {one.name: float(value) for one, value in zip(self.scored, share, strict=True)}

    def _stream(self, *parts: int) -> Generator:
        return seeds.stream(self.seed, "confirmation", *parts)


def rank_correlation(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Return Spearman's correlation over the names that both have; None of fewer than three or of equal values."""
    from scipy.stats import spearmanr

    names = [name for name in first if name in second]
    a, b = (np.array([table[name] for name in names]) for table in (first, second))
    if len(names) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)
