"""The gradient written out by hand against autograd: stacks, heads, lengths, blocks of the vocabulary."""

import pytest
import torch
from torch import nn

from openclimb.config.schema import ProxySettings
from openclimb.proxy.cpu import gradient
from openclimb.proxy.cpu.gradient import Gradient, rows_at_once
from openclimb.proxy.model import Form, StackedDecoder
from openclimb.testing.models import drawn_decoder

VOCAB = 61


def made(proxy: ProxySettings, n_models: int, form: Form | None = None) -> tuple[StackedDecoder, torch.Tensor]:
    """Return a stack whose norms weigh other than one, and tokens for it."""
    draw = torch.Generator().manual_seed(7)
    model = drawn_decoder(proxy, VOCAB, range(n_models), form or Form())
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    return model, torch.randint(0, VOCAB, (n_models, proxy.batch, proxy.sequence + 1), generator=draw)


def by_autograd(model: StackedDecoder, tokens: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logits = model.logits(model(tokens[:, :, :-1]))
    targets = tokens[:, :, 1:].reshape(len(tokens), -1)
    losses = torch.stack([nn.functional.cross_entropy(*pair) for pair in zip(logits, targets, strict=True)])
    losses.sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)  # what is left of an earlier step must not stay
    return losses.detach(), found


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize(
    "proxy",
    [
        ProxySettings(width=32, depth=2, heads=4, sequence=16, batch=3),
        ProxySettings(width=24, depth=1, heads=1, sequence=9, batch=1),
        ProxySettings(width=48, depth=3, heads=2, sequence=20, batch=2),
        ProxySettings(width=16, depth=2, heads=2, sequence=100, batch=2),  # attention in two blocks of rows
        ProxySettings(width=16, depth=1, heads=2, sequence=131, batch=2),  # in three, the last one shorter
    ],
)
def test_it_is_autograds(proxy: ProxySettings, n_models: int) -> None:
    model, tokens = made(proxy, n_models)
    losses, expected = by_autograd(model, tokens)
    torch.testing.assert_close(Gradient(model, proxy.batch, proxy.sequence)(tokens), losses, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        error = (parameter.grad - expected[name]).norm() / expected[name].norm()
        assert error < 1e-5, name


def test_blocks_of_the_vocabulary_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "BLOCK", 7 * VOCAB)  # rows that do not divide the positions
    monkeypatch.setattr(gradient, "LEAST_ROWS", 7)
    test_it_is_autograds(ProxySettings(width=32, depth=1, heads=2, sequence=16, batch=3), 1)


def test_heads_of_another_size_and_other_norms() -> None:
    model, tokens = made(ProxySettings(width=32, heads=2, depth=2, sequence=8, batch=2), 1, Form(head=8, epsilon=1e-2))
    losses, expected = by_autograd(model, tokens)
    torch.testing.assert_close(Gradient(model, 2, 8)(tokens), losses, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-6)


def test_the_same_tokens_give_the_same_bits_again() -> None:
    model, tokens = made(ProxySettings(width=32, depth=2, heads=4, sequence=16, batch=3), 1)
    written = Gradient(model, 3, 16)
    first = [written(tokens), *(parameter.grad.clone() for parameter in model.parameters())]
    written(tokens.roll(1, 2))
    again = [written(tokens), *(parameter.grad for parameter in model.parameters())]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


def test_a_token_thought_impossible_has_a_finite_loss() -> None:
    model, tokens = made(ProxySettings(width=32, depth=1, heads=4, sequence=16, batch=1), 1)
    model.final_norm.data.mul_(1e4)
    assert torch.isfinite(Gradient(model, 1, 16)(tokens)).all()


def test_forms_that_are_left_to_autograd() -> None:
    proxy = ProxySettings(width=32, depth=1, heads=4, sequence=16, batch=2)
    assert rows_at_once(drawn_decoder(proxy, VOCAB, [0]), 16)
    for form in (Form(groups=2), Form(tied=False)):
        assert not rows_at_once(drawn_decoder(proxy, VOCAB, [0], form), 16)
    assert not rows_at_once(drawn_decoder(proxy, VOCAB, [0]), 100_000)


@pytest.mark.parametrize("factor", [50.0, -50.0])
def test_exponentials_out_of_range_are_done_again(factor: float) -> None:
    model, tokens = made(ProxySettings(width=32, depth=1, heads=4, sequence=16, batch=2), 1)
    draw = torch.Generator().manual_seed(1)
    # All logits of a position far above or below zero: their differences are what counts.
    model.embedding.data = 0.01 * torch.randn(model.embedding.shape, generator=draw) + 1.0
    model.final_norm.data.fill_(abs(factor))
    for name, parameter in model.layers[0].items():
        if name in ("attention_out", "down"):
            parameter.data *= 0.01  # so that the states keep the sign of the embedding
    model.final_norm.data *= factor / abs(factor)
    losses, expected = by_autograd(model, tokens)
    written = Gradient(model, 2, 16)
    torch.testing.assert_close(written(tokens), losses, rtol=1e-3, atol=0.0)
    assert 1.0 <= written.head.totals.min() <= written.head.totals.max() <= VOCAB  # without the largest
    for name, parameter in model.named_parameters():
        assert (parameter.grad - expected[name]).norm() / expected[name].norm() < 1e-3, name


def test_a_model_out_of_range_does_not_change_its_neighbours_bits() -> None:
    proxy = ProxySettings(width=32, depth=1, heads=4, sequence=16, batch=2)
    found = []
    for factor in (1.0, 1e4):
        model, tokens = made(proxy, 2)
        model.final_norm.data[1] *= factor
        losses = Gradient(model, 2, 16)(tokens)
        found.append([losses, *(parameter.grad for parameter in model.parameters())])
    assert found[0][0][1] != found[1][0][1]
    assert all(torch.equal(one[0], other[0]) for one, other in zip(*found, strict=True))
