"""RegMix (arXiv 2407.01492): one swarm of proxies, LightGBM on the objective, the mean of its best candidates."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from openclimb.baselines.baseline import Baseline, fresh, measured, natural_draws, predicted, regmix_draws
from openclimb.baselines.fits.trees import regmix_trees, stop_if_constant
from openclimb.mixture import Weights
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.space.region import bend, rounded
from openclimb.workspace.observations import Observation

TOP = 128  # the answer is the mean of so many best candidates


def propose(spec: SearchSpec, observations: Sequence[Observation], n: int, rng: Generator) -> Weights:
    """Return n mixtures as RegMix (2407.01492) draws them, in one iteration or in several: it learns only at the end.

    Dirichlet draws round the square root of the natural mixture, of 15 strengths from 0.1 to 5; those with a weight
    over 15 × natural are thrown away, weights below 2e-4 set to 0.
    """
    region = spec.region
    return fresh(rounded(regmix_draws(2 * n, region, rng), region), spec, observations, n, rng)


def answer(spec: SearchSpec, observations: Sequence[Observation], rng: Generator) -> Weights:
    """Return the mean of the 128 mixtures, of 100,000 draws, that LightGBM on the objective predicts best.

    Raises SearchError where there are too few trials for its trees.
    """
    history, region = measured(spec, observations), spec.region
    trees = regmix_trees().fit(history.weights, history.scores[:, 0])
    stop_if_constant(trees, len(history.weights), "regmix")
    pool = natural_draws(region, rng)
    means = predicted(trees, pool)
    best = np.argsort(-means, kind="stable")[:TOP]
    return rounded(bend(pool[best].mean(0), region), region)


BASELINE = Baseline(propose, answer, least_trials=lambda: regmix_trees().least_runs())
