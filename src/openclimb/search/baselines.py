"""Proposers to compare with: the recipe's, draws under the caps, and the two mixtures that always stand beside ours."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from openclimb.config import ConstraintsSettings
from openclimb.mixture import Domain, Weights, natural, uniform
from openclimb.search.design import Aim, topped_up, unseen
from openclimb.search.forecast import fit_forecast
from openclimb.search.history import read_history, read_running
from openclimb.search.region import Region, allowed, bend, by_name, draw_in, region_of, rounded
from openclimb.search.sample import fill, project
from openclimb.trials import Trial

STRENGTHS = np.logspace(np.log10(0.1), np.log10(5.0), 15)  # the recipe's Dirichlet strengths
LARGEST_RATIO = 15.0  # the recipe: weight ≤ 15 × natural in the first draw
SMALLEST = 2e-4  # the recipe: smaller weights become 0
DRAWS = 100_000  # the recipe: candidates of a later draw
CHUNK = 10_000


def natural_mixture(domains: Sequence[Domain], constraints: ConstraintsSettings | None = None) -> Weights:
    """Return the natural mixture (n_domains,), bent where constraints forbid it; it breaks no cap."""
    ordered, back = by_name(domains)
    region = region_of(ordered, constraints)
    if allowed(region.share[None], region)[0]:
        return region.share[back]
    return bend(region.share, region)[back]


def uniform_mixture(domains: Sequence[Domain], constraints: ConstraintsSettings | None = None) -> Weights:
    """Return equal weights (n_domains,), or an allowed mixture near them (without groups: the nearest)."""
    ordered, back = by_name(domains)
    region = region_of(ordered, constraints)
    equal = uniform(ordered)
    return (project(equal, region.floors, region.caps) if region.plain else bend(equal, region))[back]


def propose_uniform(trials: Sequence[Trial], domains: Sequence[Domain], n: int, rng: Generator, aim: Aim) -> Weights:
    """Return n draws under the caps that learn from nothing (best of N random)."""
    region = aim.region(domains)
    history, running = read_history(trials, domains, aim.task_weights), read_running(trials, domains)
    seen = np.concatenate([history.weights, running])
    drawn = rounded(draw_in(2 * n, region, rng), region)
    drawn = drawn[rng.permutation(len(drawn))]
    return topped_up(unseen(drawn, seen), n, region, rng, seen)


def propose_paper(trials: Sequence[Trial], domains: Sequence[Domain], n: int, rng: Generator, aim: Aim) -> Weights:
    """Return n mixtures by NVIDIA's recipe for CLIMB.

    As the recipe: first Dirichlet draws whose concentration is the square root of the natural mixture times one of 15
    strengths (0.1…5), weights at most 15 × natural, below 2e-4 set to 0; later 100,000 draws of Dirichlet(natural), the
    predictor's top max(n², 128), n of these at random. Unlike it: the caps from repetitions hold in every draw, weights
    are rounded to our grid (1e-4, half the recipe's), and the predictor is the one in the settings (`paper` is the
    recipe's LightGBM).
    """
    region = aim.region(domains)
    history, running = read_history(trials, domains, aim.task_weights), read_running(trials, domains)
    seen = np.concatenate([history.weights, running])
    share = natural(domains)
    if not len(history.weights):
        drawn = _first_draws(8 * n, region, rng)
    else:
        forecast = fit_forecast(history.aggregated(), aim.predictor)
        chunks = [rng.dirichlet(np.maximum(share, 1e-9), CHUNK) for _ in range(DRAWS // CHUNK)]
        pool = np.concatenate([bend(np.nan_to_num(chunk), region) for chunk in chunks])
        means = np.concatenate([forecast.predict(pool[i : i + CHUNK])[0] for i in range(0, len(pool), CHUNK)])
        top = pool[np.argsort(-means, kind="stable")[: max(n * n, 128)]]
        drawn = top[rng.permutation(len(top))]
    fresh = unseen(rounded(drawn, region), seen)
    return topped_up(fresh, n, region, rng, seen)


def _first_draws(n: int, region: Region, rng: Generator) -> Weights:
    share, floors = region.share, region.floors
    center = np.sqrt(share) / np.sqrt(share).sum()
    strength = rng.choice(STRENGTHS, (n, 1))
    gammas = rng.standard_gamma(center * strength * np.ones((n, 1))) + 1e-300
    drawn = gammas / gammas.sum(1, keepdims=True)
    drawn = np.where(drawn < SMALLEST, 0.0, drawn)
    return bend(fill(drawn, floors, np.maximum(floors, np.minimum(1.0, LARGEST_RATIO * share))), region)
