"""Sequence classifiers of the hub's form, as small folders: what their labels mean, batches, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openclimb.config.schema import QualitySettings
from openclimb.errors import ConfigError
from openclimb.quality import transformers as classifiers
from openclimb.quality.scorers import Place, load_scorers, score_names

Maker = Callable[..., Path]
TEXTS = ["a", "", "letters of one kind " * 300, "b c d e", "tea", "ration is a thing " * 9]


def outputs(folder: Path, texts: list[str]) -> np.ndarray:
    """Return a model's outputs for texts, one at a time, by the library alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
    with torch.inference_mode():
        rows = [model(**tokenizer(t, truncation=True, max_length=512, return_tensors="pt")).logits[0] for t in texts]
    return np.stack([row.numpy() for row in rows])


def settings(folder: Path | str, label: str = "expected") -> QualitySettings:
    return QualitySettings((f"transformers:{folder}",), label=label)


def test_one_output_is_the_score(make_classifier: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_classifier("edu-classifier", ["LABEL_0"], problem_type="regression")
    (scorer,) = load_scorers(settings(folder))
    assert scorer.names == ("edu-classifier",)
    found = scorer(TEXTS)
    assert found == pytest.approx(outputs(folder, TEXTS), abs=1e-5)
    assert np.ptp(found) > 0.1
    monkeypatch.setattr(classifiers, "BATCH_TOKENS", 20)
    assert scorer(TEXTS) == pytest.approx(found, abs=1e-5)
    assert scorer([]).shape == (0, 1)
    (rounded,) = load_scorers(settings(folder, "argmax"))
    assert np.array_equal(rounded(TEXTS), np.rint(found))


@pytest.mark.parametrize(("labels", "values"), [(["0", "2.5", "5"], [0, 2.5, 5]), (["LABEL_0", "LABEL_1"], [0, 1])])
def test_labels_that_are_numbers_have_one_score(make_classifier: Maker, labels: list[str], values: list[float]) -> None:
    folder = make_classifier("ordinal", labels)
    logits = outputs(folder, TEXTS)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    (expected,), (likeliest,) = (load_scorers(settings(folder, label)) for label in ("expected", "argmax"))
    assert expected.names == ("ordinal",)
    assert expected(TEXTS)[:, 0] == pytest.approx(probabilities @ values, abs=1e-5)
    assert likeliest(TEXTS)[:, 0].tolist() == [values[i] for i in logits.argmax(1)]


def test_other_labels_have_a_score_each(make_classifier: Maker) -> None:
    folder = make_classifier("tone", ["calm", "loud", "other"])
    logits = outputs(folder, TEXTS)
    (scorer,) = load_scorers(settings(folder))
    assert scorer.names == ("tone#calm", "tone#loud", "tone#other")
    assert scorer(TEXTS) == pytest.approx(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), abs=1e-5)
    several = make_classifier("several", ["calm", "loud"], problem_type="multi_label_classification")
    (scorer,) = load_scorers(settings(several))
    assert scorer(TEXTS) == pytest.approx(1 / (1 + np.exp(-outputs(several, TEXTS))), abs=1e-5)
    (scorer,) = load_scorers(settings(make_classifier("plain", ["a", "b"], problem_type="regression")))
    assert scorer(TEXTS) == pytest.approx(outputs(folder.parent / "plain", TEXTS), abs=1e-5)


def test_several_models_stand_side_by_side(make_classifier: Maker) -> None:
    one, two = (make_classifier(name, ["LABEL_0"]) for name in ("one", "two"))
    scorers = load_scorers(QualitySettings((f"transformers:{one}", f"transformers:{two}")))
    assert score_names(scorers) == ["one", "two"]
    with pytest.raises(ConfigError, match="the score name 'one' is taken"):
        load_scorers(QualitySettings((f"transformers:{one}", f"transformers:{one}")))


def test_what_is_no_classifier_is_told(make_classifier: Maker, tmp_path: Path) -> None:
    for name, message in (
        ("transformers", "names no model"),
        ("transformers:no such folder", "there is no folder 'no such folder'"),
        (f"transformers:{tmp_path}", "cannot load .* as a sequence classifier"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_scorers(QualitySettings((name,)))
    folder = make_classifier("twice", ["a", "b"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "a", "1": "a"}}))
    with pytest.raises(ConfigError, match="are not different"):
        load_scorers(settings(folder))


def test_weights_that_are_a_pickle_are_not_read(make_classifier: Maker) -> None:
    import torch
    from safetensors.torch import load_file

    folder = make_classifier("pickled", ["LABEL_0"])
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (scorer,) = load_scorers(settings(folder))
    with pytest.raises(ConfigError, match="cannot load"):
        scorer(["a"])


OWN = """
import pathlib
pathlib.Path({ran!r}).touch()
from transformers import BertConfig, BertForSequenceClassification
class OwnConfig(BertConfig):
    model_type = "own-classifier"
class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig
"""


def test_code_of_a_models_own_runs_only_with_consent(make_classifier: Maker, tmp_path: Path) -> None:
    folder, ran = make_classifier("own", ["LABEL_0"]), tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own-classifier", "auto_map": classes}))
    (folder / "own.py").write_text(OWN.format(ran=str(ran)))
    with pytest.raises(ConfigError, match=r"code of its own \(own.OwnConfig, own.OwnModel\)") as caught:
        load_scorers(settings(folder))
    assert "embed.trust_remote_code = true" in caught.value.fix
    assert not ran.exists()
    (scorer,) = load_scorers(settings(folder), Place(trust_remote_code=True))
    assert scorer(["a b", "c"]).shape == (2, 1)
    assert ran.exists()


def test_a_folder_that_was_written_anew_is_read_anew(make_classifier: Maker) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_classifier("changing", ["LABEL_0"])
    (before,) = load_scorers(settings(folder))
    first = before(["tea"])
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (after,) = load_scorers(settings(folder))
    assert after(["tea"]) == pytest.approx(first + 1, abs=1e-5)
