"""Hints: a cheap score that ranks mixtures replaces trials, one that does not does no harm, and none is a trial."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from trial_rows import make_domains, make_trial, smooth_trials

from openclimb.mixture import Domain, natural
from openclimb.search.forecast import cross_validate, fit_forecast
from openclimb.search.hint import ROLE, Hinted, read_hint, shares, slopes, split_hints
from openclimb.search.history import History, read_history
from openclimb.search.loop import diagnose, finalists, next_batch
from openclimb.search.required import Required
from openclimb.search.reuse import without_old
from openclimb.search.simulate import make_problem
from openclimb.settings import PickSettings, SearchSettings
from openclimb.trials import Trial

PROBLEM = make_problem("interactions", 8, seed=2)
TASKS = tuple(PROBLEM.observe(np.full((1, 8), 1 / 8), np.random.default_rng(0))[0])
QUICK = SearchSettings(predictor="gp")


def draws(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(8), n)


def hints_of(weights: np.ndarray, scores: np.ndarray, tasks: tuple[str, ...] = TASKS) -> list[Trial]:
    return [
        make_trial(-1 - i, PROBLEM.domains, row, dict(zip(tasks, score.tolist(), strict=True)), role=ROLE)
        for i, (row, score) in enumerate(zip(weights, scores, strict=True))
    ]


def told(n: int, seed: int = 1) -> list[Trial]:
    weights = draws(n, seed)
    observed = PROBLEM.observe(weights, np.random.default_rng(seed))
    return [make_trial(1 + i, PROBLEM.domains, weights[i], observed[i]) for i in range(n)]


def errors(trials: list[Trial], predictor: str = "auto") -> tuple[float, float]:
    """Return rank correlation, and error in spreads, of the forecast of mixtures that no trial and no hint has."""
    new = draws(200, 99)
    truth = PROBLEM.score(new).mean(1)
    guess = fit_forecast(read_history(trials, PROBLEM.domains, {}), predictor).predict(new)[0]
    return float(spearmanr(guess, truth).statistic), float(np.abs(guess - truth).mean() / truth.std())


@pytest.mark.parametrize("predictor", ["auto", "gp", "lightgbm"])
def test_a_hint_of_another_scale_replaces_trials(predictor: str) -> None:
    weights = draws(200, 7)
    cheap = 40.0 + 5.0 * PROBLEM.score(weights) + 0.2 * np.random.default_rng(0).standard_normal((200, len(TASKS)))
    few, many = told(6), told(24)
    hinted, plain = errors([*few, *hints_of(weights, cheap)], predictor), errors(many, predictor)
    assert hinted[0] > max(0.95, plain[0])
    assert hinted[1] < plain[1]


def test_a_hint_that_says_nothing_does_no_harm() -> None:
    found = []
    for seed in range(4):
        weights, trials = draws(120, seed), told(16, 100 + seed)
        hints = hints_of(weights, make_problem("interactions", 8, seed=70 + seed).score(weights))
        found.append((*errors(trials, "gp"), *errors([*trials, *hints], "gp")))
    plain_rho, plain, hinted_rho, hinted = np.mean(found, axis=0)
    assert hinted_rho > plain_rho - 0.03
    assert hinted < 1.05 * plain


def test_a_hint_of_one_task_leaves_the_others_alone() -> None:
    weights = draws(100, 7)
    trials = told(12)
    hints = hints_of(weights, PROBLEM.score(weights)[:, :1], TASKS[:1])
    plain, hinted = (
        fit_forecast(read_history(rows, PROBLEM.domains, {}), "gp").predict_tasks(draws(5, 3))[0]
        for rows in (trials, [*trials, *hints])
    )
    assert np.abs(plain - hinted)[:, 0].max() > 1e-6
    assert hinted[:, 1:] == pytest.approx(plain[:, 1:], abs=0.5 * np.abs(plain[:, 1:]).std())
    history = read_history([*trials, *hints], PROBLEM.domains, {TASKS[0]: 1.0, **dict.fromkeys(TASKS[1:], 0.0)})
    assert history.aggregated().hint is not None
    assert read_history([*trials, *hints], PROBLEM.domains, {}).aggregated().hint is None


def test_hints_of_other_domains_or_tasks_are_none() -> None:
    weights = draws(10, 7)
    names = [domain.name for domain in PROBLEM.domains]
    assert read_hint([], names, TASKS) is None
    assert read_hint(hints_of(weights, weights[:, :1], ("other",)), names, TASKS) is None
    assert read_hint(hints_of(weights, PROBLEM.score(weights)), names[:-1], TASKS) is None


def test_leave_one_out_guesses_are_those_of_the_whole() -> None:
    weights, new = draws(100, 7), draws(20, 8)
    history = read_history([*told(16), *hints_of(weights, PROBLEM.score(weights))], PROBLEM.domains, {})
    forecast = fit_forecast(history, "auto")
    assert all(isinstance(predictor, Hinted) for _, predictor in forecast.groups)
    assert "× hint + " in forecast.groups[0][1].description
    assert np.isfinite(forecast.loo_mean).all()
    assert (forecast.loo_sd > 0).all()
    assert (forecast.predict(new)[1] > 0).all()
    validated = cross_validate(history, "auto")[0]
    assert spearmanr((validated @ history.importance), history.objective).statistic > 0.8
    assert history.only(np.arange(16) < 4).hint is history.hint
    assert history.believing(new, np.zeros((20, len(TASKS)))).hint is history.hint


def test_slopes_and_shares() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2))
    x -= x.mean(0)
    assert slopes(x, x * [3.0, -2.0]) == pytest.approx([3.0, -2.0], rel=0.05)
    assert (slopes(np.zeros((5, 2)), x[:5]) == 0).all()
    assert shares(x, x, np.array([0.5, 0.9])) == pytest.approx([1.0, 1.0], abs=0.05)
    assert (shares(-x, x, np.ones(2)) == 0).all()
    assert shares(-x, x, np.array([0.0, 1.0])) == pytest.approx([1.0, 0.0])  # without a hint, what is predicted counts
    assert (shares(x[:4], x[:4], np.ones(2)) < 0.5).all()  # four trials say little


def propose_told(trials: list[Trial], domains: list[Domain], n: int, rng: object, aim: object) -> np.ndarray:
    """A stranger's proposer that takes whatever it is given for a trial."""
    assert not any(trial.role == ROLE for trial in trials)
    return np.repeat(natural(domains)[None], n, axis=0)


def test_hints_are_no_trials() -> None:
    weights = draws(60, 7)
    hints = hints_of(weights, PROBLEM.score(weights))
    trials = told(8)
    rows = [*trials, *hints]
    assert split_hints(rows) == (trials, hints)
    history: History = read_history(rows, PROBLEM.domains, {})
    assert history.numbers == read_history(trials, PROBLEM.domains, {}).numbers
    assert history.counts == {"trials": 8, "old_trials": 0}
    assert diagnose(rows, PROBLEM.domains, 0, QUICK, {}, 0)["trials"] == list(range(1, 9))
    next_batch(rows, PROBLEM.domains, 2, 1, replace(QUICK, proposer="test_hint:propose_told"), {}, 0)
    reuse = without_old(PROBLEM.domains, Required()).hinted(hints)
    assert reuse.informed(trials) == rows


def test_proposals_follow_the_hint_and_no_order() -> None:
    weights = draws(120, 7)
    rows = [*told(5), *hints_of(weights, PROBLEM.score(weights))]
    plain, hinted = (
        PROBLEM.score(next_batch(some, PROBLEM.domains, 4, 1, QUICK, {}, 0)).mean() for some in (told(5), rows)
    )
    assert hinted > plain
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = [rows[i] for i in order]
    turned = PROBLEM.domains[::-1]
    batch = next_batch(rows, PROBLEM.domains, 4, 1, QUICK, {}, 0)
    assert np.array_equal(next_batch(shuffled, turned, 4, 1, QUICK, {}, 0)[:, ::-1], batch)
    found = finalists(rows, PROBLEM.domains, QUICK, PickSettings(), {}, 0)
    assert finalists(shuffled, PROBLEM.domains, QUICK, PickSettings(), {}, 0) == found


def test_a_first_batch_needs_no_trial() -> None:
    domains = make_domains(4)
    hints = [replace(trial, role=ROLE, number=-trial.number) for trial in smooth_trials(domains, 30)]
    batch = next_batch(hints, domains, 4, 0, QUICK, {}, 0)
    assert batch.shape == (4, 4)
