"""Low-fidelity scores that rank mixtures replace trials, others do no harm, and none is a trial."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from openclimb.config.schema import SearchSettings
from openclimb.mixture import natural
from openclimb.search.acquisition.spec import SearchSpec, make_spec
from openclimb.search.history import History, read_history
from openclimb.search.predictors.low_fidelity import CoKriging, read_low_fidelity, shares, slopes
from openclimb.search.predictors.objective import cross_validate, fit_objective
from openclimb.search.propose import diagnose, finalists, next_batch
from openclimb.testing.fixtures import make_domains, make_observation, make_space, smooth_observations
from openclimb.testing.problems import make_problem
from openclimb.workspace.observations import LOW_FIDELITY, OWN, Observation

PROBLEM = make_problem("interactions", 8, seed=2)
TASKS = tuple(PROBLEM.observe(np.full((1, 8), 1 / 8), np.random.default_rng(0))[0])
QUICK = SearchSettings(predictor="gp")


def draws(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(8), n)


def hints_of(weights: np.ndarray, scores: np.ndarray, tasks: tuple[str, ...] = TASKS) -> list[Observation]:
    return [
        make_observation(i, PROBLEM.domains, row, dict(zip(tasks, score.tolist(), strict=True)), source=LOW_FIDELITY)
        for i, (row, score) in enumerate(zip(weights, scores, strict=True))
    ]


def completed(n: int, seed: int = 1) -> list[Observation]:
    weights = draws(n, seed)
    observed = PROBLEM.observe(weights, np.random.default_rng(seed))
    return [make_observation(1 + i, PROBLEM.domains, weights[i], observed[i]) for i in range(n)]


def errors(trials: list[Observation], predictor: str = "auto") -> tuple[float, float]:
    """Return rank correlation, and error in spreads, of the prediction of mixtures that no trial and no hint has."""
    new = draws(200, 99)
    truth = PROBLEM.score(new).mean(1)
    guess = fit_objective(read_history(trials, PROBLEM.domains, {}), predictor).predict(new)[0]
    return float(spearmanr(guess, truth).statistic), float(np.abs(guess - truth).mean() / truth.std())


@pytest.mark.parametrize("predictor", ["auto", "gp", "lightgbm"])
def test_a_hint_of_another_scale_replaces_trials(predictor: str) -> None:
    weights = draws(200, 7)
    cheap = 40.0 + 5.0 * PROBLEM.score(weights) + 0.2 * np.random.default_rng(0).standard_normal((200, len(TASKS)))
    few, many = completed(6), completed(24)
    hinted, plain = errors([*few, *hints_of(weights, cheap)], predictor), errors(many, predictor)
    assert hinted[0] > max(0.95, plain[0])
    assert hinted[1] < plain[1]


def test_a_hint_that_says_nothing_does_no_harm() -> None:
    found = []
    for seed in range(4):
        weights, trials = draws(120, seed), completed(16, 100 + seed)
        low_fidelity = hints_of(weights, make_problem("interactions", 8, seed=70 + seed).score(weights))
        found.append((*errors(trials, "gp"), *errors([*trials, *low_fidelity], "gp")))
    plain_rho, plain, hinted_rho, hinted = np.mean(found, axis=0)
    assert hinted_rho > plain_rho - 0.03
    assert hinted < 1.05 * plain


def test_a_hint_of_one_task_leaves_the_others_alone() -> None:
    weights = draws(100, 7)
    trials = completed(12)
    low_fidelity = hints_of(weights, PROBLEM.score(weights)[:, :1], TASKS[:1])
    plain, hinted = (
        fit_objective(read_history(rows, PROBLEM.domains, {}), "gp").predict_tasks(draws(5, 3))[0]
        for rows in (trials, [*trials, *low_fidelity])
    )
    assert np.abs(plain - hinted)[:, 0].max() > 1e-6
    assert hinted[:, 1:] == pytest.approx(plain[:, 1:], abs=0.5 * np.abs(plain[:, 1:]).std())
    history = read_history([*trials, *low_fidelity], PROBLEM.domains, {TASKS[0]: 1.0, **dict.fromkeys(TASKS[1:], 0.0)})
    assert history.aggregated().low_fidelity is not None
    assert read_history([*trials, *low_fidelity], PROBLEM.domains, {}).aggregated().low_fidelity is None


def test_hints_of_other_domains_or_tasks_are_none() -> None:
    weights = draws(10, 7)
    names = [domain.name for domain in PROBLEM.domains]
    assert read_low_fidelity([], names, TASKS) is None
    assert read_low_fidelity(hints_of(weights, weights[:, :1], ("other",)), names, TASKS) is None
    assert read_low_fidelity(hints_of(weights, PROBLEM.score(weights)), names[:-1], TASKS) is None


def test_leave_one_out_guesses_are_those_of_the_whole() -> None:
    weights, new = draws(100, 7), draws(20, 8)
    history = read_history([*completed(16), *hints_of(weights, PROBLEM.score(weights))], PROBLEM.domains, {})
    predictor = fit_objective(history, "auto")
    assert all(isinstance(predictor, CoKriging) for _, predictor in predictor.groups)
    assert "× low-fidelity + " in predictor.groups[0][1].description
    assert np.isfinite(predictor.loo_mean).all()
    assert (predictor.loo_sd > 0).all()
    assert (predictor.predict(new)[1] > 0).all()
    validated = cross_validate(history, "auto")[0]
    assert spearmanr((validated @ history.importance), history.objective).statistic > 0.8
    assert history.only(np.arange(16) < 4).low_fidelity is history.low_fidelity
    assert history.fantasized(new, np.zeros((20, len(TASKS)))).low_fidelity is history.low_fidelity


def test_slopes_and_shares() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2))
    x -= x.mean(0)
    assert slopes(x, x * [3.0, -2.0]) == pytest.approx([3.0, -2.0], rel=0.05)
    assert (slopes(np.zeros((5, 2)), x[:5]) == 0).all()
    assert shares(x, x, np.array([0.5, 0.9])) == pytest.approx([1.0, 1.0], abs=0.05)
    assert (shares(-x, x, np.ones(2)) == 0).all()
    assert shares(-x, x, np.array([0.0, 1.0])) == pytest.approx(
        [1.0, 0.0]
    )  # without a low-fidelity score, what is predicted counts
    assert (shares(x[:4], x[:4], np.ones(2)) < 0.5).all()  # four trials say little


def propose_completed(spec: SearchSpec, observations: list[Observation], n: int, rng: object) -> np.ndarray:
    """A third-party proposer that tells trials by their source."""
    assert [one.source for one in observations].count(OWN) == 8
    return np.repeat(natural(spec.domains)[None], n, axis=0)


def test_hints_are_no_trials() -> None:
    weights = draws(60, 7)
    low_fidelity = hints_of(weights, PROBLEM.score(weights))
    trials = completed(8)
    rows = [*trials, *low_fidelity]
    history: History = read_history(rows, PROBLEM.domains, {})
    assert history.names == read_history(trials, PROBLEM.domains, {}).names
    assert history.counts == {"trials": 8, "transferred": 0}
    assert diagnose(rows, make_spec(PROBLEM.domains, QUICK), 0).trials == list(range(1, 9))
    next_batch(rows, make_spec(PROBLEM.domains, replace(QUICK, proposer=f"{__name__}:propose_completed")), 2, 1, 0)
    space = make_space(PROBLEM.domains, QUICK).with_low_fidelity(low_fidelity)
    assert space.observations([]) == low_fidelity


def test_proposals_follow_the_hint_and_no_order() -> None:
    weights = draws(120, 7)
    rows = [*completed(5), *hints_of(weights, PROBLEM.score(weights))]
    plain, hinted = (
        PROBLEM.score(next_batch(some, make_spec(PROBLEM.domains, QUICK), 4, 1, 0)).mean()
        for some in (completed(5), rows)
    )
    assert hinted > plain
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = [rows[i] for i in order]
    turned = PROBLEM.domains[::-1]
    batch = next_batch(rows, make_spec(PROBLEM.domains, QUICK), 4, 1, 0)
    assert np.array_equal(next_batch(shuffled, make_spec(turned, QUICK), 4, 1, 0)[:, ::-1], batch)
    found = finalists(rows, make_spec(PROBLEM.domains, QUICK), 3, 0)
    assert finalists(shuffled, make_spec(PROBLEM.domains, QUICK), 3, 0) == found


def test_a_first_batch_needs_no_trial() -> None:
    domains = make_domains(4)
    low_fidelity = [replace(one, source=LOW_FIDELITY) for one in smooth_observations(domains, 30)]
    batch = next_batch(low_fidelity, make_spec(domains, QUICK), 4, 0, 0)
    assert batch.shape == (4, 4)
