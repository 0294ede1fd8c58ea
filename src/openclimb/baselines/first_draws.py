"""Our search after other first designs than ours, to compare initialisations (the paper's Table 3)."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

from openclimb.baselines.baseline import fresh, regmix_draws
from openclimb.mixture import Weights
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.acquisition.ucb import propose_climb
from openclimb.search.history import read_history
from openclimb.search.space.region import Region, bend, rounded
from openclimb.workspace.observations import Observation


def after_dirichlet(spec: SearchSpec, observations: Sequence[Observation], n: int, rng: Generator) -> Weights:
    """Return n mixtures: first the recipe's Dirichlet draws around natural^0.5, then as `propose_climb`."""
    return _after(regmix_draws, spec, observations, n, rng)


def after_random(spec: SearchSpec, observations: Sequence[Observation], n: int, rng: Generator) -> Weights:
    """Return n mixtures: first draws that are even over all mixtures, bent under the caps, then as `propose_climb`.

    Even over the simplex is Dirichlet with ones, whatever the domains' sizes.
    """

    def even(n_drawn: int, region: Region, generator: Generator) -> Weights:
        return bend(generator.dirichlet(np.ones(len(region.share)), n_drawn), region)

    return _after(even, spec, observations, n, rng)


def _after(
    draw: Callable[[int, Region, Generator], Weights],
    spec: SearchSpec,
    observations: Sequence[Observation],
    n: int,
    rng: Generator,
) -> Weights:
    if len(read_history(observations, spec.domains, spec.task_weights).weights):
        return propose_climb(spec, observations, n, rng)
    return fresh(rounded(draw(2 * n, spec.region, rng), spec.region), spec, observations, n, rng)
