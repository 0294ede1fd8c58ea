"""Trials that run while more are asked for: their mixtures are neither repeated nor crowded."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_rows import make_domains, make_trial, smooth_trials

from openclimb.errors import SearchError
from openclimb.mixture import Domain
from openclimb.search.history import read_history, read_running
from openclimb.search.loop import next_batch
from openclimb.settings import SearchSettings
from openclimb.trials import Trial

QUICK = SearchSettings(predictor="gp")


def running_trials(domains: list[Domain], weights: np.ndarray, first: int) -> list[Trial]:
    return [make_trial(first + i, domains, row, {}) for i, row in enumerate(weights)]


def nearest_distance(rows: np.ndarray, others: np.ndarray) -> float:
    return float(0.5 * np.abs(rows[:, None] - others[None]).sum(2).min())


@pytest.mark.parametrize("n_told", [0, 24])
@pytest.mark.parametrize("n", [1, 8])
def test_a_batch_asked_while_eight_run_keeps_away_from_them(n_told: int, n: int) -> None:
    domains = make_domains(6)
    told = smooth_trials(domains, n_told)
    first = next_batch(told, domains, 8, 0, QUICK, {}, 0)
    second = next_batch([*told, *running_trials(domains, first, 50)], domains, n, 1, QUICK, {}, 0)
    assert second.shape == (n, 6)
    assert nearest_distance(second, first) >= 0.02


def test_without_the_running_ones_it_would_crowd_them() -> None:
    domains = make_domains(6)
    told = smooth_trials(domains, 24)
    first = next_batch(told, domains, 8, 0, QUICK, {}, 0)
    assert nearest_distance(next_batch(told, domains, 8, 1, QUICK, {}, 0), first) < 0.02


@settings(max_examples=10, deadline=None)
@given(
    d=st.integers(2, 12),
    n_told=st.integers(0, 8),
    n_running=st.integers(0, 12),
    n=st.integers(1, 12),
    seed=st.integers(0, 2**31),
    name=st.sampled_from(["climb", "best_of_n"]),
)
def test_running_mixtures_are_never_repeated_in_any_order(
    d: int, n_told: int, n_running: int, n: int, seed: int, name: str
) -> None:
    domains = make_domains(d, 0.0, seed)
    rng = np.random.default_rng(seed)
    search = dataclasses.replace(QUICK, proposer=name)
    told = smooth_trials(domains, n_told, seed)
    running = running_trials(domains, next_batch(told, domains, max(1, n_running), 0, search, {}, seed), 100)
    trials = [*told, *running[:n_running]]
    weights = next_batch(trials, domains, n, 1, search, {}, seed)
    rows = {tuple(np.round(row, 9)) for row in weights}
    assert len(rows) == n
    assert not rows & {tuple(np.round(trial.weights, 9)) for trial in trials}
    shuffled = [trials[i] for i in rng.permutation(len(trials))]
    assert np.array_equal(next_batch(shuffled, domains, n, 1, search, {}, seed), weights)


def test_a_failed_mixture_is_not_tried_again() -> None:
    domains = make_domains(4)
    first = next_batch([], domains, 4, 0, QUICK, {}, 0)
    failed = [dataclasses.replace(t, failure="lost", attempts=2) for t in running_trials(domains, first, 1)]
    assert nearest_distance(next_batch(failed, domains, 4, 0, QUICK, {}, 0), first) > 0


def test_what_is_expected_of_a_running_trial_leaves_tasks_that_do_not_count_without_a_score() -> None:
    domains = make_domains(3)
    history = read_history(smooth_trials(domains, 5), domains, {"second": 0.0})
    believed = history.believing(np.full((1, 3), 1 / 3), np.array([[0.5, 0.7]]))
    assert believed.scores[-1, 0] == 0.5
    assert np.isnan(believed.scores[-1, 1])
    assert believed.numbers == (*history.numbers, 0)


def test_a_running_trial_of_other_domains_is_told() -> None:
    domains = make_domains(3)
    with pytest.raises(SearchError, match="other domains"):
        read_running([make_trial(1, make_domains(2), [0.5, 0.5], {})], domains)
