"""The model of trial noise: textbook intervals where noise is normal, and no alarm over one bad trial."""

import numpy as np
import pytest
from scipy.stats import t

from coverage import METHODS, measure
from openclimb.stats import paired
from openclimb.stats.intervals import estimate
from openclimb.stats.paired import connected, draw_items, draw_means, score_table

BARS = 0.91, 0.99  # of the coverage of 95 % intervals in 200 replications: 2.6 standard errors each way
CASES = (
    ("normal", "3 mixtures × 5 seeds"),
    ("one outlier in uniform", "3 mixtures × 5 seeds"),
    ("one outlier in uniform", "8 mixtures × 3 seeds"),
    ("10 % of trials × 10", "8 mixtures × 3 seeds"),
)


def test_intervals_hold_the_truth_with_outliers_and_without_where_pooled_ones_do_not() -> None:
    inside = {}
    for method in METHODS:
        found = [one.coverage for kind, shape in CASES for one in measure(method, kind, shape, 200).values()]
        inside[method] = min(found) >= BARS[0] and max(found) <= BARS[1]
    assert inside == {"ours": True, "pooled": False}


def test_one_bad_trial_of_uniform_hardly_widens_the_margin_over_natural() -> None:
    width = {
        (method, kind): float(np.median(measure(method, kind, "3 mixtures × 5 seeds", 60)["found − natural"].width))
        for method in METHODS
        for kind in ("normal", "one outlier in uniform")
    }
    assert width["ours", "one outlier in uniform"] < 0.8 * width["pooled", "one outlier in uniform"]
    assert width["ours", "normal"] < 1.1 * width["pooled", "normal"]


def test_with_normal_noise_of_one_scale_intervals_are_students(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "TAIL", 1e6)
    monkeypatch.setattr(paired, "SHRINK", 1e6)
    scores = np.random.default_rng(0).standard_normal((4, 5))
    drawn = draw_means(scores, np.random.default_rng(1), paired=True, chains=300)
    assert drawn is not None
    found = estimate(drawn[:, 0] - drawn[:, 1])
    left = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    half = t.ppf(0.975, 12) * np.sqrt((left**2).sum() / 12 * 2 / 5)
    difference = scores[0].mean() - scores[1].mean()
    assert found.mean == pytest.approx(difference, abs=0.02 * half)
    assert [found.low, found.high] == pytest.approx([difference - half, difference + half], abs=0.03 * half)
    assert found.p == pytest.approx(2 * t.sf(abs(difference) / half * t.ppf(0.975, 12), 12), abs=0.02)


def test_a_seeds_luck_is_taken_out_only_where_seeds_are_paired() -> None:
    rng = np.random.default_rng(0)
    scores = 0.01 * rng.standard_normal((3, 6)) + rng.standard_normal(6)
    width = {}
    for way in (True, False):
        drawn = draw_means(scores, rng, paired=way, chains=50)
        assert drawn is not None
        width[way] = np.ptp(estimate(drawn[:, 0] - drawn[:, 1]).interval)
    assert width[True] < 0.05 * width[False]


def test_seeds_need_not_be_shared_by_all() -> None:
    luck = {seed: float(seed) for seed in range(9)}
    noise = np.random.default_rng(2).standard_normal((4, 9))
    seeds = [(0, 1, 2, 3), (0, 1, 2, 3), (0, 1), (6, 7, 8)]
    level = (1.0, 0.5, 0.2, 5.0)
    tables = [{s: level[i] + luck[s] + 0.01 * noise[i, s] for s in some} for i, some in enumerate(seeds)]
    scores = score_table(tables)
    assert scores.shape == (4, 7)
    assert connected(np.isfinite(scores)).tolist() == [0, 0, 0, 3]
    drawn = draw_means(scores, np.random.default_rng(0), paired=True, chains=50)
    assert drawn is not None
    for other in (1, 2):
        found = estimate(drawn[:, 0] - drawn[:, other])
        assert found.mean == pytest.approx(level[0] - level[other], abs=0.03)
        assert found.high - found.low < 0.2


def test_components_are_linked_through_others() -> None:
    there = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
    assert connected(there[[0, 2, 1, 3]]).tolist() == [0, 0, 0, 3]


def test_without_a_degree_of_freedom_nothing_is_known_of_noise() -> None:
    rng = np.random.default_rng(0)
    assert draw_means(np.array([[1.0], [2.0]]), rng, paired=True) is None
    assert draw_means(np.array([[1.0], [2.0]]), rng, paired=False) is None
    assert draw_means(np.array([[1.0, 2.0, np.nan], [np.nan, np.nan, 2.0]]), rng, paired=True) is None


def test_scores_without_noise_have_their_means() -> None:
    drawn = draw_means(np.array([[1.0, 1.0], [3.0, 3.0]]), np.random.default_rng(0), paired=False, chains=2, keep=3)
    assert drawn is not None
    assert (drawn == [1.0, 3.0]).all()
    assert estimate(drawn[:, 0]).p == 1.0


def test_ties_of_most_trials_do_not_take_the_noise_away() -> None:
    scores = np.array([[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.5]])
    drawn = draw_means(scores, np.random.default_rng(0), paired=False, chains=20)
    assert drawn is not None
    assert np.isfinite(drawn).all()


def test_tables_drawn_side_by_side_have_the_same_trials() -> None:
    scores = np.zeros((2, 2, 3))
    scores[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="same trials"):
        draw_means(scores, np.random.default_rng(0), paired=True)


def test_items_add_the_variance_of_their_mean() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((2, 200)) + rng.standard_normal(200)
    drawn = draw_items(scores, 20_000, rng)
    assert drawn.std(0) == pytest.approx(scores.std(1, ddof=1) / np.sqrt(200), rel=0.03)
    paired_sd = (scores[0] - scores[1]).std(ddof=1) / np.sqrt(200)
    assert (drawn[:, 0] - drawn[:, 1]).std() == pytest.approx(paired_sd, rel=0.03)
    assert (draw_items(np.ones((2, 1)), 5, rng) == 0).all()


def test_the_interval_leaves_zero_out_exactly_when_p_is_small() -> None:
    rng = np.random.default_rng(0)
    for shift in np.linspace(1.8, 2.1, 31):
        found = estimate(rng.standard_normal(2000) + shift)
        assert (found.low > 0) == (found.p <= 0.05)
        turned = estimate(rng.standard_normal(2000) - shift)
        assert (turned.high < 0) == (turned.p <= 0.05)
