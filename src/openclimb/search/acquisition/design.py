"""Where mixtures to try are looked for: the first design, the search of the region, and keeping mixtures distinct."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.acquisition.value import Value
from openclimb.search.history import History
from openclimb.search.predictors.objective import ObjectivePredictor
from openclimb.search.space.region import Region, bend, draw_in, rounded
from openclimb.workspace.observations import Observation

Floats = NDArray[np.float64]

FIRST_DRAWS = 64  # candidates for each mixture of the first design
SCREENED = 2000  # candidates of the first screening, and 1/3 of it in each refinement
REFINEMENTS = 4
SHORTLIST = 500  # candidates among which a batch is chosen
KEPT = 30  # candidates that a refinement goes on from


Proposer = Callable[[SearchSpec, Sequence[Observation], int, Generator], Weights]


def first_design(region: Region, n: int, rng: Generator, running: Weights) -> Weights:
    """Return the natural mixture and n − 1 others spread over the region: the medoids of many draws.

    Where mixtures are running (m, n_domains) already, the n spread between them instead.
    """
    center = rounded(bend(region.share, region), region)
    first = unseen(center[None], running)
    fixed = np.concatenate([first, running])
    n_drawn = n - len(first)
    draws = draw_in(FIRST_DRAWS * n, region, rng)
    chosen = rounded(draws[medoids(np.sqrt(draws), n_drawn, np.sqrt(fixed), rng)], region)
    return topped_up(unseen(np.concatenate([first, chosen]), running), n, region, rng, running)


def medoids(points: Floats, k: int, fixed: Floats, rng: Generator, rounds: int = 10) -> NDArray[np.intp]:
    """Return the indices of k points nearest to the centroids of k-means with centroids held at the rows of `fixed`."""
    spread = _squared(points, fixed).min(1).clip(min=0.0)
    centers = list(fixed)
    for _ in range(k):  # k-means++ (Arthur and Vassilvitskii 2007)
        centers.append(points[rng.choice(len(points), p=spread / spread.sum())] if spread.sum() > 0 else fixed[0])
        spread = np.minimum(spread, ((points - centers[-1]) ** 2).sum(1))
    at = np.array(centers)
    for _ in range(rounds):
        label = _squared(points, at).argmin(1)
        for j in range(len(fixed), len(at)):
            if (label == j).any():
                at[j] = points[label == j].mean(0)
    distance = _squared(points, at[len(fixed) :])
    chosen: list[int] = []
    for j in range(k):
        distance[chosen, j] = np.inf
        chosen.append(int(distance[:, j].argmin()))
    return np.array(chosen, dtype=np.intp)


def search_region(
    value: Value, history: History, predictor: ObjectivePredictor, region: Region, rng: Generator
) -> Weights:
    """Return SHORTLIST feasible mixtures of high value, best first: draws everywhere, then refined near the best.

    Where trials are many, those near the best screen the draws, and all trials rank the shortlist.
    """
    known = history.weights[predictor.promising()]
    posterior = predictor.predict(known)[0]
    incumbents = known[np.argsort(-posterior, kind="stable")[:8]]
    pool = draw_in(SCREENED, region, rng, near=incumbents)
    rough = value.near(incumbents)
    values = rough(pool)
    for _ in range(REFINEMENTS):
        best = pool[np.argsort(-values, kind="stable")[:KEPT]]
        fresh = draw_in(SCREENED // 3, region, rng, near=best)
        pool, values = np.concatenate([pool, fresh]), np.concatenate([values, rough(fresh)])
    order = np.argsort(-values, kind="stable")
    n_spread = SHORTLIST // 3  # the rest of the region stands by, in case the best are all alike
    kept = np.concatenate(
        [order[: SHORTLIST - n_spread], order[SHORTLIST - n_spread :: max(1, len(order) // n_spread)][:n_spread]]
    )
    shortlist: Weights = pool[kept]
    return shortlist if rough is value else shortlist[np.argsort(-value(shortlist), kind="stable")]


def unseen(weights: Weights, seen: Weights) -> Weights:
    """Return the rows that are not among `seen` nor before them."""
    known = {row.tobytes() for row in np.round(seen, 9) + 0.0}
    rows = []
    for row in weights:
        key = (np.round(row, 9) + 0.0).tobytes()
        if key not in known:
            known.add(key)
            rows.append(row)
    return np.array(rows).reshape(-1, weights.shape[1])


def topped_up(weights: Weights, n: int, region: Region, rng: Generator, seen: Weights) -> Weights:
    """Return n rows: those given, then fresh draws. Where the region has too few mixtures, rows repeat."""
    for _ in range(5):
        if len(weights) >= n:
            return weights[:n]
        fresh = rounded(draw_in(4 * n, region, rng), region)
        weights = np.concatenate([weights, unseen(fresh, np.concatenate([seen, weights]))])
    return np.concatenate([weights, fresh])[:n]


def _squared(a: Floats, b: Floats) -> Floats:
    squared: Floats = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * a @ b.T
    return squared
