"""A small Llama-like decoder, stacked: every parameter has a leading model axis M, and M models train as one program.

RMSNorm (Zhang & Sennrich 2019), SwiGLU (Shazeer 2020), rotary positions (Su et al. 2021), tied embeddings: at these
sizes the vocabulary is most of the parameters. Written with batched matrix products, not with vmap, so that M = 1 costs
nothing extra.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from openclimb.config import ProxySettings

if TYPE_CHECKING:
    from collections.abc import Iterator

EPSILON = 1e-5
ROPE_BASE = 10_000.0


class StackedDecoder(nn.Module):
    """M decoders of one shape. Tokens (M, batch, length) → logits (M, batch, length, vocabulary)."""

    def __init__(self, proxy: ProxySettings, vocab_size: int, seeds: Sequence[int]) -> None:
        super().__init__()
        if proxy.width % proxy.heads or (proxy.width // proxy.heads) % 2:
            raise ValueError(f"proxy.width = {proxy.width} must be an even multiple of proxy.heads = {proxy.heads}")
        self.heads, self.n_models = proxy.heads, len(seeds)
        width, hidden = proxy.width, 8 * round(proxy.width * 8 / 3 / 8)
        # One generator a model: a model's initial weights follow from its own seed, whatever its neighbours.
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]

        def matrix(rows: int, columns: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.stack([torch.randn(rows, columns, generator=draw) * scale for draw in draws]))

        def norm() -> nn.Parameter:
            return nn.Parameter(torch.ones(len(seeds), 1, width))

        inner = width**-0.5
        outer = inner / (2 * proxy.depth) ** 0.5  # GPT-2's: the residual stream's variance stays level with depth
        self.embedding = matrix(vocab_size, width, 0.02)
        self.layers = nn.ModuleList(
            nn.ParameterDict(
                {
                    "attention_norm": norm(),
                    "qkv": matrix(width, 3 * width, inner),
                    "attention_out": matrix(width, width, outer),
                    "mlp_norm": norm(),
                    "gate_up": matrix(width, 2 * hidden, inner),
                    "down": matrix(hidden, width, hidden**-0.5 / (2 * proxy.depth) ** 0.5),
                }
            )
            for _ in range(proxy.depth)
        )
        self.final_norm = norm()
        self.longest = 4 * proxy.sequence  # tokens that one forward pass can read
        cosines, sines = rotary(self.longest, width // proxy.heads)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the hidden state after the last norm, (M, batch × length, width); `logits` gives the rest."""
        m, batch, length = tokens.shape
        offsets = torch.arange(m, device=tokens.device)[:, None] * self.embedding.shape[1]
        x = nn.functional.embedding(tokens.reshape(m, -1) + offsets, self.embedding.flatten(0, 1))
        for layer in cast("list[nn.ParameterDict]", self.layers):
            x = x + self._attention(layer, _rms(x, layer["attention_norm"]), batch, length)
            gate, up = torch.bmm(_rms(x, layer["mlp_norm"]), layer["gate_up"]).chunk(2, dim=-1)
            x = x + torch.bmm(nn.functional.silu(gate) * up, layer["down"])
        return _rms(x, self.final_norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits (M, n, vocabulary) of hidden states (M, n, width)."""
        return torch.bmm(hidden, self.embedding.transpose(1, 2))

    def _attention(self, layer: nn.Module, x: Tensor, batch: int, length: int) -> Tensor:
        m, _, width = x.shape
        head = width // self.heads
        qkv = torch.bmm(x, layer["qkv"]).view(m * batch, length, 3, self.heads, head)  # type: ignore[index]
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        cosines, sines = self.cosines[:length], self.sines[:length]  # type: ignore[index]
        q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.bmm(mixed.transpose(1, 2).reshape(m, batch * length, width), layer["attention_out"])  # type: ignore[index]

    def matrices_and_norms(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters that weight decay shrinks, and those that it leaves alone."""
        named: Iterator[tuple[str, nn.Parameter]] = self.named_parameters()
        both: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for name, parameter in named:
            both["norm" in name].append(parameter)
        return both


def rotary(length: int, head: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary angles, (length, head / 2) each."""
    frequencies = ROPE_BASE ** (-torch.arange(0, head, 2, dtype=torch.float32) / head)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the halves of each head (…, length, head) by the angles of their positions, as Llama does."""
    a, b = x.chunk(2, dim=-1)
    cosines, sines = cosines.to(x.dtype), sines.to(x.dtype)
    return torch.cat([a * cosines - b * sines, b * cosines + a * sines], dim=-1)


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.rms_norm(x, (x.shape[-1],), eps=EPSILON) * weight
