"""What the recipe's sweep tries that the package does not have: norms on queries and keys, capped logits, Muon."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from openclimb.proxy.model import StackedDecoder, rotate
from openclimb.proxy.optimizer import BETAS, EPSILON, Optimiser, clip

# Coefficients of the quintic iteration and the scaling by shape: Jordan et al. 2024, Muon (kellerjordan.github.io).
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class VariantDecoder(StackedDecoder):
    """Our decoder with norms on queries and keys (Henry et al. 2020) or logits capped by tanh (Gemma 2, 2024)."""

    qk_norm = False
    soft_cap = 0.0

    def _attention(
        self, matrix: Tensor, x: Tensor, batch: int, length: int, angles: Any, mask: Tensor | None
    ) -> Tensor:
        if not self.qk_norm:
            return super()._attention(matrix, x, batch, length, angles, mask)
        m = x.shape[0]
        heads = [self.heads, self.groups, self.groups]
        qkv = torch.bmm(x, matrix).view(m * batch, length, sum(heads), self.head)
        q, k, v = (part.transpose(1, 2) for part in torch.split(qkv, heads, dim=2))
        q, k = (rotate(nn.functional.rms_norm(part, (self.head,)), *angles) for part in (q, k))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        return mixed.transpose(1, 2).reshape(m, batch * length, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        found = super().logits(hidden)
        return self.soft_cap * torch.tanh(found / self.soft_cap) if self.soft_cap else found

    def learn(self, tokens: Tensor, optimiser: Optimiser, rate: float) -> None:
        """Take one step by autograd."""
        optimiser.zero()
        logits = self.logits(self(tokens[:, :, :-1]))[0]
        loss = nn.functional.cross_entropy(logits, tokens[0, :, 1:].reshape(-1))
        parameters = list(self.parameters())
        found = torch.autograd.grad(loss, parameters)
        torch._foreach_add_([cast(Tensor, each.grad) for each in parameters], list(found))
        optimiser.step(rate)


class Muon:
    """Orthogonalised momentum for the hidden matrices, AdamW for the rest (Jordan et al. 2024).

    `factor`: rate of a matrix's update, of spectral norm √max(1, columns ÷ rows), as a multiple of the AdamW rate.
    """

    def __init__(self, optimiser: Optimiser, model: StackedDecoder, factor: float, momentum: float) -> None:
        self.optimiser, self.factor, self.momentum = optimiser, factor, momentum
        self.matrices = [p for name, p in model.named_parameters() if "norm" not in name and name != "embedding"]
        self.groups: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in self.matrices:
            self.groups.setdefault(matrix.shape, []).append(matrix)
        self.means = {shape: torch.zeros(len(some), *shape[1:]) for shape, some in self.groups.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        held = self.optimiser
        clip(held.gradients)
        held.done += 1
        for shape, some in self.groups.items():
            gradients = torch.cat([cast(Tensor, matrix.grad) for matrix in some])
            mean = self.means[shape].lerp_(gradients, 1 - self.momentum)
            update = orthogonal(gradients.lerp(mean, self.momentum))
            scale = max(1.0, shape[2] / shape[1]) ** 0.5
            for matrix, one in zip(some, update, strict=True):
                matrix.mul_(1 - rate * held.decays["matrices"])
                matrix.add_(one, alpha=-rate * self.factor * scale)
        for (kind, flat), gradient in zip(held.flat.items(), held.gradients, strict=True):
            if kind == "matrices":
                continue
            torch._fused_adamw_(
                [flat], [gradient], [held.means[kind]], [held.squares[kind]], [], [held.done],
                lr=rate * held.factors[kind], beta1=BETAS[0], beta2=BETAS[1],
                weight_decay=held.decays[kind], eps=EPSILON, amsgrad=False, maximize=False,
            )  # fmt: skip


def orthogonal(x: Tensor) -> Tensor:
    """Return the nearest matrices with equal singular values, roughly: (n, rows, columns) by a quintic iteration."""
    flipped = x.shape[1] > x.shape[2]
    x = x.mT if flipped else x
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if flipped else x
