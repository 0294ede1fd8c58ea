"""Tiny models for tests: decoders as after some training, and random Llamas that transformers itself writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from openclimb.config.schema import ProxySettings
from openclimb.proxy.model import OURS, Form, StackedDecoder

LLAMA_SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # large, so that wrong angles or heads show
}


def make_llama(folder: Path, **changes: Any) -> LlamaForCausalLM:
    """Write a random Llama into a folder and return it. `max_shard_size` is handed to save_pretrained."""
    shard = {key: changes.pop(key) for key in ("max_shard_size",) if key in changes}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**LLAMA_SHAPE, **changes})).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(folder, **shard)
    return model


def drawn_decoder(proxy: ProxySettings, vocab_size: int, seeds: Sequence[int], form: Form = OURS) -> StackedDecoder:
    """Return a stack whose embedding and whose blocks' outputs are drawn, each model's by its own seed."""
    model = StackedDecoder(proxy, vocab_size, seeds, form)
    draws = [torch.Generator().manual_seed(1000 + seed) for seed in seeds]
    with torch.no_grad():
        for i, draw in enumerate(draws):
            model.embedding[i].normal_(0.0, 0.02, generator=draw)
            for layer in model.layers:
                for name in ("attention_out", "down"):
                    rows = layer[name].shape[1]  # type: ignore[index]
                    layer[name][i].normal_(0.0, (rows * 2 * proxy.depth) ** -0.5, generator=draw)  # type: ignore[index]
    return model
