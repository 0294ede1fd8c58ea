"""A checkpoint in Llama's Hugging Face form: where it is, what shape it has, and what it brings.

Reads a folder with config.json, model.safetensors (or shards with their index) and tokenizer.json; a hub's name is
fetched first. Safetensors only: pickled weights can run code and are refused.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclimb.config.schema import ProxySettings, TokensSettings
from openclimb.corpus.tokenizer import load_tokenizer
from openclimb.errors import ConfigError, InputError
from openclimb.proxy.model import OURS, Form, Rope

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FETCHED = ("*.json", "*.safetensors")  # of a hub's repository
SUPPORTED = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
STRETCHES = {"default": "", "linear": "linear", "llama3": "llama3"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and shape."""

    folder: Path
    width: int
    depth: int
    heads: int
    vocab_size: int  # rows of the embedding: may be padded beyond the tokenizer's
    form: Form

    @property
    def n_parameters(self) -> int:
        """Parameters: embedding, output matrix, attention, feed-forward, norms."""
        attention = 2 * self.width * (self.heads + self.form.groups) * self.form.head
        layer = attention + 3 * self.width * self.form.hidden + 2 * self.width
        return (1 if self.form.tied else 2) * self.vocab_size * self.width + self.depth * layer + self.width


def find_checkpoint(name: str) -> Path:
    """Return the folder of a checkpoint: a local one, or that of a hub's repository, which is fetched.

    Raises ConfigError when there is neither.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or folder.is_absolute() or name.count("/") != 1:
        raise ConfigError(f"proxy.checkpoint: there is no folder {name}", "name a folder, or a hub's OWNER/MODEL")
    from huggingface_hub import snapshot_download  # tokenizers bring it

    try:
        return Path(snapshot_download(name, allow_patterns=list(FETCHED)))
    except Exception as error:  # network, authentication, name: the hub's client raises many kinds
        raise ConfigError(
            f"proxy.checkpoint: {name} is no folder and cannot be fetched: {str(error).splitlines()[0]}",
            "name a local folder that holds config.json, model.safetensors and tokenizer.json",
        ) from None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return the shape of the checkpoint in a folder. Raises InputError for what is missing or not of Llama's form."""
    if not (folder / WEIGHTS).is_file() and not (folder / INDEX).is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin")) + sorted(path.name for path in folder.glob("*.pt"))
        raise InputError(
            f"{folder} has no {WEIGHTS}" + (f", only {pickled[0]}, which may run code when read" if pickled else ""),
            "save it anew: model.save_pretrained(FOLDER), which writes safetensors",
        )
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}", "save model and tokenizer into one folder: save_pretrained")
    raw = read_object(folder / "config.json")
    for key, wanted in SUPPORTED.items():
        if raw.get(key, wanted) != wanted:
            raise InputError(
                f"{folder}: {key} = {raw[key]!r} is not supported", f"use a Llama checkpoint with {key} = {wanted!r}"
            )
    try:
        width, heads = int(raw["hidden_size"]), int(raw["num_attention_heads"])
        form = Form(
            hidden=int(raw["intermediate_size"]),
            groups=int(raw.get("num_key_value_heads") or heads),
            head=int(raw.get("head_dim") or width // heads),
            longest=int(raw.get("max_position_embeddings", 2048)),
            tied=bool(raw.get("tie_word_embeddings", False)),
            epsilon=float(raw.get("rms_norm_eps", 1e-6)),
            rope=_rope(raw, folder),
        )
        found = Checkpoint(folder, width, int(raw["num_hidden_layers"]), heads, int(raw["vocab_size"]), form)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}/config.json cannot be used: {error!r}", "restore the file") from None
    n_tokens = load_tokenizer(folder / "tokenizer.json").get_vocab_size()
    if n_tokens > found.vocab_size:
        raise InputError(
            f"{folder}: the tokenizer has {n_tokens} entries and the model only {found.vocab_size}",
            "model.resize_token_embeddings(len(tokenizer)), then save it again",
        )
    return found


def shaped(proxy: ProxySettings) -> ProxySettings:
    """Return the settings with the shape of their checkpoint, if they name one, and its folder.

    Raises ConfigError when it cannot read sequences as long as the settings ask for.
    """
    if not proxy.checkpoint:
        return proxy
    found = read_checkpoint(find_checkpoint(proxy.checkpoint))
    if found.form.longest < proxy.sequence:
        raise ConfigError(
            f"proxy.sequence = {proxy.sequence}, and the checkpoint reads at most {found.form.longest} tokens",
            f"set proxy.sequence to {found.form.longest} or less",
        )
    return dataclasses.replace(
        proxy, checkpoint=str(found.folder), width=found.width, depth=found.depth, heads=found.heads
    )


def with_tokenizer(tokens: TokensSettings, proxy: ProxySettings) -> TokensSettings:
    """Return the settings of the tokenizer: a checkpoint brings its own. Raises ConfigError when both name one."""
    if not proxy.checkpoint:
        return tokens
    if tokens.tokenizer:
        raise ConfigError(
            "tokens.tokenizer and proxy.checkpoint both name a tokenizer", "leave tokens.tokenizer empty: the model's"
        )
    return dataclasses.replace(tokens, tokenizer=str(find_checkpoint(proxy.checkpoint) / "tokenizer.json"))


def _rope(raw: Mapping[str, Any], folder: Path) -> Rope:
    """Return the rotary angles of a config.json, of transformers 5 (rope_parameters) or before (rope_scaling)."""
    given = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    base = float(given.get("rope_theta") or raw.get("rope_theta") or OURS.rope.base)
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind not in STRETCHES:
        raise InputError(
            f"{folder}: rotary angles of the kind '{kind}' are not supported", f"kinds are: {', '.join(STRETCHES)}"
        )
    if kind == "default":
        return Rope(base)
    ours = Rope()
    return Rope(
        base,
        STRETCHES[kind],
        float(given["factor"]),
        float(given.get("low_freq_factor", ours.low)),
        float(given.get("high_freq_factor", ours.high)),
        int(given.get("original_max_position_embeddings", ours.original)),
    )


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises InputError when it holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}", "restore the file") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a JSON object", "restore the file")
    return found
