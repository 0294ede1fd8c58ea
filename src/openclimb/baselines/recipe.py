"""NVIDIA's recipe for CLIMB: three rounds of proxies, LightGBM, the best predicted of many draws."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from openclimb.baselines.baseline import Baseline, fresh, measured, natural_draws, predicted, regmix_draws
from openclimb.baselines.fits.trees import recipe_trees, stop_if_constant
from openclimb.mixture import Weights
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.history import read_history
from openclimb.search.predictors.objective import fit_objective
from openclimb.search.space.region import rounded
from openclimb.workspace.observations import Observation


def propose(spec: SearchSpec, observations: Sequence[Observation], n: int, rng: Generator) -> Weights:
    """Return n mixtures by NVIDIA's recipe for CLIMB.

    As the recipe: first RegMix's draws; later 100,000 draws of Dirichlet(natural), the predictor's top max(n², 128), n
    of these at random. Unlike it: the caps from repetitions hold in every draw, weights are rounded to our grid (1e-4,
    half the recipe's), and the predictor is the one in the settings (`recipe`: its LightGBM).
    """
    region = spec.region
    history = read_history(observations, spec.domains, spec.task_weights).aggregated()
    if not len(history.weights):
        return fresh(rounded(regmix_draws(2 * n, region, rng), region), spec, observations, n, rng)
    pool = natural_draws(region, rng)
    means = predicted(fit_objective(history, spec.predictor), pool)
    top = pool[np.argsort(-means, kind="stable")[: max(n * n, 128)]]
    return fresh(rounded(top[rng.permutation(len(top))], region), spec, observations, n, rng)


def answer(spec: SearchSpec, observations: Sequence[Observation], rng: Generator) -> Weights:
    """Return the best predicted of 100,000 draws, by the predictor of the settings (`recipe`: its LightGBM).

    Raises SearchError where there are too few trials for the recipe's trees.
    """
    history, region = measured(spec, observations), spec.region
    if spec.predictor == "recipe":
        trees = recipe_trees().fit(history.weights, history.scores[:, 0])
        stop_if_constant(trees, len(history.weights), "the recipe")
    pool = natural_draws(region, rng)
    means = predicted(fit_objective(history, spec.predictor), pool)
    return rounded(pool[int(means.argmax())], region)


def recipe_rounds(n: int) -> tuple[int, ...]:
    """Return n trials in the recipe's rounds, 64, 32 and 16, or as near to 4 : 2 : 1 as n allows; n ≥ 1.

    The last is rounded, the second is twice the last, the first takes what is left: 28 → (16, 8, 4), 29 → (17, 8, 4).
    """
    last = max(1, round(n / 7))
    return (n - 3 * last, 2 * last, last) if n > 3 else (n,)


def _least_trials() -> int:
    """Return how many trials leave no round's trees a constant."""
    return next(n for n in range(1, 1000) if recipe_rounds(n)[0] >= recipe_trees().least_runs())


BASELINE = Baseline(propose, answer, "recipe", recipe_rounds, _least_trials)
