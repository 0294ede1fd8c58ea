"""A static model distilled from a transformer is one that the model2vec embedder reads."""

from pathlib import Path

import numpy as np
import pytest

from openclimb.clustering.distill import distill, main
from openclimb.clustering.embed import load_embedder
from openclimb.config.schema import EmbedSettings


def test_a_distilled_model_embeds(transformer_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "static"
    monkeypatch.setattr("sys.argv", ["distill", str(transformer_model), str(out), "--dim", "8"])
    assert main() == 0
    vectors = load_embedder(EmbedSettings(model=str(out)), tmp_path)(["a b c", "x y z", "a b"])
    assert vectors.shape == (3, 8)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    distill("anything at all", out)  # a folder that is there is kept
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert not list(tmp_path.glob("*.partial"))
    assert np.isfinite(vectors).all()


def test_a_missing_model_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["distill", str(tmp_path / "nowhere"), str(tmp_path / "out")])
    assert main() == 1
    told = capsys.readouterr().err
    assert "error: cannot load" in told
    assert "fix: give the folder" in told
    assert not (tmp_path / "out").exists()
