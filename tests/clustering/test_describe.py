"""Words that tell classes apart, names made of them, and a map that keeps neighbours together."""

import numpy as np

from openclimb.clustering import describe
from openclimb.clustering.describe import domain_names, flat_map, top_words


def test_top_words_tell_classes_apart_and_leave_out_what_all_say() -> None:
    texts = ["the common ship sails sea", "common ship harbour", "common bread oven the", "common bread flour oven"]
    words = top_words(texts, [0, 0, 1, 1], 3)
    assert words[0][0] == "ship"
    assert set(words[1][:2]) == {"bread", "oven"}
    assert "the" not in words[0] + words[1]
    assert words[2] == []


def test_one_long_odd_document_does_not_speak_for_its_class() -> None:
    texts = ["zebra " * 300, *["apple pear"] * 3]
    assert top_words(texts, [0] * 4, 1)[0] == ["apple", "pear"]


def test_names_are_distinct_and_plain() -> None:
    words = [["lord", "lords", "god", "king"], ["lord", "god", "king", "queen"], ["наука"], [], ["lord", "god", "king"]]
    names = domain_names(words)
    assert names[:2] == ["lord-god-king", "lord-god-king-queen"]
    assert names[2:4] == ["domain-2", "domain-3"]
    assert len(set(names)) == 5


def test_the_map_keeps_groups_together_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 20)
    vectors = (np.eye(8)[truth] + rng.normal(scale=0.05, size=(60, 8))).astype(np.float32)
    order = rng.permutation(60)
    vectors, truth = vectors[order], truth[order]
    before, describe.MAP_SIZE = describe.MAP_SIZE, 50
    places = flat_map(vectors, 0)
    np.testing.assert_array_equal(places, flat_map(vectors, 0))
    describe.MAP_SIZE = before
    assert np.isnan(places[50:]).all()
    distances = np.linalg.norm(places[:50, None] - places[None, :50], axis=2) + 9 * np.eye(50)
    assert np.mean(truth[distances.argmin(axis=1)] == truth[:50]) > 0.95
    assert 0 <= places[:50].min() <= places[:50].max() <= 1


def test_a_map_of_next_to_nothing() -> None:
    assert flat_map(np.eye(3, dtype=np.float32)[:1], 0).shape == (1, 2)
    assert np.isfinite(flat_map(np.eye(5, dtype=np.float32), 0)).all()
    assert np.isfinite(flat_map(np.ones((6, 1), dtype=np.float32), 0)).all()
