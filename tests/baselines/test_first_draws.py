"""Our search after other first designs than ours."""

import numpy as np

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
    domains = make_domains(8, 0.9)
    share = np.sqrt(natural(domains))
    follows = {
        name: np.corrcoef(np.concatenate([batch(name, 40, seed) for seed in range(5)]).mean(0), share)[0, 1]
        for name in ("climb-dirichlet", "climb-random")
    }
    assert follows["climb-dirichlet"] > 0.85
    assert abs(follows["climb-random"]) < 0.6
    spread = [effective_domains(row) for row in batch("climb-random", 40)]
    assert 4 < np.mean(spread) < 7  # Dirichlet of ones over eight domains: 5.1 on average


def test_later_batches_are_ours() -> None:
    for name in ("climb-dirichlet", "climb-random"):
        assert np.array_equal(batch(name, 4, trials=6), batch("climb", 4, trials=6))
        assert not np.array_equal(batch(name, 4), batch("climb", 4))
