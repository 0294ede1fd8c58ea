"""Every mixture that anyone draws is feasible, and bending keeps what the draw meant."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclimb.errors import DomainError
from openclimb.mixture import Domain, natural
from openclimb.search.space.simplex import GRID, bounds, draw, fill, project, round_weights

regions = st.integers(1, 64).flatmap(
    lambda d: st.tuples(
        st.lists(st.floats(0.0, 1.0), min_size=d, max_size=d),
        st.lists(st.floats(0.0, 1.0), min_size=d, max_size=d),
        st.floats(1.0, 3.0),
        st.integers(0, 2**32 - 1),
    )
)


def make_region(raw_caps: list[float], raw_floors: list[float], room: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (floors, caps) that at least one mixture meets: caps sum to at least 1, floors to at most a half."""
    caps = np.array(raw_caps) + 1e-3
    caps = np.minimum(1.0, caps / caps.sum() * room)
    caps = caps + (1.0 - caps) * (1.0 - min(1.0, caps.sum()))
    floors = np.minimum(np.array(raw_floors), 1.0)
    floors = caps * floors * 0.5 / max(0.5, (caps * floors).sum())
    return floors, caps


@settings(max_examples=80, deadline=None)
@given(regions)
def test_draws_are_feasible(region: tuple[list[float], list[float], float, int]) -> None:
    raw_caps, raw_floors, room, seed = region
    floors, caps = make_region(raw_caps, raw_floors, room)
    rng = np.random.default_rng(seed)
    center = fill(rng.dirichlet(np.ones(len(caps))), floors, caps)
    for drawn in (draw(40, center, floors, caps, rng), draw(40, center, floors, caps, rng, near=center[None])):
        for rows in (drawn, project(drawn[::-1] * 3.0 - 0.5, floors, caps), round_weights(drawn, floors, caps)):
            assert np.abs(rows.sum(1) - 1.0).max() < 1e-6
            assert (rows >= floors - 1e-6).all()
            assert (rows <= caps + 1e-6).all()


@settings(max_examples=40, deadline=None)
@given(regions)
def test_rounding_is_stable_and_near(region: tuple[list[float], list[float], float, int]) -> None:
    raw_caps, raw_floors, room, seed = region
    floors, caps = make_region(raw_caps, raw_floors, room + 0.2)
    rows = draw(20, caps / caps.sum(), floors, caps, np.random.default_rng(seed))
    rounded = round_weights(rows, floors, caps)
    assert np.array_equal(round_weights(rounded, floors, caps), rounded)
    assert np.abs(rounded - rows).max() <= len(caps) / GRID + 1e-9


def test_fill_keeps_zeros_and_proportions() -> None:
    filled = fill(np.array([0.0, 1.0, 2.0, 5.0]), np.zeros(4), np.array([1.0, 1.0, 1.0, 0.4]))
    assert filled == pytest.approx([0.0, 0.2, 0.4, 0.4])


def test_fill_spreads_what_a_sparse_draw_cannot_carry() -> None:
    filled = fill(np.array([1.0, 0.0, 0.0]), np.zeros(3), np.array([0.5, 0.6, 0.2]))
    assert filled == pytest.approx([0.5, 0.375, 0.125])


def test_project_is_the_nearest_feasible_mixture() -> None:
    floors, caps = np.zeros(4), np.array([0.1, 1.0, 1.0, 0.3])
    target = np.full(4, 0.25)
    nearest = project(target, floors, caps)
    others = draw(2000, target, floors, caps, np.random.default_rng(0))
    assert ((nearest - target) ** 2).sum() <= ((others - target) ** 2).sum(1).min() + 1e-9
    assert nearest == pytest.approx([0.1, 0.3, 0.3, 0.3])


def test_draws_are_broad_and_sparse() -> None:
    drawn = draw(600, np.full(10, 0.1), np.zeros(10), np.ones(10), np.random.default_rng(0))
    used = (drawn > 0.01).sum(1)
    assert used.min() <= 2
    assert used.max() >= 8
    assert np.abs(drawn.mean(0) - 0.1).max() < 0.05


def test_caps_that_no_mixture_meets() -> None:
    with pytest.raises(DomainError, match=r"sum to 0\.500") as caught:
        bounds([Domain("a", 10, 0.2), Domain("b", 10, 0.3)])
    assert "max_repetitions" in caught.value.fix


def test_floors_above_caps_are_named() -> None:
    domains = [Domain("a", 10, 0.2), Domain("b", 10, 1.0)]
    with pytest.raises(DomainError, match="a"):
        bounds(domains, np.array([0.3, 0.0]))


def test_rounding_to_caps_that_leave_one_mixture() -> None:
    domains = [Domain("a", 1, 1 / 3), Domain("b", 1, 1 / 3), Domain("c", 1, 1 / 3)]
    floors, caps = bounds(domains)
    rounded = round_weights(natural(domains)[None], floors, caps)
    assert rounded[0] == pytest.approx([1 / 3] * 3, abs=1e-6)


def test_a_weight_of_nothing_is_plain_zero() -> None:
    rows = round_weights(np.array([[1.0, 0.0, 0.0]]), np.zeros(3), np.ones(3))
    assert not np.signbit(rows).any()
