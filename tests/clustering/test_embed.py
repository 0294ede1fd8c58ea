"""Embedders give unit vectors, alike for alike texts, and say what is wrong with a model."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openclimb.clustering import embed as embedding
from openclimb.clustering.embed import check_model, fit_embedder, load_embedder
from openclimb.config.load import from_dict
from openclimb.config.schema import EmbedSettings
from openclimb.errors import ConfigError, WorkspaceError
from openclimb.recipes import recipes
from openclimb.workspace.records import Recipe

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


def test_a_transformer_reads_as_many_tokens_as_it_is_given(transformer_model: Path, tmp_path: Path) -> None:
    settings = EmbedSettings(embedder="sentence-transformers", model=str(transformer_model), max_tokens=8)
    short, long = "the of letter " * 2, "the of letter " * 40
    few, all_of_it = (load_embedder(replace(settings, max_tokens=n), tmp_path)([short, long]) for n in (4, 200))
    np.testing.assert_allclose(few[0], few[1], atol=1e-5)
    assert np.abs(all_of_it[0] - all_of_it[1]).max() > 1e-3
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(embedding, "MOST_CHARS", 3)  # of settings without max_tokens
        np.testing.assert_allclose(load_embedder(replace(settings, max_tokens=200), tmp_path)([long]), all_of_it[1:])


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


CONFIGURATION = """
from transformers import BertConfig

class OwnConfig(BertConfig):
    model_type = "own-bert"
"""
MODELING = """
import os
from pathlib import Path
from transformers import BertModel
from .configuration_own import OwnConfig

Path(os.environ["OWN_CODE_RAN"]).touch()

class OwnModel(BertModel):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(transformer_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A model's folder with code of its own, of the form that hubs have, and the file that this code makes."""
    folder = shutil.copytree(transformer_model, tmp_path / "own")
    mapped = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own-bert", "architectures": ["OwnModel"], "auto_map": mapped}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_own.py").write_text(CONFIGURATION)
    (folder / "modeling_own.py").write_text(MODELING)
    monkeypatch.setenv("OWN_CODE_RAN", str(tmp_path / "ran"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder, tmp_path / "ran"


def test_code_of_a_model_runs_only_when_the_user_says_so(own_code: tuple[Path, Path], tmp_path: Path) -> None:
    folder, ran = own_code
    settings = EmbedSettings(embedder="sentence-transformers", model=str(folder))
    for refuse in (check_model, lambda one: fit_embedder(one, ["a"], 0, tmp_path)):
        with pytest.raises(ConfigError, match=r"code of its own \(configuration_own.OwnConfig, modeling_own") as caught:
            refuse(settings)
        assert "embed.trust_remote_code = true" in caught.value.fix
        assert not ran.exists()
    trusted = replace(settings, trust_remote_code=True)
    check_model(trusted)
    assert not ran.exists()  # a plan runs nothing
    assert load_embedder(trusted, tmp_path)(["a b", "c"]).shape == (2, 16)
    assert ran.exists()


def test_a_module_of_a_models_own_is_found_too(transformer_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(transformer_model, tmp_path / "own")
    modules = json.loads((folder / "modules.json").read_text())
    modules[-1]["type"] = "custom_pooling.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "custom_pooling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for refuse in (check_model, lambda one: fit_embedder(one, ["a"], 0, tmp_path)):
        with pytest.raises(ConfigError, match=r"code of its own \(custom_pooling.Pooling\)"):
            refuse(EmbedSettings(embedder="sentence-transformers", model=str(folder)))
    assert not (tmp_path / "ran").exists()


def test_a_type_that_the_library_has_needs_no_code_of_its_own(transformer_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(transformer_model, tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling_own.OwnModel"}}))
    settings = EmbedSettings(embedder="sentence-transformers", model=str(folder))
    check_model(settings)
    assert load_embedder(settings, tmp_path)(["a"]).shape == (1, 16)


def test_a_folder_has_no_revision(transformer_model: Path, tmp_path: Path) -> None:
    settings = EmbedSettings(embedder="sentence-transformers", model=str(transformer_model), revision="main")
    for refuse in (check_model, lambda one: load_embedder(one, tmp_path)):
        with pytest.raises(ConfigError, match=r"embed\.revision is of a model on the hub"):
            refuse(settings)


def test_a_pinned_revision_is_of_the_recipe_and_leave_to_run_code_is_not() -> None:
    def recipe(**embed: object) -> Recipe:
        return recipes(from_dict({"embed": embed}), "", "")["clusters"]

    assert recipe(revision="c0ffee").settings["embed.revision"] == "c0ffee"
    assert recipe(revision="c0ffee").fingerprint != recipe().fingerprint
    assert recipe(trust_remote_code=True).fingerprint == recipe().fingerprint
    assert not any("trust" in name for name in recipe(trust_remote_code=True).settings)


HUB = """
import sys
from openclimb.clustering.embed import check_model
from openclimb.config.schema import EmbedSettings
from openclimb.errors import ConfigError

for revision in ("", "c0ffee"):
    for model in ("them/stock", "them/own"):
        try:
            check_model(EmbedSettings(embedder="sentence-transformers", model=model, revision=revision))
            print(model, "may be loaded")
        except ConfigError as error:
            print(error.message, error.fix)
"""


def test_the_hub_is_asked_for_code_before_a_model_is_fetched(tmp_path: Path) -> None:
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.partition("?")[0])
            config = {"model_type": "bert", "auto_map": {"AutoModel": "m.M"}}
            config |= {"model_type": "new"} if "own" in self.path else {}
            body = json.dumps({"id": "them/own", "config": config, "tags": [], "siblings": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    variables = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", HUB], capture_output=True, text=True, check=True, env=variables)
    server.shutdown()
    server.server_close()
    first, second = done.stdout.splitlines()[:2]
    assert first == "them/stock may be loaded"
    assert "'them/own' brings code of its own (m.M)" in second
    assert "embed.revision to the commit that you read" in second
    assert done.stdout.splitlines()[2:] == [first, second]
    assert {path for path in asked if path.startswith("/api/models") or "resolve" in path} == {
        f"/api/models/them/{name}{where}" for name in ("stock", "own") for where in ("", "/revision/c0ffee")
    }
