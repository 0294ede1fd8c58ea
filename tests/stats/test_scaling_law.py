"""Laws of a loss over tokens and sizes: known ones are found, what cannot be known is said, intervals are as wide."""

import numpy as np
import pytest

from openclimb.stats.scaling_law import draw_scores, fit_law, law_problem, tokens_needed

TOKENS = (1e6, 2e6, 4e6, 8e6, 16e6)


def noisy(losses: np.ndarray, spread: float, n: int = 200) -> np.ndarray:
    return losses + spread * np.random.default_rng(0).standard_normal((n, len(losses)))


def test_a_known_law_is_found() -> None:
    losses = 1.2 + 30.0 * np.array(TOKENS) ** -0.3
    law = fit_law(TOKENS, losses, noisy(losses, 1e-4))
    assert law.problem == ""
    assert law.error < 1e-4
    for name, true in (("E", 1.2), ("b", 0.3)):
        value, low, high = law.parameters[name]
        assert value == pytest.approx(true, rel=0.01)
        assert low <= true <= high
    assert law.parameters["B"][0] == pytest.approx(30.0, rel=0.05)


def test_a_law_over_sizes_is_found() -> None:
    tokens, sizes = (grid.ravel() for grid in np.meshgrid(TOKENS, (1e5, 4e5, 1.6e6)))
    losses = 0.8 + 40.0 * sizes**-0.4 + 60.0 * tokens**-0.5
    law = fit_law(tokens.tolist(), losses, noisy(losses, 1e-4, 20), sizes.tolist())
    assert law.problem == ""
    assert {name: law.parameters[name][0] for name in ("E", "a", "b")} == pytest.approx(
        {"E": 0.8, "a": 0.4, "b": 0.5}, rel=0.1
    )


@pytest.mark.parametrize(
    ("losses", "spread", "problem"),
    [
        (np.full(5, 2.0), 0.01, "need not fall with tokens at all"),
        (2.0 + 30.0 * np.array(TOKENS) ** -0.3, 0.1, "tokens"),
    ],
)
def test_a_law_that_noise_hides_is_not_claimed(losses: np.ndarray, spread: float, problem: str) -> None:
    assert problem in fit_law(TOKENS, noisy(losses, spread)[0], noisy(losses, spread)).problem


def test_a_loss_that_rises_with_tokens_has_no_negative_coefficient() -> None:
    losses = 2.0 - 30.0 * np.array(TOKENS) ** -0.3
    law = fit_law(TOKENS, losses, noisy(losses, 1e-4))
    assert law.parameters["B"][0] == 0.0
    assert law.parameters["E"][0] == pytest.approx(losses.mean())
    assert law.problem


def test_few_budgets_or_sizes_are_refused() -> None:
    assert "3 token budgets" in law_problem(3)
    assert "2 sizes" in law_problem(4, 2)
    assert law_problem(4) == law_problem(4, 3) == ""


def test_tokens_that_reach_a_score() -> None:
    scores = np.array([[1.0, 2.0, 3.0]] * 5 + [[1.0, 3.0, 2.0]])
    wanted = np.array([1.5, 2.0, 3.0, 3.1, 0.9, 2.5])
    needed = tokens_needed([1e6, 4e6, 16e6], scores, wanted)
    assert needed == pytest.approx([2e6, 4e6, 16e6, np.inf, 0.0, 1e6 * 4**0.75])


def test_draws_of_few_seeds_vary_as_their_mean_does() -> None:
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(60):
        seeds = rng.standard_normal(4)
        table = np.repeat(seeds[:, None], 30, axis=1)  # every item alike: the seeds are all the noise
        drawn = draw_scores([[table, table + 1.0]], [1.0], 500, rng)
        assert drawn[:, 1] == pytest.approx(drawn[:, 0] + 1.0)  # the same seeds for all points
        ratios.append(drawn[:, 0].var() / (seeds.var(ddof=1) / 4))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.05)


def test_draws_weigh_tasks_and_take_the_same_items_for_all_points() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.standard_normal((2, 3, 40)), rng.standard_normal((2, 3, 10))
    drawn = draw_scores([[first[0], first[0]], [second[0], second[1]]], [0.75, 0.25], 4000, rng)
    assert drawn.mean(0) == pytest.approx(
        [0.75 * first[0].mean() + 0.25 * second[i].mean() for i in range(2)], abs=0.02
    )
    only = draw_scores([[first[0], first[0]]], [1.0], 50, rng)
    assert np.array_equal(only[:, 0], only[:, 1])
    assert only[:, 0].std() > 0.01
