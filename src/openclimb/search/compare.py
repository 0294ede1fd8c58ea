"""How sure the difference between trained mixtures is: Student's interval beside a hierarchical paired bootstrap.

Mixtures are trained with the same seeds and scored on the same items. A replicate of the bootstrap draws items anew,
the same ones for all mixtures (common random numbers), and for each trial a seed's luck from what the means of mixtures
and of seeds leave, pooled over all mixtures. Drawing whole seeds of three instead would hold the truth far less often
than it says: residuals are scaled up for the means that were fitted, and their scale itself is drawn (χ²), as Student's
t does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.errors import SearchError
from openclimb.search.measures import Items, objective_table
from openclimb.search.statistics import LEVEL, Estimate, seed_noise, student
from openclimb.trials import Trial

Floats = NDArray[np.float64]

REPLICATES = 4000
CHUNK = 100  # replicates drawn at once


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


def margin(ours: Scored, other: Scored, all_of_them: Sequence[Scored], share: Mapping[str, float]) -> Estimate:
    """Return ours minus other with Student's interval (`statistics.py`)."""
    noise, freedom = seed_noise([one.by_seed(share) for one in all_of_them], paired=True)
    parts = [(2.0 * noise**2 / len(ours.seeds), float(freedom))]
    mean = 0.0
    for task, weight in share.items():
        each = ours.tasks[task].mean(0) - other.tasks[task].mean(0)
        mean += weight * float(each.mean())
        parts.append((weight**2 * float(each.var(ddof=1)) / len(each) if len(each) > 1 else 0.0, len(each) - 1.0))
    return student(mean, parts)


def bootstrap(scored: Sequence[Scored], share: Mapping[str, float], rng: Generator, n: int = REPLICATES) -> Floats:
    """Return replicates (n, n_mixtures) of the mixtures' objectives; differences within a row are paired."""
    drawn = np.zeros((n, len(scored)))
    for task, weight in share.items():
        means = np.stack([one.tasks[task].mean(0) for one in scored])
        n_items = means.shape[1]
        centre = means.mean(1)
        spread = np.sqrt(n_items / (n_items - 1)) if n_items > 1 else 0.0  # a draw of n has the variance of n − 1
        for start in range(0, n, CHUNK):
            rows = slice(start, min(n, start + CHUNK))
            chosen = rng.integers(n_items, size=(rows.stop - rows.start, n_items))
            found = np.stack([row[chosen].mean(1) for row in means], axis=1)
            drawn[rows] += weight * (centre + spread * (found - centre))
    return drawn + _luck(scored, share, rng, n)


def _luck(scored: Sequence[Scored], share: Mapping[str, float], rng: Generator, n: int) -> Floats:
    """Return what the luck of the seeds may add to each mixture's mean, (n, n_mixtures)."""
    table = np.array([list(one.by_seed(share).values()) for one in scored])
    m, s = table.shape
    freedom = (m - 1) * (s - 1)
    if freedom < 1:
        return np.zeros((n, m))
    left = (table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()).ravel()
    left *= np.sqrt(left.size / freedom)
    means = np.stack([rng.choice(left, (n, s)).mean(1) for _ in range(m)], axis=1)
    scale: Floats = np.sqrt(freedom / rng.chisquare(freedom, (n, 1)))
    return means * scale


def compare(
    scored: Sequence[Scored], ours: str, share: Mapping[str, float], seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Return ours against each other mixture, and each mixture's probability of being the best, by the bootstrap."""
    mine = next(one for one in scored if one.name == ours)
    replicates = bootstrap(scored, share, np.random.default_rng(seed))
    column = {one.name: replicates[:, i] for i, one in enumerate(scored)}
    tail = 100 * (1 - LEVEL) / 2
    margins = {}
    for other in scored:
        if other is mine:
            continue
        found = margin(mine, other, scored, share)
        low, high = np.percentile(column[ours] - column[other.name], [tail, 100 - tail])
        verdict = "beaten" if min(found.low, low) > 0 else "better" if max(found.high, high) < 0 else "not told apart"
        margins[other.name] = {
            "mean": found.mean,
            "interval": found.interval,
            "bootstrap": [float(low), float(high)],
            "verdict": verdict if len(mine.seeds) > 1 else "not told apart",
        }
    best = np.bincount(replicates.argmax(1), minlength=len(scored)) / len(replicates)
    return margins, {one.name: float(share) for one, share in zip(scored, best, strict=True)}


def rank_correlation(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Return Spearman's correlation over the names that both have; None of fewer than three or of equal values."""
    from scipy.stats import spearmanr

    names = [name for name in first if name in second]
    a, b = (np.array([table[name] for name in names]) for table in (first, second))
    if len(names) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)
