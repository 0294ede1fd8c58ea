"""Tasks with a threshold: the others are maximised among the mixtures that reach it."""

import numpy as np
import pytest

from openclimb.config.schema import SearchSettings, TasksSettings
from openclimb.errors import SearchError
from openclimb.mixture import Domain
from openclimb.search.acquisition.spec import make_spec, settings_weights
from openclimb.search.acquisition.thresholds import expected_tasks, objective_for, threshold_sentence
from openclimb.search.history import read_history
from openclimb.search.predictors.objective import fit_objective
from openclimb.search.propose import diagnose, finalists, next_batch
from openclimb.testing.fixtures import make_domains, make_observation, make_trial, smooth_observations
from openclimb.workspace.observations import Observation

QUICK = SearchSettings(predictor="gp")
DOMAINS = [Domain(name, 100) for name in "abc"]


def measured(weights: np.ndarray, first: int) -> list[Observation]:
    """Return trials of two tasks in conflict: one grows with the first domain, the other with the second."""
    noise = 0.005 * np.random.default_rng(first).standard_normal((len(weights), 2))
    scores = np.sqrt(weights[:, :2]) + noise
    return [
        make_observation(first + i, DOMAINS, row, {"gain": float(scores[i, 0]), "keep": float(scores[i, 1])})
        for i, row in enumerate(weights)
    ]


def searched(thresholds: dict[str, float], seed: int = 0) -> tuple[np.ndarray, list[Observation]]:
    """Return the first finalist of a search of 10 + 6 + 6 trials, and the trials."""
    goal = dict.fromkeys(thresholds, 0.0)
    trials: list[Observation] = []
    for iteration, n in enumerate((10, 6, 6)):
        weights = next_batch(trials, make_spec(DOMAINS, QUICK, goal, thresholds=thresholds), n, iteration, seed)
        trials += measured(weights, 1 + len(trials))
    return np.array(finalists(trials, make_spec(DOMAINS, QUICK, goal, thresholds=thresholds), 3, seed)[0][1]), trials


@pytest.mark.parametrize("least", [0.3, 0.6, 0.8])
def test_the_objective_is_maximised_where_the_threshold_is_reached(least: float) -> None:
    found, _ = searched({"keep": least})
    assert found[1] ** 0.5 >= least - 0.02
    assert found[0] ** 0.5 >= (1 - least**2) ** 0.5 - 0.04  # the most that leaves the second domain enough


def test_later_batches_look_where_the_threshold_may_be_reached() -> None:
    _, trials = searched({"keep": 0.6})
    last = np.array([trial.weights for trial in trials[-6:]])
    assert np.median(last[:, 1]) > 0.3


def test_a_threshold_out_of_reach_is_missed_by_as_little_as_can_be() -> None:
    found, _ = searched({"keep": 1.5})
    assert found[1] > 0.98


def test_no_gain_of_the_objective_makes_up_for_falling_short() -> None:
    share = np.linspace(0.02, 0.98, 25)  # of the second domain: towards its end the objective falls steeply
    rows = np.stack([1 - share, share, np.zeros(25)], axis=1)
    trials = [
        make_observation(i + 1, DOMAINS, row, {"gain": -1 / (0.02 + row[0]), "keep": row[1] ** 0.5})
        for i, row in enumerate(rows)
    ]
    predictor = objective_for(read_history(trials, DOMAINS, {"keep": 0.0}), "gp", {"keep": 1.5}, 0.0)
    assert share[predictor.predict(rows)[0].argmax()] > 0.97


def test_a_task_may_have_a_weight_and_a_threshold() -> None:
    assert settings_weights(TasksSettings(thresholds={"keep": 0.9}, weights={"keep": 2.0})) == {"keep": 2.0}
    assert settings_weights(TasksSettings(thresholds={"keep": 0.9})) == {"keep": 0.0}


def test_without_thresholds_the_forecast_is_the_plain_one() -> None:
    domains = make_domains(4)
    history = read_history(smooth_observations(domains, 12), domains, {})
    rows = np.random.default_rng(0).dirichlet(np.ones(4), 5)
    plain, same = fit_objective(history, "gp"), objective_for(history, "gp", {}, 0.5)
    assert np.array_equal(plain.predict(rows)[0], same.predict(rows)[0])


def test_the_mark_down_grows_with_caution_and_ends_where_the_threshold_is_surely_reached() -> None:
    trials = measured(np.random.default_rng(0).dirichlet(np.ones(3), 20), 1)
    history = read_history(trials, DOMAINS, {"keep": 0.0})
    rows = np.array([[0.5, 0.01, 0.49], [0.2, 0.7, 0.1]])
    plain = fit_objective(history, "gp").predict(rows)[0]
    daring, careful = (objective_for(history, "gp", {"keep": 0.5}, c).predict(rows)[0] for c in (-1.0, 0.5))
    assert careful[0] < daring[0] < plain[0]
    assert careful[1] == pytest.approx(plain[1])


def test_what_a_mixture_is_expected_to_reach() -> None:
    trials = measured(np.random.default_rng(0).dirichlet(np.ones(3), 20), 1)
    history = read_history(trials, DOMAINS, {"keep": 0.0})
    (row,) = expected_tasks(history, "gp", {"keep": 0.5}, np.array([0.2, 0.7, 0.1]))
    assert row["expected"] == pytest.approx(0.7**0.5, abs=0.05)
    assert row["probability"] > 0.95
    (row,) = expected_tasks(history, "gp", {"keep": 0.5}, np.array([0.8, 0.05, 0.15]))
    assert row["probability"] < 0.05


def test_a_task_that_some_trials_lack_may_have_a_threshold() -> None:
    trials = measured(np.random.default_rng(0).dirichlet(np.ones(3), 12), 1)
    trials += [make_observation(50 + i, DOMAINS, row, {"gain": 0.5}) for i, row in enumerate(np.eye(3))]
    spec = make_spec(DOMAINS, QUICK, {"keep": 0.0}, thresholds={"keep": 0.5})
    weights = next_batch(trials, spec, 4, 1, 0)
    assert len(np.unique(weights, axis=0)) == 4


def test_thresholds_in_words() -> None:
    trials = [make_trial(i, DOMAINS, [1, 0, 0], {"a": 0.4, "b": value}, seed=i) for i, value in enumerate((0.5, 0.7))]
    assert threshold_sentence(trials, {}) == ""
    assert threshold_sentence(trials, {"a": 0.5}, has_items=False).startswith(" Thresholds: a ")
    said = threshold_sentence(trials, {"a": 0.5, "b": 0.55})
    assert "a falls short of +0.5000 with +0.4000" in said
    assert "b reaches +0.5500 with +0.6000" in said


def test_every_task_with_a_threshold_leaves_nothing_to_maximise() -> None:
    trials = measured(np.eye(3), 1)
    spec = make_spec(DOMAINS, QUICK, {"keep": 0.0, "gain": 0.0}, thresholds={"keep": 0.5, "gain": 0.5})
    with pytest.raises(SearchError, match="every task has weight 0"):
        next_batch(trials, spec, 2, 1, 0)


def test_diagnostics_are_made_beside_a_threshold() -> None:
    _, trials = searched({"keep": 0.5})
    facts = diagnose(trials, make_spec(DOMAINS, QUICK, {"keep": 0.0}), 2)
    assert facts.rank_correlation["objective"] > 0.5
    assert facts.coverage_80["keep"] is None  # it is not forecast, as it does not count
    assert 0.0 <= facts.coverage_80["objective"] <= 1.0
