"""The loss and its gradient, written out by hand: what a CPU runs instead of autograd.

At a proxy's width autograd spends more time on making, filling and copying tensors than on matrix products. Here every
buffer is made once, a product writes where its result is needed, the weight of a norm is folded into the matrix behind
it, the rotation of queries and keys is one complex product, and the logits are read twice: for their softmax and for
its gradient. The same sums as `StackedDecoder.forward` in another order: equal to rounding (tests/proxy/test_gradient).

Shapes: M models, B sequences of L tokens, N = B × L positions, W width, H heads of D dimensions, F inner width.
"""

from typing import cast

import torch
from torch import Tensor, nn

from openclimb.proxy.model import StackedDecoder

BLOCK = 1 << 20  # logits computed at once, so that they stay in the cache; a demo step's are one block
MOST_KEPT = 1 << 30  # bytes of what a backward pass needs
TINY = 1e-38  # smallest probability that counts in the loss: 87 nats
aten = torch.ops.aten


def can_write_out(model: StackedDecoder, batch: int, length: int) -> bool:
    """Return whether the gradient is written out for this form, and what it keeps of a step fits into memory."""
    kept = (
        model.n_models * batch * length * len(model.layers) * (12 * model.embedding.shape[2] + 2 * model.heads * length)
    )
    return model.form.tied and model.groups == model.heads and kept * 4 <= MOST_KEPT


class Gradient:
    """Call it with tokens (M, B, L + 1): it returns each model's mean loss (nats a token) and fills every `.grad`.

    Holds on to the memory of the parameters and of their gradients: neither may be replaced afterwards.
    """

    def __init__(self, model: StackedDecoder, batch: int, length: int) -> None:
        m, w = model.n_models, model.embedding.shape[2]
        n = batch * length
        self.shape = (m, batch, length)
        self.embedding, self.embedding_grad = model.embedding.detach(), _grad(model.embedding)
        self.norm, self.norm_grad = model.final_norm.detach(), _grad(model.final_norm)
        self.offsets = torch.arange(m)[:, None] * self.embedding.shape[1]
        self.epsilon = model.form.epsilon
        self.x, self.d, self.states, self.scaled = (torch.empty(m, n, w) for _ in range(4))
        self.unit, self.inverse = torch.empty(m, n, w), torch.empty(m, n, 1)
        rows = max(1, min(n, BLOCK // (m * self.embedding.shape[1])))
        self.logits = torch.empty(m, rows, self.embedding.shape[1])
        shared = _Shared(model, batch, length)
        self.layers = [_Layer(cast(nn.ParameterDict, layer), shared) for layer in model.layers]

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        m, _, width = self.x.shape
        flat = (tokens[:, :, :-1].reshape(m, -1) + self.offsets).flatten()
        torch.index_select(self.embedding.flatten(0, 1), 0, flat, out=self.x.view(-1, width))
        for layer in self.layers:
            layer.forward(self.x)
        _normalise(self.x, self.epsilon, self.unit, self.inverse)
        torch.mul(self.unit, self.norm, out=self.states)
        losses = self._head(tokens[:, :, 1:].reshape(m, -1))
        torch.sum(torch.mul(self.d, self.unit, out=self.x), 1, keepdim=True, out=self.norm_grad)
        self.x.copy_(self.d.mul_(self.norm))
        self.d.zero_()
        _add_norm_gradient(self.d, self.x, self.unit, self.inverse, self.states)
        for layer in reversed(self.layers):
            layer.backward(self.d)
        self.embedding_grad.flatten(0, 1).index_add_(0, flat, self.d.view(-1, width))
        return losses

    def _head(self, targets: Tensor) -> Tensor:
        """Return the losses for targets (M, N); leave the gradient of the states in `d`, of the matrix in its place."""
        m, n, _ = self.states.shape
        chances = torch.empty(m, n, 1)
        torch.mul(self.states, 1.0 / n, out=self.scaled)
        self.embedding_grad.zero_()
        for begin in range(0, n, self.logits.shape[1]):
            rows = slice(begin, min(n, begin + self.logits.shape[1]))
            gold = targets[:, rows, None]
            p = self.logits[:, : gold.shape[1]]
            torch.bmm(self.states[:, rows], self.embedding.transpose(1, 2), out=p)
            torch.softmax(p, -1, out=p)
            chances[:, rows] = p.gather(2, gold)
            p.scatter_add_(2, gold, _minus_one(gold))
            self.embedding_grad.baddbmm_(p.transpose(1, 2), self.scaled[:, rows])
            torch.bmm(p, self.embedding, out=self.d[:, rows])
        self.d.mul_(1.0 / n)
        return -chances.clamp_(min=TINY).log_().mean((1, 2))


class _Shared:
    """What all layers use: sizes, angles, the mask, and memory that no layer needs after its turn."""

    def __init__(self, model: StackedDecoder, batch: int, length: int) -> None:
        layer = cast(nn.ParameterDict, model.layers[0])
        self.m, self.batch, self.length = model.n_models, batch, length
        self.heads, self.head, self.hidden = model.heads, model.head, layer["down"].shape[1]
        self.width, self.epsilon = layer["qkv"].shape[1], model.form.epsilon
        self.n, self.inner = batch * length, self.heads * self.head
        cosines, sines = (cast(Tensor, part)[:length] for part in (model.cosines, model.sines))
        # A fourth root in queries and in keys is attention's 1 / √D.
        self.turn = (torch.complex(cosines, sines) * self.head**-0.25)[:, None, None]
        self.turn_back = self.turn.conj().resolve_conj()
        self.mask = torch.full((length, length), float("-inf")).triu_(1)
        self.qkv, self.qkv_grad = (torch.empty(self.m, self.n, 3 * self.inner) for _ in range(2))
        self.qkv_pairs, self.qkv_grad_pairs = self.pairs(self.qkv), self.pairs(self.qkv_grad)
        self.values, self.values_grad = self.by_head(self.qkv)[2], self.by_head(self.qkv_grad)[2]
        self.qkv_matrix_grad = torch.empty(self.m, self.width, 3 * self.inner)
        self.paired_grad = self.paired(self.qkv_matrix_grad)
        self.mixed = torch.empty(self.m * batch, self.heads, length, self.head)  # what attention gives, by head
        self.mixed_flat = self.mixed.view(-1, length, self.head)
        self.mixed_grad = torch.empty(self.m, self.n, self.inner)
        self.mixed_grad_by_head = self.by_head(self.mixed_grad)[0]
        self.scores = torch.empty(self.m * batch * self.heads, length, length)
        self.parts_grad = torch.empty(3, self.m * batch, self.heads, length, self.head)
        self.parts_grad_turned, self.parts_grad_flat = self.turned(self.parts_grad), self.flat_heads(self.parts_grad)
        self.act_grad = torch.empty(self.m, self.n, self.hidden)
        self.gate_up_grad = torch.empty(self.m, self.n, 2 * self.hidden)
        self.gate_grad, self.up_grad = self.gate_up_grad.chunk(2, -1)
        self.unit_grad, self.product = (torch.empty(self.m, self.n, self.width) for _ in range(2))

    def by_head(self, x: Tensor) -> Tensor:
        """View positions (M, N, k·H·D) as (k, M·B, H, L, D)."""
        return x.view(self.m * self.batch, self.length, -1, self.heads, self.head).permute(2, 0, 3, 1, 4)

    def pairs(self, x: Tensor) -> Tensor:
        """View queries and keys of (M, N, 3·H·D), neighbours paired, as complex numbers (M·B, L, 2, H, D / 2)."""
        pairs = x.view(self.m * self.batch, self.length, 3, self.heads, self.head // 2, 2)
        return torch.view_as_complex(pairs)[:, :, :2]

    def turned(self, parts: Tensor) -> Tensor:
        """View queries and keys of (3, M·B, H, L, D) as complex numbers in the order of `pairs`."""
        return torch.view_as_complex(parts.view(*parts.shape[:-1], -1, 2))[:2].permute(1, 3, 0, 2, 4)

    def flat_heads(self, parts: Tensor) -> tuple[Tensor, ...]:
        """View (3, M·B, H, L, D) as queries, keys and values (M·B·H, L, D)."""
        return parts.view(3, -1, self.length, self.head).unbind(0)

    def paired(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """View a matrix (M, W, 3·H·D) whose rotated columns stand in pairs: those of queries and keys, of values."""
        rotated, values = matrix[:, :, : 2 * self.inner], matrix[:, :, 2 * self.inner :]
        return torch.unflatten(rotated, 2, (2 * self.heads, self.head // 2, 2)).transpose(3, 4), values

    def halved(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """View the same of a matrix whose rotated columns stand in halves, as Llama has them."""
        rotated, values = matrix[:, :, : 2 * self.inner], matrix[:, :, 2 * self.inner :]
        return torch.unflatten(rotated, 2, (2 * self.heads, 2, self.head // 2)), values


class _Layer:
    """One layer of the stack: its parameters, gradients and what its backward pass needs of the forward pass."""

    def __init__(self, parameters: nn.ParameterDict, shared: _Shared) -> None:
        s = self.shared = shared
        p = self.p = {name: parameter.detach() for name, parameter in parameters.items()}
        self.g = {name: _grad(parameter) for name, parameter in parameters.items()}
        self.t = {name: matrix.mT for name, matrix in p.items()}
        self.units = [torch.empty(s.m, s.n, s.width) for _ in range(2)]
        self.inverses = [torch.empty(s.m, s.n, 1) for _ in range(2)]
        self.qkv_matrix, self.gate_up_matrix = torch.empty_like(p["qkv"]), torch.empty_like(p["gate_up"])
        weight = self.t["attention_norm"]
        self.folds = [  # (matrix, weight, where their product goes)
            (theirs, weight.view(*weight.shape, *[1] * (theirs.dim() - 3)), ours)
            for theirs, ours in zip(s.halved(p["qkv"]), s.paired(self.qkv_matrix), strict=True)
        ]
        self.halved_grad = s.halved(self.g["qkv"])
        self.parts = torch.empty(3, s.m * s.batch, s.heads, s.length, s.head)  # queries, keys, values by head
        self.parts_turned, self.parts_flat = s.turned(self.parts), s.flat_heads(self.parts)
        self.seen = torch.empty_like(s.scores)
        self.mixed = torch.empty(s.m, s.n, s.inner)
        self.mixed_by_head = s.by_head(self.mixed)[0]
        self.gate_up = torch.empty(s.m, s.n, 2 * s.hidden)
        self.gate, self.up = self.gate_up.chunk(2, -1)
        self.silu, self.act = torch.empty(s.m, s.n, s.hidden), torch.empty(s.m, s.n, s.hidden)
        self.saved_t = [self.units[0].mT, self.mixed.mT, self.units[1].mT, self.act.mT]
        self.matrix_t = [self.qkv_matrix.mT, self.gate_up_matrix.mT]

    def forward(self, x: Tensor) -> None:
        """Add the layer's attention and feed-forward part to the residual stream x (M, N, W)."""
        s = self.shared
        _normalise(x, s.epsilon, self.units[0], self.inverses[0])
        self._attend()
        x.baddbmm_(self.mixed, self.p["attention_out"])
        _normalise(x, s.epsilon, self.units[1], self.inverses[1])
        torch.mul(self.p["gate_up"], self.t["mlp_norm"], out=self.gate_up_matrix)
        torch.bmm(self.units[1], self.gate_up_matrix, out=self.gate_up)
        aten.silu.out(self.gate, out=self.silu)
        torch.mul(self.silu, self.up, out=self.act)
        x.baddbmm_(self.act, self.p["down"])

    def backward(self, d: Tensor) -> None:
        """Turn d from the gradient after the layer into that before it; fill the gradients of the parameters."""
        s = self.shared
        unit_t, mixed_t, mlp_unit_t, act_t = self.saved_t
        torch.bmm(act_t, d, out=self.g["down"])
        torch.bmm(d, self.t["down"], out=s.act_grad)
        torch.mul(s.act_grad, self.silu, out=s.up_grad)
        aten.silu_backward.grad_input(s.act_grad.mul_(self.up), self.gate, grad_input=s.gate_grad)
        torch.bmm(mlp_unit_t, s.gate_up_grad, out=self.g["gate_up"])
        self._unfold("gate_up", "mlp_norm")
        torch.bmm(s.gate_up_grad, self.matrix_t[1], out=s.unit_grad)
        _add_norm_gradient(d, s.unit_grad, self.units[1], self.inverses[1], s.product)
        torch.bmm(mixed_t, d, out=self.g["attention_out"])
        torch.bmm(d, self.t["attention_out"], out=s.mixed_grad)
        self._attend_backward()
        torch.bmm(unit_t, s.qkv_grad, out=s.qkv_matrix_grad)
        for ours, theirs in zip(s.paired_grad, self.halved_grad, strict=True):
            theirs.copy_(ours)
        self._unfold("qkv", "attention_norm")
        torch.bmm(s.qkv_grad, self.matrix_t[0], out=s.unit_grad)
        _add_norm_gradient(d, s.unit_grad, self.units[0], self.inverses[0], s.product)

    def _attend(self) -> None:
        """Write `mixed` (M, N, H·D), what attention gives for `units[0]`; keep queries, keys, values and weights."""
        s = self.shared
        for matrix, weight, folded in self.folds:
            torch.mul(matrix, weight, out=folded)
        torch.bmm(self.units[0], self.qkv_matrix, out=s.qkv)
        torch.mul(s.qkv_pairs, s.turn, out=self.parts_turned)
        self.parts[2].copy_(s.values)
        q, k, v = self.parts_flat
        torch.bmm(q, k.mT, out=s.scores)
        torch.softmax(s.scores.add_(s.mask), -1, out=self.seen)
        torch.bmm(self.seen, v, out=s.mixed_flat)
        self.mixed_by_head.copy_(s.mixed)

    def _attend_backward(self) -> None:
        """Turn `mixed_grad` (M, N, H·D) into the gradient of `qkv`."""
        s = self.shared
        s.mixed.copy_(s.mixed_grad_by_head)
        q, k, v = self.parts_flat
        q_grad, k_grad, v_grad = s.parts_grad_flat
        torch.bmm(self.seen.mT, s.mixed_flat, out=v_grad)
        torch.bmm(s.mixed_flat, v.mT, out=s.scores)
        aten._softmax_backward_data.out(s.scores, self.seen, -1, torch.float32, grad_input=s.scores)
        torch.bmm(s.scores, k, out=q_grad)
        torch.bmm(s.scores.mT, q, out=k_grad)
        torch.mul(s.parts_grad_turned, s.turn_back, out=s.qkv_grad_pairs)
        s.values_grad.copy_(s.parts_grad[2])

    def _unfold(self, matrix: str, norm: str) -> None:
        """Split the gradient of (norm's weight × matrix) into that of the matrix and that of the norm's weight."""
        torch.sum(self.g[matrix] * self.p[matrix], 2, out=self.g[norm][:, 0])
        self.g[matrix].mul_(self.t[norm])


def _grad(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _minus_one(like: Tensor) -> Tensor:
    return torch.full(like.shape, -1.0)


def _normalise(x: Tensor, epsilon: float, unit: Tensor, inverse: Tensor) -> None:
    """Write x / rms(x) and 1 / rms(x)."""
    torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=inverse)
    inverse.square_().mul_(1.0 / x.shape[-1]).add_(epsilon).rsqrt_()
    torch.mul(x, inverse, out=unit)


def _add_norm_gradient(d: Tensor, unit_grad: Tensor, unit: Tensor, inverse: Tensor, product: Tensor) -> None:
    """Add to d the gradient of x where unit = x / rms(x): (unit_grad − unit · mean(unit_grad · unit)) / rms(x)."""
    mean = torch.mul(unit_grad, unit, out=product).sum(-1, keepdim=True)
    d.addcmul_(unit_grad, inverse).addcmul_(unit, mean.mul_(inverse), value=-1.0 / d.shape[-1])
