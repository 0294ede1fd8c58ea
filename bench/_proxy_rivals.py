"""What people would use instead: a plain transformers Llama loop and one like nanoGPT's, of the proxy's shape."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from openclimb.config.schema import ProxySettings


def llama_model(proxy: ProxySettings, vocab_size: int) -> nn.Module:
    """Return a LlamaForCausalLM of the proxy's shape, with transformers' own initial weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    form = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=proxy.width,
        intermediate_size=8 * round(proxy.width * 8 / 3 / 8),
        num_hidden_layers=proxy.depth,
        num_attention_heads=proxy.heads,
        max_position_embeddings=4 * proxy.sequence,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(form)


def llama_step(model: nn.Module, proxy: ProxySettings) -> Callable[..., None]:
    """Return one training step of it on tokens (batch, sequence + 1), at a rate: AdamW, clipping."""

    def loss(tokens: Tensor) -> Tensor:
        logits = model(input_ids=tokens[:, :-1]).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].reshape(-1))

    return _steps(model, proxy, loss)


def nano_step(proxy: ProxySettings, vocab_size: int) -> Callable[..., None]:
    """Return one training step of a decoder like nanoGPT's: learned positions, LayerNorm, GELU, tied head."""
    model = _Nano(proxy, vocab_size)

    def loss(tokens: Tensor) -> Tensor:
        logits = model(tokens[:, :-1])
        return nn.functional.cross_entropy(logits.view(-1, vocab_size), tokens[:, 1:].reshape(-1))

    return _steps(model, proxy, loss)


def _steps(model: nn.Module, proxy: ProxySettings, loss: Callable[[Tensor], Tensor]) -> Callable[..., None]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=proxy.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)

    def step(tokens: Tensor, rate: float = proxy.learning_rate) -> None:
        optimiser.param_groups[0]["lr"] = rate
        loss(tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


class _Nano(nn.Module):
    def __init__(self, proxy: ProxySettings, vocab_size: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, proxy.width)
        self.places = nn.Embedding(proxy.sequence, proxy.width)
        self.blocks = nn.ModuleList(_Block(proxy.width, proxy.heads) for _ in range(proxy.depth))
        self.norm = nn.LayerNorm(proxy.width, bias=False)
        self.head = nn.Linear(proxy.width, vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.before(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.between(x))))
