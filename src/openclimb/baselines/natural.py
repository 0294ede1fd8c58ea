"""The natural mixture: weights by token counts."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from openclimb.baselines.baseline import Baseline
from openclimb.mixture import Weights
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.space.region import natural_mixture
from openclimb.workspace.observations import Observation


def propose(spec: SearchSpec, _observations: Sequence[Observation], n: int, _rng: Generator) -> Weights:
    """Return the natural mixture n times: one trial, as the same mixture is measured once."""
    return np.repeat(natural_mixture(spec.domains, spec.constraints)[None], n, axis=0)


def answer(spec: SearchSpec, _observations: Sequence[Observation], _rng: Generator) -> Weights:
    """Return the natural mixture."""
    return natural_mixture(spec.domains, spec.constraints)


BASELINE = Baseline(propose, answer, rounds=lambda _: ())
