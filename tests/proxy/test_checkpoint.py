"""A search that trains on from a checkpoint: its tokenizer, the same start for every trial, models that others open."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import openclimb
from openclimb.cli.planning import plan
from openclimb.config.schema import Config
from openclimb.corpus.tokenizer import train_tokenizer
from openclimb.errors import ConfigError, InputError, StaleError
from openclimb.recipes import recipes
from openclimb.testing.fixtures import make_tiny_workspace
from openclimb.testing.models import make_llama
from openclimb.workspace.trials import trial_folder

LOG2E = 1.4426950408889634


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "llama"
    shape = {"num_key_value_heads": 2, "num_hidden_layers": 1, "vocab_size": 512, "max_position_embeddings": 512}
    make_llama(folder, tie_word_embeddings=False, **shape)
    train_tokenizer(tiny_corpus.read_text().splitlines(), 400, folder / "tokenizer.json")  # fewer than the model's rows
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path, tiny_tasks: Path, checkpoint: Path) -> Path:
    root = make_tiny_workspace(
        tmp_path_factory.mktemp("line") / "run",
        tiny_corpus,
        tiny_tasks,
        proxy={"checkpoint": str(checkpoint), "token_budget": 2048},
        target={"token_budget": 25_000},
        search={"trials": [2, 1]},
        run={"keep_models": "finalists"},
    )
    openclimb.open(root).run()
    return root


def theirs(folder: Path, packed: dict[str, np.ndarray]) -> list[float]:
    """Bits a byte of the gold options, by transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    right = np.searchsorted(packed["item"], np.arange(len(packed["gold"]))) + packed["gold"]
    spans = np.split(packed["tokens"], np.cumsum(packed["lengths"])[:-1])
    found = []
    for pair in right:
        tokens = torch.from_numpy(spans[pair].astype(np.int64))[None]
        with torch.inference_mode():
            logs = model(tokens).logits[0].double().log_softmax(-1)
        each = logs[torch.arange(tokens.shape[1] - 1), tokens[0, 1:]][packed["contexts"][pair] - 1 :]
        found.append(float(-each.sum()) * LOG2E / packed["bytes"][right].mean())
    return found


def test_a_kept_model_scores_the_same_in_transformers(run: Path, checkpoint: Path) -> None:
    assert (run / "tokens" / "tokenizer.json").read_bytes() == (checkpoint / "tokenizer.json").read_bytes()
    trials = openclimb.open(run).trials()
    kept = [trial for trial in trials if (trial_folder(run / "trials", trial.number) / "model").is_dir()]
    assert {trial.number for trial in kept} == {trial.number for trial in trials if trial.role != "search"}
    folder = trial_folder(run / "trials", kept[0].number)
    with (
        np.load(run / "tokens" / "tasks" / "stories.npz", allow_pickle=False) as stored,
        np.load(folder / "items.npz", allow_pickle=False) as items,
    ):
        packed = {name.removeprefix("report/"): stored[name] for name in stored.files if name.startswith("report/")}
        np.testing.assert_allclose(items["stories/report/bpb"], theirs(folder / "model", packed), rtol=1e-5)
        before = theirs(checkpoint, packed)
        assert np.mean(items["stories/report/bpb"]) < np.mean(before) - 0.1  # it learned, from the checkpoint on


def test_the_plan_counts_the_checkpoints_parameters(run: Path, checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert plan(run)["trials"]["parameters"] == model.num_parameters()


def test_a_target_with_another_tokenizer_is_refused(
    run: Path, checkpoint: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other")
    train_tokenizer(tiny_corpus.read_text().splitlines(), 320, other / "tokenizer.json")
    with pytest.raises(ConfigError, match="has another tokenizer than") as caught:
        openclimb.open(run).validate(["natural"], 2, {"checkpoint": str(other)})
    assert "--redo clusters" in caught.value.fix
    assert not (run / "validation.partial").exists()


def test_another_checkpoint_makes_the_run_stale(run: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_llama(other, num_hidden_layers=1, vocab_size=512)
    (other / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
    path = run / "climb.toml"
    text = path.read_text()
    try:
        path.write_text(text.replace(str(checkpoint), str(other)))
        with pytest.raises(StaleError, match=r"mixture/ was made[^\0]*proxy.checkpoint[^\0]*its input: checkpoint"):
            openclimb.open(run).run()
        (other / "model.safetensors").unlink()
        with pytest.raises(InputError, match="has no model.safetensors"):
            openclimb.open(run).run(redo="mixture")
    finally:
        path.write_text(text)


def test_every_trial_starts_from_the_same_weights(run: Path) -> None:
    """A short training leaves proxies of other seeds near one another: they did not start from random weights."""
    folders = [
        trial_folder(run / "trials", trial.number) for trial in openclimb.open(run).trials() if trial.role == "natural"
    ]
    weights = [AutoModelForCausalLM.from_pretrained(folder / "model").lm_head.weight for folder in folders]
    assert len(weights) >= 2
    apart = (weights[0] - weights[1]).norm() / weights[0].norm()
    assert 0 < apart < 0.3


def test_another_checkpoint_of_a_hub_makes_the_clusters_stale() -> None:
    config = Config()
    made = [
        recipes(replace(config, proxy=replace(config.proxy, checkpoint=name)), "", "")["clusters"].fingerprint
        for name in ("", "owner/one", "owner/other")
    ]
    assert len(set(made)) == 3
