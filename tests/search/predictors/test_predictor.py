"""Predictors learn, say how sure they are, and do not care about the order of domains or trials."""

import numpy as np
import pytest

from openclimb.config.registry import names
from openclimb.errors import ConfigError, SearchError
from openclimb.search.history import History, importance, read_history
from openclimb.search.predictors.ensemble import stack_shares
from openclimb.search.predictors.objective import fit_objective
from openclimb.search.predictors.outliers import OutlierCompression
from openclimb.search.predictors.predictor import fit_predictor
from openclimb.testing.contracts import check_predictor
from openclimb.testing.fixtures import make_domains, smooth_observations
from openclimb.testing.problems import make_problem


@pytest.mark.parametrize("name", [*names("predictor"), "openclimb.baselines.fits.ridge:Ridge"])
def test_contract(name: str) -> None:
    check_predictor(name)


@pytest.mark.parametrize("name", ["auto", "gp", "power_law", "exponential", "loglinear", "ridge"])
def test_order_of_domains_and_trials_does_not_matter(name: str) -> None:
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.ones(7), 40)
    scores = np.sqrt(weights) @ rng.random(7) + 0.02 * rng.standard_normal(40)
    columns, rows = rng.permutation(7), rng.permutation(40)
    plain = fit_predictor(weights, scores, name).predict(weights)
    turned = fit_predictor(weights[rows][:, columns], scores[rows], name).predict(weights[:, columns])
    assert turned[0] == pytest.approx(plain[0], abs=0.02 * scores.std())
    assert turned[1] == pytest.approx(plain[1], rel=0.1)


@pytest.mark.parametrize("kind", ["law", "interactions"])
def test_auto_ranks_unseen_mixtures_and_knows_its_errors(kind: str) -> None:
    from scipy.stats import spearmanr

    problem = make_problem(kind, 8)
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(8), 160)
    scores = np.array([sum(row.values()) for row in problem.observe(weights, rng)])
    mean, deviation = fit_predictor(weights[:48], scores[:48]).predict(weights[48:])
    trees, _ = fit_predictor(weights[:48], scores[:48], "recipe").predict(weights[48:])
    exact = problem.objective(weights[48:])
    rho = spearmanr(mean, exact).statistic
    assert rho > 0.85
    assert rho > spearmanr(trees, exact).statistic + 0.1
    inside = (np.abs(mean - scores[48:]) < 1.2816 * deviation).mean()
    assert 0.6 < inside < 0.95


def test_gradient_of_the_process_is_exact() -> None:
    from scipy.optimize import approx_fprime

    from openclimb.search.predictors.gp import _loss

    rng = np.random.default_rng(0)
    x, targets = rng.random((12, 3)), rng.standard_normal((12, 2))
    gram = x @ x.T
    theta = 0.3 * rng.standard_normal(7)
    numeric = approx_fprime(theta, lambda at: _loss(at, x, gram, targets)[0], 1e-6)
    assert _loss(theta, x, gram, targets)[1] == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_leave_one_out_is_what_leaving_out_gives() -> None:
    from openclimb.search.predictors.gp import GaussianProcess

    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), 10)
    scores = weights[:, 0] + 0.05 * rng.standard_normal(10)
    whole = GaussianProcess().fit(weights, scores)
    rest = GaussianProcess().fit(weights, scores)
    features = tuple(part[1:] for part in rest.features)
    rest._condition(features, ((scores - rest.mean[0]) / rest.spread[0])[1:, None])
    rest.one = True
    assert rest.predict(weights[:1])[0][0] == pytest.approx(whole.loo_mean[0], abs=1e-6)


def test_shares_go_to_the_member_that_predicts() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(200)
    guesses = np.stack([scores + 0.1 * rng.standard_normal(200), rng.standard_normal(200)], axis=1)
    shares = stack_shares(guesses, scores)
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] > 0.9


def test_many_tasks_share_hyperparameters_and_lose_little() -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(6), 60)
    scores = np.sqrt(weights) @ rng.random((6, 24)) + 0.02 * rng.standard_normal((60, 24))
    tasks = tuple(f"task-{i:02d}" for i in range(24))
    history = History(weights[:40], scores[:40], tasks, importance(tasks, {}), tuple(range(40)), ("own",) * 40)
    predictor = fit_objective(history, "auto")
    assert len(predictor.groups) < 24
    mean, deviation = predictor.predict(weights[40:])
    assert np.corrcoef(mean, scores[40:].mean(1))[0, 1] > 0.95
    assert (np.abs(mean - scores[40:].mean(1)) < 1.2816 * deviation).mean() > 0.5


def test_missing_scores_cost_only_themselves() -> None:
    domains = make_domains(4)
    trials = smooth_observations(domains, 20)
    trials[3].scores["second"] = float("nan")  # type: ignore[index]
    del trials[5].scores["first"]  # type: ignore[attr-defined]
    history = read_history(trials, domains, {})
    assert history.scores.shape == (20, 2)
    assert np.isnan(history.scores).sum() == 2
    assert np.isnan(history.objective).sum() == 2
    mean, deviation = fit_objective(history, "auto").predict(history.weights)
    assert np.isfinite(mean).all()
    assert (deviation > 0).all()


def test_unknown_predictor_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'power_law'"):
        fit_predictor(np.eye(2), np.ones(2), "powr")


def test_predictor_that_cannot_be_loaded() -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        fit_predictor(np.eye(2), np.ones(2), "openclimb.baselines.fits.ridge:Nothing")


def test_no_scores_at_all() -> None:
    with pytest.raises(SearchError, match="no trial"):
        fit_predictor(np.eye(2), np.full(2, np.nan))


def test_task_weights_must_name_tasks() -> None:
    with pytest.raises(SearchError, match="did you mean 'sciq'"):
        importance(["piqa", "sciq"], {"sciqq": 2.0})


def test_tasks_that_are_not_named_count_one() -> None:
    assert importance(["a", "b"], {"a": 3.0}) == pytest.approx([0.75, 0.25])


def test_tasks_without_any_weight() -> None:
    with pytest.raises(SearchError, match="weight 0"):
        importance(["a"], {"a": 0.0})


def test_trials_of_other_domains_are_refused() -> None:
    trials = smooth_observations(make_domains(4), 3)
    with pytest.raises(SearchError, match="other domains"):
        read_history(trials, make_domains(5), {})


def test_far_outliers_are_drawn_nearer_in_the_same_order() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(size=(40, 1)), [[-300.0], [-80.0]]])
    compression = OutlierCompression.of(scores)
    drawn = compression.apply(scores)
    assert np.array_equal(drawn[:40], scores[:40])
    assert drawn[40, 0] < drawn[41, 0] < scores[:40].min()
    assert drawn[40, 0] > -60.0
    step = 1e-4  # the slope is that of the map
    assert compression.slope(scores) == pytest.approx((compression.apply(scores + step) - drawn) / step, abs=1e-3)
    blind = np.array([[1.0, np.nan], [1.0, np.nan], [0.0, np.nan]])  # no spread above the median, no score at all
    assert np.array_equal(OutlierCompression.of(blind).apply(blind), blind, equal_nan=True)
