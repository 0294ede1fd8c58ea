"""Tiny random Llamas, written as Hugging Face folders by transformers itself."""

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE: dict[str, Any] = {
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
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(folder, **shard)
    return model
