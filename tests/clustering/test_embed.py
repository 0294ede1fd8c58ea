"""Embedders give unit vectors, alike for alike texts, and say what is wrong with a model."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openclimb.clustering import embed as embedding
from openclimb.clustering.embed import fit_embedder, load_embedder
from openclimb.config.schema import EmbedSettings
from openclimb.errors import ConfigError, WorkspaceError

HASHING = EmbedSettings(embedder="hashing")


def letters(texts: Sequence[str]) -> np.ndarray:
    """An embedder of a third_party: letter counts."""
    return np.array([[text.count(letter) for letter in "aeiou"] for text in texts], dtype=np.float64)


def flat(texts: Sequence[str]) -> np.ndarray:
    """Not an embedder: one number a text."""
    return np.zeros(len(texts))


def unmeasured(texts: Sequence[str]) -> np.ndarray:
    """Not an embedder: its numbers are not finite."""
    return np.full((len(texts), 3), np.nan)


@pytest.mark.parametrize("embedder", ["model2vec", "sentence-transformers", "hashing", f"{__name__}:letters"])
def test_every_embedder_gives_unit_vectors_whatever_the_batch(
    embedder: str,
    static_model: Path,
    transformer_model: Path,
    texts: list[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = {"model2vec": static_model, "sentence-transformers": transformer_model}
    settings = replace(HASHING, embedder=embedder, model=str(models.get(embedder, "")))
    some = [text for _, text in texts[:20]] + ["", "☃"]
    fit_embedder(settings, some, 0, tmp_path)
    vectors = load_embedder(settings, tmp_path)(some)
    assert vectors.dtype == np.float32
    assert vectors.shape[0] == len(some)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    monkeypatch.setattr(embedding, "BATCH", 3)
    np.testing.assert_allclose(load_embedder(settings, tmp_path)(some), vectors, atol=1e-5)
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3  # code and names differ


def test_only_the_first_characters_are_embedded(
    static_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "MOST_CHARS", 7)
    embed = load_embedder(EmbedSettings(model=str(static_model)), tmp_path)
    np.testing.assert_array_equal(embed(["the of letter"]), embed(["the of "]))


def test_hashing_puts_texts_of_a_kind_together(texts: list[tuple[str, str]], tmp_path: Path) -> None:
    fit_embedder(HASHING, [text for _, text in texts], 0, tmp_path)
    vectors = load_embedder(HASHING, tmp_path)([text for _, text in texts])
    kinds = np.array([kind for kind, _ in texts])
    means = np.array([vectors[kinds == kind].mean(axis=0) for kind in sorted(set(kinds))])
    nearest = np.array(sorted(set(kinds)))[(vectors @ means.T).argmax(axis=1)]
    assert np.mean(nearest == kinds) > 0.95


def test_hashing_is_the_same_each_time_and_fitted_again_when_its_file_changes(tmp_path: Path) -> None:
    some = ["a b c", "b c d", "x y z", "y z a", "c d e f"]
    fit_embedder(HASHING, some, 0, tmp_path / "first")
    fit_embedder(HASHING, some, 0, tmp_path / "second")
    first = load_embedder(HASHING, tmp_path / "first")(some)
    np.testing.assert_array_equal(first, load_embedder(HASHING, tmp_path / "second")(some))
    fit_embedder(HASHING, some[::-1][:3], 0, tmp_path / "first")
    assert load_embedder(HASHING, tmp_path / "first")(some).shape[1] == 2


def test_a_pretrained_model_is_read_anew_when_its_files_change(static_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(static_model, tmp_path / "model")
    settings = EmbedSettings(model=str(folder))
    load_embedder(settings, tmp_path)
    load_embedder(settings, tmp_path)
    (folder / "model.safetensors").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="cannot load"):
        load_embedder(settings, tmp_path)


def test_a_missing_model_folder_is_told(tmp_path: Path) -> None:
    missing = EmbedSettings(model=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"embed\.model: there is no folder .*nowhere") as caught:
        fit_embedder(missing, ["a"], 0, tmp_path)
    assert "hashing" in caught.value.fix


@pytest.mark.parametrize("embedder", ["model2vec", "sentence-transformers"])
def test_a_folder_that_holds_no_model_is_told(embedder: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"cannot load .* as a {embedder} model"):
        load_embedder(EmbedSettings(embedder=embedder, model=str(tmp_path / "model")), tmp_path)


def test_a_hub_name_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot load 'nobody/has-this-model' as a model2vec model"):
        load_embedder(EmbedSettings(model="nobody/has-this-model"), tmp_path)


@pytest.mark.parametrize(
    ("embedder", "message"),
    [
        ("nothing.like_this:embed", "embedder 'nothing.like_this:embed' cannot be loaded"),
        (f"{__name__}:nothing", "cannot be loaded"),
        (f"{__name__}:HASHING", "is not a function"),
        (f"{__name__}:flat", r"gave an array of shape \(1,\)"),
        (f"{__name__}:unmeasured", "not finite"),
    ],
)
def test_a_function_that_is_no_embedder_is_told(embedder: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_embedder(EmbedSettings(embedder=embedder), ["a"], 0, tmp_path)


def test_hashing_without_its_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"embedder\.npz is missing"):
        load_embedder(HASHING, tmp_path)
