"""The head in blocks gives the plain cross-entropy and its gradient, also in bf16 products."""

import numpy as np
import pytest
import torch

from openclimb.proxy.stack.head import block_of, head_block, head_gradient

VOCAB = 61


def given(seed: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    states, matrix = torch.randn(2, 48, 8, generator=draw), torch.randn(2, VOCAB, 8, generator=draw)
    targets, weights = torch.randint(0, VOCAB, (2, 48), generator=draw), torch.rand(48, generator=draw)
    return states, matrix, targets, weights


def plain(
    states: torch.Tensor, matrix: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    states, matrix = states.clone().requires_grad_(), matrix.clone().requires_grad_()
    each = torch.nn.functional.cross_entropy((states @ matrix.mT).flatten(0, 1), targets.flatten(), reduction="none")
    losses = (each.view(2, -1) * weights).sum(1)
    return (losses.detach(), *torch.autograd.grad(losses.sum(), [states, matrix]))


@pytest.mark.parametrize("rows", [1, 3, 7, 10, 25, 48, 64, 96, 200])
def test_blocks_have_one_size_and_give_the_same(rows: int) -> None:
    states, matrix, targets, weights = given()
    shapes = []

    def block(*parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shapes.append(parts[0].shape[:2])
        return head_block(*parts)

    matrix.grad = torch.ones_like(matrix)  # what an earlier pass left
    losses, to_states = head_gradient(states, matrix, targets, weights, VOCAB * rows, block)
    expected = plain(states, matrix, targets, weights)
    for found, right in zip((losses, to_states, matrix.grad - 1.0), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
    assert len(set(shapes)) == 1
    assert int(np.prod(shapes[0])) * VOCAB <= VOCAB * rows
    assert len(shapes) == (1 if rows >= 96 else 2 * -(-48 // min(rows, 48)))


@pytest.mark.parametrize(
    ("models", "positions", "vocab", "block"),
    [
        (16, 8192, 50_304, (1, 8192)),  # a stack of 62M: each matrix of sums is written once
        (64, 4096, 8192, (16, 4096)),
        (1, 131_072, 50_304, (1, 10_083)),
        (6, 100, 10, (6, 100)),
        (6, 1 << 20, 200, (2, 1 << 20)),
    ],
)
def test_a_block_has_few_models_before_it_has_few_positions(
    models: int, positions: int, vocab: int, block: tuple[int, int]
) -> None:
    assert block_of(models, positions, vocab, 1 << 29) == block


def test_products_in_bf16_stay_near_the_plain_loss() -> None:
    states, matrix, targets, weights = given()
    losses, to_states, to_matrix = head_block(states.bfloat16(), matrix.bfloat16(), targets, weights)
    for found, right in zip((losses, to_states, to_matrix), plain(states, matrix, targets, weights), strict=True):
        assert (found.float() - right).norm() <= 1e-2 * right.norm()
    assert losses.dtype == torch.float32
