"""Files of labels: what is read of a line, what is none, folds by text, classes of many different labels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openclimb.errors import InputError
from openclimb.quality.training.labels import FOLDS, MOST_VALUES, Labels, classes, read_labels, read_lines

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(*rows: object, n: int = 120) -> Path:
        lines = [json.dumps({"text": f"text {i}", "scores": {"edu": i % 6}}) for i in range(n)]
        lines += [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / "labels.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / "labels.jsonl"

    return to_file


def test_labels_are_read_with_their_places(write: Write, tmp_path: Path) -> None:
    more = [{"text": f"other {i}", "scores": {"new": 0.5, "edu": 2}, "unit": 3, "position": 9} for i in range(100)]
    path = write("", *more)
    labels = read_labels(path)
    assert labels.scales == ("edu", "new")
    assert labels.scores.shape == (220, 2)
    assert np.isnan(labels.scores[:120, 1]).all()
    assert labels.known(1).sum() == 100
    assert labels.scores[120:].tolist() == [[2, 0.5]] * 100
    offset, text, scores = next(read_lines(path, int(labels.offsets[125])))
    assert (offset, text, scores) == (labels.offsets[125], "other 5", {"new": 0.5, "edu": 2})
    labels.save(tmp_path)
    again = Labels.load(tmp_path, path, labels.scales)
    assert np.array_equal(again.scores, labels.scores, equal_nan=True)
    assert np.array_equal(again.folds, labels.folds)


def test_equal_texts_are_in_one_fold(write: Write) -> None:
    long = "the same beginning " * 200
    rows = [{"text": f"text {i}", "scores": {"edu": 5 - i % 6}} for i in range(120)]
    labels = read_labels(write(*rows, *({"text": long + end, "scores": {"edu": 1}} for end in "ab")))
    assert np.array_equal(labels.folds[:120], labels.folds[120:240])
    assert labels.hashes[240] == labels.hashes[241]  # a student reads no more of them
    assert set(labels.folds.tolist()) == set(range(FOLDS))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 121: not JSON"),
        ("[1]", r'line 121: there is no "text" with "scores"'),
        ('{"text": 1, "scores": {"edu": 1}}', r'there is no "text" with "scores"'),
        ('{"text": "a", "scores": {}}', r'there is no "text" with "scores"'),
        ('{"text": "a", "scores": {"edu": "high"}}', "line 121: the score of 'edu' is not a number"),
        ('{"text": "a", "scores": {"edu": true}}', "the score of 'edu' is not a number"),
        ('{"text": "a", "scores": {"edu": 1e300}}', "the score of 'edu' is not a number"),
        ('{"text": "a", "scores": {"tokens": 1}}', "'tokens' cannot be the name of a score"),
        ('{"text": "a", "scores": {"rare": 1}}', "labels of 'rare' for 1 different texts"),
    ],
)
def test_a_line_that_is_no_label_is_named(write: Write, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_labels(write(line))
    assert caught.value.fix


def test_labels_that_are_not_there_are_told(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file") as caught:
        read_labels(tmp_path / "none.jsonl")
    assert "climb annotate" in caught.value.fix
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="has no labels"):
        read_labels(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="for 90 different texts"):
        read_labels(write(n=90))


def test_few_different_labels_are_classes_and_many_are_cut_by_quantiles() -> None:
    values, which = classes(np.array([3, 1, 3, 2.5], np.float32))
    assert values.tolist() == [1, 2.5, 3]
    assert which.tolist() == [2, 0, 2, 1]
    many = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    values, which = classes(many)
    assert len(values) == MOST_VALUES
    assert np.bincount(which).min() >= 90
    assert (np.diff(values) > 0).all()
    assert np.corrcoef(values[which], many)[0, 1] > 0.97
