"""What fits into memory: the counts against what autograd keeps, plans for pretended GPUs, stacks that do not fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from openclimb.config.schema import ProxySettings
from openclimb.config.sizes import SHAPES, n_parameters, shape_of, vocabulary_of
from openclimb.errors import OpenclimbError
from openclimb.proxy.model import OURS, Form, StackedDecoder
from openclimb.proxy.stack.memory import (
    LEAST_POSITIONS,
    MOST_TOKENS,
    READING_SHARE,
    SHARE,
    STATE,
    Room,
    in_rooms,
    kept_of_layer,
    need_of,
    plan,
    plan_reading,
    planned_bytes,
)
from openclimb.proxy.stack.program import Program, Resident
from openclimb.proxy.state import SPEED, Pace

WIDTH, HEADS, ROWS, LENGTH = 64, 4, 4, 32
GPUS = (24, 80, 141)  # GB
PARTITIONED = "aot_eager_decomp_partition"  # decides what is kept as the default backend does, and compiles nothing


def kept_bytes(depth: int, form: Form, low: bool, backend: str) -> int:
    """Return the bytes that autograd keeps of a forward pass, parameters left out."""
    model = StackedDecoder(ProxySettings(width=WIDTH, depth=depth, heads=HEADS, sequence=LENGTH), 61, [0], form)
    forward: Any = torch.compile(model, backend=backend, dynamic=False) if backend else model
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    tokens = torch.randint(0, 61, (1, ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=low),
    ):
        states = forward(tokens)
    assert states.shape == (1, ROWS * LENGTH, WIDTH)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
@pytest.mark.parametrize(
    ("form", "low", "backend"),
    [
        (OURS, True, ""),
        (OURS, False, ""),
        (Form(groups=2, hidden=96), True, ""),
        (OURS, True, PARTITIONED),
        (Form(groups=2, hidden=96), True, PARTITIONED),
    ],
)
def test_the_count_is_what_a_layer_keeps(form: Form, low: bool, backend: str) -> None:
    torch._dynamo.reset()
    layer = (kept_bytes(3, form, low, backend) - kept_bytes(1, form, low, backend)) / 2
    groups, hidden = (form.groups or HEADS) * WIDTH // HEADS, form.hidden or 8 * round(WIDTH / 3)
    size = 2 if low else 4
    scaled = WIDTH * (WIDTH + 2 * groups) + 2 * WIDTH * hidden  # in fp32 autograd keeps these matrices' scaled copies
    copies = 2 * (scaled + WIDTH**2 + WIDTH * hidden) if low else 4 * scaled
    counted = kept_of_layer(WIDTH, WIDTH, groups, hidden, size, bool(backend)) + 4 * HEADS + 8
    assert layer - copies == pytest.approx(counted * ROWS * LENGTH, rel=0.02)


def test_the_state_is_what_the_optimiser_holds() -> None:
    proxy = ProxySettings(width=32, depth=2, heads=4)
    made = Program(StackedDecoder(proxy, 300, [0]), proxy, "cpu", "autograd").optimiser
    held = [*made.flat.values(), *made.gradients, *made.means.values(), *made.squares.values()]
    assert sum(tensor.nbytes for tensor in held) == pytest.approx(STATE * n_parameters(32, 2, 300), rel=0.02)


def planned(size: str, gigabytes: float, wanted: int = 64) -> tuple[Room, float]:
    proxy, vocab_size = ProxySettings(**shape_of(size)), vocabulary_of(size)
    need = need_of(proxy, vocab_size)
    room = plan(need, proxy, vocab_size, gigabytes * 1e9, wanted)
    return room, planned_bytes(need, room, proxy.sequence, vocab_size) / 1e9


@pytest.mark.parametrize("size", [size for size in SHAPES if size != "1B"])
@pytest.mark.parametrize("gigabytes", GPUS)
def test_a_plan_fits_and_fills_a_pass(size: str, gigabytes: float) -> None:
    room, taken = planned(size, gigabytes)
    proxy = ProxySettings(**shape_of(size))
    assert taken <= SHARE * gigabytes
    assert room.rows * proxy.sequence >= min(LEAST_POSITIONS, proxy.batch * proxy.sequence) * (room.stack > 1)
    assert room.stack == 64 or taken > 0.3 * gigabytes  # more would not fit
    n_passes = -(-proxy.batch // room.rows)
    assert n_passes * room.rows - proxy.batch < n_passes  # no pass is nearly empty


@pytest.mark.parametrize(
    ("size", "stacks"),
    [("1M", (64, 64, 64)), ("5M", (32, 64, 64)), ("20M", (8, 32, 64)), ("62M", (4, 16, 16)), ("350M", (1, 2, 4))],
)
def test_stacks_of_pretended_gpus(size: str, stacks: tuple[int, ...]) -> None:
    assert tuple(planned(size, gigabytes)[0].stack for gigabytes in GPUS) == stacks


def test_one_of_the_largest_fits_a_large_gpu_and_not_a_small_one() -> None:
    assert planned("1B", 80)[1] <= SHARE * 80
    room, taken = planned("1B", 24)
    assert (room.stack, room.rows) == (1, 1)  # is tried all the same
    assert taken > SHARE * 24


@pytest.mark.parametrize("size", ["1M", "62M", "1B"])
def test_what_evaluation_reads_at_once_follows_from_memory(size: str) -> None:
    shape = shape_of(size)
    width, longest = shape["width"], 4 * shape["sequence"]
    rooms = [plan_reading(width, width, 8 * width // 3, longest, gigabytes * 1e9) for gigabytes in (0.01, 8, 24, 80)]
    assert rooms[0].tokens == longest  # one row is tried all the same
    assert longest < rooms[1].tokens <= rooms[2].tokens <= rooms[3].tokens <= MOST_TOKENS
    assert rooms[0].logits < rooms[1].logits <= rooms[2].logits
    residual, logits = 8 * width * rooms[1].tokens, 10 * rooms[1].logits
    assert residual + logits <= READING_SHARE * 8e9


def test_a_stack_that_was_asked_for_is_kept_and_its_rows_follow() -> None:
    proxy, vocab_size = ProxySettings(**shape_of("62M")), vocabulary_of("62M")
    need = need_of(proxy, vocab_size)
    rooms = [plan(need, proxy, vocab_size, 80e9, wanted, exact=True) for wanted in (1, 12, 24)]
    assert [room.stack for room in rooms] == [1, 12, 24]
    assert rooms[0].rows > rooms[1].rows > rooms[2].rows


def test_memory_of_the_resident_program_counts_as_free_and_plans_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, sizes = ProxySettings(**shape_of("62M")), {"free": 40 << 30, "reserved": 50 << 30, "allocated": 15 << 30}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (sizes["free"], 100 << 30))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 1.0, raising=False)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: sizes["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: sizes["allocated"])
    resident = Resident()
    first = resident.room(proxy, 50_304, OURS, True, 64)
    assert first == plan(need_of(proxy, 50_304), proxy, 50_304, float(75 << 30), 64)
    sizes["free"] = 1 << 30  # the stack is there now
    assert resident.room(proxy, 50_304, OURS, True, 64) == first
    smaller = first.halved()
    assert smaller
    resident.shrink(proxy, first, smaller)
    assert resident.room(proxy, 50_304, OURS, True, 64) == smaller


def test_a_stack_that_does_not_fit_is_halved_and_goes_on() -> None:
    folders, done, said = [Path(f"{i}") for i in range(7)], [], []

    def run(part: Sequence[Path], room: Room) -> dict[Path, str]:
        if room.stack > (2 if done else 4):
            raise torch.cuda.OutOfMemoryError("out of memory")
        done.append([path.name for path in part])
        return {part[0]: "failed"}

    failed = in_rooms(folders, Room(8, 4, 100), run, lambda before, after: said.append((before.stack, after.stack)))
    assert done == [["0", "1", "2", "3"], ["4", "5"], ["6"]]
    assert list(failed) == [Path("0"), Path("4"), Path("6")]
    assert said == [(8, 4), (4, 2)]


def test_rows_are_halved_where_one_model_does_not_fit_and_then_it_is_an_error() -> None:
    tried = []

    def run(part: Sequence[Path], room: Room) -> dict[Path, str]:
        tried.append((room.stack, room.rows))
        raise torch.cuda.OutOfMemoryError("out of memory")

    with pytest.raises(OpenclimbError, match="does not fit") as caught:
        in_rooms([Path("0")], Room(2, 5, 100), run, lambda before, after: None)
    assert tried == [(2, 5), (1, 5), (1, 3), (1, 2), (1, 1)]
    assert "proxy.size" in caught.value.fix


@pytest.mark.parametrize(("cost", "n_bytes"), [(0.01, 10**6), (3.0, 10**9), (40.0, 12 * 10**9)])
def test_writing_states_takes_two_percent_at_most(cost: float, n_bytes: int) -> None:
    clock = [0.0]
    pace = Pace(n_bytes, 60.0, lambda: clock[0])
    written = []

    def save() -> None:
        clock[0] += cost
        written.append(clock[0])

    while clock[0] < 20_000:
        clock[0] += 1.0  # a step
        if pace.due():
            pace.write(save)
    assert len(written) >= 5
    assert cost * len(written) <= 0.021 * clock[0]
    assert written[0] - cost >= min(60.0, 49 * n_bytes / SPEED)
    assert min(b - a for a, b in zip(written, written[1:], strict=False)) >= 60.0
