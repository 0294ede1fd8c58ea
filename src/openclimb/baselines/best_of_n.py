"""Random mixtures, and the best measured of them."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from openclimb.baselines.baseline import Baseline, fresh, measured
from openclimb.errors import SearchError
from openclimb.mixture import Weights
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.space.region import allowed, draw_in, rounded
from openclimb.workspace.observations import Observation


def propose(spec: SearchSpec, observations: Sequence[Observation], n: int, rng: Generator) -> Weights:
    """Return n draws under the caps that learn from nothing."""
    region = spec.region
    drawn = rounded(draw_in(2 * n, region, rng), region)
    return fresh(drawn[rng.permutation(len(drawn))], spec, observations, n, rng)


def answer(spec: SearchSpec, observations: Sequence[Observation], _rng: Generator) -> Weights:
    """Return the allowed mixture of the best measured objective, of replicates the mean."""
    history = measured(spec, observations)
    history = history.only(allowed(history.weights, spec.region))
    if not len(history.weights):
        raise SearchError("no trial's mixture is allowed", "loosen a constraint, or run trials under the present ones")
    mixtures, of = np.unique(history.weights, axis=0, return_inverse=True)
    of = of.reshape(-1)
    means = np.bincount(of, history.scores[:, 0]) / np.bincount(of)
    best: Weights = mixtures[int(means.argmax())]
    return best


BASELINE = Baseline(propose, answer)
