"""The loss and its gradient, written out by hand: what a CPU runs instead of autograd.

At a proxy's width autograd spends more time on making, filling and copying tensors than on matrix products. Here every
buffer is made once, a product writes where its result is needed, the weight of a norm is folded into the matrix behind
it, the rotation of queries and keys is one complex product, and what is done to the logits is done while they are in
the cache. A softmax is written as exponentials and their sum, without looking for the largest first; where a sum says
that this was not safe, the step is done again in the careful way. The same sums as `StackedDecoder.forward` in another
order: equal to rounding (tests/proxy/test_gradient).

Shapes: M models, B sequences of L tokens, N = B × L positions, W width, H heads of D dimensions, F inner width.
"""

from typing import cast

import torch
from torch import Tensor, nn

from openclimb.proxy.attention import Attention, blocks_of
from openclimb.proxy.model import StackedDecoder

BLOCK = 1 << 18  # logits computed at once: 1 MB, which stays in the cache of a core
LEAST_ROWS = 128  # with fewer positions at once the products are slow
MOST_KEPT = 1 << 30  # bytes of what a backward pass needs
TINY = 1e-38  # smallest probability that counts in the loss: 87 nats
SAFE = (1e-30, 1e30)  # sums of exponentials: no term was too large, and none that counts too small
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
        m, n, w = model.n_models, batch * length, model.embedding.shape[2]
        self.embedding, embedding_grad = model.embedding.detach().flatten(0, 1), _grad(model.embedding)
        self.embedding_grad = embedding_grad.flatten(0, 1)
        self.norm, self.norm_grad = model.final_norm.detach(), _grad(model.final_norm)
        self.offsets = torch.arange(m)[:, None, None] * model.embedding.shape[1]
        self.epsilon = torch.tensor(model.form.epsilon)
        self.x, self.d, self.states = (torch.empty(m, n, w) for _ in range(3))
        self.x_flat, self.d_flat = self.x.view(-1, w), self.d.view(-1, w)
        self.unit, self.inverse = torch.empty(m, n, w), torch.empty(m, n, 1)
        self.head = _Head(model.embedding.detach(), embedding_grad, self.states, self.d)
        shared = _Shared(model, batch, length)
        self.layers = [_Layer(cast(nn.ParameterDict, layer), shared) for layer in model.layers]

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        m = len(tokens)
        flat = (tokens[:, :, :-1] + self.offsets).flatten()
        torch.index_select(self.embedding, 0, flat, out=self.x_flat)
        for layer in self.layers:
            layer.forward(self.x)
        _normalise(self.x, self.epsilon, self.unit, self.inverse)
        torch.mul(self.unit, self.norm, out=self.states)
        losses = self.head(tokens[:, :, 1:].reshape(m, 1, -1))
        torch.sum(torch.mul(self.d, self.unit, out=self.x), 1, keepdim=True, out=self.norm_grad)
        torch.mul(self.d, self.norm, out=self.x)
        self.d.zero_()
        _add_norm_gradient(self.d, self.x, self.unit, self.inverse, self.states)
        for layer in reversed(self.layers):
            layer.backward(self.d)
        self.embedding_grad.index_add_(0, flat, self.d_flat)
        return losses


class _Head:
    """The loss and what it asks of the states (M, N, W) before it, into `d`, and of the embedding (M, V, W).

    Logits lie with a row an entry of the vocabulary and a column a position: so all three products are fast.
    """

    def __init__(self, embedding: Tensor, embedding_grad: Tensor, states: Tensor, d: Tensor) -> None:
        m, n, _ = states.shape
        vocabulary = embedding.shape[1]
        self.n = n
        self.embedding, self.embedding_t, self.embedding_grad = embedding, embedding.mT, embedding_grad
        self.chances, self.totals = torch.empty(m, 1, n), torch.empty(m, 1, n)
        rows = max(1, min(n, max(LEAST_ROWS, BLOCK // (m * vocabulary))))
        logits = {k: torch.empty(m, vocabulary, k) for k in (rows, n % rows) if k}
        self.rows = [slice(begin, min(n, begin + rows)) for begin in range(0, n, rows)]
        self.blocks = [
            (states[:, these], d[:, these], logits[these.stop - these.start], self.chances[:, :, these], self.totals[:, :, these])
            for these in self.rows
        ]

    def __call__(self, targets: Tensor) -> Tensor:
        """Return the losses (M,) for targets (M, 1, N)."""
        losses = self._pass(targets, careful=False)
        least, most = self.totals.aminmax()
        safe = least >= SAFE[0] and most <= SAFE[1]  # false for what is not a number
        return losses if safe else self._pass(targets, careful=True)

    def _pass(self, targets: Tensor, careful: bool) -> Tensor:
        for rows, (states, d, p, chances, totals) in zip(self.rows, self.blocks, strict=True):
            gold = targets[:, :, rows]
            torch.bmm(self.embedding, states.mT, out=p)
            if careful:
                p.copy_(p.softmax(1))
            else:
                p.exp_()
            torch.sum(p, 1, keepdim=True, out=totals)
            torch.gather(p, 1, gold, out=chances)
            p.scatter_add_(1, gold, -totals)
            scale = (1.0 / self.n / totals).mT
            if rows.start:
                self.embedding_grad.baddbmm_(p, states * scale)
            else:
                torch.bmm(p, states * scale, out=self.embedding_grad)
            torch.mul(torch.bmm(self.embedding_t, p).mT, scale, out=d)
        return -(self.chances / self.totals).clamp_(min=TINY).log_().mean((1, 2))


class _Shared:
    """What all layers use: sizes, angles, the mask, and memory that no layer needs after its turn."""

    def __init__(self, model: StackedDecoder, batch: int, length: int) -> None:
        layer = cast(nn.ParameterDict, model.layers[0])
        self.m, self.batch, self.length = model.n_models, batch, length
        self.heads, self.head, self.hidden = model.heads, model.head, layer["down"].shape[1]
        self.width, self.epsilon = layer["qkv"].shape[1], torch.tensor(model.form.epsilon)
        self.n, self.inner = batch * length, self.heads * self.head
        cosines, sines = (cast(Tensor, part)[:length] for part in (model.cosines, model.sines))
        # A fourth root in queries and in keys is attention's 1 / √D.
        self.turn = (torch.complex(cosines, sines) * self.head**-0.25)[:, None, None]
        self.turn_back = self.turn.conj().resolve_conj()
        self.qkv = torch.empty(self.m, self.n, 3 * self.inner)  # and its gradient
        self.qkv_pairs, self.values = self.pairs(self.qkv), self.by_head(self.qkv)[2]
        self.qkv_matrix_grad = torch.empty(self.m, self.width, 3 * self.inner)
        self.paired_grad = self.paired(self.qkv_matrix_grad)
        by_head = (self.m * batch, self.heads, length, self.head)
        self.mixed_grad = torch.empty(self.m, self.n, self.inner)
        self.k_grad, self.v_grad = torch.empty(2, *by_head)
        self.k_grad_flat, self.v_grad_flat = (self.flat_heads(part) for part in (self.k_grad, self.v_grad))
        self.k_grad_turned = torch.view_as_complex(self.k_grad.unflatten(3, (-1, 2))).transpose(1, 2)
        self.blocks = blocks_of(length, self.m * batch * self.heads, self.head)
        mixed_grad = self.by_head(self.mixed_grad)[0]
        self.mixed_blocks = [rows.mixed.view(*by_head[:2], -1, self.head) for rows in self.blocks]
        self.mixed_grad_blocks = [mixed_grad[:, :, rows.here] for rows in self.blocks]
        self.turn_q_back = [  # (gradient of the queries of a block, angles, where it goes)
            (
                torch.view_as_complex(rows.q_grad.view(*by_head[:2], -1, self.head // 2, 2)).transpose(1, 2),
                self.turn_back[rows.here, 0],
                self.qkv_pairs[:, rows.here, 0],
            )
            for rows in self.blocks
        ]
        self.gate_up_matrix_grad = torch.empty(2, self.m, self.width, self.hidden)
        self.gate_matrix_grad, self.up_matrix_grad = self.gate_up_matrix_grad
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

    def flat_heads(self, part: Tensor) -> Tensor:
        """View (…, M·B, H, L, D) as (…, M·B·H, L, D)."""
        return part.flatten(-4, -3)

    def split(self, matrix: Tensor) -> Tensor:
        """View a matrix (M, W, 2·F) as that of the gate and that of the other half, (2, M, W, F)."""
        return torch.unflatten(matrix, 2, (2, self.hidden)).permute(2, 0, 1, 3)

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
        self.qkv_matrix, self.gate_up_matrix = torch.empty_like(p["qkv"]), torch.empty(2, s.m, s.width, s.hidden)
        self.gate_matrix, self.up_matrix = self.gate_up_matrix
        weight = self.t["attention_norm"]
        self.folds = [  # (matrix, weight, where their product goes)
            (theirs, weight.view(*weight.shape, *[1] * (theirs.dim() - 3)), ours)
            for theirs, ours in zip(s.halved(p["qkv"]), s.paired(self.qkv_matrix), strict=True)
        ]
        self.halved_grad = s.halved(self.g["qkv"])
        self.gate_up_halves, self.gate_up_halves_grad = s.split(p["gate_up"]), s.split(self.g["gate_up"])
        self.parts = torch.empty(3, s.m * s.batch, s.heads, s.length, s.head)  # queries, keys, values by head
        self.parts_turned = s.turned(self.parts)
        self.attention = Attention(s.flat_heads(self.parts), s.blocks)
        self.mixed = torch.empty(s.m, s.n, s.inner)
        self.mixed_blocks = [s.by_head(self.mixed)[0][:, :, rows.here] for rows in s.blocks]
        self.gate, self.up = torch.empty(2, s.m, s.n, s.hidden)
        self.silu, self.act = torch.empty(s.m, s.n, s.hidden), torch.empty(s.m, s.n, s.hidden)
        self.saved_t = [self.units[0].mT, self.mixed.mT, self.units[1].mT, self.act.mT]
        self.matrix_t = [self.qkv_matrix.mT, self.gate_matrix.mT, self.up_matrix.mT]

    def forward(self, x: Tensor) -> None:
        """Add the layer's attention and feed-forward part to the residual stream x (M, N, W)."""
        s = self.shared
        _normalise(x, s.epsilon, self.units[0], self.inverses[0])
        self._attend()
        x.baddbmm_(self.mixed, self.p["attention_out"])
        _normalise(x, s.epsilon, self.units[1], self.inverses[1])
        torch.mul(self.gate_up_halves, self.t["mlp_norm"], out=self.gate_up_matrix)
        torch.bmm(self.units[1], self.gate_matrix, out=self.gate)
        torch.bmm(self.units[1], self.up_matrix, out=self.up)
        aten.silu.out(self.gate, out=self.silu)
        torch.mul(self.silu, self.up, out=self.act)
        x.baddbmm_(self.act, self.p["down"])

    def backward(self, d: Tensor) -> None:
        """Turn d from the gradient after the layer into that before it; fill the gradients of the parameters."""
        s = self.shared
        unit_t, mixed_t, mlp_unit_t, act_t = self.saved_t
        torch.bmm(act_t, d, out=self.g["down"])
        # What is needed no more makes room for gradients: the less memory is touched, the more stays in the cache.
        torch.bmm(d, self.t["down"], out=self.act)
        up_grad = self.silu.mul_(self.act)
        gate_grad = aten.silu_backward.grad_input(self.act.mul_(self.up), self.gate, grad_input=self.gate)
        torch.bmm(mlp_unit_t, gate_grad, out=s.gate_matrix_grad)
        torch.bmm(mlp_unit_t, up_grad, out=s.up_matrix_grad)
        # The gradient of (norm's weight × matrix) gives that of the matrix and that of the norm's weight.
        torch.sum(s.gate_up_matrix_grad * self.gate_up_halves, (0, 3), out=self.g["mlp_norm"][:, 0])
        torch.mul(s.gate_up_matrix_grad, self.t["mlp_norm"], out=self.gate_up_halves_grad)
        torch.bmm(gate_grad, self.matrix_t[1], out=s.unit_grad)
        s.unit_grad.baddbmm_(up_grad, self.matrix_t[2])
        _add_norm_gradient(d, s.unit_grad, self.units[1], self.inverses[1], s.product)
        torch.bmm(mixed_t, d, out=self.g["attention_out"])
        torch.bmm(d, self.t["attention_out"], out=s.mixed_grad)
        self._attend_backward()
        torch.bmm(unit_t, s.qkv, out=s.qkv_matrix_grad)
        for ours, theirs in zip(s.paired_grad, self.halved_grad, strict=True):
            theirs.copy_(ours)
        torch.sum(self.g["qkv"] * self.p["qkv"], 2, out=self.g["attention_norm"][:, 0])
        self.g["qkv"].mul_(self.t["attention_norm"])
        torch.bmm(s.qkv, self.matrix_t[0], out=s.unit_grad)
        _add_norm_gradient(d, s.unit_grad, self.units[0], self.inverses[0], s.product)

    def _attend(self) -> None:
        """Write `mixed` (M, N, H·D), what attention gives for `units[0]`; keep queries, keys, values and weights."""
        s = self.shared
        for matrix, weight, folded in self.folds:
            torch.mul(matrix, weight, out=folded)
        torch.bmm(self.units[0], self.qkv_matrix, out=s.qkv)
        torch.mul(s.qkv_pairs, s.turn, out=self.parts_turned)
        self.parts[2].copy_(s.values)
        self.attention.forward()
        for ours, theirs in zip(self.mixed_blocks, s.mixed_blocks, strict=True):
            ours.copy_(theirs)

    def _attend_backward(self) -> None:
        """Turn `mixed_grad` (M, N, H·D) into the gradient of `qkv`."""
        s = self.shared
        for ours, theirs in zip(s.mixed_blocks, s.mixed_grad_blocks, strict=True):
            ours.copy_(theirs)
        self.attention.backward(s.k_grad_flat, s.v_grad_flat)
        for q_grad, turn_back, q_grad_by_position in s.turn_q_back:
            torch.mul(q_grad, turn_back, out=q_grad_by_position)
        torch.mul(s.k_grad_turned, s.turn_back[:, 0], out=s.qkv_pairs[:, :, 1])
        s.values.copy_(s.v_grad)


def _grad(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _normalise(x: Tensor, epsilon: Tensor, unit: Tensor, inverse: Tensor) -> None:
    """Write x / rms(x) and 1 / rms(x)."""
    torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=inverse)
    torch.addcmul(epsilon, inverse, inverse, value=1.0 / x.shape[-1], out=inverse).rsqrt_()
    torch.mul(x, inverse, out=unit)


def _add_norm_gradient(d: Tensor, unit_grad: Tensor, unit: Tensor, inverse: Tensor, product: Tensor) -> None:
    """Add to d the gradient of x where unit = x / rms(x): (unit_grad − unit · mean(unit_grad · unit)) / rms(x)."""
    mean = torch.mul(unit_grad, unit, out=product).sum(-1, keepdim=True)
    d.addcmul_(unit_grad.addcmul_(unit, mean, value=-1.0 / d.shape[-1]), inverse)
