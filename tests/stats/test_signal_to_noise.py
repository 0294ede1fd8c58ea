"""Signal to noise of tasks: known variances are found, weights follow them, few seeds are not trusted much."""

from dataclasses import replace

import numpy as np
import pytest

from openclimb.config.scales import preset
from openclimb.errors import ConfigError
from openclimb.search.goal import check_weighting, goal_of, replicates
from openclimb.stats.signal_to_noise import FLOOR, signal_rows, signals, weighed
from openclimb.testing.fixtures import make_domains, make_trial
from openclimb.workspace.trials import Trial

DOMAINS = make_domains(4)
SPREAD = {"clear": 0.10, "faint": 0.02, "blind": 0.0}
NOISE = {"clear": 0.01, "faint": 0.02, "blind": 0.02}


def drawn(n_mixtures: int, n_seeds: int, seed: int = 0) -> tuple[list[Trial], list[Trial]]:
    """Return search trials of n mixtures, and replicates of one mixture, with the variances above."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(len(DOMAINS)), n_mixtures + 1)

    def scores(true: dict[str, float]) -> dict[str, float]:
        return {task: true[task] + NOISE[task] * float(rng.standard_normal()) for task in SPREAD}

    truths = [{task: SPREAD[task] * float(rng.standard_normal()) for task in SPREAD} for _ in range(n_mixtures + 1)]
    searched = [make_trial(i + 1, DOMAINS, weights[i], scores(truths[i])) for i in range(n_mixtures)]
    repeated = [
        make_trial(900 + i, DOMAINS, weights[-1], scores(truths[-1]), role="replicate", seed=1000 + i)
        for i in range(n_seeds)
    ]
    return searched, repeated


def test_known_ratios_are_found_and_come_strongest_first() -> None:
    found = signals(*drawn(400, 400), {})
    assert [one.task for one in found] == ["clear", "faint", "blind", "objective"]
    by_task = {one.task: one for one in found}
    assert by_task["clear"].ratio == pytest.approx(10.0, rel=0.15)
    assert by_task["faint"].ratio == pytest.approx(1.0, rel=0.2)
    assert by_task["blind"].ratio < 0.4
    assert all(one.low <= one.ratio <= one.high for one in found)


def test_the_interval_holds_the_ratio_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(100):
        found = {one.task: one for one in signals(*drawn(12, 4, seed), {})}["faint"]
        inside += found.low <= 1.0 <= found.high
    assert 88 <= inside <= 100


def test_the_objective_is_the_weighed_sum_of_its_tasks() -> None:
    searched, repeated = drawn(100, 100)
    found = {one.task: one for one in signals(searched, repeated, {"clear": 1.0, "faint": 0.0, "blind": 0.0})}
    assert found["objective"].ratio == pytest.approx(found["clear"].ratio)
    rows = {row.task: row for row in signal_rows(searched, repeated, {"clear": 3.0})}
    assert rows["clear"].weight == pytest.approx(0.6)
    assert rows["objective"].weight == 1.0


def test_weights_follow_the_signal_and_keep_a_floor() -> None:
    searched, repeated = drawn(200, 200)
    assert weighed({"clear": 2.0}, searched, repeated, "equal") == {"clear": 2.0}
    found = weighed({}, searched, repeated, "signal")
    assert found["clear"] == 1.0
    assert FLOOR <= found["blind"] <= found["faint"] < 0.2
    assert weighed({"faint": 3.0}, searched, repeated, "signal")["faint"] == pytest.approx(3 * found["faint"])
    few = weighed({}, searched, repeated[:2], "signal")
    assert max(few.values()) / min(few.values()) < max(found.values()) / min(found.values())


def test_weights_are_those_of_the_first_iteration_for_the_whole_search() -> None:
    searched, repeated = drawn(20, 4)
    more = [replace(trial, iteration=1) for trial in drawn(20, 4, seed=1)[0]]
    assert weighed({}, [*searched, *more], repeated, "signal") == weighed({}, searched, repeated, "signal")


def test_too_few_trials_tell_nothing() -> None:
    searched, repeated = drawn(5, 3)
    assert signals(searched, repeated[:1], {}) == []
    assert signals(searched[:1], repeated, {}) == []
    assert signal_rows([], [], {}) == []
    assert weighed({"clear": 1.0}, searched, [], "signal") == {"clear": 1.0}


def test_scores_without_noise_have_no_finite_ratio() -> None:
    searched, repeated = drawn(5, 3)
    same = [replace(trial, scores={"clear": 1.0}) for trial in repeated]
    only = [replace(trial, scores={"clear": trial.scores["clear"]}) for trial in searched]
    assert signals(only, same, {})[0].ratio == np.inf
    assert signal_rows(only, same, {})[0].ratio is None
    assert weighed({}, only, same, "signal") == {}


def test_replicates_are_of_the_natural_mixture_with_seeds_of_their_own() -> None:
    config = preset("demo")
    config = replace(config, search=replace(config.search, replicates=3))
    found = replicates(DOMAINS, config)
    assert len({proposal.seed for proposal in found}) == 3
    assert {proposal.weights for proposal in found} == {found[0].weights}
    used = range(config.seed, config.seed + 1 + config.selection.seeds)
    assert not {proposal.seed for proposal in found} & set(used)


def test_the_goal_follows_the_settings() -> None:
    config = preset("demo")
    searched, repeated = drawn(30, 5)
    assert goal_of(config, [*searched, *repeated]) == {}
    config = replace(config, tasks=replace(config.tasks, weighting="signal", thresholds={"faint": 0.0}))
    goal = goal_of(config, [*repeated, *searched])
    assert goal == weighed({"faint": 0.0}, searched, repeated, "signal")
    assert goal["faint"] == 0.0


def test_weighing_by_a_signal_that_nothing_measures_is_told() -> None:
    config = preset("demo")
    check_weighting(config)
    with pytest.raises(ConfigError, match="needs the noise of trials"):
        check_weighting(replace(config, tasks=replace(config.tasks, weighting="signal")))
