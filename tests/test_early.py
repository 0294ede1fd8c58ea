"""Scores on the way: kept by tokens, and who goes on."""

from pathlib import Path

from openclimb.early import EarlyScores, best_of, goes_on, read_early, write_early


def test_scores_are_kept_by_tokens_and_replaced(tmp_path: Path) -> None:
    assert read_early(tmp_path) == []
    for tokens, value in ((200, 0.5), (100, 0.1), (200, 0.7)):
        write_early(tmp_path, EarlyScores(tokens, {"a": value}))
    assert read_early(tmp_path) == [EarlyScores(100, {"a": 0.1}), EarlyScores(200, {"a": 0.7})]


def test_one_in_eta_goes_on_and_nobody_waits() -> None:
    assert goes_on(0.1, [])
    assert goes_on(0.3, [0.1, 0.2], eta=3)
    assert not goes_on(0.2, [0.1, 0.3], eta=3)
    assert goes_on(0.2, [0.1, 0.3, 0.0], eta=2)


def test_the_best_of_a_batch_go_on() -> None:
    assert best_of({1: 0.1, 2: 0.9, 3: 0.5, 4: 0.5}, eta=2) == [2, 3]
    assert best_of({7: 0.1}, eta=3) == [7]
