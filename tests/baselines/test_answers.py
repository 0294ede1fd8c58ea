"""How baselines answer: the mixture each of them makes of completed trials."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from openclimb.baselines import baseline as base
from openclimb.baselines.baseline import answer_of
from openclimb.baselines.olmix import least, olmix_loss
from openclimb.config.schema import ConstraintsSettings
from openclimb.errors import ConfigError, SearchError
from openclimb.mixture import Domain, natural
from openclimb.search.acquisition.spec import SearchSpec, make_spec
from openclimb.search.history import read_history
from openclimb.search.predictors.objective import fit_objective
from openclimb.search.space.region import Region, allowed, draw_in, region_of
from openclimb.testing.fixtures import make_domains, make_observation, smooth_observations


def spec_of(domains: Sequence[Domain]) -> SearchSpec:
    return SearchSpec(tuple(domains), "ridge")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe and RegMix predict 100,000 draws; some thousands show the same."""
    monkeypatch.setattr(base, "DRAWS", 4000)
    monkeypatch.setattr(base, "CHUNK", 1000)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_an_unknown_baseline_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'regmix'"):
        answer_of("regmx", spec_of(make_domains(3)), [], rng())


@pytest.mark.parametrize("name", ["best-of-n", "regmix", "recipe", "olmix"])
def test_answers_need_scores(name: str) -> None:
    with pytest.raises(SearchError, match="no trial has scores"):
        answer_of(name, spec_of(make_domains(3)), [], rng())


def test_natural_and_uniform_need_none() -> None:
    domains = make_domains(4)
    assert answer_of("natural", spec_of(domains), [], rng()) == pytest.approx(natural(domains))
    assert answer_of("uniform", spec_of(domains), [], rng()) == pytest.approx(np.full(4, 0.25))


def test_best_of_n_takes_the_mean_of_replicates() -> None:
    domains = make_domains(3)
    lucky, steady = [0.2, 0.3, 0.5], [0.6, 0.2, 0.2]
    completed = [(lucky, 1.0), (lucky, 0.0), (steady, 0.7), (steady, 0.6)]
    trials = [
        make_observation(i + 1, domains, row, {"task": score}, seed=i) for i, (row, score) in enumerate(completed)
    ]
    assert answer_of("best-of-n", spec_of(domains), trials, rng()).tolist() == steady
    assert answer_of("best-of-n", spec_of(domains), trials[:1], rng()).tolist() == lucky


def test_best_of_n_answers_with_an_allowed_mixture_or_says_that_there_is_none() -> None:
    domains = [Domain("a", 100, 0.5), Domain("b", 100), Domain("c", 100)]
    best = make_observation(1, domains, [0.8, 0.1, 0.1], {"task": 9.0})
    other = make_observation(2, domains, [0.4, 0.3, 0.3], {"task": 1.0})
    assert answer_of("best-of-n", spec_of(domains), [best, other], rng()).tolist() == [0.4, 0.3, 0.3]
    with pytest.raises(SearchError, match="no trial's mixture is allowed"):
        answer_of("best-of-n", spec_of(domains), [best], rng())


@pytest.mark.parametrize("name", ["regmix", "recipe", "olmix"])
def test_what_was_learnt_is_in_the_answer(name: str) -> None:
    domains = make_domains(5)
    trials = smooth_observations(domains, 80)
    liked = [make_observation(t.name, domains, t.weights, {"task": -((1 - t.weights[2]) ** 2)}) for t in trials]
    loathed = [make_observation(t.name, domains, t.weights, {"task": (1 - t.weights[2]) ** 2 - 1}) for t in trials]
    more, less = (answer_of(name, spec_of(domains), completed, rng())[2] for completed in (liked, loathed))
    assert more > natural(domains)[2] + 0.1
    assert less < natural(domains)[2]


def test_the_recipe_takes_the_top_and_regmix_the_mean_of_many() -> None:
    domains = make_domains(6)
    trials = smooth_observations(domains, 80)
    recipe, regmix = (
        answer_of(name, SearchSpec(tuple(domains), "recipe"), trials, rng()) for name in ("recipe", "regmix")
    )
    history = read_history(trials, domains, {}).aggregated()
    pool = base.natural_draws(region_of(domains), rng())
    model = fit_objective(history, "recipe")
    means = base.predicted(model, pool)
    assert recipe == pytest.approx(pool[means.argmax()], abs=2e-4)
    assert np.abs(pool - regmix).sum(1).min() > 1e-3
    assert (regmix > 0).all()


def convex_problem(d: int, n_tasks: int = 3, cap: float = 1.0) -> tuple[list[Domain], list]:
    domains = make_domains(d, cap)
    generator = np.random.default_rng(d)
    weights = generator.dirichlet(np.ones(d), 3 * d + 3)
    slopes = generator.normal(0.0, 1.5, (d, n_tasks))
    losses = 0.5 + np.exp(weights @ slopes)
    rows = [{f"task-{j}": -float(value) for j, value in enumerate(row)} for row in losses]
    return domains, [make_observation(i + 1, domains, weights[i], row) for i, row in enumerate(rows)]


def no_mixture_is_better(loss: object, found: np.ndarray, region: Region) -> None:
    value = loss(found)[0]  # type: ignore[operator]
    generator = np.random.default_rng(0)
    for pool in (draw_in(500, region, generator), draw_in(500, region, generator, near=found[None])):
        for share in (1.0, 0.1, 1e-3):
            for row in found + share * (pool[::5] - found):
                assert loss(row)[0] >= value - 1e-6  # type: ignore[operator]


@pytest.mark.parametrize("d", [5, 20, 64])
def test_olmix_finds_the_least_loss_under_caps_and_groups(d: int) -> None:
    domains, trials = convex_problem(d, cap=0.3)
    names = [domain.name for domain in domains]
    for constraints in (
        ConstraintsSettings(),
        ConstraintsSettings(floor={names[1]: 0.05}, groups={"+".join(names[2:4]): (0.1, 0.15)}),
    ):
        region = region_of(domains, constraints)
        loss = olmix_loss(read_history(trials, domains, {}), region.share)
        found = least(loss, region)
        assert allowed(found[None], region)[0]
        no_mixture_is_better(loss, found, region)


def test_olmix_loss_is_convex_with_exact_slopes() -> None:
    from scipy.optimize import approx_fprime

    domains, trials = convex_problem(6)
    loss = olmix_loss(read_history(trials, domains, {"task-1": 0.0, "task-2": 2.0}), natural(domains))
    rows = np.random.default_rng(0).dirichlet(np.ones(6), 40)
    for one, other in zip(rows[:20], rows[20:], strict=True):
        assert loss((one + other) / 2)[0] <= (loss(one)[0] + loss(other)[0]) / 2 + 1e-12
        assert loss(one)[1] == pytest.approx(approx_fprime(one, lambda at: loss(at)[0], 1e-8), rel=1e-3, abs=1e-4)


def test_olmix_without_a_difference_stays_natural() -> None:
    domains = make_domains(5)
    trials = [make_observation(t.name, domains, t.weights, {"task": -1.0}) for t in smooth_observations(domains, 12)]
    assert answer_of("olmix", spec_of(domains), trials, rng()) == pytest.approx(natural(domains), abs=2e-3)


def test_olmix_keeps_few_domains_and_solves_again_on_them() -> None:
    domains, trials = convex_problem(8)
    spec = dataclasses.replace(spec_of(domains), constraints=ConstraintsSettings(most_domains=3))
    found = answer_of("olmix", spec, trials, rng())
    assert (found > 0).sum() <= 3
    free = answer_of("olmix", spec_of(domains), trials, rng())
    region = region_of([domain for domain, weight in zip(domains, found, strict=True) if weight > 0])
    loss = olmix_loss(read_history(trials, domains, {}), natural(domains))
    inside = np.where(found > 0, free, 0.0)
    assert loss(found)[0] <= loss(inside / inside.sum())[0] + 1e-6
    assert len(region.share) <= 3


def test_olmix_fits_each_task_on_the_trials_that_have_it() -> None:
    domains, trials = convex_problem(5)
    whole = answer_of("olmix", spec_of(domains), trials, rng())
    for trial in trials[:4]:
        trial.scores["task-0"] = float("nan")
    fewer = answer_of("olmix", spec_of(domains), trials, rng())
    assert np.isfinite(fewer).all()
    assert 0.5 * np.abs(fewer - whole).sum() < 0.2


def test_swarms_are_drawn_round_natural_and_never_repeat() -> None:
    from openclimb.config.schema import SearchSettings
    from openclimb.search.propose import next_batch

    domains = make_domains(8)
    for name in ("regmix", "olmix"):
        search = SearchSettings(proposer=name)
        first = next_batch([], make_spec(domains, search), 200, 0, 0)
        assert len(np.unique(first, axis=0)) == 200
        assert (first == 0).any()
        share = natural(domains)
        center = share if name == "olmix" else np.sqrt(share) / np.sqrt(share).sum()
        assert np.abs(first.mean(0) - center).max() < 0.08
        completed = [make_observation(i + 1, domains, row, {"task": 0.0}) for i, row in enumerate(first[:50])]
        second = next_batch(completed, make_spec(domains, search), 50, 0, 0)
        assert not {row.tobytes() for row in second} & {row.tobytes() for row in first[:50]}


@pytest.mark.parametrize("name", ["natural", "uniform"])
def test_one_mixture_alone_is_proposed(name: str) -> None:
    from openclimb.config.schema import SearchSettings
    from openclimb.search.propose import next_batch

    domains = make_domains(4, 0.4)
    weights = next_batch([], make_spec(domains, SearchSettings(proposer=name)), 3, 0, 0)
    assert len(np.unique(weights, axis=0)) == 1
    assert np.array_equal(weights[0], answer_of(name, spec_of(domains), [], rng()))
