"""How a loss falls with tokens and parameters: power laws with intervals from a bootstrap, and what a mixture saves.

    one size:      L = E + B / D^b
    several sizes: L = E + A / N^a + B / D^b   (Hoffmann et al. 2022, "Training compute-optimal large language models")

For given exponents the law is linear in E, A, B: it is fitted by least squares on a grid of exponents, A and B not
negative. Losses are scores with the sign changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.stats.intervals import LEVEL

Floats = NDArray[np.float64]

LEAST = 0.02, 2.0  # ends of the exponents' grid
N_TOKENS, N_SIZES = 100, 40  # exponents tried, evenly in their logarithm; with sizes N_SIZES of each
FINER = 9  # exponents tried between the neighbours of the best one
NEEDED = 4  # budgets: three would meet E, B and b exactly, whatever they are
SIZES_NEEDED = 3


@dataclass(frozen=True)
class Law:
    """A fitted law; of each parameter the fit, and the ends of its interval over the draws."""

    parameters: dict[str, tuple[float, float, float]]  # E, B, b and, with sizes, A, a
    error: float  # root mean square of what the fit leaves, on the points' means
    problem: str  # why the data cannot identify the law; empty where they can


def law_problem(n_budgets: int, n_sizes: int = 1) -> str:
    """Return why so many budgets and sizes cannot identify a law; empty where they may."""
    if n_budgets < NEEDED:
        return f"{n_budgets} token budgets cannot identify a law: it needs {NEEDED}"
    if 1 < n_sizes < SIZES_NEEDED:
        return f"{n_sizes} sizes cannot identify how the loss falls with size: it needs {SIZES_NEEDED}"
    return ""


def fit_law(tokens: Sequence[float], losses: Floats, draws: Floats, sizes: Sequence[float] = ()) -> Law:
    """Return the law of losses (n,) at token budgets and, where given, parameters (n,); `draws` (n_draws, n) of them.

    The data do not identify it where a falling law fits no better than a constant, or where the interval of an exponent
    reaches an end of the grid.
    """
    named = _fit(np.asarray(tokens, dtype=np.float64), np.asarray(sizes, dtype=np.float64), np.vstack([losses, draws]))
    parameters = {}
    for name, values in named.items():
        low, high = np.percentile(values[1:], [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2]).tolist()
        parameters[name] = float(values[0]), float(low), float(high)
    del parameters["error"]
    return Law(parameters, float(named["error"][0]), _problem(parameters))


def _problem(parameters: dict[str, tuple[float, float, float]]) -> str:
    low, high = LEAST
    for name, of in (("b", "tokens"), ("a", "parameters")):
        if name in parameters:
            _, least, most = parameters[name]
            if parameters[name.upper()][1] <= 0:
                return f"the loss need not fall with {of} at all"
            if least <= 1.01 * low or most >= 0.99 * high:
                return f"the exponent {name} of {of} may be anything from {least:.2g} to {most:.2g}"
    return ""


def _fit(tokens: Floats, sizes: Floats, losses: Floats) -> dict[str, Floats]:
    """Return each parameter and the root mean square error (n_rows,) of the best law of each row of losses."""
    grid = np.geomspace(*LEAST, N_SIZES if len(sizes) else N_TOKENS)
    best = _best_of(tokens, sizes, losses, grid, grid if len(sizes) else np.zeros(1))
    step = grid[1] / grid[0]
    found = np.stack([best["b"], best.get("a", np.zeros(len(losses)))], axis=1)
    for b, a in np.unique(found, axis=0):  # between the grid's points
        rows = (found == [b, a]).all(1)
        near = [np.clip(one * np.geomspace(1 / step, step, FINER), *LEAST) if one else np.zeros(1) for one in (b, a)]
        finer = _best_of(tokens, sizes, losses[rows], *near)
        for name, value in finer.items():
            best[name][rows] = value
    return best


def _best_of(tokens: Floats, sizes: Floats, losses: Floats, of_tokens: Floats, of_sizes: Floats) -> dict[str, Floats]:
    """Return what `_fit` does, of the best of these exponents; without sizes theirs are zero."""
    names = ("E", "B", "b", *(("A", "a") if len(sizes) else ()), "error")
    best = {name: np.full(len(losses), np.inf) for name in names}
    # in units of the smallest, so that columns are of one order
    n, d = sizes / sizes.min() if len(sizes) else sizes, tokens / tokens.min()
    for b, a in product(of_tokens.tolist(), of_sizes.tolist()):
        columns = [np.ones_like(d), d**-b, *([n**-a] if len(sizes) else [])]
        design = np.stack(columns, axis=1)
        found = _not_negative(losses, design)
        left = np.sqrt(((losses - found @ design.T) ** 2).mean(1))
        values = {"E": found[:, 0], "B": found[:, 1] * tokens.min() ** b, "b": np.full(len(losses), b), "error": left}
        if len(sizes):
            values |= {"A": found[:, 2] * sizes.min() ** a, "a": np.full(len(losses), a)}
        better = left < best["error"]
        for name, value in values.items():
            best[name][better] = value[better]
    return best


def _not_negative(losses: Floats, design: Floats) -> Floats:
    """Return least-squares coefficients (n_rows, n_columns), none negative but the first, the constant's.

    One that would be negative is 0, and the others are fitted again.
    """
    found: Floats = losses @ np.linalg.pinv(design).T
    for j in range(1, found.shape[1]):
        below = found[:, j] < 0
        if below.any():
            kept = [i for i in range(found.shape[1]) if i != j]
            rows = found[below]
            rows[:, kept] = losses[below] @ np.linalg.pinv(design[:, kept]).T
            found[below] = rows
            found[below, j] = 0.0
    found[:, 1:] = np.maximum(found[:, 1:], 0.0)
    return found


def tokens_needed(tokens: Sequence[float], scores: Floats, wanted: Floats) -> Floats:
    """Return the tokens (n_rows,) at which a mixture's scores (n_rows, n_budgets) reach the wanted ones (n_rows,).

    Between measured budgets, by a line in the logarithm of the tokens; inf beyond the largest of them and 0 below the
    smallest. A score that falls with more tokens counts as the highest before it.
    """
    logs, rising = np.log(np.asarray(tokens, dtype=np.float64)), np.maximum.accumulate(scores, axis=1)
    needed = np.empty(len(rising))
    for i, (row, score) in enumerate(zip(rising, wanted, strict=True)):
        if score > row[-1]:
            needed[i] = np.inf
        elif score < row[0]:
            needed[i] = 0.0
        else:
            j = int(np.searchsorted(row, score))  # the first budget that reaches it
            before = max(0, j - 1)
            span = row[j] - row[before]
            share = (score - row[before]) / span if span > 0 else 0.0
            needed[i] = np.exp(logs[before] + share * (logs[j] - logs[before]))
    return needed


def draw_scores(tables: Sequence[Sequence[Floats]], shares: Sequence[float], n: int, rng: Generator) -> Floats:
    """Return draws (n, n_points) of the points' scores, each a weighted sum of its tasks' means.

    `tables`: for each task one table (n_seeds, n_items) a point; all points have the same seeds and items. A draw takes
    seeds and items with replacement, the same for all points: of n_seeds seeds n_seeds − 1, so that the variance of a
    mean is that of so few seeds (Rao and Wu 1988, "Resampling inference with complex survey data", JASA 83).
    """
    n_seeds = len(tables[0][0])
    seed_share = rng.multinomial(n_seeds - 1, np.full(n_seeds, 1 / n_seeds), n) / (n_seeds - 1)
    drawn = np.zeros((n, len(tables[0])))
    for task, share in zip(tables, shares, strict=True):
        points = np.stack(task)  # (n_points, n_seeds, n_items)
        n_items = points.shape[2]
        item_share = rng.multinomial(n_items, np.full(n_items, 1 / n_items), n) / n_items
        drawn += share * np.einsum("psi,di,ds->dp", points, item_share, seed_share, optimize=True)
    return drawn
