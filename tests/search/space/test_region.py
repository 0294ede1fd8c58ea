"""Constraints hold in every draw, proposal, finalist and baseline; those that clash are named."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclimb.config.schema import ConstraintsSettings, SearchSettings, TargetSettings
from openclimb.errors import ConfigError, DomainError
from openclimb.mixture import Domain
from openclimb.search.acquisition.spec import make_spec
from openclimb.search.propose import finalists, next_batch
from openclimb.search.selection.best import best, move
from openclimb.search.space.region import allowed, bend, draw_in, natural_mixture, region_of, rounded, uniform_mixture
from openclimb.search.space.simplex import draw_raw
from openclimb.testing.fixtures import make_domains, make_space, smooth_observations, smooth_trials
from openclimb.testing.strategies import holds, problems

QUICK = SearchSettings(predictor="gp")
FOUR = [Domain(name, 100) for name in "abcd"]


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 2**31))
def test_every_draw_is_allowed(problem: tuple[list[Domain], ConstraintsSettings], seed: int) -> None:
    domains, constraints = problem
    region = region_of(domains, constraints)
    rng = np.random.default_rng(seed)
    near = draw_in(4, region, rng)
    drawn = np.concatenate([near, draw_in(20, region, rng), draw_in(20, region, rng, near)])
    holds(drawn, domains, constraints)
    holds(rounded(drawn, region), domains, constraints)
    holds(
        np.array([natural_mixture(domains, constraints), uniform_mixture(domains, constraints)]), domains, constraints
    )


@settings(max_examples=10, deadline=None)
@given(problems(), st.integers(0, 8), st.integers(1, 5), st.integers(0, 2**31), st.sampled_from(["climb", "best-of-n"]))
def test_every_proposal_and_finalist_is_allowed_in_any_order(
    problem: tuple[list[Domain], ConstraintsSettings], n_completed: int, n: int, seed: int, name: str
) -> None:
    domains, constraints = problem
    search = dataclasses.replace(QUICK, proposer=name)
    trials = smooth_observations(domains, n_completed, seed)
    weights = next_batch(trials, make_spec(domains, search, constraints=constraints), n, 1, seed)
    holds(weights, domains, constraints)
    order = np.random.default_rng(seed).permutation(len(domains))
    turned = next_batch(
        trials[::-1], make_spec([domains[i] for i in order], search, constraints=constraints), n, 1, seed
    )
    assert np.array_equal(turned, weights[:, order])
    if n_completed:
        rows = finalists(trials, make_spec(domains, QUICK, constraints=constraints), 3, seed)
        holds(np.array([row for _, row in rows]), domains, constraints)


def test_the_recipes_draws_keep_constraints() -> None:
    domains = make_domains(8)
    constraints = ConstraintsSettings(
        floor={"domain-01": 0.1}, groups={"domain-02+domain-03": (0.2, 0.3)}, most_domains=5
    )
    search = SearchSettings(proposer="recipe", predictor="ridge")
    for n_completed in (0, 12):
        trials = smooth_observations(domains, n_completed)
        weights = next_batch(trials, make_spec(domains, search, constraints=constraints), 12, 1, 0)
        holds(weights, domains, constraints)
        assert len(np.unique(weights, axis=0)) == 12


def test_draws_still_spread_under_constraints() -> None:
    domains = make_domains(12)
    constraints = ConstraintsSettings(groups={"domain-00+domain-01+domain-02": (0.3, 0.5)}, most_domains=4)
    drawn = draw_in(400, region_of(domains, constraints), np.random.default_rng(0))
    used = drawn > 0
    assert len(np.unique(used, axis=0)) > 100
    assert used.any(0).all()
    sums = drawn[:, :3].sum(1)
    assert sums.min() < 0.32
    assert sums.max() > 0.48


def test_an_allowed_mixture_stays_as_it_is() -> None:
    constraints = ConstraintsSettings(floor={"a": 0.2}, groups={"a+b": (0.4, 0.6)}, most_domains=3)
    region = region_of(FOUR, constraints)
    row = np.array([0.3, 0.2, 0.5, 0.0])
    assert bend(row, region) == pytest.approx(row)
    assert np.array_equal(rounded(row, region), row)


def test_a_draw_of_most_domains_keeps_its_largest() -> None:
    region = region_of(FOUR, ConstraintsSettings(most_domains=2))
    assert bend(np.array([0.1, 0.2, 0.3, 0.4]), region) == pytest.approx([0, 0, 3 / 7, 4 / 7])


def test_few_domains_under_small_caps_are_those_that_can_carry_the_weight() -> None:
    domains = [Domain(f"d{i}", 10, 0.1) for i in range(8)] + [Domain("x", 10, 0.6), Domain("y", 10, 0.6)]
    region = region_of(domains, ConstraintsSettings(most_domains=2))
    drawn = draw_in(50, region, np.random.default_rng(0))
    assert allowed(drawn, region).all()
    assert (drawn[:, 8:].sum(1) > 0.999).all()


def test_limits_that_nearly_meet_are_not_called_a_clash() -> None:
    caps = [0.07697162621623886, 1e-6, 0.1740248533793765, 1e-6, 1e-6]
    caps += [0.17647615588231105, 0.22451759972700774, 0.1151893697951559, 0.23282639499991]
    domains = [Domain(f"d{i}", 10, cap) for i, cap in enumerate(caps)]
    constraints = ConstraintsSettings(floor={"d8": 0.23282539499991}, cap={"d8": 0.23282539499991}, most_domains=6)
    holds(draw_in(20, region_of(domains, constraints), np.random.default_rng(0)), domains, constraints)


def test_caps_as_small_as_the_solvers_tolerance_are_not_called_a_clash() -> None:
    caps = [0.34202372155316035, 0.1206260706329906, 1e-06, 1e-06, 0.28830198654235734, 0.020914260451524867]
    caps += [0.11546251424976156, 0.06419492069039079, 0.048483525879814436]  # 9e-6 over 1 in sum
    domains = [Domain(f"d{i}", 100, cap) for i, cap in enumerate(caps)]
    fixed = {"d5": 0.020913260451524866}
    constraints = ConstraintsSettings(floor=fixed, cap=fixed, most_domains=8)
    found = bend(uniform_mixture(domains), region_of(domains, constraints))
    holds(found[None], domains, constraints)


def test_rounding_at_the_edge_of_a_group_is_still_allowed() -> None:
    domains = [
        dataclasses.replace(one, cap=cap) for one, cap in zip(make_domains(4), (0.0202249, 0.1, 0.9, 0.9), strict=True)
    ]
    region = region_of(domains, ConstraintsSettings(groups={"domain-00+domain-01": (0.0, 0.1)}))
    drawn = draw_in(500, region, np.random.default_rng(0))
    assert allowed(rounded(drawn, region), region, 0.9e-6).all()


def test_without_constraints_draws_are_as_before() -> None:
    domains = make_domains(6, 0.4)
    region = region_of(domains)
    assert region.plain
    raw = draw_raw(20, region.share, np.random.default_rng(0))
    assert np.array_equal(draw_in(20, region, np.random.default_rng(0)), bend(raw, region))


CAPPED = [Domain("a", 10, 0.3), Domain("b", 100), Domain("c", 100), Domain("d", 100)]


@pytest.mark.parametrize(
    ("constraints", "named", "not_named"),
    [
        (
            ConstraintsSettings(floor={"a": 0.5, "b": 0.1}),
            ["floor.a = 0.5", "at most 0.3 of a"],
            ["floor.b"],
        ),
        (
            ConstraintsSettings(floor={"b": 0.7, "c": 0.6}, cap={"d": 0.1}),
            ["floor.b = 0.7", "floor.c = 0.6"],
            ["cap.d"],
        ),
        (ConstraintsSettings(floor={"b": 0.6}, cap={"b": 0.4}), ["floor.b = 0.6", "cap.b = 0.4"], ["repetitions"]),
        (
            ConstraintsSettings(groups={"a+b": (0.0, 0.2), "c+d": (0.0, 0.5), "a + c": (0.0, 1.0)}),
            ['groups."a+b" = [0, 0.2]', 'groups."c+d" = [0, 0.5]'],
            ["a + c"],
        ),
        (
            ConstraintsSettings(floor={"b": 0.1, "c": 0.1}, most_domains=1),
            ["most_domains = 1", "floor.b"],
            ["repetitions"],
        ),
        (ConstraintsSettings(cap=dict.fromkeys("bcd", 0.2)), ["cap.b", "cap.c", "cap.d", "of a by repetitions"], []),
        (
            ConstraintsSettings(groups={"b+c+d": (0.0, 0.5)}, floor={"d": 0.1}),
            ['groups."b+c+d"', "at most 0.3 of a by repetitions"],
            ["floor"],
        ),
    ],
)
def test_constraints_that_clash_are_named(
    constraints: ConstraintsSettings, named: list[str], not_named: list[str]
) -> None:
    with pytest.raises(DomainError) as caught:
        region_of(CAPPED, constraints)
    assert all(name in caught.value.message for name in named), caught.value.message
    assert not any(name in caught.value.message for name in not_named), caught.value.message
    assert "[constraints]" in caught.value.fix


def test_many_caps_from_repetitions_are_named_by_their_number() -> None:
    domains = [Domain(f"d{i:02d}", 10, 0.06) for i in range(20)]
    with pytest.raises(DomainError, match=r"most_domains = 3 and the caps from repetitions of \d+ domains"):
        region_of(domains, ConstraintsSettings(most_domains=3))


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (
            ConstraintsSettings(floor={"aa": 0.1}),
            "floor names 'aa', which is no domain (did you mean 'a'?)",
        ),
        (ConstraintsSettings(groups={"a+z": (0.0, 1.0)}), "constraints.groups names 'z'"),
        (ConstraintsSettings(groups={"a+b": (0.5, 0.1)}), "is no range"),
        (ConstraintsSettings(groups={"a+b": (0.5,)}), "is no range"),
    ],
)
def test_constraints_that_cannot_be_read_are_told(constraints: ConstraintsSettings, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        region_of(FOUR, constraints)
    assert message in caught.value.message


def test_names_with_a_plus_can_stand_in_a_group() -> None:
    domains = [Domain("c++", 10), Domain("web", 10), Domain("c", 10)]
    region = region_of(domains, ConstraintsSettings(groups={"c++ + web": (0.1, 0.2)}))
    assert region.members.tolist() == [[True, True, False]]


def test_the_best_mixture_keeps_constraints_and_says_what_weights_are_worth() -> None:
    domains = make_domains(5)
    constraints = ConstraintsSettings(
        floor={"domain-00": 0.25}, cap={"domain-00": 0.25}, groups={"domain-01+domain-02": (0.0, 0.1)}
    )
    trials = smooth_trials(domains, 30)
    answer = best(trials, make_space(domains, QUICK, constraints=constraints), TargetSettings(), 0)
    weights = np.array([[row.weight for row in answer.domains]])
    holds(weights, domains, constraints)
    moved = move(weights[0], region_of(domains, constraints))
    holds(moved, domains, constraints)
    assert moved[0] == pytest.approx(weights[0])  # a fixed weight does not move
    for i, row in enumerate(answer.domains):
        assert row.moved == pytest.approx(weights[0, i] - moved[i, i])
        assert (row.loss == 0.0) == (row.moved == 0.0)


def test_a_move_over_a_cap_does_not_count() -> None:
    domains = [Domain("a", 100), Domain("b", 100), Domain("c", 100)]
    weights = np.array([0.5, 0.3, 0.2])
    free = move(weights, region_of(domains))
    assert free[2] == pytest.approx([0.5 + 0.05 * 5 / 8, 0.3 + 0.05 * 3 / 8, 0.15])
    capped = move(weights, region_of(domains, ConstraintsSettings(cap={"a": 0.5})))
    assert capped[2] == pytest.approx([0.5, 0.35, 0.15])  # b takes what a cannot
    assert capped[0] == pytest.approx(free[0])
    both = region_of(domains, ConstraintsSettings(cap={"a": 0.5, "b": 0.31}, floor={"c": 0.1}))
    assert move(weights, both)[2] == pytest.approx([0.5, 0.30625, 0.19375])  # an eighth of the move is allowed
    shut = region_of(domains, ConstraintsSettings(cap={"a": 0.5, "b": 0.3}))
    assert move(weights, shut)[2] == pytest.approx(weights)
    grouped = region_of(domains, ConstraintsSettings(groups={"a+b": (0.0, 0.8)}))
    moved = move(weights, grouped)
    assert moved[2] == pytest.approx(weights)
    assert moved[0] == pytest.approx(free[0])


def test_weight_that_is_all_in_one_domain_moves_to_the_others_equally() -> None:
    domains = [Domain("a", 100), Domain("b", 100), Domain("c", 100)]
    assert move(np.array([1.0, 0.0, 0.0]), region_of(domains))[0] == pytest.approx([0.95, 0.025, 0.025])
