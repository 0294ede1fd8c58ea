"""Causal attention and its gradient, written out for `gradient.py`: in blocks of rows, without the keys ahead of them.

With two blocks a quarter of the products is left out, with many nearly half. A block's weights are in the cache while
they are worked on.

Shapes: G heads of all sequences and models, L tokens a sequence, D dimensions a head, C rows a block that see E keys.
"""

import torch
from torch import Tensor

ROWS = 64  # at most, a block: with fewer the products are slow
aten = torch.ops.aten


class Rows:
    """One block of rows: which, and memory that no layer needs after its turn."""

    def __init__(self, begin: int, end: int, mixed_grad: Tensor) -> None:
        n_heads, _, head = mixed_grad.shape
        self.here, self.before = slice(begin, end), slice(0, end)
        self.mask = torch.full((end - begin, end - begin), float("-inf")).triu_(1)
        self.mixed, self.q_grad = (torch.empty(n_heads, end - begin, head) for _ in range(2))
        self.mixed_grad = mixed_grad[:, self.here]
        self.scores = torch.empty(n_heads, end - begin, end)
        self.scores_t = self.scores.mT


def blocks_of(mixed_grad: Tensor) -> list[Rows]:
    """Return blocks of nearly equal size, where the gradient of what attention gives (G, L, D) is in `mixed_grad`."""
    length = mixed_grad.shape[1]
    size = -(-length // -(-length // ROWS))
    return [Rows(begin, min(length, begin + size), mixed_grad) for begin in range(0, length, size)]


class Attention:
    """What one layer keeps of its attention. `parts` (3, G, L, D): queries, keys and values, filled by others."""

    def __init__(self, parts: Tensor, blocks: list[Rows]) -> None:
        queries, keys, values = parts
        self.blocks = []
        for rows in blocks:
            seen = torch.empty_like(rows.scores)  # the weights
            views = queries[:, rows.here], keys[:, rows.before], values[:, rows.before]
            self.blocks.append((rows, *views, seen, seen[:, :, rows.here], seen.mT))

    def forward(self) -> None:
        """Write what each position gets, (G, C, D), into the blocks' `mixed`."""
        for rows, q, k, v, seen, last, _ in self.blocks:
            torch.bmm(q, k.mT, out=seen)
            last.add_(rows.mask)
            torch.softmax(seen, -1, out=seen)
            torch.bmm(seen, v, out=rows.mixed)

    def backward(self, q_grad: Tensor, k_grad: Tensor, v_grad: Tensor) -> None:
        """Turn the gradient in the blocks' `mixed_grad` into that of queries, keys and values, (G, L, D) each."""
        for rows, q, k, v, seen, _, seen_t in reversed(self.blocks):
            scores = torch.bmm(rows.mixed_grad, v.mT, out=rows.scores)
            aten._softmax_backward_data.out(scores, seen, -1, torch.float32, grad_input=scores)
            q_grad[:, rows.here] = torch.bmm(scores, k, out=rows.q_grad)
            if rows.before.stop == k_grad.shape[1]:  # the last block sees all keys
                torch.bmm(rows.scores_t, q, out=k_grad)
                torch.bmm(seen_t, rows.mixed_grad, out=v_grad)
            else:
                k_grad[:, rows.before] += torch.bmm(rows.scores_t, q)
                v_grad[:, rows.before] += torch.bmm(seen_t, rows.mixed_grad)
