"""Our search after other first designs than ours."""

import numpy as np
import pytest

from openclimb.config.schema import SearchSettings
from openclimb.mixture import effective_domains, natural
from openclimb.search.acquisition.spec import make_spec
from openclimb.search.propose import next_batch
from openclimb.testing.fixtures import make_domains, smooth_observations


def batch(proposer: str, n: int, seed: int = 0, trials: int = 0) -> np.ndarray:
    domains = make_domains(8, 0.9)
    spec = make_spec(domains, SearchSettings(proposer=proposer, predictor="gp"))
    return next_batch(smooth_observations(domains, trials), spec, n, 0, seed)


def test_dirichlet_draws_follow_the_sizes_and_random_ones_do_not() -> None:
    center = np.sqrt(natural(make_domains(8, 0.9)))
    for name, expected in (("climb-dirichlet", center / center.sum()), ("climb-random", np.full(8, 1 / 8))):
        mean = np.concatenate([batch(name, 60, seed) for seed in range(5)]).mean(0)
        assert mean == pytest.approx(expected, abs=0.035), name
    assert np.ptp(center / center.sum()) > 0.1  # the two differ
    spread = [effective_domains(row) for row in batch("climb-random", 40)]
    assert 4 < np.mean(spread) < 7  # Dirichlet of ones over eight domains: 5.1 on average


def test_later_batches_are_ours() -> None:
    for name in ("climb-dirichlet", "climb-random"):
        assert np.array_equal(batch(name, 4, trials=6), batch("climb", 4, trials=6))
        assert not np.array_equal(batch(name, 4), batch("climb", 4))
