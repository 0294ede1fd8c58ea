"""Checkpoints: the logits of transformers on the same weights, there and back; what cannot be used is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from openclimb.config.schema import ProxySettings, TokensSettings
from openclimb.corpus.tokenizer import encode_batch, load_tokenizer, train_tokenizer
from openclimb.errors import ConfigError, InputError
from openclimb.proxy.checkpoint import find_checkpoint, read_checkpoint, shaped, with_tokenizer
from openclimb.proxy.hf_io import load_weights, make_decoder, save_llama
from openclimb.proxy.model import StackedDecoder
from openclimb.testing.models import LLAMA_SHAPE, drawn_decoder, make_llama

TEXT = "The quick brown fox jumps over the lazy dog."
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FORMS: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "grouped": {"tie_word_embeddings": False, "num_key_value_heads": 2},
    "one-group": {"num_key_value_heads": 1, "tie_word_embeddings": True, "rms_norm_eps": 1e-2},
    "wide-heads": {"num_key_value_heads": 2, "head_dim": 16},
    "base": {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}},
    "llama3": {"rope_parameters": LLAMA3},
    "shards": {"max_shard_size": "20KB"},
}


def with_tokenizer_json(folder: Path, vocab_size: int = 300) -> Path:
    train_tokenizer([TEXT] * 10, vocab_size, folder / "tokenizer.json")
    return folder


def settings(folder: Path, **changes: Any) -> ProxySettings:
    return ProxySettings(checkpoint=str(folder), sequence=32, **changes)


def logits_of(model: StackedDecoder, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        stacked = tokens.expand(model.n_models, -1, -1)
        return model.logits(model(stacked)).view(*stacked.shape, -1)


def some_tokens(length: int = 100) -> torch.Tensor:
    return torch.randint(0, LLAMA_SHAPE["vocab_size"], (3, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_those_of_transformers_there_and_back(form: str, tmp_path: Path) -> None:
    llama = make_llama(tmp_path / "a", **FORMS[form])
    folder = with_tokenizer_json(tmp_path / "a")
    assert (folder / "model.safetensors.index.json").exists() == (form == "shards")
    ours = make_decoder(settings(folder), 300, [0, 1])
    assert (
        read_checkpoint(folder).n_parameters == llama.num_parameters() == sum(p[0].numel() for p in ours.parameters())
    )
    tokens = some_tokens()
    with torch.inference_mode():
        theirs = llama(tokens).logits
    assert theirs.std() > 0.5
    for found in logits_of(ours, tokens):  # every model of the stack
        torch.testing.assert_close(found, theirs, atol=1e-4, rtol=0)
    save_llama(ours, 1, tmp_path / "b", folder / "tokenizer.json", str(folder))
    with torch.inference_mode():
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "b").eval()(tokens).logits
    torch.testing.assert_close(again, theirs, atol=1e-5, rtol=0)


def test_what_we_trained_from_nothing_opens_in_transformers(tmp_path: Path) -> None:
    train_tokenizer([TEXT] * 10, 300, tmp_path / "tokenizer.json")
    ours = drawn_decoder(ProxySettings(width=32, depth=2, heads=2, sequence=16), 300, [0, 1])
    save_llama(ours, 1, tmp_path / "model", tmp_path / "tokenizer.json")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = encode_batch(load_tokenizer(tmp_path / "tokenizer.json"), [TEXT])[0]
    assert tokenizer.encode(TEXT, add_special_tokens=False) == ids
    assert tokenizer.encode(TEXT) == [0, *ids]  # as we score a text: after the token that ends documents
    assert tokenizer.eos_token_id == 0
    tokens = torch.tensor([ids])
    with torch.inference_mode():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model")(tokens).logits
    torch.testing.assert_close(theirs, logits_of(ours, tokens)[1], atol=1e-4, rtol=0)


def test_a_tokenizers_own_first_token_is_that_of_the_saved_model(
    tmp_path: Path, with_start: Callable[[Path], int]
) -> None:
    path = with_tokenizer_json(tmp_path) / "tokenizer.json"
    start = with_start(path)
    cutting = Tokenizer.from_file(str(path))
    cutting.enable_truncation(4)
    cutting.save(str(path))
    ours = drawn_decoder(ProxySettings(width=32, depth=1, heads=2, sequence=16), 320, [0])
    save_llama(ours, 0, tmp_path / "model", path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (start, 0)
    assert tokenizer.encode(TEXT) == [start, *encode_batch(load_tokenizer(path), [TEXT])[0]]
    assert json.loads((tmp_path / "model" / "tokenizer.json").read_text())["truncation"] is None


def test_a_tokenizer_that_only_trims_offsets_begins_as_we_score(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    train_tokenizer([TEXT] * 10, 300, path)
    trimming = Tokenizer.from_file(str(path))
    trimming.post_processor = processors.ByteLevel(trim_offsets=True)  # as GPT-2's
    trimming.save(str(path))
    ours = drawn_decoder(ProxySettings(width=32, depth=1, heads=2, sequence=16), 300, [0])
    save_llama(ours, 0, tmp_path / "model", path)
    ids = encode_batch(load_tokenizer(path), [TEXT])[0]
    assert AutoTokenizer.from_pretrained(tmp_path / "model").encode(TEXT) == [0, *ids]


def test_a_checkpoint_of_before_transformers_5_has_its_angles_elsewhere(tmp_path: Path) -> None:
    folder = with_tokenizer_json(tmp_path)
    make_llama(folder, rope_parameters=LLAMA3)
    new = read_checkpoint(folder)
    raw = json.loads((folder / "config.json").read_text())
    angles = raw.pop("rope_parameters")
    raw["rope_theta"] = angles.pop("rope_theta")
    raw["rope_scaling"] = angles
    (folder / "config.json").write_text(json.dumps(raw))
    assert read_checkpoint(folder) == new
    assert new.form.rope.base == 500_000.0


def test_settings_take_the_shape_and_the_tokenizer_of_their_checkpoint(tmp_path: Path) -> None:
    make_llama(tmp_path)
    with_tokenizer_json(tmp_path)
    found = shaped(settings(tmp_path, width=96))
    assert (found.width, found.depth, found.heads) == (32, 2, 4)
    assert with_tokenizer(TokensSettings(), found).tokenizer == str(tmp_path / "tokenizer.json")
    assert shaped(ProxySettings()) == ProxySettings()
    assert with_tokenizer(TokensSettings(), ProxySettings()) == TokensSettings()
    with pytest.raises(ConfigError, match="both name a tokenizer"):
        with_tokenizer(TokensSettings(tokenizer="other.json"), found)
    with pytest.raises(ConfigError, match="reads at most 128 tokens"):
        shaped(ProxySettings(checkpoint=str(tmp_path), sequence=256))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type = 'gpt2' is not supported"),
        ({"attention_bias": True}, "attention_bias = True is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
        ({"hidden_size": None}, "config.json cannot be used"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "the kind 'yarn' are not supported"),
        ({"vocab_size": 200}, "the tokenizer has 2"),
        ({"intermediate_size": 64}, r"gate_proj.weight is \(56, 32\)"),
        ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight cannot be read"),
    ],
)
def test_a_config_that_cannot_be_used_is_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    make_llama(tmp_path)
    with_tokenizer_json(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, **change}))
    with pytest.raises(InputError, match=message) as caught:
        make_decoder(settings(tmp_path), 300, [0])
    assert caught.value.fix


def test_pickled_weights_are_refused_and_missing_files_told(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="only pytorch_model.bin, which may run code") as caught:
        read_checkpoint(tmp_path)
    assert "save_pretrained" in caught.value.fix
    make_llama(tmp_path)
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        read_checkpoint(tmp_path)
    with_tokenizer_json(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        read_checkpoint(tmp_path)
    with pytest.raises(InputError, match="has no model.safetensors"):
        read_checkpoint(tmp_path / "none")


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    make_llama(tmp_path)
    with_tokenizer_json(tmp_path)
    model = make_decoder(settings(tmp_path), 300, [0])
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(model, tmp_path)


def test_a_checkpoint_that_is_nowhere_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        find_checkpoint(str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="there is no folder"):
        find_checkpoint(str(tmp_path / "file"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="is no folder and cannot be fetched"):
        find_checkpoint("nobody/no-such-model")
