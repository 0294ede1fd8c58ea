"""Reads rows with a stack of decoders on a CPU, without gradients: what evaluation runs there.

The same sums as `StackedDecoder.forward` in another order, equal to rounding (tests/proxy/test_forward): queries and
keys are turned by one complex product, attention goes in blocks of rows without the keys ahead of them, and the last
layer asks only for the states that are wanted.

Shapes: M models, B rows of L tokens, N = B × L places, W width, H heads of queries and G of keys and values, D
dimensions a head.
"""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from openclimb.proxy.cpu.attention import ROWS
from openclimb.proxy.cpu.gradient import normalise
from openclimb.proxy.model import StackedDecoder

RAGGED = 0.5  # of all places: where more queries than this are left in the last layer, it takes all of them


class ForwardPass:
    """Call it with tokens and positions (B, L), a mask, and the wanted places (n,): it returns their states (M, n, W).

    The mask (B or 1, L, L) is 0 where a token sees another and −inf where not; no token sees those after it. `places`
    are sorted, among B × L. Weights are as they were when it was made.
    """

    def __init__(self, model: StackedDecoder) -> None:
        self.model = model
        self.heads, self.groups, self.head = model.heads, model.groups, model.head
        self.epsilon = torch.tensor(model.form.epsilon)
        self.turn = torch.complex(cast(Tensor, model.cosines), cast(Tensor, model.sines))
        self.layers = [(cast(nn.ParameterDict, layer), self._by_head(layer)) for layer in model.layers]

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, positions: Tensor, mask: Tensor, places: NDArray[np.int64]) -> Tensor:
        model, m = self.model, self.model.n_models
        offsets = torch.arange(m)[:, None] * model.embedding.shape[1]
        x = nn.functional.embedding(tokens.reshape(1, -1) + offsets, model.embedding.flatten(0, 1))
        turn = self.turn[positions.flatten()]
        for layer, matrix in self.layers[:-1]:
            unit = self._normalised(x)
            qkv = self._projected(unit, matrix)
            x.baddbmm_(self._all_rows(qkv, turn, mask), layer["attention_out"])
            self._feed(x, layer)
        layer, matrix = self.layers[-1]
        wanted, ragged = torch.from_numpy(places), _ragged(places, *tokens.shape)
        unit = self._normalised(x)
        if ragged.size > RAGGED * tokens.numel():
            mixed = self._all_rows(self._projected(unit, matrix), turn, mask)[:, wanted]
        else:
            mixed = self._some_rows(unit, matrix, turn, mask, wanted, torch.from_numpy(ragged))
        x = x[:, wanted].baddbmm_(mixed, layer["attention_out"])
        self._feed(x, layer)
        return self._normalised(x).mul_(model.final_norm)

    def _by_head(self, layer: nn.Module) -> Tensor:
        """Return the matrices of queries, keys and values by head, ((H + 2·G)·M, W, D), with the norm's weight in them.

        What is turned as a pair lies D / 2 apart in the model's, side by side here; a fourth root in queries and in
        keys is attention's 1 / √D.
        """
        p = cast(nn.ParameterDict, layer)
        weighed = p["qkv"].detach() * p["attention_norm"].detach().mT
        each = torch.unflatten(weighed, 2, (-1, self.head)).permute(2, 0, 1, 3)
        turned, values = each[: -self.groups], each[-self.groups :]
        turned = torch.unflatten(turned, 3, (2, -1)).transpose(3, 4).flatten(3) * self.head**-0.25
        return torch.cat([turned, values]).flatten(0, 1)

    def _normalised(self, x: Tensor) -> Tensor:
        unit, inverse = torch.empty_like(x), torch.empty(*x.shape[:2], 1)
        normalise(x, self.epsilon, unit, inverse)
        return unit

    def _projected(self, unit: Tensor, matrix: Tensor) -> Tensor:
        """Return the products of states (M, N, W) with matrices (K·M, W, D), (K·M, N, D)."""
        kinds = len(matrix) // self.model.n_models
        return torch.bmm(unit[None].expand(kinds, -1, -1, -1).flatten(0, 1), matrix)

    def _feed(self, x: Tensor, layer: nn.ParameterDict) -> None:
        """Add the feed-forward part to the residual stream x (M, N, W)."""
        unit = self._normalised(x).mul_(layer["mlp_norm"])
        gate, up = (torch.bmm(unit, half) for half in layer["gate_up"].chunk(2, dim=2))
        x.baddbmm_(nn.functional.silu(gate, inplace=True).mul_(up), layer["down"])

    def _all_rows(self, qkv: Tensor, turn: Tensor, mask: Tensor) -> Tensor:
        """Return what attention gives to every place, (M, N, H·D)."""
        n_q, n_k = self.heads * self.model.n_models, self.groups * self.model.n_models
        _rotate(qkv[: n_q + n_k], turn)
        length = mask.shape[2]
        q, k, v = (part.view(-1, length, self.head) for part in (qkv[:n_q], *self._spread(qkv[n_q:])))
        mixed = torch.empty_like(q)
        n_blocks = -(-length // ROWS)
        size = -(-length // n_blocks)
        for begin in range(0, length, size):
            end = min(length, begin + size)
            scores = torch.bmm(q[:, begin:end], k[:, :end].mT)
            scores.view(n_q, -1, end - begin, end).add_(mask[:, begin:end, :end])
            torch.softmax(scores, -1, out=scores)
            mixed[:, begin:end] = torch.bmm(scores, v[:, :end])
        return self._joined(mixed.view(n_q, -1, self.head))

    def _some_rows(
        self, unit: Tensor, matrix: Tensor, turn: Tensor, mask: Tensor, wanted: Tensor, ragged: Tensor
    ) -> Tensor:
        """Return what attention gives to the wanted places (n,), (M, n, H·D); `ragged` (B, most): the same by row."""
        n_q, n_k = self.heads * self.model.n_models, self.groups * self.model.n_models
        (n_rows, most), length = ragged.shape, mask.shape[2]
        kv = self._projected(unit, matrix[n_q:])
        _rotate(kv[:n_k], turn)
        q = self._projected(unit[:, wanted], matrix[:n_q])
        _rotate(q, turn[wanted])
        k, v = (part.view(-1, length, self.head) for part in self._spread(kv))
        filled = ragged.clamp(min=0)  # what is missing asks in vain
        scores = torch.bmm(q[:, filled].view(-1, most, self.head), k.mT)
        seen = mask.expand(n_rows, -1, -1).flatten(0, 1)[wanted[filled]]
        scores.view(n_q, n_rows, most, length).add_(seen)
        torch.softmax(scores, -1, out=scores)
        mixed = torch.bmm(scores, v).view(n_q, n_rows * most, self.head)
        return self._joined(mixed[:, (ragged >= 0).flatten()])

    def _spread(self, kv: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (H·M, N, D), those of a group once for each of its heads."""
        k, v = torch.unflatten(kv, 0, (2, self.groups, 1, -1)).expand(-1, -1, self.heads // self.groups, -1, -1, -1)
        return k.flatten(0, 2), v.flatten(0, 2)

    def _joined(self, mixed: Tensor) -> Tensor:
        """Return (H·M, n, D) as (M, n, H·D)."""
        return torch.unflatten(mixed, 0, (self.heads, -1)).permute(1, 2, 0, 3).flatten(2)


def _rotate(parts: Tensor, turn: Tensor) -> None:
    """Turn pairs of (K, n, D) in place by complex angles (n, D / 2)."""
    torch.view_as_complex(torch.unflatten(parts, 2, (-1, 2))).mul_(turn)


def _ragged(places: NDArray[np.int64], n_rows: int, length: int) -> NDArray[np.int64]:
    """Return the indices of sorted places by row, (n_rows, most in a row), −1 where a row has fewer."""
    rows = places // length
    counts = np.bincount(rows, minlength=n_rows)
    column = np.arange(len(places)) - (np.cumsum(counts) - counts)[rows]
    found = np.full((n_rows, counts.max()), -1)
    found[rows, column] = np.arange(len(places))
    return found
