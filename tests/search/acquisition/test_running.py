"""Trials that run while more are asked for: their mixtures are neither repeated nor crowded."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclimb.config.schema import SearchSettings
from openclimb.errors import SearchError
from openclimb.mixture import Domain
from openclimb.search.acquisition.spec import make_spec
from openclimb.search.history import read_history, read_running
from openclimb.search.propose import next_batch
from openclimb.testing.fixtures import make_domains, make_observation, smooth_observations
from openclimb.workspace.observations import Observation

QUICK = SearchSettings(predictor="gp")


def running_trials(domains: list[Domain], weights: np.ndarray, first: int) -> list[Observation]:
    return [make_observation(first + i, domains, row, {}) for i, row in enumerate(weights)]


def nearest_distance(rows: np.ndarray, others: np.ndarray) -> float:
    return float(0.5 * np.abs(rows[:, None] - others[None]).sum(2).min())


@pytest.mark.parametrize("n_completed", [0, 24])
@pytest.mark.parametrize("n", [1, 8])
def test_a_batch_asked_while_eight_run_keeps_away_from_them(n_completed: int, n: int) -> None:
    domains = make_domains(6)
    completed = smooth_observations(domains, n_completed)
    first = next_batch(completed, make_spec(domains, QUICK), 8, 0, 0)
    second = next_batch([*completed, *running_trials(domains, first, 50)], make_spec(domains, QUICK), n, 1, 0)
    assert second.shape == (n, 6)
    assert nearest_distance(second, first) >= 0.02


def test_without_the_running_ones_it_would_crowd_them() -> None:
    domains = make_domains(6)
    completed = smooth_observations(domains, 24)
    first = next_batch(completed, make_spec(domains, QUICK), 8, 0, 0)
    assert nearest_distance(next_batch(completed, make_spec(domains, QUICK), 8, 1, 0), first) < 0.02


@settings(max_examples=10, deadline=None)
@given(
    d=st.integers(2, 12),
    n_completed=st.integers(0, 8),
    n_running=st.integers(0, 12),
    n=st.integers(1, 12),
    seed=st.integers(0, 2**31),
    name=st.sampled_from(["climb", "best-of-n"]),
)
def test_running_mixtures_are_never_repeated_in_any_order(
    d: int, n_completed: int, n_running: int, n: int, seed: int, name: str
) -> None:
    domains = make_domains(d, 0.0, seed)
    rng = np.random.default_rng(seed)
    search = dataclasses.replace(QUICK, proposer=name)
    completed = smooth_observations(domains, n_completed, seed)
    running = running_trials(
        domains, next_batch(completed, make_spec(domains, search), max(1, n_running), 0, seed), 100
    )
    trials = [*completed, *running[:n_running]]
    weights = next_batch(trials, make_spec(domains, search), n, 1, seed)
    rows = {tuple(np.round(row, 9)) for row in weights}
    assert len(rows) == n
    assert not rows & {tuple(np.round(trial.weights, 9)) for trial in trials}
    shuffled = [trials[i] for i in rng.permutation(len(trials))]
    assert np.array_equal(next_batch(shuffled, make_spec(domains, search), n, 1, seed), weights)


def test_a_failed_mixture_is_not_tried_again() -> None:
    domains = make_domains(4)
    first = next_batch([], make_spec(domains, QUICK), 4, 0, 0)
    failed = running_trials(domains, first, 1)
    assert nearest_distance(next_batch(failed, make_spec(domains, QUICK), 4, 0, 0), first) > 0


def test_what_is_expected_of_a_running_trial_leaves_tasks_that_do_not_count_without_a_score() -> None:
    domains = make_domains(3)
    history = read_history(smooth_observations(domains, 5), domains, {"second": 0.0})
    believed = history.fantasized(np.full((1, 3), 1 / 3), np.array([[0.5, 0.7]]))
    assert believed.scores[-1, 0] == 0.5
    assert np.isnan(believed.scores[-1, 1])
    assert believed.names == (*history.names, 0)


def test_a_running_trial_of_other_domains_is_told() -> None:
    domains = make_domains(3)
    with pytest.raises(SearchError, match="other domains"):
        read_running([make_observation(1, make_domains(2), [0.5, 0.5], {})], domains)
