"""A small Llama-like decoder, stacked: every parameter has a leading model axis M, and M models train as one program.

RMSNorm (Zhang & Sennrich 2019), SwiGLU (Shazeer 2020), rotary positions (Su et al. 2021), tied embeddings: at these
sizes the vocabulary is most of the parameters. Written with batched matrix products, not with vmap, so that M = 1 costs
nothing extra. A checkpoint may be of another form (`Form`): keys and values shared by groups of heads (Ainslie et al.
2023), an output matrix of its own, other rotary angles.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from openclimb.config.schema import ProxySettings

EPSILON = 1e-5
# Initial scale of the residual stream at width 64, falling as 1 / √width: of the embedding and of what all blocks
# together add. It was .02 and 1 before, as in GPT-2; what that cost is in bench/results/recipe_confirm.json.
STREAM_64 = 0.1
ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class Rope:
    """Rotary angles: their base, and how they are stretched for longer texts ("linear" or Llama 3's way)."""

    base: float = ROPE_BASE
    stretch: str = ""  # "", "linear" or "llama3"
    factor: float = 1.0
    low: float = 1.0  # llama3: wavelengths of more than 1 / low of the original length are stretched whole,
    high: float = 4.0  # those of less than 1 / high are left alone, and those between in part
    original: int = 8192


@dataclass(frozen=True)
class Form:
    """What a Llama-like decoder has that the settings do not name; 0 stands for our own choice."""

    hidden: int = 0  # inner width of the feed-forward layers
    groups: int = 0  # heads of keys and values; 0: one a head of queries
    head: int = 0  # dimensions of a head; 0: width / heads
    longest: int = 0  # tokens that one forward pass can read
    tied: bool = True  # the output matrix is the embedding
    epsilon: float = EPSILON  # of the norms
    rope: Rope = Rope()


OURS = Form()


class StackedDecoder(nn.Module):
    """M decoders of one shape. Tokens (M, batch, length) → logits (M, batch, length, vocabulary)."""

    def __init__(self, proxy: ProxySettings, vocab_size: int, seeds: Sequence[int], form: Form = OURS) -> None:
        super().__init__()
        if not form.head and (proxy.width % proxy.heads or (proxy.width // proxy.heads) % 2):
            raise ValueError(f"proxy.width = {proxy.width} must be an even multiple of proxy.heads = {proxy.heads}")
        self.heads, self.n_models = proxy.heads, len(seeds)
        self.form = form
        self.groups, self.head = form.groups or proxy.heads, form.head or proxy.width // proxy.heads
        width, hidden = proxy.width, form.hidden or 8 * round(proxy.width * 8 / 3 / 8)
        # One generator a model: a model's initial weights follow from its own seed, whatever its neighbours.
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]

        def matrix(rows: int, columns: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.stack([torch.randn(rows, columns, generator=draw) * scale for draw in draws]))

        def norm() -> nn.Parameter:
            return nn.Parameter(torch.ones(len(seeds), 1, width))

        inner = width**-0.5
        stream = STREAM_64 * (64 / width) ** 0.5
        quiet = stream / (2 * proxy.depth) ** 0.5  # each block adds its share of the variance (GPT-2)
        self.embedding = matrix(vocab_size, width, stream)
        self.layers = nn.ModuleList(
            nn.ParameterDict(
                {
                    "attention_norm": norm(),
                    "qkv": matrix(width, (self.heads + 2 * self.groups) * self.head, inner),
                    "attention_out": matrix(self.heads * self.head, width, quiet * inner),
                    "mlp_norm": norm(),
                    "gate_up": matrix(width, 2 * hidden, inner),
                    "down": matrix(hidden, width, quiet * hidden**-0.5),
                }
            )
            for _ in range(proxy.depth)
        )
        self.final_norm = norm()
        if not form.tied:
            self.output = matrix(vocab_size, width, inner)
        self.longest = form.longest or 4 * proxy.sequence  # tokens that one forward pass can read
        cosines, sines = rotary(self.longest, self.head, form.rope)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        wanted: Tensor | None = None,
        layer: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Return the hidden state after the last norm, (M, batch × length, width); `logits` gives the rest.

        With `positions` (batch, length) and `mask` (batch, length, length; true: may see) a row can hold a text with
        several ends; without them each token sees those before it. `wanted` (n,): only these of the batch × length
        states are returned, and the last layer does no more than they need. `layer`: what stands for `self.layer`, such
        as compiled code of it: all layers are alike, so that it is compiled once, whatever the depth.
        """
        m, batch, length = tokens.shape
        angles = (self.cosines[:length], self.sines[:length])  # type: ignore[index]
        if positions is not None and mask is not None:
            angles = tuple(each[positions].repeat(m, 1, 1)[:, None] for each in (self.cosines, self.sines))  # type: ignore[index,assignment]
            mask = mask.repeat(m, 1, 1)[:, None]
        offsets = torch.arange(m, device=tokens.device)[:, None] * self.embedding.shape[1]
        x = nn.functional.embedding(tokens.reshape(m, -1) + offsets, self.embedding.flatten(0, 1))
        run, last = layer or self.layer, len(self.layers) - 1
        for i, weights in enumerate(cast("list[nn.ParameterDict]", self.layers)):
            x = run(dict(weights.items()), x, batch, length, angles, mask, wanted if i == last else None)
        return self._rms(x) * self.final_norm

    def layer(
        self,
        weights: Mapping[str, Tensor],
        x: Tensor,
        batch: int,
        length: int,
        angles: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Return the residual stream (M, batch × length, width) after one more layer.

        A norm's weight is multiplied into the matrix behind it, not into the stream: the same product, whose gradient
        is a sum over a row of the matrix, not over all positions.
        """
        qkv = weights["qkv"] * weights["attention_norm"].mT
        mixed = self._attention(qkv, self._rms(x), batch, length, angles, mask)
        if wanted is not None:
            x, mixed = x[:, wanted], mixed[:, wanted]
        x = x + torch.bmm(mixed, weights["attention_out"])
        gate, up = torch.bmm(self._rms(x), weights["gate_up"] * weights["mlp_norm"].mT).chunk(2, dim=-1)
        return x + torch.bmm(nn.functional.silu(gate) * up, weights["down"])

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits (M, n, vocabulary) of hidden states (M, n, width)."""
        return torch.bmm(hidden, (self.embedding if self.form.tied else self.output).transpose(1, 2))

    def _attention(
        self,
        matrix: Tensor,
        x: Tensor,
        batch: int,
        length: int,
        angles: tuple[Tensor, Tensor],
        mask: Tensor | None,
    ) -> Tensor:
        m = x.shape[0]
        heads = [self.heads, self.groups, self.groups]
        qkv = torch.bmm(x, matrix).view(m * batch, length, sum(heads), self.head)
        q, k, v = (part.transpose(1, 2) for part in torch.split(qkv, heads, dim=2))
        q, k = rotate(q, *angles), rotate(k, *angles)
        if self.groups < self.heads:
            k, v = (part.repeat_interleave(self.heads // self.groups, 1) for part in (k, v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        return mixed.transpose(1, 2).reshape(m, batch * length, -1)

    def _rms(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, (x.shape[-1],), eps=self.form.epsilon)


def rotary(length: int, head: int, rope: Rope) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary angles, (length, head / 2) each."""
    frequencies = stretched(1.0 / rope.base ** (torch.arange(0, head, 2, dtype=torch.float32) / head), rope)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return angles.cos(), angles.sin()


def stretched(frequencies: Tensor, rope: Rope) -> Tensor:
    """Return the frequencies for longer texts: all divided (Chen et al. 2023), or only the slow ones, as in Llama 3."""
    if not rope.stretch:
        return frequencies
    if rope.stretch == "linear":
        return frequencies / rope.factor
    turns = rope.original * frequencies / (2 * math.pi)  # in the original length
    kept = ((turns - rope.low) / (rope.high - rope.low)).clamp(0.0, 1.0)
    return frequencies * (kept + (1 - kept) / rope.factor)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the halves of each head (…, length, head) by the angles of their positions, as Llama does."""
    a, b = x.chunk(2, dim=-1)
    cosines, sines = cosines.to(x.dtype), sines.to(x.dtype)
    return torch.cat([a * cosines - b * sines, b * cosines + a * sines], dim=-1)
