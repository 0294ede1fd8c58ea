"""The laws of mixtures: slopes are exact, leaving out is what the linearisation says, intervals hold."""

from typing import Any

import numpy as np
import pytest

from openclimb.baselines.fits import exponential_law as exponential
from openclimb.baselines.fits.exponential_law import ExponentialLaw, log_linear
from openclimb.search.predictors import mixing_law
from openclimb.search.predictors import power_law as power
from openclimb.search.predictors.mixing_law import fit_law
from openclimb.search.predictors.power_law import PowerLaw
from openclimb.search.predictors.predictor import make_predictor

LAWS = ["power_law", "exponential", "loglinear"]
MODULES = {"power_law": (power, 3), "exponential": (exponential, 2)}


def exponential_scores(weights: np.ndarray, seed: int = 0) -> np.ndarray:
    slopes = np.random.default_rng(seed).normal(0.0, 2.0, weights.shape[1])
    return -0.5 - np.exp(weights @ slopes)


@pytest.mark.parametrize("name", MODULES)
def test_slopes_are_exact(name: str) -> None:
    from scipy.optimize import approx_fprime

    module, n_tail = MODULES[name]
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(4, 0.5), 9)
    weights[0] = [0.0, 0.5, 0.5, 0.0]
    theta = 0.5 * rng.standard_normal(4 + n_tail)
    value, slopes = module._slopes(theta, weights)
    evaluated, back = module._prepare(weights)(theta)
    assert evaluated == pytest.approx(value)
    numeric = approx_fprime(theta, lambda at: module._slopes(at, weights)[0], 1e-7)
    assert slopes == pytest.approx(numeric, rel=1e-4, abs=1e-5)
    pull = rng.standard_normal(9)
    assert back(pull) == pytest.approx(pull @ slopes)


@pytest.mark.parametrize("name", LAWS)
def test_many_trials_are_linearised_by_parameters_to_the_same_numbers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(5), 120)
    scores = exponential_scores(weights) + 0.02 * rng.standard_normal(120)
    by_trials = make_predictor(name).fit(weights, scores)
    monkeypatch.setattr(mixing_law, "MOST_BY_TRIALS", 50)
    by_parameters = make_predictor(name).fit(weights, scores)
    for what in ("loo_mean", "loo_sd", "noise"):
        assert getattr(by_parameters, what) == pytest.approx(getattr(by_trials, what), rel=1e-5), what


@pytest.mark.parametrize("name", LAWS)
def test_leaving_a_trial_out_gives_what_the_linearisation_says(name: str) -> None:
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(5), 40)
    scores = exponential_scores(weights) + 0.05 * rng.standard_normal(40)
    whole: Any = make_predictor(name)
    whole.fit(weights, scores)
    left_out = []
    for i in range(40):
        part = make_predictor(name)
        part.fit(np.delete(weights, i, 0), np.delete(scores, i))
        left_out.append(part.predict(weights[i : i + 1])[0][0])
    assert (
        np.corrcoef(whole.loo_mean - whole.predict(weights)[0], np.array(left_out) - whole.predict(weights)[0])[0, 1]
        > 0.7
    )
    assert np.abs(whole.loo_mean - left_out).mean() < 0.3 * whole.noise


def test_a_law_of_more_domains_than_trials_knows_that_it_errs() -> None:
    """Its fit goes through the trials, so that what it leaves of them says nothing of others."""
    ratios = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        weights = rng.dirichlet(np.ones(30), 80)
        scores = rng.standard_normal(30) @ np.sqrt(weights).T + 0.1 * rng.standard_normal(80)
        law = PowerLaw().fit(weights[:20], scores[:20])
        unseen = np.sqrt(np.mean((law.predict(weights[20:])[0] - scores[20:]) ** 2))
        ratios.append(np.sqrt(np.mean((law.loo_mean - scores[:20]) ** 2)) / unseen)
    assert 0.5 < np.mean(ratios) < 2.0


@pytest.mark.parametrize("name", ["exponential", "loglinear"])
def test_intervals_hold_where_the_law_is_true(name: str) -> None:
    inside, errors = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        weights = rng.dirichlet(np.ones(6), 120)
        exact = exponential_scores(weights, seed)
        scores = exact + 0.1 * exact.std() * rng.standard_normal(120)
        predictor = make_predictor(name)
        predictor.fit(weights[:40], scores[:40])
        mean, deviation = predictor.predict(weights[40:])
        inside.append(np.abs(mean - scores[40:]) < 1.2816 * deviation)
        errors.append(np.abs(mean - exact[40:]).mean() / exact.std())
    assert 0.7 < np.mean(inside) < 0.9
    assert np.mean(errors) < 0.1


def test_one_bad_trial_moves_the_log_linear_law_less() -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(5), 60)
    scores = exponential_scores(weights)
    completed = scores.copy()
    completed[7] -= 20.0 * scores.std()
    rest = np.arange(60) != 7
    off = {
        law: np.abs(made().fit(weights, completed).predict(weights)[0] - scores)[rest].mean()
        for law, made in (("squares", ExponentialLaw), ("huber", log_linear))
    }
    assert off["huber"] < 0.5 * off["squares"]


def test_no_loss_is_better_than_none() -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(4), 30)
    losses = 0.02 + 0.05 * weights[:, 0]  # nearly straight: a free level would lie far below 0
    for law, allowed in ((log_linear(), True), (ExponentialLaw(), False)):
        fitted = law.fit(weights, -losses).fitted
        best = fitted.theta[-1] * fitted.spread + fitted.mean
        assert (best <= 1e-9) == allowed
    accuracies = log_linear().fit(weights, losses).fitted  # not a loss: no such end
    assert accuracies.theta[-1] * accuracies.spread + accuracies.mean > losses.max()


def test_more_starts_are_never_a_worse_fit() -> None:
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.full(5, 0.3), 30)
    scores = exponential_scores(weights) + 0.02 * rng.standard_normal(30)
    fitted = ExponentialLaw().fit(weights, scores).fitted
    starts = [np.concatenate([np.zeros(5), [np.log(level), level]]) for level in exponential.LEVELS]

    def left(of: Any) -> float:
        off = (of.theta - of.law.mean) / of.law.deviation
        rest = (of.predict(weights)[0] - scores) / of.spread
        return float(0.5 * rest @ rest / fitted.variance + 0.5 * off @ off)

    single = [fit_law(fitted.law, weights, scores, [start], 150) for start in starts]
    assert left(fitted) <= min(map(left, single)) + 0.05 * abs(min(map(left, single)))


def test_a_like_tasks_fit_is_a_start() -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(5), 40)
    scores = np.sqrt(weights) @ rng.random(5)
    whole = PowerLaw().fit(weights, scores)
    again = PowerLaw(steps=24, start=whole.theta).fit(weights, 3.0 * scores + 1.0)
    assert again.predict(weights)[0] == pytest.approx(3.0 * whole.predict(weights)[0] + 1.0, abs=0.02)


def test_restarts_of_the_process_never_find_a_less_likely_fit_and_repeat() -> None:
    from openclimb.search.predictors.gp import RESTARTS, GaussianProcess, _loss

    for seed in range(6):
        rng = np.random.default_rng(seed)
        weights = rng.dirichlet(np.full(6, 0.4), 24)
        scores = np.sin(9.0 * weights[:, 0]) + 0.3 * rng.standard_normal(24)
        losses = []
        for restarts in (0, 1, len(RESTARTS)):
            made = GaussianProcess(1.0, restarts=restarts).fit(weights, scores)
            targets = ((scores - made.mean[0]) / made.spread[0])[:, None]
            losses.append(_loss(made.theta, made.features[0], made.features[1] @ made.features[1].T, targets)[0])
        assert losses[0] + 1e-9 >= losses[1] >= losses[2] - 1e-9
        again = GaussianProcess(1.0, restarts=len(RESTARTS)).fit(weights, scores)
        assert np.array_equal(again.theta, made.theta)
