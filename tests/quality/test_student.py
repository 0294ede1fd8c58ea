"""Students as scorers: what they read of a text, heads within their labels' range, and what is told of wrong ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openclimb.config.schema import QualitySettings
from openclimb.errors import ConfigError
from openclimb.quality.scorers import Place, load_scorers, score_names
from openclimb.quality.student import HEADS, MOST_CHARS, Student, prepared, write_table

Writer = Callable[[str, dict[str, dict[str, float]]], Path]


@pytest.fixture
def trained(tmp_path: Path, write_fasttext: Writer) -> Path:
    """A workspace's folder with a fastText student and two heads on vectors of two numbers."""
    models = tmp_path / "run" / "students" / "models"
    models.mkdir(parents=True)
    write_fasttext("edu.bin", {"__label__0": {"junk": 8.0}, "__label__5": {"proof": 8.0}}).rename(models / "edu.bin")
    weights = np.array([[4, 0], [0, 1]], np.float32)
    np.savez(models / HEADS, weights=weights, intercepts=np.array([1, 2], np.float32))
    students = [
        Student("culture", "head", (0.0, 2.0, 3.0), HEADS),
        Student("edu", "fasttext", (0.0, 5.0), "edu.bin"),
        Student("ads", "head", (1.0, 4.0), HEADS),
    ]
    write_table(models, students, "these vectors")
    return tmp_path / "run"


VECTORS = np.array([[0, 1], [1, 0], [-1, 0]], np.float32)


def test_students_of_both_kinds_score(trained: Path) -> None:
    scorers = load_scorers(QualitySettings(("heuristics", "students")), Place(trained, embedding="these vectors"))
    assert score_names(scorers) == ["heuristics", "edu", "culture", "ads"]
    assert [scorer.on_vectors for scorer in scorers] == [False, False, True]
    texts = ["proof", "junk", ""]
    assert scorers[1](texts, VECTORS)[:, 0] == pytest.approx([5 / (1 + np.exp(-4)), 5 / (1 + np.exp(4)), 2.5], abs=1e-3)
    assert scorers[2](texts, VECTORS).tolist() == [[1, 3], [3, 2], [0, 2]]  # 5 and −3 are no labels of culture


def test_the_likeliest_label_of_a_head_is_the_nearest(trained: Path) -> None:
    settings = QualitySettings((f"students:{trained}",), label="argmax")
    edu, heads = load_scorers(settings)
    assert edu(["proof", "junk"])[:, 0].tolist() == [5, 0]
    assert heads(["", "", ""], VECTORS).tolist() == [[0, 4], [3, 1], [0, 1]]


def test_a_student_reads_the_beginning_without_labels_of_its_own() -> None:
    assert prepared("A\nb __label__5 c") == "a<newline>b label5 c"
    assert prepared("a " * MOST_CHARS) == "a " * (MOST_CHARS // 2 - 1) + "a"
    assert prepared("half \ud800 pair") == "half ? pair"


def test_students_that_are_not_there_or_read_other_vectors_are_told(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are none in") as caught:
        load_scorers(QualitySettings(("students",)), Place(tmp_path))
    assert f"climb train-quality {tmp_path}" in caught.value.fix
    with pytest.raises(ConfigError, match="the students of culture .* read the vectors of another embedder"):
        load_scorers(QualitySettings(("students",)), Place(trained, embedding="others"))
    (trained / "students" / "models" / "edu.bin").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="the student of edu: "):
        load_scorers(QualitySettings(("students",)), Place(trained))
