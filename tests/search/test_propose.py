"""Proposals are a pure function of the completed trials, under the caps, distinct, and the search finds the optimum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclimb.config.registry import names
from openclimb.config.schema import SearchSettings
from openclimb.errors import ConfigError, DomainError, SearchError
from openclimb.mixture import Domain, natural
from openclimb.search.acquisition.spec import SearchSpec, make_spec
from openclimb.search.propose import diagnose, finalists, next_batch
from openclimb.search.space.region import natural_mixture, uniform_mixture
from openclimb.testing.contracts import check_proposer
from openclimb.testing.fixtures import make_domains, make_observation, smooth_observations
from openclimb.testing.problems import PROBLEMS, make_problem, simulate

QUICK = SearchSettings(predictor="gp")


def propose_natural(spec: SearchSpec, observations: object, n: int, rng: object) -> np.ndarray:
    """A third-party proposer."""
    return np.repeat(natural(spec.domains)[None], n, axis=0)


def propose_too_much(spec: SearchSpec, observations: object, n: int, rng: object) -> np.ndarray:
    """A third-party proposer that breaks the caps."""
    return np.eye(len(spec.domains))[np.zeros(n, dtype=int)]


# pareto needs two goals: tests/search/test_pareto.py
@pytest.mark.parametrize(
    "name", [*(name for name in names("proposer") if name != "pareto"), f"{__name__}:propose_natural"]
)
def test_contract(name: str) -> None:
    check_proposer(name, "ridge" if name == "recipe" else "gp")  # ridge: the recipe predicts 100,000 draws


@settings(max_examples=12, deadline=None)
@given(
    d=st.integers(2, 24),
    n_completed=st.integers(0, 12),
    n=st.integers(1, 6),
    cap=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**31),
    name=st.sampled_from(["climb", "best-of-n"]),
)
def test_proposals_hold_in_any_order(d: int, n_completed: int, n: int, cap: float, seed: int, name: str) -> None:
    domains = make_domains(d, cap, seed)
    rng = np.random.default_rng(seed)
    trials = smooth_observations(domains, n_completed, seed)
    search = SearchSettings(proposer=name, predictor="gp")
    weights = next_batch(trials, make_spec(domains, search), n, 2, seed)
    caps = np.array([domain.cap for domain in domains])
    assert weights.shape == (n, d)
    assert np.abs(weights.sum(1) - 1.0).max() < 1e-9
    assert (weights >= 0).all()
    assert (weights <= caps + 1e-9).all()
    assert len(np.unique(weights, axis=0)) == n
    shuffled = [trials[i] for i in rng.permutation(n_completed)]
    assert np.array_equal(next_batch(shuffled, make_spec(domains, search), n, 2, seed), weights)
    order = rng.permutation(d)
    turned = next_batch(trials, make_spec([domains[i] for i in order], search), n, 2, seed)
    assert np.array_equal(turned, weights[:, order])


def test_first_batch_has_the_natural_mixture_and_spreads() -> None:
    domains = make_domains(8, 0.5)
    weights = next_batch([], make_spec(domains, SearchSettings()), 12, 0, 0)
    assert np.abs(weights - natural(domains)).sum(1).min() < 0.005
    distance = 0.5 * np.abs(weights[:, None] - weights[None]).sum(2)
    assert distance[~np.eye(12, dtype=bool)].min() > 0.05


def test_later_batches_are_diverse() -> None:
    domains = make_domains(6)
    weights = next_batch(smooth_observations(domains, 24), make_spec(domains, SearchSettings()), 8, 1, 0)
    distance = 0.5 * np.abs(weights[:, None] - weights[None]).sum(2)
    assert distance[~np.eye(8, dtype=bool)].min() > 0.01


@pytest.mark.parametrize("score", [0.5, float("nan")])
def test_scores_that_say_nothing(score: float) -> None:
    domains = make_domains(4)
    trials = [make_observation(i + 1, domains, np.eye(4)[i % 4], {"task": score}) for i in range(6)]
    weights = next_batch(trials, make_spec(domains, SearchSettings()), 4, 1, 0)
    assert len(np.unique(weights, axis=0)) == 4


def test_duplicate_trials_are_replicates() -> None:
    domains = make_domains(4)
    trials = smooth_observations(domains, 8)
    again = [
        make_observation(i + 20, domains, trial.weights, dict(trial.scores), seed=1) for i, trial in enumerate(trials)
    ]
    weights = next_batch([*trials, *again], make_spec(domains, SearchSettings()), 4, 1, 0)
    assert len(np.unique(weights, axis=0)) == 4


def test_caps_that_leave_one_mixture() -> None:
    domains = [Domain(name, 100, 0.25) for name in "abcd"]
    weights = next_batch([], make_spec(domains, SearchSettings()), 3, 0, 0)
    assert weights == pytest.approx(np.full((3, 4), 0.25), abs=1e-6)
    rows = finalists(smooth_observations(domains, 6), make_spec(domains, QUICK), 3, 0)
    assert {role for role, _ in rows} >= {"natural", "uniform"}


def test_one_domain() -> None:
    domains = [Domain("all", 100, 1.0)]
    assert next_batch([], make_spec(domains, SearchSettings()), 2, 0, 0) == pytest.approx(np.ones((2, 1)))


def test_finalists_are_feasible_apart_and_beside_the_baselines() -> None:
    domains = make_domains(6, 0.4)
    rows = finalists(smooth_observations(domains, 30), make_spec(domains, SearchSettings()), 3, 0)
    assert [role for role, _ in rows] == ["finalist"] * 3 + ["natural", "uniform"]
    weights = np.array([row for _, row in rows])
    assert (weights <= np.array([domain.cap for domain in domains]) + 1e-9).all()
    assert weights.sum(1) == pytest.approx(np.ones(5))
    assert 0.5 * np.abs(weights[0] - weights[1]).sum() >= 0.09


def test_finalists_need_scores() -> None:
    with pytest.raises(SearchError, match="no trial"):
        finalists([], make_spec(make_domains(3), QUICK), 3, 0)


def test_uniform_mixture_bends_to_the_caps() -> None:
    domains = [Domain("small", 1, 0.1), Domain("large", 100, 1.0), Domain("larger", 200, 1.0)]
    assert uniform_mixture(domains) == pytest.approx([0.1, 0.45, 0.45])
    assert natural_mixture(domains) == pytest.approx(natural(domains))


def test_proposer_that_breaks_the_caps_is_named() -> None:
    with pytest.raises(DomainError, match="propose_too_much"):
        next_batch(
            [], make_spec(make_domains(4, 0.5), SearchSettings(proposer=f"{__name__}:propose_too_much")), 2, 0, 0
        )


def test_unknown_proposer_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'recipe'"):
        next_batch([], make_spec(make_domains(4), SearchSettings(proposer="recipes")), 2, 0, 0)


def test_paper_draws_hold_the_recipe_and_our_caps() -> None:
    domains = make_domains(10, 0.3)
    weights = next_batch([], make_spec(domains, SearchSettings(proposer="recipe")), 32, 0, 0)
    assert (weights <= np.array([domain.cap for domain in domains]) + 1e-9).all()
    assert (weights == 0).any()


@pytest.mark.parametrize("kind", PROBLEMS)
def test_search_finds_nearly_the_optimum(kind: str) -> None:
    problem = make_problem(kind, 8, seed=1)
    found, trials = simulate(problem, SearchSettings(trials=(16, 8, 4)), seed=0)
    assert len(trials) == 28
    measured = problem.objective(np.array([trial.weights for trial in trials]))
    assert problem.regret(found) < 0.25
    assert problem.regret(found) < problem.regret(natural(problem.domains)) + 0.02
    sixth = np.argsort(-measured)[5]  # nearly as good as the few best that were measured
    assert problem.regret(found) < problem.regret(np.array(trials[sixth].weights)) + 0.02


def test_diagnostics_say_what_was_learnt() -> None:
    domains = make_domains(5)
    facts = diagnose(smooth_observations(domains, 24), make_spec(domains, SearchSettings()), 1)
    assert facts.rank_correlation["objective"] > 0.8
    assert set(facts.rank_correlation) == {"first", "second", "objective"}
    assert facts.warning == ""
    assert facts.trials == list(range(1, 25))
    assert 0.5 < facts.coverage_80["objective"] <= 1.0
    assert "gp" in facts.predictor["first"] or "power_law" in facts.predictor["first"]


def test_diagnostics_warn_of_noise() -> None:
    domains = make_domains(5)
    rng = np.random.default_rng(0)
    trials = [
        make_observation(i + 1, domains, rng.dirichlet(np.ones(5)), {"task": float(rng.standard_normal())})
        for i in range(24)
    ]
    assert "cannot be predicted" in diagnose(trials, make_spec(domains, SearchSettings()), 0).warning


def test_diagnostics_of_one_trial_and_of_constant_scores() -> None:
    domains = make_domains(3)
    one = diagnose(
        [make_observation(1, domains, [0.2, 0.3, 0.5], {"task": 1.0})], make_spec(domains, SearchSettings()), 0
    )
    assert "too few" in one.warning
    same = [make_observation(i + 1, domains, np.eye(3)[i % 3], {"task": 1.0}) for i in range(6)]
    assert "same score" in diagnose(same, make_spec(domains, SearchSettings()), 0).warning
