"""Decoders as after some training, for tests: fresh ones hide all that a block does behind zeros."""

from collections.abc import Sequence

import torch

from openclimb.proxy.model import OURS, Form, StackedDecoder
from openclimb.settings import ProxySettings


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
