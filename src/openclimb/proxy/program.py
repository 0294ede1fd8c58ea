"""What trains a stack: memory, gradient, optimiser, and on a GPU compiled code, which stays for the next stack.

Three ways to the gradient, one result: written out by hand (CPU), autograd, autograd of compiled code (GPU). All shapes
are static, so that code is compiled once for a search: a short batch is filled up with rows that weigh nothing, a short
stack with copies of its last trial (train.py).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from openclimb.proxy.gradient import Gradient, can_write_out
from openclimb.proxy.model import Form, StackedDecoder
from openclimb.proxy.optimise import Optimiser
from openclimb.settings import ProxySettings

POSITIONS = {"cpu": 1 << 14, "cuda": 1 << 17}  # tokens of all models in one pass; a larger batch takes several
HEAD_FLOATS = 1 << 28  # logits held at once: 1 GB in fp32
KEPT = 6  # compiled shapes that stay in memory
SHAPES = 64  # that one function may be compiled for: stacks of 1, 2, 4 … for each proxy of a search and its validation


class Program:
    """Trains stacks of one shape, one after the other. `how`: "hand", "autograd" or "compiled"."""

    def __init__(self, model: StackedDecoder, proxy: ProxySettings, device: str, how: str) -> None:
        self.model = model.to(device)
        self.device, self.how, self.batch = device, how, proxy.batch
        self.optimiser = Optimiser(self.model, proxy)
        self.rows = max(1, min(proxy.batch, POSITIONS[device] // (model.n_models * proxy.sequence)))
        self._parameters = list(self.model.parameters())
        self._gradients = [cast(Tensor, parameter.grad) for parameter in self._parameters]
        self._written: dict[int, Gradient] = {}
        if how == "compiled":
            _allow_shapes()
        forward: Any = self.model
        self._forward: Callable[[Tensor], Tensor] = (
            torch.compile(forward, dynamic=False) if how == "compiled" else forward
        )
        self._block = torch.compile(head_block, dynamic=False) if how == "compiled" else head_block

    @torch.no_grad()
    def take(self, model: StackedDecoder) -> None:
        """Begin again with the weights of another stack of the same shape; nothing is made or compiled anew."""
        for ours, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            ours.copy_(theirs)
        self.optimiser.restart()

    def step(self, batch: Tensor, rate: float) -> Tensor:
        """Learn from tokens (M, B, L + 1); return each model's mean loss before it (nats a token), (M,)."""
        losses = self.gradient(batch)
        self.optimiser.step(rate)
        return losses

    def gradient(self, batch: Tensor) -> Tensor:
        """Fill the gradients for tokens (M, B, L + 1) and return each model's mean loss, (M,)."""
        m, n_rows, length = batch.shape[0], batch.shape[1], batch.shape[2] - 1
        if self.how == "hand":
            if n_rows not in self._written:
                self._written[n_rows] = Gradient(self.model, n_rows, length)
            return self._written[n_rows](batch)
        self.optimiser.zero()
        losses = torch.zeros(m, device=batch.device)
        for begin in range(0, n_rows, self.rows):
            part = batch[:, begin : begin + self.rows]
            weights = torch.zeros(self.rows, 1, device=batch.device)
            weights[: part.shape[1]] = 1.0 / (n_rows * length)
            if part.shape[1] < self.rows:
                part = torch.cat([part, part[:, :1].expand(-1, self.rows - part.shape[1], -1)], 1)
            losses += self._backward(part.to(self.device), weights.expand(-1, length).flatten())
        return losses

    def _backward(self, part: Tensor, weights: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            states = self._forward(part[:, :, :-1])
        matrix = self.model.embedding if self.model.form.tied else cast(Tensor, self.model.output)
        targets = part[:, :, 1:].reshape(part.shape[0], -1)
        losses = cast(Tensor, _Head.apply(states, matrix, targets, weights, self._block))  # type: ignore[no-untyped-call]
        # Not backward(): a parameter of a stack is a view with gaps, into which autograd would add one by one.
        torch._foreach_add_(self._gradients, torch.autograd.grad(losses.sum(), self._parameters))
        return losses.detach()


def program_for(model: StackedDecoder, proxy: ProxySettings, device: str, compiled: bool) -> Program:
    """Return a program with this stack's weights: its own on a CPU, the resident one of its shape on a GPU."""
    if device == "cpu":
        return Program(
            model, proxy, device, "hand" if can_write_out(model, proxy.batch, proxy.sequence) else "autograd"
        )
    program = _resident(proxy, model.embedding.shape[1], model.n_models, model.form, device, compiled)
    program.take(model)
    return program


@lru_cache(maxsize=KEPT)
def _resident(proxy: ProxySettings, vocab_size: int, n_models: int, form: Form, device: str, compiled: bool) -> Program:
    model = StackedDecoder(proxy, vocab_size, range(n_models), form)
    return Program(model, proxy, device, "compiled" if compiled else "autograd")


def _allow_shapes() -> None:
    """Let one function be compiled for SHAPES shapes.

    PyTorch stops at 8, as a guard against code that is compiled again for each call, and goes on uncompiled, several
    times slower, with a line in the log. It counts by function, so for all programs of a process together.
    """
    import torch._dynamo.config as dynamo

    name = "recompile_limit" if hasattr(dynamo, "recompile_limit") else "cache_size_limit"  # the name before 2.6
    setattr(dynamo, name, max(getattr(dynamo, name), SHAPES))


def head_block(states: Tensor, matrix: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return losses (M,) of states (M, n, W) under weights (n,), and their gradient to the states and the matrix."""
    logits = torch.bmm(states, matrix.mT).float()
    total = logits.logsumexp(2, keepdim=True)
    gold = logits.gather(2, targets[:, :, None])
    losses = ((total - gold)[:, :, 0] * weights).sum(1)
    chances = (logits - total).exp().scatter_add(2, targets[:, :, None], gold.new_full(gold.shape, -1.0))
    gradient = (chances * weights[:, None]).to(states.dtype)
    return losses, torch.bmm(gradient, matrix), torch.bmm(gradient.mT, states)


class _Head(torch.autograd.Function):
    """Softmax cross-entropy over the vocabulary in blocks: the gradient is taken in the forward pass, logits are never
    kept."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, matrix: Tensor, targets: Tensor, weights: Tensor, block: Callable[..., Any]
    ) -> Tensor:
        m, n, _ = states.shape
        low = torch.bfloat16 if states.is_cuda else states.dtype
        states_low, matrix_low = states.detach().to(low), matrix.detach().to(low)
        losses = torch.zeros(m, device=states.device)
        to_states, to_matrix = torch.empty_like(states), torch.zeros_like(matrix)
        size = max(1, min(n, HEAD_FLOATS // (m * matrix.shape[1])))
        size = -(-n // -(-n // size))
        for begin in range(0, n, size):
            # All blocks have one size, so that one is compiled: the last begins among rows that were done before,
            # which weigh nothing now.
            rows = slice(min(begin, n - size), min(n, begin + size))
            again = begin - rows.start
            share = torch.cat([weights.new_zeros(again), weights[begin : rows.stop]])
            loss, gradient, more = block(states_low[:, rows], matrix_low, targets[:, rows], share)
            to_states[:, begin : rows.stop] = gradient[:, again:]
            to_matrix += more
            losses += loss
        ctx.save_for_backward(to_states, to_matrix)
        return losses

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        to_states, to_matrix = ctx.saved_tensors
        scale = outputs[0][:, None, None]
        return to_states * scale.to(to_states.dtype), to_matrix * scale, None, None, None
