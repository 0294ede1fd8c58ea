"""Scores over token budgets as curves: a fitted law, and how many times the tokens natural needs for the same score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openclimb import seeds
from openclimb.errors import SearchError
from openclimb.stats.compare import Scored
from openclimb.stats.intervals import LEVEL
from openclimb.stats.scaling_law import Law, draw_scores, fit_law, law_problem, tokens_needed

Floats = NDArray[np.float64]
Cell = tuple[str, int]  # size, token budget

DRAWS = 1000
LEAST_SEEDS = 2


@dataclass(frozen=True)
class Multiplier:
    """Tokens that natural needs for a mixture's score ÷ those that the mixture had; with its interval.

    None: more than were trained, `most` times. 0: fewer than the fewest that were trained.
    """

    tokens: int
    value: float | None
    low: float | None
    high: float | None
    most: float


@dataclass(frozen=True)
class Curve:
    """One mixture at one size over token budgets; the size is empty for the law over all sizes."""

    size: str
    mixture: str
    law: Law | None
    problem: str  # why there is no law, or why it is not identified
    multipliers: list[Multiplier]


def curves_of(
    scored: Mapping[Cell, Mapping[str, Scored]],
    parameters: Mapping[str, int | None],
    share: Mapping[str, float],
    natural: str,
    seed: int,
) -> list[Curve]:
    """Return a curve for each size and mixture, then one for each mixture over all sizes where there are several."""
    cells, mixtures = list(scored), list(next(iter(scored.values())))
    points = [(cell, mixture) for cell in cells for mixture in mixtures]
    tables = _tables([scored[cell][mixture] for cell, mixture in points], share)
    means = np.array([[sum(w * float(t.mean()) for t, w in zip(row, share.values(), strict=True)) for row in tables]])
    drawn = draw_scores(list(zip(*tables, strict=True)), list(share.values()), DRAWS, seeds.stream(seed, "curves"))
    values = dict(zip(points, np.vstack([means, drawn]).T, strict=True))
    sizes = list(dict.fromkeys(size for size, _ in cells))
    curves = []
    for size in sizes:
        budgets = sorted(budget for one, budget in cells if one == size)
        naturals = np.stack([values[(size, budget), natural] for budget in budgets], axis=1)
        for mixture in mixtures:
            rows = np.stack([values[(size, budget), mixture] for budget in budgets], axis=1)
            problem = law_problem(len(budgets))
            law = None if problem else fit_law(budgets, -rows[0], -rows[1:])
            saved = [] if mixture == natural else [_multiplier(budgets, naturals, rows, i) for i in range(len(budgets))]
            curves.append(Curve(size, mixture, law, problem or (law.problem if law else ""), saved))
    if len(sizes) > 1 and all(parameters.values()):
        curves += [_over_sizes(mixture, cells, parameters, values) for mixture in mixtures]
    return curves


def _over_sizes(
    mixture: str,
    cells: Sequence[Cell],
    parameters: Mapping[str, int | None],
    values: Mapping[tuple[Cell, str], Floats],
) -> Curve:
    sizes, budgets = [float(parameters[size] or 0) for size, _ in cells], [budget for _, budget in cells]
    problem = law_problem(len(set(budgets)), len(set(sizes)))
    rows = np.stack([values[cell, mixture] for cell in cells], axis=1)
    law = None if problem else fit_law(budgets, -rows[0], -rows[1:], sizes)
    return Curve("", mixture, law, problem or (law.problem if law else ""), [])


def _tables(scored: Sequence[Scored], share: Mapping[str, float]) -> list[list[Floats]]:
    """Return for each point its tasks' scores (n_seeds, n_items) over the seeds that all points have."""
    common = sorted(set.intersection(*(set(one.seeds) for one in scored)))
    if len(common) < LEAST_SEEDS:
        raise SearchError(
            f"only {len(common)} seeds have scores for every mixture, size and token budget",
            "see failure.json in scaling/trials; then --retry",
        )
    rows = [[one.seeds.index(seed) for seed in common] for one in scored]
    return [[one.tasks[task][row] for task in share] for one, row in zip(scored, rows, strict=True)]


def _multiplier(budgets: Sequence[int], naturals: Floats, rows: Floats, i: int) -> Multiplier:
    times = tokens_needed(budgets, naturals, rows[:, i]) / budgets[i]
    at = [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2]
    ends = [float(end) for end in np.percentile(times[1:], at, method="nearest")]  # some are inf: no mean of two
    value, low, high = (None if not np.isfinite(one) else one for one in (float(times[0]), *ends))
    return Multiplier(budgets[i], value, low, high, budgets[-1] / budgets[i])
