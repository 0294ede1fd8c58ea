"""Three ways to the gradient, one result; short batches and short stacks; flat parameters; a program used again."""

import functools
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch._inductor.config as inductor

from openclimb.config.schema import ProxySettings
from openclimb.proxy import optimizer
from openclimb.proxy.cpu import gradient
from openclimb.proxy.model import Form, StackedDecoder
from openclimb.proxy.optimizer import BASE_WIDTH, BETAS, Optimiser
from openclimb.proxy.stack import program
from openclimb.proxy.stack.head import head_block
from openclimb.proxy.stack.memory import Room
from openclimb.proxy.stack.program import Program, Resident, program_for
from openclimb.testing.models import drawn_decoder

PROXY = ProxySettings(width=32, depth=2, heads=4, sequence=16, batch=4, learning_rate=1e-2)
VOCAB = 61


def tokens(n_models: int, batch: int = 4) -> torch.Tensor:
    return torch.randint(0, VOCAB, (n_models, batch, 17), generator=torch.Generator().manual_seed(1))


def gradients(made: Program, batch: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    losses = made.gradient(batch)
    return losses, [parameter.grad.clone() for parameter in made.model.parameters()]


def same(one: tuple[torch.Tensor, list[torch.Tensor]], two: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.testing.assert_close(one[0], two[0], rtol=1e-5, atol=1e-5)
    for a, b in zip(one[1], two[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("batch", [4, 3])
def test_by_hand_and_by_autograd(n_models: int, batch: int) -> None:
    room = Room(n_models, 2, n_models * VOCAB * 10)  # two rows a pass, so a batch takes two
    hand, auto = (
        Program(drawn_decoder(PROXY, VOCAB, range(n_models)), PROXY, "cpu", how, room) for how in ("hand", "autograd")
    )
    same(gradients(hand, tokens(n_models, batch)), gradients(auto, tokens(n_models, batch)))


@pytest.mark.parametrize("n_models", [1, 3])
def test_a_batch_by_hand_takes_several_passes_where_memory_is_little(
    n_models: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, whole = (Program(drawn_decoder(PROXY, VOCAB, range(n_models)), PROXY, "cpu", "hand") for _ in range(2))
    expected = gradients(whole, tokens(n_models, 7))
    of_one = gradient.MOST_KEPT // gradient.rows_at_once(few.model, PROXY.sequence)
    monkeypatch.setattr(gradient, "MOST_KEPT", int(3.5 * of_one))
    same(gradients(few, tokens(n_models, 7)), expected)  # passes of 3, 3 and 1
    assert set(few._written) == {3, 1}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as below
def test_more_shapes_are_compiled_than_torch_allows_by_itself() -> None:
    import torch._dynamo.config as dynamo
    from torch._dynamo.testing import CompileCounter

    with dynamo.patch(recompile_limit=8):
        program._allow_shapes()
        counter = CompileCounter()
        compiled = torch.compile(head_block, backend=counter, dynamic=False)
        for n in range(2, 14):
            compiled(torch.ones(1, n, 4), torch.ones(1, 5, 4), torch.ones(1, n, dtype=torch.long), torch.ones(n))
    assert counter.frame_count == 12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch hides it, but not from "error"
@pytest.mark.parametrize("whole", [0, 8])
def test_compiled_code_is_made_once_and_gives_the_same(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "WHOLE", whole)
    made = Program(drawn_decoder(PROXY, VOCAB, [0, 1]), PROXY, "cpu", "compiled")
    plain = Program(drawn_decoder(PROXY, VOCAB, [0, 1]), PROXY, "cpu", "autograd")
    same(gradients(made, tokens(2)), gradients(plain, tokens(2)))
    with torch.compiler.set_stance("fail_on_recompile"):
        other = drawn_decoder(PROXY, VOCAB, [5, 6])
        made.take(other)
        plain.take(other)
        for batch in (4, 3):  # a short batch is filled up, not compiled again
            made.step(tokens(2, batch), 1e-2)
            plain.step(tokens(2, batch), 1e-2)
    for ours, theirs in zip(made.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_other_forms_train_too() -> None:
    form = Form(groups=2, tied=False)
    model = drawn_decoder(PROXY, VOCAB, [0], form)
    made = program_for(model, PROXY, "cpu")
    assert made.how == "autograd"
    before = made.step(tokens(1), 1e-2)
    for _ in range(20):
        after = made.step(tokens(1), 1e-2)
    assert after < before - 0.5
    assert made.model.output.grad.abs().sum() > 0


def test_a_step_is_that_of_plain_adamw() -> None:
    proxy = replace(PROXY, width=BASE_WIDTH)  # where all parameters have one rate
    made = program_for(drawn_decoder(proxy, VOCAB, [3]), proxy, "cpu")
    plain = drawn_decoder(proxy, VOCAB, [3])
    norms = [parameter for name, parameter in plain.named_parameters() if "norm" in name]
    matrices = [parameter for name, parameter in plain.named_parameters() if "norm" not in name]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=1e-2, betas=BETAS)
    for i in range(5):
        batch = tokens(1).roll(i, 2)
        made.step(batch, 1e-2)
        logits = plain.logits(plain(batch[:, :, :-1]))
        adamw.zero_grad()
        torch.nn.functional.cross_entropy(logits[0], batch[0, :, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        adamw.step()
    for ours, theirs in zip(made.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)  # a step is 1e-2


def test_the_rate_of_embedding_and_norms_follows_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "WEIGHT_DECAY", 0.0)
    model = drawn_decoder(replace(PROXY, width=128), VOCAB, [0])
    optimiser = Optimiser(model, replace(PROXY, width=128))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad.fill_(1e-4)
    optimiser.step(1e-3)  # Adam's first step is its rate, whatever the gradient
    moved = {
        name: float((parameter.detach() - before[name]).abs().max()) for name, parameter in model.named_parameters()
    }
    assert moved["layers.0.qkv"] == pytest.approx(1e-3, rel=1e-3)
    assert moved["embedding"] == pytest.approx(2e-3, rel=1e-3)
    assert moved["final_norm"] == pytest.approx(2e-3, rel=1e-3)


def test_a_program_begins_again_with_other_weights() -> None:
    fresh = program_for(drawn_decoder(PROXY, VOCAB, [1]), PROXY, "cpu")
    used = program_for(drawn_decoder(PROXY, VOCAB, [0]), PROXY, "cpu")
    for _ in range(3):
        used.step(tokens(1), 1e-2)
    used.take(drawn_decoder(PROXY, VOCAB, [1]))
    for _ in range(3):
        fresh.step(tokens(1), 1e-2)
        used.step(tokens(1), 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(fresh.model.parameters(), used.model.parameters(), strict=True))


UNCOMPILABLE = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_code_that_does_not_compile_runs_as_it_is() -> None:
    torch.compiler.reset()  # what another test compiled would be there
    with inductor.patch(UNCOMPILABLE):
        notes: list[str] = []
        resident = Resident()
        room = Room(2, 4, 1 << 20)
        made = resident.program(drawn_decoder(PROXY, VOCAB, [0, 1]), PROXY, "cpu", True, room, notes.append)
        plain = Program(drawn_decoder(PROXY, VOCAB, [0, 1]), PROXY, "cpu", "hand")
        assert made.how == "compiled"
        for _ in range(2):
            same(gradients(made, tokens(2)), gradients(plain, tokens(2)))
        assert made.how == "autograd"
        assert made.room.rows == 3  # it keeps more of a row
        other = resident.program(drawn_decoder(PROXY, VOCAB, [0]), PROXY, "cpu", True, room, notes.append)
        other.step(tokens(1), 1e-2)
    assert other.how == "autograd"
    assert len(notes) == 1
    assert "trains uncompiled" in notes[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_what_is_wrong_with_a_step_is_not_taken_for_code_that_does_not_compile() -> None:
    made = Resident().program(drawn_decoder(PROXY, VOCAB, [0]), PROXY, "cpu", True, Room(1, 4, 1 << 20))
    with inductor.patch(UNCOMPILABLE), pytest.raises(IndexError):
        made.step(tokens(1) + VOCAB, 1e-2)


def test_one_program_stays_and_another_takes_its_place() -> None:
    resident = Resident()
    first = resident.program(drawn_decoder(PROXY, VOCAB, [0]), PROXY, "cpu", False, None)
    assert resident.program(drawn_decoder(PROXY, VOCAB, [7]), PROXY, "cpu", False, None) is first
    assert torch.equal(first.model.embedding, drawn_decoder(PROXY, VOCAB, [7]).embedding)
    gone = weakref.ref(first)
    del first
    second = resident.program(drawn_decoder(PROXY, VOCAB, [0, 1]), PROXY, "cpu", False, None)
    assert gone() is None
    assert second.model.n_models == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch hides it, but not from "error"
@pytest.mark.parametrize(
    "forward",
    [
        lambda model: torch.compile(model, backend="aot_eager", dynamic=False),
        lambda model: functools.partial(model, layer=torch.compile(model.layer, backend="aot_eager", dynamic=False)),
    ],
)
def test_compiled_code_goes_with_its_program(forward: Callable[[StackedDecoder], Callable[..., torch.Tensor]]) -> None:
    made = Program(drawn_decoder(PROXY, VOCAB, [0]), PROXY, "cpu", "autograd")
    made._forward = forward(made.model)
    made.step(tokens(1), 1e-2)
    gone = weakref.ref(made.model)
    del made
    gc.collect()
    assert gone() is None
