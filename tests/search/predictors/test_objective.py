"""Forecasts are judged by what they have not seen, also where mixtures were trained with several seeds."""

import numpy as np

from openclimb.config.schema import SearchSettings
from openclimb.search.acquisition.spec import make_spec
from openclimb.search.history import read_history
from openclimb.search.predictors.objective import cross_validate
from openclimb.search.propose import diagnose
from openclimb.stats.noise import folds_of
from openclimb.testing.fixtures import make_domains, make_observation


def test_a_mixture_is_in_one_fold() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 7)
    folds, n = folds_of(weights, 5)
    assert folds.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert n == 7
    again, n = folds_of(np.repeat(weights, 3, axis=0), 5)
    assert again.tolist() == np.repeat(folds, 3).tolist()
    assert n == 7


def test_seeds_of_a_mixture_do_not_tell_of_one_another() -> None:
    domains, rng = make_domains(4), np.random.default_rng(1)
    trials = []
    for row, effect in zip(rng.dirichlet(np.ones(4), 12), rng.standard_normal(12), strict=True):  # effects of chance
        for seed in range(4):
            score = {"task": float(effect + 0.05 * rng.standard_normal())}
            trials.append(make_observation(len(trials) + 1, domains, row.tolist(), score, seed=seed))
    history = read_history(trials, domains, {})
    guess = cross_validate(history, "gp")[0][:, 0]
    assert np.corrcoef(guess, history.scores[:, 0])[0, 1] < 0.6  # .96 where each seed is asked for beside the others


def test_constant_tasks_of_different_levels_are_said_to_be_constant() -> None:
    domains, rng = make_domains(3), np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(3), 12)
    trials = [make_observation(i + 1, domains, row.tolist(), {"a": 0.25, "b": 0.5}) for i, row in enumerate(rows)]
    found = diagnose(trials, make_spec(domains, SearchSettings()), 0)
    assert "all trials have the same score" in found.warning
