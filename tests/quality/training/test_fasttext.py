"""fastText students: what is trained on, that labels inside a text teach nothing, and the same model again."""

import json
from pathlib import Path

import numpy as np
import pytest

from openclimb.errors import InputError, MissingDependency
from openclimb.quality.training import fasttext
from openclimb.quality.training.fasttext import WHOLE, Job, Work, prediction_path, run_job, write_texts
from openclimb.quality.training.labels import Labels, read_labels


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Work, Labels]:
    """Texts whose label is in a word, half of them with another label written in the text."""
    monkeypatch.setattr(fasttext, "BUCKETS", 1000)
    words = ["dull", "fine", "fair"]
    texts = [f"{words[i % 3]} Text,\nnumber {i} " + "__label__9 " * (i % 2) for i in range(300)]
    rows = [{"text": text, "scores": {"edu": i % 3, "more": i % 2}} for i, text in enumerate(texts)]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = read_labels(path)
    labels.save(tmp_path)
    write_texts(labels, tmp_path)
    return Work(path, labels.scales, tmp_path, (tmp_path / "edu.bin", tmp_path / "more.bin")), labels


def test_a_fold_is_predicted_by_the_others(work: tuple[Work, Labels]) -> None:
    trainer, labels = work
    path = run_job(trainer, Job(0, 2))
    assert path == prediction_path(trainer.folder, Job(0, 2))
    predicted = np.load(path, allow_pickle=False)
    held_out = labels.scores[labels.folds == 2, 0]
    assert predicted.shape == held_out.shape
    assert np.abs(predicted - held_out).mean() < 0.25
    before = path.stat().st_mtime_ns
    assert run_job(trainer, Job(0, 2)).stat().st_mtime_ns == before  # it is there
    assert not list(trainer.folder.glob("train-*"))


def test_the_whole_model_knows_the_labels_alone_and_is_the_same_again(work: tuple[Work, Labels]) -> None:
    trainer, _ = work
    first = run_job(trainer, Job(0, WHOLE)).read_bytes()
    trainer.models[0].unlink()
    assert run_job(trainer, Job(0, WHOLE)).read_bytes() == first
    model = fasttext.library().load_model(str(trainer.models[0]))
    assert sorted(model.labels) == ["__label__0", "__label__1", "__label__2"]
    assert "label9" in model.words  # of a text that has a label in it, a word is left


def test_the_training_file_is_in_the_order_of_hashes(
    work: tuple[Work, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, labels = work
    seen: list[str] = []

    def train_supervised(input: str, **_: object) -> None:
        seen.extend(Path(input).read_text().splitlines())
        raise ValueError("Encountered NaN.")

    monkeypatch.setattr(fasttext.library(), "train_supervised", train_supervised)
    with pytest.raises(InputError, match="cannot be trained on the labels of 'edu': Encountered NaN"):
        run_job(trainer, Job(0, 1))
    rows = [i for i in np.argsort(labels.hashes) if labels.folds[i] != 1]
    assert [line.split()[0] for line in seen] == [f"__label__{i % 3}" for i in rows]
    assert all(f"text , <newline>number {i}" in line for i, line in zip(rows, seen, strict=True))


def test_a_fasttext_that_only_predicts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fasttext.library(), "train_supervised")
    with pytest.raises(MissingDependency, match="a fastText that trains") as caught:
        fasttext.library()
    assert "--student head" in caught.value.fix
