"""How much of a training step is done at once, from the memory that is free: models of a stack, rows of a pass, logits.

What takes memory: per parameter, weights, gradient and two moments in fp32, the gradients that autograd hands over and
a bf16 copy of the weights, or an fp32 copy of those that a norm scales; per position of a pass, what each layer keeps
for its backward pass; per logit of a block of the head, the logit and its gradient. Attention keeps no weights: SDPA's
flash kernels compute them again (Dao et al. 2022). `tests/proxy/test_memory` holds the counts to what
autograd really keeps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from openclimb.config.schema import ProxySettings
from openclimb.errors import OpenclimbError
from openclimb.proxy.model import OURS, Form

Found = TypeVar("Found")

SHARE = 0.85  # of free memory that is planned for; the rest is for fragments, workspaces of libraries and evaluation
LOGITS_SHARE = 1 / 16  # of that, for a block of the head
MOST_LOGITS = 1 << 30  # of a block: larger ones gain nothing, and indices stay below 2^31
# Positions a model reads in a pass, at least, before models are stacked further. A pass reads and writes about 40 bytes
# a parameter and does 6 floating-point operations a parameter and position: on an H100 (3 TB/s, 450 of 989 TFLOP/s)
# that memory traffic takes 1,000 / positions of the arithmetic's time, so an eighth here.
LEAST_POSITIONS = 8192
STATE = 16  # bytes a parameter: weights, gradient, two moments
HANDED_OVER = 4  # bytes a parameter: gradients of one pass, before they are added
READING_SHARE = 1 / 2  # of free memory, for reading; training comes back to what it had
MOST_TOKENS = 1 << 18  # read at once; not measured on a GPU, where more may be faster


@dataclass(frozen=True)
class Room:
    """What is done at once: models of a stack, rows of each model in a pass, logits (of all models) in a block."""

    stack: int
    rows: int
    logits: int

    def halved(self) -> "Room | None":
        """Return half of it: half the stack or, where that is one model, half the rows. None where one row is left."""
        if self.stack > 1:
            return replace(self, stack=self.stack // 2)
        if self.rows > 1:
            return replace(self, rows=-(-self.rows // 2), logits=max(1, self.logits // 2))
        return None


@dataclass(frozen=True)
class Reading:
    """What evaluation does at once, over all models: padded tokens of a pass, logits of a block."""

    tokens: int
    logits: int


@dataclass(frozen=True)
class Need:
    """Bytes that training takes: of a model, of a row of one model in a pass, of a logit in a block of the head."""

    model: float
    row: float
    logit: float


def need_of(proxy: ProxySettings, vocab_size: int, form: Form = OURS, compiled: bool = True, low: bool = True) -> Need:
    """Return what training a proxy takes. `low`: products in bf16 over fp32 weights, as on a GPU; else all in fp32."""
    width, inner = proxy.width, proxy.heads * (form.head or proxy.width // proxy.heads)
    groups = (form.groups or proxy.heads) * (form.head or proxy.width // proxy.heads)
    hidden = form.hidden or 8 * round(width * 8 / 3 / 8)
    layer = width * (2 * inner + 2 * groups) + 3 * width * hidden + 2 * width
    scaled = width * (inner + 2 * groups) + 2 * width * hidden  # matrices that a norm's weight is multiplied into
    n_parameters = (1 if form.tied else 2) * vocab_size * width + proxy.depth * layer + width
    size = 2 if low else 4
    kept = kept_of_layer(width, inner, groups, hidden, size, compiled) + 4 * proxy.heads + 8
    head = (4 + size + 4) * width  # states, their copy for products, their gradient
    position = (proxy.depth + 1) * kept + head  # one layer more: the gradients of the layer that is worked on
    return Need(
        model=n_parameters * (STATE + HANDED_OVER) + size * (n_parameters if low else proxy.depth * scaled),
        row=proxy.sequence * position,
        logit=2 * size * (2 if compiled else 4),
    )


def kept_of_layer(width: int, inner: int, groups: int, hidden: int, size: int, compiled: bool) -> int:
    """Return the bytes that a layer keeps of a position.

    `inner`, `groups`: dimensions of all heads of queries, of keys; `size`: bytes of a product's number.
    Eager: each norm keeps what it read and its product's input; the product of queries, keys and values stays for the
    values in it (unless they are repeated for groups), beside turned queries and keys; attention keeps its output,
    twice; the feed-forward part gate and up, silu, product.
    Compiled: silu and repeated keys and values are computed again, and one more product's input is kept (not where
    layers are compiled one by one).
    """
    shared = groups < inner  # keys and values are repeated, a copy each
    product, norms = inner + 2 * groups, 2 * (4 + size) * width
    if compiled:
        return norms + size * (width + product + inner + (0 if shared else groups) + inner + 3 * hidden)
    heads = inner + (2 * inner if shared else groups)
    return norms + size * ((0 if shared else product) + heads + 2 * inner + 4 * hidden)


def plan(need: Need, proxy: ProxySettings, vocab_size: int, free: float, wanted: int, exact: bool = False) -> Room:
    """Return what fits into `free` bytes, for at most `wanted` models; a power of two, unless `exact`: then so many.

    Rows are spread evenly over the passes of a batch, so that none is nearly empty. Where not even one row of one model
    fits that is what is returned, to be tried.
    """
    usable = SHARE * free
    logits = max(1, min(MOST_LOGITS, int(LOGITS_SHARE * usable / need.logit), wanted * _all(proxy) * vocab_size))
    left = usable - logits * need.logit
    least = min(proxy.batch, -(-LEAST_POSITIONS // proxy.sequence))
    stack = wanted
    while not exact and stack > 1 and stack * (need.model + least * need.row) > left:
        stack //= 2
    rows = max(1, min(proxy.batch, int((left / stack - need.model) / need.row)))
    n_passes = -(-proxy.batch // rows)
    return Room(stack, -(-proxy.batch // n_passes), logits)


def plan_reading(width: int, inner: int, hidden: int, longest: int, free: float) -> Reading:
    """Return what evaluation reads at once on a GPU in `free` bytes; `longest`: tokens of a row.

    `inner`: dimensions of all heads, `hidden`: of the feed-forward part. A layer at work holds, for each token, the
    residual stream twice and its unit in fp32, products in bf16 (units, queries, keys and values with their turned
    copies, attention, gate, up and what they give), and its row of who sees whom, as truth and as bias. Of a logit
    there are two fp32 copies, and one in bf16.
    """
    usable = READING_SHARE * free
    token = 12 * width + 2 * (2 * width + 8 * inner + 4 * hidden) + 4 * longest
    logits = max(1, min(MOST_LOGITS, int(usable / 4 / 10)))
    return Reading(max(longest, min(MOST_TOKENS, int(usable * 3 / 4 / token))), logits)


def planned_bytes(need: Need, room: Room, sequence: int, vocab_size: int) -> float:
    """Return what a room is expected to take at its fullest."""
    logits = min(room.logits, room.stack * room.rows * sequence * vocab_size)
    return room.stack * (need.model + room.rows * need.row) + logits * need.logit


def free_memory() -> int:
    """Return the bytes of the GPU that are free, or kept by PyTorch to be used again; of this process's share of it."""
    free, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.memory_reserved()
    fraction = getattr(torch.cuda, "get_per_process_memory_fraction", lambda: 1.0)  # an older PyTorch has none
    share = int(fraction() * total)
    return min(free, share - reserved) + reserved - torch.cuda.memory_allocated()


def in_rooms(
    folders: Sequence[Path],
    room: Room,
    run: Callable[[Sequence[Path], Room], dict[Path, Found]],
    shrunk: Callable[[Room, Room], None],
) -> dict[Path, Found]:
    """Run trials in stacks of a room and, from where one runs out of memory, in stacks of half the room, and so on.

    `shrunk` is called with the room that did not fit and the next one. Returns what `run` returned, put together.
    Raises OpenclimbError where one row of one model does not fit.
    """
    waiting = list(folders)
    found: dict[Path, Found] = {}
    while waiting:
        part = waiting[: room.stack]
        smaller = None
        try:
            found.update(run(part, room))
        except torch.cuda.OutOfMemoryError:
            smaller = room.halved()
            if smaller is None:
                raise OpenclimbError(
                    "one sequence of one proxy does not fit into the memory of the GPU",
                    "choose a smaller proxy.size, shorter sequences, or device = 'cpu' in [run]",
                ) from None
        if smaller is None:
            waiting = waiting[room.stack :]
        else:  # not in the except block: the error holds on to the tensors of the step that it ended
            shrunk(room, smaller)
            room = smaller
    return found


def _all(proxy: ProxySettings) -> int:
    return proxy.batch * proxy.sequence
