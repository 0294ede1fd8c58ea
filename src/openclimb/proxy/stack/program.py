"""What trains a stack: memory, gradient, optimiser, and on a GPU compiled code, which stays for the next stack.

Three ways to the gradient, one result: written out by hand (CPU), autograd, autograd of compiled code (GPU). All shapes
are static, so that code is compiled once for a search: a short batch is filled up with rows that weigh nothing, a short
stack with copies of its last trial (train.py). Code that cannot be compiled runs as it is.
"""

import functools
import gc
from collections.abc import Callable, Hashable
from typing import Any, cast

import torch
from torch import Tensor

from openclimb.config.schema import ProxySettings
from openclimb.progress import silent
from openclimb.proxy.cpu.gradient import Gradient, rows_at_once
from openclimb.proxy.model import Form, StackedDecoder
from openclimb.proxy.optimizer import Optimiser
from openclimb.proxy.stack.head import Block, head_block, head_gradient
from openclimb.proxy.stack.memory import Room, free_memory, need_of, plan

POSITIONS = 1 << 14  # tokens of all models in one pass on a CPU; a larger batch takes several
HEAD_FLOATS = 1 << 28  # logits held at once on a CPU: 1 GB
SHAPES = 64  # that one function may be compiled for: stacks of 1, 2, 4 … for each proxy of a search and its validation
EAGER_SHARE = 0.75  # of a compiled pass's rows: uncompiled code keeps a fifth more, and twice a logit
# Layers that are compiled together, at most. On an H100 64 × 1M (3 layers) trained a third faster than layer by layer,
# 64 × 5M (4) 6 % faster, 62M (12) as fast; 350M (24) took over a minute to compile, not 8 s (bench/results/gpu.json).
WHOLE = 8
KNOWN_SHARE = 0.8  # of a plan's memory: what the next plan takes after one that did not fit


def cpu_room(proxy: ProxySettings, n_models: int) -> Room:
    """Return what a CPU does at once, whatever its memory: more is not faster there."""
    return Room(n_models, max(1, min(proxy.batch, POSITIONS // (n_models * proxy.sequence))), HEAD_FLOATS)


class Program:
    """Trains stacks of one shape, one after the other. `how`: "hand", "autograd" or "compiled"."""

    def __init__(
        self,
        model: StackedDecoder,
        proxy: ProxySettings,
        device: str,
        how: str,
        room: Room | None = None,
        note: Callable[[str], None] = silent,
    ) -> None:
        self.model = model.to(device)
        self.device, self.how, self.note = device, how, note
        self.room = room or cpu_room(proxy, model.n_models)
        self.optimiser = Optimiser(self.model, proxy)
        named = dict(self.model.named_parameters())
        self._matrix = named["embedding" if model.form.tied else "output"]
        self._parameters = [parameter for name, parameter in named.items() if name != "output"]
        self._gradients = [cast(Tensor, parameter.grad) for parameter in self._parameters]
        self._written: dict[int, Gradient] = {}
        self._forward: Callable[..., Tensor] = self.model
        self._block: Block = head_block
        self._compiled = False  # whether compiled code has run

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
        if self.how == "hand":
            return self._by_hand(batch)
        if self.how == "autograd" or self._compiled:
            return self._passes(batch)
        try:
            _allow_shapes()
            self._forward = compiled_model(self.model)
            self._block = compiled(head_block)
            losses = self._passes(batch)
        except Exception as error:  # compilers fail in many ways; what is wrong with the step itself fails again
            if _out_of_memory(error):
                raise torch.cuda.OutOfMemoryError(str(error)) from error
            reason = str(error).strip().splitlines() or [""]
        else:
            self._compiled = True
            return losses
        self._run_eagerly(reason[0])
        return self._passes(batch)

    def _by_hand(self, batch: Tensor) -> Tensor:
        n_rows, gradients = batch.shape[1], self.optimiser.gradients
        parts = torch.split(batch, rows_at_once(self.model, batch.shape[2] - 1), 1)
        if len(parts) == 1:
            return self._written_out(batch)
        losses, sums = torch.zeros(len(batch)), [torch.zeros_like(gradient) for gradient in gradients]
        for part in parts:
            share = part.shape[1] / n_rows
            losses += share * self._written_out(part)
            torch._foreach_add_(sums, gradients, alpha=share)
        torch._foreach_copy_(gradients, sums)
        return losses

    def _written_out(self, part: Tensor) -> Tensor:
        n_rows, length = part.shape[1], part.shape[2] - 1
        if n_rows not in self._written:
            self._written[n_rows] = Gradient(self.model, n_rows, length)
        return self._written[n_rows](part)

    def _run_eagerly(self, reason: str) -> None:
        self.how, self._forward, self._block = "autograd", self.model, head_block
        room = self.room
        self.room = Room(room.stack, max(1, int(EAGER_SHARE * room.rows)), max(1, room.logits // 2))
        self.note(f"the proxy cannot be compiled and trains uncompiled, which is slower: {reason}")

    def _passes(self, batch: Tensor) -> Tensor:
        (m, n_rows), length, rows = batch.shape[:2], batch.shape[2] - 1, self.room.rows
        self.optimiser.zero()
        losses = torch.zeros(m, device=batch.device)
        for begin in range(0, n_rows, rows):
            part = batch[:, begin : begin + rows]
            weights = torch.zeros(rows, 1, device=batch.device)
            weights[: part.shape[1]] = 1.0 / (n_rows * length)
            if part.shape[1] < rows:
                part = torch.cat([part, part[:, :1].expand(-1, rows - part.shape[1], -1)], 1)
            losses += self._backward(part.to(self.device), weights.expand(-1, length).flatten())
        return losses

    def _backward(self, part: Tensor, weights: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            states = self._forward(part[:, :, :-1])
        targets = part[:, :, 1:].reshape(part.shape[0], -1)
        with torch.no_grad():
            losses, gradient = head_gradient(
                states.detach(), self._matrix, targets, weights, self.room.logits, self._block
            )
        # Not backward(): a parameter of a stack is a view with gaps, into which autograd would add one by one.
        torch._foreach_add_(self._gradients, torch.autograd.grad(states, self._parameters, gradient))
        return losses


def program_for(
    model: StackedDecoder,
    proxy: ProxySettings,
    device: str,
    room: Room | None = None,
    note: Callable[[str], None] = silent,
) -> Program:
    """Return a program with this stack's weights: its own on a CPU, the resident one of its shape on a GPU."""
    if device == "cpu":
        how = "hand" if rows_at_once(model, proxy.sequence) else "autograd"
        return Program(model, proxy, device, how, room, note)
    return RESIDENT.program(model, proxy, device, True, room, note)


class Resident:
    """The one program that stays in memory from one stack to the next; another shape takes its place."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._program: Program | None = None
        self._compiles = True
        self._rooms: dict[Hashable, Room] = {}  # what was planned for a shape, or found to fit
        self._share = 1.0  # of the memory that a plan may take, by what was found

    def room(
        self, proxy: ProxySettings, vocab_size: int, form: Form, compiled: bool, wanted: int, exact: bool = False
    ) -> Room:
        """Return what of a stack of `wanted` models is done at once: planned with all memory free, then kept."""
        key = (proxy, vocab_size, form, compiled, wanted, exact)
        if key not in self._rooms:
            self.release()
            need = need_of(proxy, vocab_size, form, compiled and self._compiles)
            self._rooms[key] = plan(need, proxy, vocab_size, self._share * free_memory(), wanted, exact)
        return self._rooms[key]

    def shrink(self, proxy: ProxySettings, room: Room, smaller: Room) -> None:
        """Let go of what did not fit, and remember what is tried instead."""
        self._share *= KNOWN_SHARE
        same = [key for key, kept in self._rooms.items() if kept == room and proxy in cast("tuple[Any, ...]", key)]
        self._rooms.update(dict.fromkeys(same, smaller))
        self.release()

    def program(
        self,
        model: StackedDecoder,
        proxy: ProxySettings,
        device: str,
        compiled: bool,
        room: Room | None,
        note: Callable[[str], None] = silent,
    ) -> Program:
        """Return the program of this shape with the weights of the stack; one that is made lets go of the other."""
        key = (proxy, model.embedding.shape[1], model.n_models, model.form, device, compiled, room)
        if self._program is not None and self._key == key:
            self._program.take(model)
            return self._program
        self.release()
        how = "compiled" if compiled and self._compiles else "autograd"

        def noted(text: str) -> None:
            self._compiles = False  # it takes minutes to find that out, and it is said once
            note(text)

        self._key, self._program = key, Program(model, proxy, device, how, room, noted)
        return self._program

    def release(self) -> None:
        """Give the memory of the resident program back."""
        self._key = self._program = None
        gc.collect()  # compiled code and the model point to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


RESIDENT = Resident()


def _out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error is, or was caused by, one of memory: a compiler wraps what it meets."""
    inner = (error, getattr(error, "inner_exception", None), getattr(error, "__cause__", None))
    return any(isinstance(each, torch.cuda.OutOfMemoryError) for each in inner)


def compiled_model(model: StackedDecoder) -> Callable[..., Tensor]:
    """Return a model's forward pass, compiled: all in one where it is shallow, else one layer, for all of them."""
    if len(model.layers) <= WHOLE:
        return cast("Callable[..., Tensor]", compiled(model))
    return functools.partial(model, layer=compiled(model.layer))


def compiled(function: Callable[..., Any]) -> Any:
    """Return a function compiled for the shapes that it is called with.

    Without mix-order reductions, which join a norm's two gradients: those of PyTorch 2.11 have another shape than the
    parameter (pytorch/pytorch issue 178080).
    """
    import torch._inductor.config as inductor

    known = hasattr(inductor.triton, "mix_order_reduction")
    return torch.compile(function, dynamic=False, options={"triton.mix_order_reduction": False} if known else None)


def _allow_shapes() -> None:
    """Let one function be compiled for SHAPES shapes.

    PyTorch stops at 8, as a guard against code that is compiled again for each call, and goes on uncompiled, several
    times slower, with a line in the log. It counts by function, so for all programs of a process together.
    """
    import torch._dynamo.config as dynamo

    dynamo.recompile_limit = max(dynamo.recompile_limit, SHAPES)
