"""The loss and its gradient, written out by hand: what a CPU runs instead of autograd.

At a proxy's width autograd spends more time on making, filling and copying tensors than on matrix products. Here every
buffer is made once, a product writes where its result is needed, the weight of a norm is folded into the matrix behind
it, the rotation of queries and keys is one complex product, and what is done to the logits is done while they are in
the cache. A softmax is written as exponentials and their sum, without looking for the largest first; where a sum says
that this was not safe for a model, the head is done again with it. The same sums as `StackedDecoder.forward` in another
order: equal to rounding (tests/proxy/test_gradient).

Shapes: M models, B sequences of L tokens, N = B × L positions, W width, H heads of D dimensions, F inner width.
"""

from typing import cast

import torch
from torch import Tensor, nn

from openclimb.proxy.cpu.attention import Attention, blocks_of
from openclimb.proxy.model import StackedDecoder

BLOCK = 1 << 18  # logits computed at once: 1 MB, which stays in the cache of a core
LEAST_ROWS = 128  # with fewer positions at once the products are slow
MOST_KEPT = 1 << 30  # bytes of what a backward pass needs; a larger batch takes several passes
TINY = 1e-38  # smallest probability that counts in the loss: 87 nats
SAFE = (1e-30, 1e30)  # sums of exponentials: no term was too large, and none that counts too small
aten = torch.ops.aten


def rows_at_once(model: StackedDecoder, length: int) -> int:
    """Return how many sequences of `length` tokens a pass takes; 0 where the gradient is not written out.

    It is written out for our form, where what it keeps of one sequence fits into memory.
    """
    if not model.form.tied or model.groups != model.heads:
        return 0
    numbers = 12 * model.embedding.shape[2] + 2 * model.heads * length  # that a layer keeps of a position
    return MOST_KEPT // (4 * model.n_models * length * len(model.layers) * numbers)


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
        normalise(self.x, self.epsilon, self.unit, self.inverse)
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
            (
                states[:, these],
                d[:, these],
                logits[these.stop - these.start],
                self.chances[:, :, these],
                self.totals[:, :, these],
            )
            for these in self.rows
        ]

    def __call__(self, targets: Tensor) -> Tensor:
        """Return the losses (M,) for targets (M, 1, N)."""
        losses = self._pass(targets, None)
        least, most = self.totals.aminmax()
        if least >= SAFE[0] and most <= SAFE[1]:  # false for what is not a number
            return losses
        safe = ((self.totals >= SAFE[0]) & (self.totals <= SAFE[1])).all(2, keepdim=True)
        return self._pass(targets, ~safe)

    def _pass(self, targets: Tensor, unsafe: Tensor | None) -> Tensor:
        """`unsafe` (M, 1, 1): models whose largest logits are taken off first; to the others' bits it does nothing."""
        for rows, (states, d, p, chances, totals) in zip(self.rows, self.blocks, strict=True):
            gold = targets[:, :, rows]
            torch.bmm(self.embedding, states.mT, out=p)
            if unsafe is not None:
                p.sub_(torch.where(unsafe, p.amax(1, keepdim=True), 0.0))
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
        self.turn = torch.complex(cosines, sines) * self.head**-0.25
        self.turn_back = self.turn.conj().resolve_conj()
        self.qkv_grad = torch.empty(3, self.m * self.heads, self.n, self.head)
        self.qkv_grad_flat, self.turned_grad = self.flat_heads(self.qkv_grad), self.turned(self.qkv_grad)
        self.qkv_matrix_grad = torch.empty(self.m, self.width, 3 * self.inner)
        self.joined = torch.empty(self.m, self.n, 3 * self.inner)
        self.joined_by_head = self.each_head(self.joined)
        self.mixed_grad = torch.empty(self.m * self.heads, self.n, self.head)
        self.mixed_grad_by_head = self.mixed_grad.view(self.m, self.heads, self.n, self.head)
        self.mixed_joined = torch.empty(self.m, self.n, self.inner)
        self.mixed_by_head = self.each_head(self.mixed_joined, 1)[0]
        self.blocks = blocks_of(self.mixed_grad.view(-1, length, self.head))
        self.gate_up_matrix_grad = torch.empty(2, self.m, self.width, self.hidden)
        self.gate_matrix_grad, self.up_matrix_grad = self.gate_up_matrix_grad
        self.unit_grad, self.product = (torch.empty(self.m, self.n, self.width) for _ in range(2))

    def flat_heads(self, parts: Tensor) -> Tensor:
        """View queries, keys and values (3, M·H, N, D) as (3, M·H·B, L, D)."""
        return parts.view(3, -1, self.length, self.head)

    def turned(self, parts: Tensor) -> Tensor:
        """View queries and keys of (3, M·H, N, D), neighbours paired, as complex numbers (2, M·H·B, L, D / 2)."""
        return torch.view_as_complex(parts.view(3, -1, self.length, self.head // 2, 2)[:2])

    def each_head(self, x: Tensor, kinds: int = 3) -> Tensor:
        """View x (M, N, kinds·H·D), as one product has it, by head, (kinds, M, H, N, D)."""
        return torch.unflatten(x, 2, (kinds, self.heads, self.head)).permute(2, 0, 3, 1, 4)

    def by_head(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """View a matrix (M, W, 3·H·D), as Llama has it, by head: queries and keys (2, M, H, W, 2, D / 2), values.

        What is turned as a pair lies D / 2 apart there.
        """
        heads = self.each_head(matrix)
        return torch.unflatten(heads[:2], 4, (2, -1)), heads[2]

    def paired(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """View a matrix (M, W, 3·H·D) in which pairs are neighbours in the order of `by_head`."""
        heads = self.each_head(matrix)
        return torch.unflatten(heads[:2], 4, (-1, 2)).transpose(4, 5), heads[2]

    def split(self, matrix: Tensor) -> Tensor:
        """View a matrix (M, W, 2·F) as that of the gate and that of the other half, (2, M, W, F)."""
        return torch.unflatten(matrix, 2, (2, self.hidden)).permute(2, 0, 1, 3)


class _Layer:
    """One layer of the stack: its parameters, gradients and what its backward pass needs of the forward pass."""

    def __init__(self, parameters: nn.ParameterDict, shared: _Shared) -> None:
        s = self.shared = shared
        p = self.p = {name: parameter.detach() for name, parameter in parameters.items()}
        self.g = {name: _grad(parameter) for name, parameter in parameters.items()}
        self.t = {name: matrix.mT for name, matrix in p.items()}
        self.units = [torch.empty(s.m, s.n, s.width) for _ in range(2)]
        self.inverses = [torch.empty(s.m, s.n, 1) for _ in range(2)]
        self.qkv_matrix = torch.empty_like(s.qkv_matrix_grad)
        self.gate_up_matrix = torch.empty(2, s.m, s.width, s.hidden)
        self.gate_matrix, self.up_matrix = self.gate_up_matrix
        self.folds = list(zip(s.by_head(p["qkv"]), s.paired(self.qkv_matrix), strict=True))
        self.qkv_matrix_t = self.qkv_matrix.mT
        self.unfolds = list(zip(s.by_head(self.g["qkv"]), s.paired(s.qkv_matrix_grad), strict=True))
        self.gate_up_halves, self.gate_up_halves_grad = s.split(p["gate_up"]), s.split(self.g["gate_up"])
        self.qkv = torch.empty_like(s.qkv_grad)  # queries, keys, values
        self.qkv_by_head = self.qkv.view(3, s.m, s.heads, s.n, s.head)
        self.turned, self.attention = s.turned(self.qkv), Attention(s.flat_heads(self.qkv), s.blocks)
        self.mixed = torch.empty(s.m, s.n, s.inner)  # what attention gives
        mixed = self.mixed.view(s.m, s.batch, s.length, s.heads, s.head).transpose(2, 3).transpose(1, 2)
        self.mixed_blocks = [
            (mixed[:, :, :, rows.here], rows.mixed.view(s.m, s.heads, s.batch, -1, s.head)) for rows in s.blocks
        ]
        self.gate, self.up = torch.empty(2, s.m, s.n, s.hidden)
        self.silu, self.act = torch.empty(s.m, s.n, s.hidden), torch.empty(s.m, s.n, s.hidden)
        self.saved_t = [self.mixed.mT, self.units[1].mT, self.act.mT]
        self.matrix_t = [self.gate_matrix.mT, self.up_matrix.mT]

    def forward(self, x: Tensor) -> None:
        """Add the layer's attention and feed-forward part to the residual stream x (M, N, W)."""
        s = self.shared
        normalise(x, s.epsilon, self.units[0], self.inverses[0])
        self._attend()
        x.baddbmm_(self.mixed, self.p["attention_out"])
        normalise(x, s.epsilon, self.units[1], self.inverses[1])
        torch.mul(self.gate_up_halves, self.t["mlp_norm"], out=self.gate_up_matrix)
        torch.bmm(self.units[1], self.gate_matrix, out=self.gate)
        torch.bmm(self.units[1], self.up_matrix, out=self.up)
        aten.silu.out(self.gate, out=self.silu)
        torch.mul(self.silu, self.up, out=self.act)
        x.baddbmm_(self.act, self.p["down"])

    def backward(self, d: Tensor) -> None:
        """Turn d from the gradient after the layer into that before it; fill the gradients of the parameters."""
        s = self.shared
        mixed_t, mlp_unit_t, act_t = self.saved_t
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
        torch.bmm(gate_grad, self.matrix_t[0], out=s.unit_grad)
        s.unit_grad.baddbmm_(up_grad, self.matrix_t[1])
        _add_norm_gradient(d, s.unit_grad, self.units[1], self.inverses[1], s.product)
        torch.bmm(mixed_t, d, out=self.g["attention_out"])
        self._attend_backward(d)
        _add_norm_gradient(d, s.unit_grad, self.units[0], self.inverses[0], s.product)

    def _attend(self) -> None:
        """Write `mixed` (M, N, H·D), what attention gives for `units[0]`; keep queries, keys, values and weights."""
        s = self.shared
        weight = self.t["attention_norm"][None, :, None]
        torch.mul(self.folds[0][0], weight[..., None], out=self.folds[0][1])
        torch.mul(self.folds[1][0], weight[0], out=self.folds[1][1])
        torch.bmm(self.units[0], self.qkv_matrix, out=s.joined)
        self.qkv_by_head.copy_(s.joined_by_head)
        self.turned.mul_(s.turn)
        self.attention.forward()
        for ours, theirs in self.mixed_blocks:
            ours.copy_(theirs)

    def _attend_backward(self, d: Tensor) -> None:
        """Fill the gradients of the matrix and the norm before attention; write `unit_grad` (M, N, W)."""
        s = self.shared
        torch.bmm(d, self.t["attention_out"], out=s.mixed_joined)
        s.mixed_grad_by_head.copy_(s.mixed_by_head)
        q_grad, k_grad, v_grad = s.qkv_grad_flat
        self.attention.backward(q_grad, k_grad, v_grad)
        s.turned_grad.mul_(s.turn_back)
        s.joined_by_head.copy_(s.qkv_grad.view(3, s.m, s.heads, s.n, s.head))
        torch.bmm(self.units[0].mT, s.joined, out=s.qkv_matrix_grad)
        for theirs, ours in self.unfolds:
            theirs.copy_(ours)
        torch.sum(self.g["qkv"] * self.p["qkv"], 2, out=self.g["attention_norm"][:, 0])
        self.g["qkv"].mul_(self.t["attention_norm"])
        torch.bmm(s.joined, self.qkv_matrix_t, out=s.unit_grad)


def _grad(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def normalise(x: Tensor, epsilon: Tensor, unit: Tensor, inverse: Tensor) -> None:
    """Write x / rms(x) and 1 / rms(x)."""
    torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=inverse)
    torch.addcmul(epsilon, inverse, inverse, value=1.0 / x.shape[-1], out=inverse).rsqrt_()
    torch.mul(x, inverse, out=unit)


def _add_norm_gradient(d: Tensor, unit_grad: Tensor, unit: Tensor, inverse: Tensor, product: Tensor) -> None:
    """Add to d the gradient of x where unit = x / rms(x): (unit_grad − unit · mean(unit_grad · unit)) / rms(x)."""
    mean = torch.mul(unit_grad, unit, out=product).sum(-1, keepdim=True)
    d.addcmul_(unit_grad.addcmul_(unit, mean, value=-1.0 / d.shape[-1]), inverse)
