"""Scorers: functions of a third_party, several side by side, names with a model behind a colon, and their errors."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openclimb.config.load import from_dict
from openclimb.config.schema import QualitySettings
from openclimb.errors import ConfigError
from openclimb.quality.scorers import Scorer, load_scorers, score_names, scorer_files, split_name
from openclimb.recipes import recipes


def length(texts: Sequence[str]) -> list[int]:
    """A scorer of a third_party."""
    return [len(text) for text in texts]


def two(texts: Sequence[str]) -> np.ndarray:
    """A scorer with two scores."""
    return np.array([[len(text), -len(text)] for text in texts])


two.names = ("long", "short")  # type: ignore[attr-defined]


def wrong(texts: Sequence[str]) -> np.ndarray:
    """A scorer that forgets a text."""
    return np.zeros(len(texts) - 1)


def heuristics(texts: Sequence[str]) -> np.ndarray:
    """A scorer whose name is taken."""
    return np.zeros(len(texts))


def test_scorers_stand_side_by_side() -> None:
    settings = QualitySettings(("heuristics", f"{__name__}:length", f"{__name__}:two"))
    scorers = load_scorers(settings)
    assert score_names(scorers) == ["heuristics", "length", "long", "short"]
    scores = np.concatenate([scorer(["abc", "z" * 30_000]) for scorer in scorers], axis=1)
    assert scores.dtype == np.float32
    assert scores[:, 1:].tolist() == [[3, 3, -3], [20_000, 20_000, -20_000]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (QualitySettings(("heuristic",)), r"scorer 'heuristic' is not known \(did you mean 'heuristics'\?\)"),
        (QualitySettings(("nothing.here:f",)), "scorer 'nothing.here:f' cannot be loaded"),
        (QualitySettings(("heuristics", f"{__name__}:heuristics")), "score name 'heuristics' is taken"),
        (QualitySettings(("fasttext",)), r"quality\.fasttext names no model"),
        (
            QualitySettings(("fasttext",), {"edu": "nowhere.bin"}),
            r"quality\.fasttext\.edu: there is no file 'nowhere.bin'",
        ),
        (QualitySettings(("fasttext",), {"edu": __file__}), "wrong file format"),
        (QualitySettings(("fasttext",), {"tokens": __file__}), "wrong file format|is taken"),
    ],
)
def test_what_is_wrong_with_a_scorer_is_told(settings: QualitySettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_scorers(settings)


def test_a_scorer_that_gives_other_than_a_number_a_text_is_told() -> None:
    (scorer,) = load_scorers(replace(QualitySettings(), scorers=(f"{__name__}:wrong",)))
    with pytest.raises(ConfigError, match=r"the scorer of wrong gave an array of shape \(1, 1\) for 2 texts"):
        scorer(["a", "b"])


def test_a_model_stands_behind_a_colon_and_a_function_of_a_module_is_one_name() -> None:
    assert split_name("transformers:some/model@c0ffee") == ("transformers", "some/model@c0ffee")
    assert split_name("students") == ("students", "")
    assert split_name("mine.scorers:f") == ("mine.scorers:f", "")
    settings = QualitySettings(("heuristics", "students", "students:other", "transformers:m"), {"edu": "e.bin#x"})
    assert scorer_files(settings, Path("run")) == {
        "fasttext edu": "e.bin",
        "students": "run/students/models",
        "students:other": "other/students/models",
        "transformers:m": "m",
    }


def test_a_scorer_of_vectors_is_given_them() -> None:
    scorer = Scorer(("sum",), lambda vectors: vectors.sum(axis=1), on_vectors=True)
    assert scorer(["a", "b"], np.ones((2, 3), np.float32)).tolist() == [[3], [3]]
    with pytest.raises(ValueError, match="needs the vectors"):
        scorer(["a", "b"])


def test_labels_follow_from_the_likeliest_label_where_it_is_asked_for() -> None:
    plain, likeliest = (
        recipes(from_dict({"quality": quality}), "", "")["labels"] for quality in ({}, {"label": "argmax"})
    )
    assert "quality.label" not in plain.settings  # labels of before there was a choice stay
    assert likeliest.settings["quality.label"] == "argmax"
