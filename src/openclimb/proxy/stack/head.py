"""Softmax cross-entropy over the vocabulary in blocks of rows, with its gradient: logits are never kept.

Shapes: M models, N positions, V entries of the vocabulary, W width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Block = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def head_block(states: Tensor, matrix: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return losses (M,) of states (M, n, W) under weights (n,), and their gradient to the states and the matrix."""
    logits = torch.bmm(states, matrix.mT).float()
    # Written as a softmax, which a compiler knows to do in one reading of the logits.
    top = logits.amax(2, keepdim=True)
    odds = (logits - top).exp()
    total = odds.sum(2, keepdim=True)
    gold = targets[:, :, None]
    losses = ((top + total.log() - logits.gather(2, gold))[:, :, 0] * weights).sum(1)
    chances = odds / total
    # Not scatter_add: a compiler joins this with what is before and after.
    is_gold = torch.arange(matrix.shape[1], device=matrix.device) == gold
    gradient = (torch.where(is_gold, chances - 1.0, chances) * weights[:, None]).to(states.dtype)
    return losses, torch.bmm(gradient, matrix), torch.bmm(gradient.mT, states)


def head_gradient(
    states: Tensor, matrix: Tensor, targets: Tensor, weights: Tensor, most: int, block: Block = head_block
) -> tuple[Tensor, Tensor]:
    """Return losses (M,) of states (M, N, W) and their gradient (M, N, W); add that of the matrix to `matrix.grad`.

    `targets` (M, N), `weights` (N,) of positions. At most `most` logits are in memory at once. Few blocks a model are
    fast, since each reads and writes a matrix (V, W) of sums: so a block has few models before it has few positions.
    On a GPU products are in bf16 and the sum over blocks in fp32.
    """
    m, n, _ = states.shape
    low = torch.bfloat16 if states.is_cuda else states.dtype
    states_low, matrix_low = states.to(low), matrix.detach().to(low)
    losses, to_states = torch.zeros(m, device=states.device), torch.empty_like(states)
    assert matrix.grad is not None
    models, size = block_of(m, n, matrix.shape[1], most)
    for first in range(0, m, models):
        some = slice(first, first + models)
        for begin in range(0, n, size):
            # All blocks have one size, so that one is compiled: the last begins among rows that were done before,
            # which weigh nothing now.
            rows = slice(min(begin, n - size), min(n, begin + size))
            again = begin - rows.start
            share = torch.cat([weights.new_zeros(again), weights[begin : rows.stop]])
            loss, gradient, more = block(states_low[some, rows], matrix_low[some], targets[some, rows], share)
            to_states[some, begin : rows.stop] = gradient[:, again:]
            matrix.grad[some] += more
            losses[some] += loss
    return losses, to_states


def block_of(n_models: int, n_positions: int, vocab_size: int, most: int) -> tuple[int, int]:
    """Return how many models and how many positions of each a block has, for at most `most` logits."""
    fits = max(1, most // (n_positions * vocab_size))
    models = next(k for k in range(min(fits, n_models), 0, -1) if n_models % k == 0)
    size = max(1, min(n_positions, most // (models * vocab_size)))
    return models, -(-n_positions // -(-n_positions // size))
