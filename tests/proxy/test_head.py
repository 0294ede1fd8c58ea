"""The head in blocks gives the plain cross-entropy and its gradient, also in bf16 products."""

import pytest
import torch

from openclimb.proxy.head import head_block, head_gradient

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


@pytest.mark.parametrize("rows", [1, 3, 7, 10, 25, 48, 64])
def test_blocks_have_one_size_and_give_the_same(rows: int) -> None:
    states, matrix, targets, weights = given()
    sizes = []

    def block(*parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sizes.append(parts[0].shape[1])
        return head_block(*parts)

    matrix.grad = torch.ones_like(matrix)  # what an earlier pass left
    losses, to_states = head_gradient(states, matrix, targets, weights, 2 * VOCAB * rows, block)
    expected = plain(states, matrix, targets, weights)
    for found, right in zip((losses, to_states, matrix.grad - 1.0), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
    assert len(set(sizes)) == 1
    assert len(sizes) == -(-48 // min(rows, 48))


def test_products_in_bf16_stay_near_the_plain_loss() -> None:
    states, matrix, targets, weights = given()
    losses, to_states, to_matrix = head_block(states.bfloat16(), matrix.bfloat16(), targets, weights)
    for found, right in zip((losses, to_states, to_matrix), plain(states, matrix, targets, weights), strict=True):
        assert (found.float() - right).norm() <= 1e-2 * right.norm()
    assert losses.dtype == torch.float32
