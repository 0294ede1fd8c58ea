"""Agreement with labels: rank correlations, intervals that hold, refusals, the choice of two, the largest misses."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from openclimb.quality.training.agreement import (
    Agreement,
    Rows,
    agreements,
    by_cluster,
    by_label,
    calibration,
    largest_misses,
    rows_of,
    spearman,
)


def rows(n: int, seed: int = 0, **noise: float) -> Rows:
    """Return labels 0 to 5, and students that see what is behind them with so much noise."""
    rng = np.random.default_rng(seed)
    behind = rng.normal(size=n)
    labels = np.clip(np.rint(2.5 + behind + 0.7 * rng.normal(size=n)), 0, 5)
    found = {kind: 2.5 + 0.7 * (behind + error * rng.normal(size=n)) for kind, error in noise.items()}
    return Rows(labels, found, np.full(n, labels.mean()), np.arange(n))


def test_the_rank_correlation_is_scipys() -> None:
    one = rows(500, head=0.5)
    assert spearman(one.labels, one.predictions["head"]) == pytest.approx(
        spearmanr(one.labels, one.predictions["head"]).statistic
    )
    assert spearman(one.labels, np.zeros(500)) == 0


def test_intervals_hold_the_correlation_of_many_texts_about_as_often_as_they_say() -> None:
    truth = spearman((many := rows(50_000, 99, head=0.5)).labels, many.predictions["head"])
    held = 0
    for seed in range(30):
        (student,), _ = agreements("edu", rows(400, seed, head=0.5), 1)
        low, high = student.rank_correlation.interval()
        held += low <= truth <= high
    assert held >= 26


def judged(one: Rows, predicted: np.ndarray, n_compared: int = 10) -> tuple[Agreement, str]:
    """Return how a head with these predictions agrees, and what is chosen."""
    (student,), chosen = agreements("edu", replace(one, predictions={"head": predicted}), n_compared)
    return student, chosen


def test_a_student_of_noise_is_refused_and_a_weak_one_kept() -> None:
    rng = np.random.default_rng(5)
    n_kept = 0
    for seed in range(15):
        one = rows(400, seed, head=2.0)
        weak, chosen = judged(one, 2.5 + 0.2 * (one.predictions["head"] - 2.5))
        assert weak.n_texts == 400
        n_kept += chosen == "head"
        student, none = judged(one, one.constant + 0.05 * rng.normal(size=400))
        assert none == ""
        assert student.refused.startswith("no better than a constant: rank correlation")
    assert n_kept >= 13


def test_a_constant_is_refused_whatever_the_labels() -> None:
    one = rows(300, head=0.1)
    for labels in (one.labels, np.full(300, 3.0)):
        constant = np.full(300, labels.mean())
        student, chosen = judged(replace(one, labels=labels, constant=constant), constant, 1)
        assert chosen == ""
        assert student.rank_correlation.value == student.saved.value == 0


def test_a_student_that_ranks_well_but_is_off_is_refused() -> None:
    one = rows(300, head=0.1)
    student, chosen = judged(one, one.predictions["head"] + 10, 1)
    assert student.rank_correlation.value > 0.6
    assert chosen == ""


@pytest.mark.parametrize(
    ("noise", "chosen"),
    [
        ({"head": 0.5, "fasttext": 0.5}, "head"),  # no difference beyond noise: the cheaper one
        ({"head": 1.5, "fasttext": 0.2}, "fasttext"),
        ({"head": 0.2, "fasttext": 1.5}, "head"),
        ({"fasttext": 0.5}, "fasttext"),
    ],
)
def test_fasttext_is_chosen_where_it_is_better_beyond_noise(noise: dict[str, float], chosen: str) -> None:
    assert agreements("edu", rows(1000, **noise), 4)[1] == chosen


def test_equal_texts_count_once_with_their_mean_label() -> None:
    hashes = np.array([7, 9, 7, 8], np.uint64)
    found = rows_of(np.array([1.0, 4, 3, 5]), {"head": np.array([2.0, 3, 2, 6])}, np.arange(4.0), hashes, np.arange(4))
    assert found.labels.tolist() == [2, 5, 4]
    assert found.predictions["head"].tolist() == [2, 6, 3]
    assert found.first.tolist() == [0, 3, 1]


def test_where_a_student_agrees_and_where_not() -> None:
    one = rows(1000, head=0.3)
    predicted = one.predictions["head"].copy()
    predicted[[3, 5]] = [30, -30]
    deciles = calibration(one.labels, predicted)
    assert [row["n"] for row in deciles] == [100] * 10
    assert all(a["prediction"] < b["prediction"] for a, b in zip(deciles, deciles[1:], strict=False))
    labels = by_label(one.labels, predicted)
    assert [row["label"] for row in labels] == [0, 1, 2, 3, 4, 5]
    assert sum(row["n"] for row in labels) == 1000
    assert len(by_label(one.labels + np.linspace(-0.4, 0.4, 1000), predicted)) == 6
    clusters = (np.arange(1000) % 3).astype(np.int32)
    clusters[:5] = 9  # too few to tell
    predicted[clusters == 1] += 2
    found = by_cluster(one.labels, predicted, clusters)
    assert found[0]["cluster"] == 1
    assert {row["cluster"] for row in found} == {0, 1, 2}
    assert found[0]["prediction"] - found[0]["label"] == pytest.approx(2, abs=0.3)
    misses = largest_misses(one.labels, predicted)
    assert len(misses) == 10
    assert (misses[0], misses[5]) == (3, 5)
