"""Proposers to compare with, and the two mixtures that always stand beside ours.

How each of them answers after its last trial is in `answers.py`. All keep to the caps and constraints, by being bent
into the region, so that none is ahead by breaking them.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.random import Generator

from openclimb.mixture import Domain, Weights, uniform
from openclimb.search.design import Aim, topped_up, unseen
from openclimb.search.forecast import fit_forecast
from openclimb.search.history import read_history, read_running
from openclimb.search.region import Region, allowed, bend, by_name, draw_in, region_of, rounded
from openclimb.search.sample import fill, project
from openclimb.settings import ConstraintsSettings
from openclimb.trials import Trial

STRENGTHS = np.logspace(np.log10(0.1), np.log10(5.0), 15)  # of the Dirichlet draws: RegMix, the recipe and Olmix
LARGEST_RATIO = 15.0  # RegMix, the recipe: weight ≤ 15 × natural in the first draw
SMALLEST = 2e-4  # RegMix, the recipe: smaller weights become 0
OLMIX_SMALLEST = 2e-3
TRIED = 100  # RegMix, the recipe: draws for each mixture that is wanted; those over LARGEST_RATIO are thrown away
DRAWS = 100_000  # RegMix, the recipe: mixtures whose scores are predicted
CHUNK = 10_000


class Predicts(Protocol):
    """A fitted predictor or forecast."""

    def predict(self, weights: Weights) -> tuple[Weights, Weights]:
        """Return mean and standard deviation (n,)."""


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


def propose_natural(trials: Sequence[Trial], domains: Sequence[Domain], n: int, rng: Generator, aim: Aim) -> Weights:
    """Return the natural mixture n times: one trial, as the same mixture is measured once."""
    return np.repeat(natural_mixture(domains, aim.required.constraints)[None], n, axis=0)


def propose_uniform(trials: Sequence[Trial], domains: Sequence[Domain], n: int, rng: Generator, aim: Aim) -> Weights:
    """Return the uniform mixture n times: one trial, as the same mixture is measured once."""
    return np.repeat(uniform_mixture(domains, aim.required.constraints)[None], n, axis=0)


def propose_best_of_n(trials: Sequence[Trial], domains: Sequence[Domain], n: int, rng: Generator, aim: Aim) -> Weights:
    """Return n draws under the caps that learn from nothing."""
    region = aim.region(domains)
    drawn = rounded(draw_in(2 * n, region, rng), region)
    return _fresh(drawn[rng.permutation(len(drawn))], trials, domains, n, rng, aim)


def propose_regmix(trials: Sequence[Trial], domains: Sequence[Domain], n: int, rng: Generator, aim: Aim) -> Weights:
    """Return n mixtures as RegMix (2407.01492) draws them, in one iteration or in several: it learns only at the end.

    Dirichlet draws round the square root of the natural mixture, of 15 strengths from 0.1 to 5; those with a weight
    over 15 × natural are thrown away, weights below 2e-4 set to 0.
    """
    region = aim.region(domains)
    return _fresh(rounded(_regmix_draws(2 * n, region, rng), region), trials, domains, n, rng, aim)


def propose_olmix(trials: Sequence[Trial], domains: Sequence[Domain], n: int, rng: Generator, aim: Aim) -> Weights:
    """Return n mixtures as Olmix (2602.12237) draws its swarm: Dirichlet round the natural mixture, of 15 strengths
    from 0.1 to 5, weights below 2e-3 set to 0. It learns only at the end.
    """
    region = aim.region(domains)
    drawn = _dirichlet(2 * n, region.share, rng, OLMIX_SMALLEST)
    return _fresh(rounded(bend(drawn, region), region), trials, domains, n, rng, aim)


def propose_paper(trials: Sequence[Trial], domains: Sequence[Domain], n: int, rng: Generator, aim: Aim) -> Weights:
    """Return n mixtures by NVIDIA's recipe for CLIMB.

    As the recipe: first RegMix's draws; later 100,000 draws of Dirichlet(natural), the predictor's top max(n², 128), n
    of these at random. Unlike it: the caps from repetitions hold in every draw, weights are rounded to our grid (1e-4,
    half the recipe's), and the predictor is the one in the settings (`paper` is the recipe's LightGBM).
    """
    region = aim.region(domains)
    history = read_history(trials, domains, aim.task_weights).aggregated()
    if not len(history.weights):
        return _fresh(rounded(_regmix_draws(2 * n, region, rng), region), trials, domains, n, rng, aim)
    pool = natural_draws(region, rng)
    means = predicted(fit_forecast(history, aim.predictor), pool)
    top = pool[np.argsort(-means, kind="stable")[: max(n * n, 128)]]
    return _fresh(rounded(top[rng.permutation(len(top))], region), trials, domains, n, rng, aim)


def recipe_rounds(n: int) -> tuple[int, ...]:
    """Return n trials in the recipe's rounds, 64, 32 and 16, or as near to 4 : 2 : 1 as n allows; n ≥ 1.

    The last is rounded, the second is twice the last, the first takes what is left: 28 → (16, 8, 4), 29 → (17, 8, 4).
    """
    last = max(1, round(n / 7))
    return (n - 3 * last, 2 * last, last) if n > 3 else (n,)


def natural_draws(region: Region, rng: Generator) -> Weights:
    """Return DRAWS draws of Dirichlet(natural), bent into the region: RegMix's and the recipe's candidates."""
    share = np.maximum(region.share, 1e-9)
    chunks = [rng.dirichlet(share, CHUNK) for _ in range(DRAWS // CHUNK)]
    return np.concatenate([bend(np.nan_to_num(chunk), region) for chunk in chunks])


def predicted(predictor: Predicts, weights: Weights) -> Weights:
    """Return a predictor's mean scores (n,) of many mixtures, some at a time."""
    return np.concatenate([predictor.predict(weights[i : i + CHUNK])[0] for i in range(0, len(weights), CHUNK)])


def _fresh(
    drawn: Weights, trials: Sequence[Trial], domains: Sequence[Domain], n: int, rng: Generator, aim: Aim
) -> Weights:
    """Return the first n rows that no trial has yet, topped up by draws under the caps."""
    history = read_history(trials, domains, aim.task_weights)
    seen = np.concatenate([history.weights, read_running(trials, domains)])
    return topped_up(unseen(drawn, seen), n, aim.region(domains), rng, seen)


def _regmix_draws(n: int, region: Region, rng: Generator) -> Weights:
    """Return n draws of RegMix's, bent into the region; only where too few are within 15 × natural, others are cut."""
    share, floors = region.share, region.floors
    limits = np.minimum(1.0, LARGEST_RATIO * share)
    drawn = _dirichlet(TRIED * n, np.sqrt(share) / np.sqrt(share).sum(), rng, SMALLEST)
    over = (drawn > limits).any(1)
    drawn = np.concatenate([drawn[~over], drawn[over]])[:n]
    return bend(fill(drawn, floors, np.maximum(floors, limits)), region)


def _dirichlet(n: int, center: Weights, rng: Generator, smallest: float) -> Weights:
    """Return n Dirichlet draws (n, n_domains) of mean `center` and any of STRENGTHS; smaller weights are 0."""
    strength = rng.choice(STRENGTHS, (n, 1))
    gammas = rng.standard_gamma(center * strength * np.ones((n, 1))) + 1e-300
    drawn = gammas / gammas.sum(1, keepdims=True)
    return np.where(drawn < smallest, 0.0, drawn)
