"""Validation's statistics: intervals that hold the truth as often as they say, pairing, and ranks."""

from collections.abc import Callable

import numpy as np
import pytest

from openclimb.stats.compare import Comparison, Scored, rank_correlation

SHARE = {"easy": 0.7, "hard": 0.3}
EFFECTS = (0.03, 0.0, 0.01, -0.02)


def simulated(rng: np.random.Generator, n_seeds: int = 3, n_items: int = 60) -> list[Scored]:
    """Return four mixtures whose objectives differ by EFFECTS: luck of seeds, of items, and of both together."""
    found = []
    seed_luck = 0.05 * rng.standard_normal(n_seeds)
    item_luck = {task: 0.5 * rng.standard_normal(n_items) for task in SHARE}
    for i, effect in enumerate(EFFECTS):
        own = 0.02 * rng.standard_normal((n_seeds, 1))
        tasks = {
            task: effect
            + own
            + seed_luck[:, None]
            + item_luck[task]
            + 0.1 * rng.standard_normal(n_items)
            + 0.1 * rng.standard_normal((n_seeds, n_items))
            for task in SHARE
        }
        found.append(Scored(f"m{i}", tuple(range(n_seeds)), tasks))
    return found


def coverage(interval: Callable[[list[Scored], np.random.Generator], tuple[float, float]], n: int) -> float:
    """Return the share of simulated comparisons of m0 and m1 whose interval holds the true difference."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(n):
        low, high = interval(simulated(rng), rng)
        hits += low <= EFFECTS[0] - EFFECTS[1] <= high
    return hits / n


@pytest.mark.slow
def test_intervals_over_seeds_and_items_hold_the_truth_and_those_of_drawn_seeds_do_not() -> None:
    def ours(scored: list[Scored], rng: np.random.Generator) -> tuple[float, float]:
        found = Comparison(scored, SHARE, int(rng.integers(2**31))).margin(0, 1).estimate
        return found.low, found.high

    def naive(scored: list[Scored], rng: np.random.Generator) -> tuple[float, float]:
        each = sum(weight * (scored[0].tasks[k] - scored[1].tasks[k]).mean(1) for k, weight in SHARE.items())
        means = rng.choice(np.asarray(each), (500, 3)).mean(1)
        low, high = np.percentile(means, [2.5, 97.5])
        return float(low), float(high)

    assert 0.9 <= coverage(ours, 120) <= 0.99
    assert coverage(naive, 300) < 0.85


def test_mixtures_share_the_drawn_items() -> None:
    items = np.random.default_rng(0).standard_normal(50)
    scored = [Scored(str(i), (0, 1), {"t": np.stack([items + 0.1 * i, items + 0.1 * i])}) for i in range(3)]
    found = Comparison(scored, {"t": 1.0}, 0)
    assert found.score(0).high - found.score(0).low == pytest.approx(
        2 * 2.01 * items.std(ddof=1) / np.sqrt(50), rel=0.1
    )
    assert found.margin(1, 0).estimate.interval == pytest.approx([0.1, 0.1])
    assert found.best() == {"0": 0.0, "1": 0.0, "2": 1.0}


def test_ours_against_each_of_the_others() -> None:
    scored = simulated(np.random.default_rng(1), 10, 2000)
    found = Comparison(scored, SHARE, 0)
    margins, best = found.margins("m0"), found.best()
    assert set(margins) == {"m1", "m2", "m3"}
    assert margins["m3"].better
    assert margins["m3"].estimate.low > 0
    assert margins["m3"].estimate.mean == pytest.approx(0.05, abs=0.03)
    assert sum(best.values()) == pytest.approx(1.0)
    assert max(best, key=lambda name: best[name]) == "m0"
    turned = found.margins("m3")
    assert turned["m0"].worse
    one, other = turned["m0"].estimate, margins["m3"].estimate
    assert one.mean == pytest.approx(-other.mean, abs=1e-3)
    assert one.interval == pytest.approx([-other.high, -other.low], abs=2e-3)
    assert Comparison(scored, SHARE, 0).margins("m0") == margins


def test_verdicts_are_corrected_for_the_number_of_comparisons() -> None:
    rng = np.random.default_rng(3)
    noise = 0.02 * rng.standard_normal((12, 5, 1))
    scored = [Scored(f"m{i}", tuple(range(5)), {"t": noise[i]}) for i in range(12)]
    scored.append(Scored("ours", tuple(range(5)), {"t": 0.04 + 0.02 * rng.standard_normal((5, 1))}))
    many = Comparison(scored, {"t": 1.0}, 0).margins("ours")
    outside = {name for name, one in many.items() if one.estimate.low > 0}
    assert outside == {name for name, one in many.items() if one.estimate.mean > 0 and one.estimate.p <= 0.05}
    beaten = {name for name, one in many.items() if one.better}
    assert beaten < outside
    assert all(one.adjusted >= one.estimate.p for one in many.values())


def test_one_seed_or_one_item_claims_nothing_it_cannot_know() -> None:
    one = [Scored(name, (0,), {"t": np.array([[value]])}) for name, value in (("a", 1.0), ("b", 0.0))]
    margin = Comparison(one, {"t": 1.0}, 0).margins("a")["b"]
    assert margin.row().comparison == "not significant"


def test_mixtures_without_a_common_seed_are_compared_by_their_means() -> None:
    rng = np.random.default_rng(4)
    scored = [
        Scored(name, some, {"t": value + 0.01 * rng.standard_normal((3, 20))})
        for name, some, value in (("a", (0, 1, 2), 0.5), ("b", (3, 4, 5), 0.0))
    ]
    margin = Comparison(scored, {"t": 1.0}, 0).margins("a")["b"]
    assert margin.better
    assert margin.estimate.mean == pytest.approx(0.5, abs=0.05)


def test_rank_correlation_of_the_names_that_both_have() -> None:
    first = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 9.0}
    assert rank_correlation(first, {"a": 5.0, "b": 6.0, "c": 7.0}) == pytest.approx(1.0)
    assert rank_correlation(first, {"c": 5.0, "b": 6.0, "a": 7.0}) == pytest.approx(-1.0)
    assert rank_correlation(first, {"a": 1.0, "b": 2.0}) is None
    assert rank_correlation(first, {"a": 1.0, "b": 1.0, "c": 1.0}) is None
