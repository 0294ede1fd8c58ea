"""Simulated objectives: the stated optimum is the optimum, and each kind has what its name says."""

import numpy as np
import pytest

from openclimb.config.registry import names
from openclimb.config.schema import SearchSettings
from openclimb.errors import ConfigError
from openclimb.mixture import natural
from openclimb.search.space.simplex import bounds, draw
from openclimb.testing.problems import PROBLEMS, Problem, make_problem, simulate
from openclimb.workspace.observations import LOW_FIDELITY, Observation

SIZES = (5, 20, pytest.param(64, marks=pytest.mark.slow))


def draws(problem: Problem, n: int, near: np.ndarray | None = None) -> np.ndarray:
    floors, caps = bounds(problem.domains)
    return draw(n, natural(problem.domains), floors, caps, np.random.default_rng(0), near=near)


def improved(problem: Problem, start: np.ndarray, rounds: int = 60, moves: int = 300) -> np.ndarray:
    """Return a mixture climbed to from `start` by moving weight, much or little, from one domain to another."""
    floors, caps = bounds(problem.domains)
    rng, d, best = np.random.default_rng(0), len(start), start
    for _ in range(rounds):
        rows, row = np.repeat(best[None], moves, axis=0), np.arange(moves)
        source, target = rng.integers(0, d, moves), rng.integers(0, d, moves)
        size = np.exp(rng.uniform(np.log(1e-6), np.log(0.3), moves)) * (source != target)
        size = np.clip(size, 0.0, np.minimum(rows[row, source] - floors[source], caps[target] - rows[row, target]))
        rows[row, source] -= size
        rows[row, target] += size
        rows = np.concatenate([best[None], rows])
        best = rows[int(problem.objective(rows).argmax())]
    return best


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("n_domains", SIZES)
def test_no_allowed_mixture_beats_the_optimum(kind: str, n_domains: int) -> None:
    for seed in range(1 if n_domains == 64 else 2):
        problem = make_problem(kind, n_domains, seed)
        floors, caps = bounds(problem.domains)
        best = problem.optimum
        assert best.sum() == pytest.approx(1.0)
        assert ((best >= floors - 1e-12) & (best <= caps + 1e-9)).all()
        pool = np.concatenate([draws(problem, 1000), draws(problem, 1000, best[None])])
        top = pool[int(problem.objective(pool).argmax())]
        assert problem.regret(top) >= -1e-6
        assert problem.regret(improved(problem, best)) >= -1e-5
        assert problem.regret(improved(problem, top)) >= -1e-5


@pytest.mark.parametrize("n_domains", SIZES)
def test_a_sparse_optimum_has_few_domains(n_domains: int) -> None:
    for seed in range(6):
        problem = make_problem("sparse", n_domains, seed)
        caps = np.sort([domain.cap for domain in problem.domains])[::-1]
        needed = 1 + int(np.searchsorted(np.cumsum(caps), 1.2))
        assert 2 <= (problem.optimum > 1e-9).sum() <= max(3, needed)


@pytest.mark.parametrize("n_domains", SIZES)
def test_near_a_plateaus_optimum_many_mixtures_are_as_good(n_domains: int) -> None:
    problem = make_problem("plateau", n_domains)
    top = problem.objective(problem.optimum)[0]
    near, far = (
        problem.objective(rows) >= top for rows in (draws(problem, 500, problem.optimum[None]), draws(problem, 500))
    )
    assert near.mean() > 0.1
    assert far.mean() < 0.1


@pytest.mark.parametrize("n_domains", SIZES)
def test_tasks_in_conflict_cost_one_another(n_domains: int) -> None:
    problem = make_problem("conflict", n_domains)
    pool = draws(problem, 1000)
    good = problem.score(pool[np.argsort(-problem.objective(pool))[:100]])
    assert np.corrcoef(good.T).min() < -0.2
    near = problem.score(draws(problem, 500, problem.optimum[None]))
    gains = near - problem.score(problem.optimum[None])
    assert (gains.max(0) > 0).any()  # a task would have another mixture,
    assert (gains.min(1)[(gains > 1e-9).any(1)] < 0).all()  # and no mixture is better for all


@pytest.mark.parametrize("n_domains", SIZES)
def test_uneven_noise_is_uneven_and_the_rest_even(n_domains: int) -> None:
    for kind in ("uneven", "interactions"):
        problem = make_problem(kind, n_domains)
        noise = problem.noise(draws(problem, 200))
        ratio = noise.max() / noise.min()
        assert ratio > 3.0 if kind == "uneven" else ratio == pytest.approx(1.0)
    rng, row = np.random.default_rng(0), draws(problem, 1)
    seen = np.array([list(one.values()) for one in problem.observe(np.repeat(row, 2000, axis=0), rng)])
    assert seen.std(0) == pytest.approx(np.full(seen.shape[1], problem.noise(row)[0, 0]), rel=0.1)


def test_domains_interact() -> None:
    problem = make_problem("interactions", 5)
    apart, step = np.full(5, 0.2), 0.05
    moves = [step * (np.eye(5)[i] - np.eye(5)[4]) for i in (0, 1)]
    rows = np.array([apart, apart + moves[0], apart + moves[1], apart + moves[0] + moves[1]])
    none, first, second, both = np.sqrt(-problem.score(rows).mean(1))
    assert both != pytest.approx(first + second - none, abs=1e-4)


def test_an_unknown_problem_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sparse'"):
        make_problem("sparce", 5)


@pytest.mark.parametrize("name", ["natural", "uniform", "best-of-n", "olmix"])
def test_a_baseline_plays_by_its_own_answer(name: str) -> None:
    problem = make_problem("law", 6, 1)
    found, trials = simulate(problem, SearchSettings(trials=(24,), proposer=name), seed=0)
    assert name in names("baseline")
    assert len(trials) == 24
    assert found.sum() == pytest.approx(1.0)
    measured = problem.objective(np.array([trial.weights for trial in trials]))
    if name == "natural":
        assert problem.regret(found) == problem.regret(natural(problem.domains))
    if name == "best-of-n":
        assert tuple(found) in {trial.weights for trial in trials}
    if name == "olmix":
        assert problem.objective(found)[0] > np.median(measured)


@pytest.mark.slow
def test_hints_that_know_the_scores_lead_the_search() -> None:
    problem = make_problem("interactions", 12, 0)
    weights = draws(problem, 128)
    domains = tuple(domain.name for domain in problem.domains)
    hints = [
        Observation(LOW_FIDELITY, domains, tuple(row.tolist()), scores, name=i)
        for i, (row, scores) in enumerate(zip(weights, exact(problem, weights), strict=True))
    ]
    search = SearchSettings(trials=(4, 3))
    without, hinted = (
        np.mean([problem.regret(simulate(problem, search, seed, low_fidelity=given)[0]) for seed in range(3)])
        for given in ((), hints)
    )
    assert hinted < without


def exact(problem: Problem, weights: np.ndarray) -> list[dict[str, float]]:
    return [{f"task-{j}": float(value) for j, value in enumerate(row)} for row in problem.score(weights)]
