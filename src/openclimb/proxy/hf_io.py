"""A stack of decoders from a checkpoint's weights, and a trained one written as a checkpoint.

Reads model.safetensors or its shards. Writes the same form, which `transformers` and lm-evaluation-harness open.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from openclimb.config.schema import ProxySettings
from openclimb.corpus.tokenizer import Ends, ends_of, load_tokenizer
from openclimb.errors import InputError
from openclimb.proxy.checkpoint import INDEX, SUPPORTED, WEIGHTS, find_checkpoint, read_checkpoint, read_object, shaped
from openclimb.proxy.model import StackedDecoder
from openclimb.workspace.files import write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")  # kept as the checkpoint has them


@dataclass(frozen=True)
class View:
    """Where a tensor of the Hugging Face form lies in a stacked parameter (M, …)."""

    parameter: Tensor
    start: int = 0
    stop: int = 0  # columns start…stop, transposed; 0: the whole, as it is
    norm: bool = False  # the parameter has a row more

    def of(self, index: int) -> Tensor:
        """Return the tensor of one model; it shares the parameter's memory."""
        mine = self.parameter[index]
        if self.norm:
            return mine[0]
        return mine[:, self.start : self.stop].T if self.stop else mine


def make_decoder(proxy: ProxySettings, vocab_size: int, seeds: Sequence[int]) -> StackedDecoder:
    """Return a stack to train: from its seeds, or each model with the weights of the settings' checkpoint."""
    if not proxy.checkpoint:
        return StackedDecoder(proxy, vocab_size, seeds)
    found = read_checkpoint(find_checkpoint(proxy.checkpoint))
    model = StackedDecoder(shaped(proxy), found.vocab_size, seeds, found.form)
    load_weights(model, found.folder)
    return model


@torch.no_grad()
def load_weights(model: StackedDecoder, folder: Path) -> None:
    """Give every model of a stack the weights in a folder. Raises InputError for tensors that are missing or differ."""
    from safetensors import SafetensorError, safe_open

    if (folder / INDEX).is_file():
        place = {name: folder / Path(file).name for name, file in read_object(folder / INDEX)["weight_map"].items()}
    else:
        place = {}
    for name, view in _tensors(model):
        path = place.get(name, folder / WEIGHTS)
        try:
            with safe_open(path, framework="pt") as file:
                found: Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: {name} cannot be read: {error}", "save the checkpoint again") from None
        shape = view.of(0).shape
        if found.shape != shape:
            raise InputError(
                f"{path}: {name} is {tuple(found.shape)}, and config.json asks for {tuple(shape)}",
                "restore config.json, or save the checkpoint again",
            )
        for index in range(model.n_models):
            view.of(index).copy_(found)


@torch.no_grad()
def save_llama(model: StackedDecoder, index: int, folder: Path, tokenizer: Path, beside: str = "") -> None:
    """Write one model of a stack as a Hugging Face folder that `transformers` opens.

    `tokenizer`: its tokenizer.json; `beside`: a checkpoint's folder whose other tokenizer files are kept. The folder
    appears whole or not at all.
    """
    from safetensors.torch import save_file

    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = {name: view.of(index).detach().float().cpu().contiguous() for name, view in _tensors(model)}
    save_file(state, partial / WEIGHTS, metadata={"format": "pt"})
    loaded, ends = load_tokenizer(tokenizer), ends_of(tokenizer)
    _write(partial / "config.json", _config(model, ends))
    if beside:
        shutil.copyfile(tokenizer, partial / "tokenizer.json")
        for path in (Path(beside) / name for name in BESIDE):
            if path.is_file():
                shutil.copyfile(path, partial / path.name)
    else:
        _write_tokenizer(loaded, ends, model.longest, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _tensors(model: StackedDecoder) -> Iterator[tuple[str, View]]:
    """Yield every tensor of the Hugging Face form with its place in our parameters."""
    yield "model.embed_tokens.weight", View(model.embedding)
    heads, groups = model.heads * model.head, model.groups * model.head
    for i, layer in enumerate(model.layers):
        parts: nn.ParameterDict = layer  # type: ignore[assignment]
        prefix, hidden = f"model.layers.{i}", parts["down"].shape[1]
        qkv, gate_up = parts["qkv"], parts["gate_up"]
        yield f"{prefix}.input_layernorm.weight", View(parts["attention_norm"], norm=True)
        yield f"{prefix}.self_attn.q_proj.weight", View(qkv, 0, heads)
        yield f"{prefix}.self_attn.k_proj.weight", View(qkv, heads, heads + groups)
        yield f"{prefix}.self_attn.v_proj.weight", View(qkv, heads + groups, heads + 2 * groups)
        yield f"{prefix}.self_attn.o_proj.weight", View(parts["attention_out"], 0, parts["attention_out"].shape[2])
        yield f"{prefix}.post_attention_layernorm.weight", View(parts["mlp_norm"], norm=True)
        yield f"{prefix}.mlp.gate_proj.weight", View(gate_up, 0, hidden)
        yield f"{prefix}.mlp.up_proj.weight", View(gate_up, hidden, 2 * hidden)
        yield f"{prefix}.mlp.down_proj.weight", View(parts["down"], 0, parts["down"].shape[2])
    yield "model.norm.weight", View(model.final_norm, norm=True)
    if not model.form.tied:
        yield "lm_head.weight", View(model.output)


def _config(model: StackedDecoder, ends: Ends) -> dict[str, Any]:
    rope = model.form.rope
    angles: dict[str, Any] = {"rope_type": rope.stretch or "default", "rope_theta": rope.base}
    if rope.stretch:
        angles["factor"] = rope.factor
    if rope.stretch == "llama3":
        angles |= {
            "low_freq_factor": rope.low,
            "high_freq_factor": rope.high,
            "original_max_position_embeddings": rope.original,
        }
    return {
        "architectures": ["LlamaForCausalLM"],
        **SUPPORTED,
        "vocab_size": model.embedding.shape[1],
        "hidden_size": model.embedding.shape[2],
        "intermediate_size": model.layers[0]["down"].shape[1],  # type: ignore[index]
        "num_hidden_layers": len(model.layers),
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.groups,
        "head_dim": model.head,
        "max_position_embeddings": model.longest,
        "rms_norm_eps": model.form.epsilon,
        "rope_theta": rope.base,
        "rope_scaling": {k: v for k, v in angles.items() if k != "rope_theta"} if rope.stretch else None,
        "rope_parameters": angles,
        "tie_word_embeddings": model.form.tied,
        "bos_token_id": ends.start,
        "eos_token_id": ends.end,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def _write_tokenizer(loaded: "Tokenizer", ends: Ends, longest: int, folder: Path) -> None:
    """Write the tokenizer so that others put before a text what we put there, and so score it as we do."""
    from tokenizers import Tokenizer, processors

    copy = Tokenizer.from_str(loaded.to_str())
    name = copy.id_to_token(ends.start)
    put = copy.encode("").ids
    if put[:1] != [ends.start]:  # no processor, or GPT-2's of offsets, or tokenizer_config.json says another start
        first = processors.TemplateProcessing(single=f"{name} $A", special_tokens=[(name, ends.start)])
        kept = None if put else copy.post_processor
        copy.post_processor = processors.Sequence([kept, first]) if kept else first
    write_text(folder / "tokenizer.json", copy.to_str(pretty=True))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest}
    named = {"bos_token": name, "eos_token": copy.id_to_token(ends.end)}
    _write(folder / "tokenizer_config.json", {**facts, **named})


def _write(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
