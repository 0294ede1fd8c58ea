"""How sure the difference between trained mixtures is.

Mixtures are trained with the same seeds and scored on the same items. Draws of their objectives, together, are those of
the model of trial noise (`stats/paired.py`) and of the items, the same items for all mixtures. Margins, their intervals
and p-values, and the probability of being the best are all counts of these draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.errors import SearchError
from openclimb.search.measures import Items, objective_table
from openclimb.stats.intervals import estimate
from openclimb.stats.multiple import holm, verdict
from openclimb.stats.paired import CHAINS, KEEP, draw_items, draw_means, score_table
from openclimb.trials import Trial

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """One mixture's results: for each task seeds × items, higher is better."""

    name: str
    seeds: tuple[int, ...]
    tasks: Mapping[str, Floats]

    def by_seed(self, share: Mapping[str, float]) -> dict[int, float]:
        """Return the objective of each seed."""
        total = sum(weight * self.tasks[task].mean(1) for task, weight in share.items())
        return dict(zip(self.seeds, np.asarray(total).tolist(), strict=True))


def read_scored(
    trials: Mapping[str, Sequence[Trial]], items: Items, share: Mapping[str, float], metric: str, part: str
) -> list[Scored]:
    """Return the results of every mixture on a part of the items, over the seeds that all of them have.

    A mixture without trials is left out. Raises SearchError when the others share no seed.
    """
    there = {name: {trial.seed: trial for trial in some} for name, some in trials.items() if some}
    shared = sorted(set.intersection(*(set(by_seed) for by_seed in there.values()))) if there else []
    if not shared:
        raise SearchError(
            "the mixtures have no seed in common that did not fail", "see failure.json of their trials; then --retry"
        )
    return [
        Scored(
            name,
            tuple(shared),
            {
                task: objective_table([by_seed[seed] for seed in shared], items, task, part, metric).scores
                for task in share
            },
        )
        for name, by_seed in there.items()
    ]


def draw_objectives(
    scored: Sequence[Scored], share: Mapping[str, float], rng: Generator, chains: int = CHAINS
) -> Floats:
    """Return draws (n, n_mixtures) of the mixtures' objectives; only differences within a row mean something.

    With one seed nothing is known of the noise of trials, and the draws hold that of the items alone.
    """
    table = score_table([one.by_seed(share) for one in scored])
    drawn = draw_means(table, rng, paired=True, chains=chains)
    if drawn is None:
        drawn = np.tile(table.mean(1), (chains * KEEP, 1))
    for task, weight in share.items():
        drawn = drawn + weight * draw_items(np.stack([one.tasks[task].mean(0) for one in scored]), len(drawn), rng)
    return drawn


def compare(
    scored: Sequence[Scored], ours: str, share: Mapping[str, float], seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Return ours against each other mixture, and each mixture's probability of being the best.

    Verdicts are those of p-values corrected by Holm for all comparisons of the table. One seed claims nothing.
    """
    draws = draw_objectives(scored, share, np.random.default_rng(seed))
    column = {one.name: draws[:, i] for i, one in enumerate(scored)}
    found = {name: estimate(column[ours] - drawn) for name, drawn in column.items() if name != ours}
    sure = len(scored[0].seeds) > 1
    adjusted = holm([one.p if sure else 1.0 for one in found.values()])
    margins = {
        name: {
            "mean": one.mean,
            "interval": one.interval,
            "p": one.p if sure else 1.0,
            "p_holm": p,
            "verdict": verdict(one.mean, p),
        }
        for (name, one), p in zip(found.items(), adjusted, strict=True)
    }
    best = np.bincount(draws.argmax(1), minlength=len(scored)) / len(draws)
    return margins, {one.name: float(share) for one, share in zip(scored, best, strict=True)}


def rank_correlation(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Return Spearman's correlation over the names that both have; None of fewer than three or of equal values."""
    from scipy.stats import spearmanr

    names = [name for name in first if name in second]
    a, b = (np.array([table[name] for name in names]) for table in (first, second))
    if len(names) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)
