"""Items as rows for one forward pass: what the options of an item share is read once, and each option after it.

A row holds a trunk (the tokens that all pairs of the item begin with) and, behind it, a branch for each pair (its
tokens after the trunk, at the positions that they would have if it stood alone). A token sees the trunk and its own
branch, so that every pair is scored as if it were read by itself. Pairs that are too long stand alone and lose the
beginning of their context.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRUNK = 0
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """The inputs of one row, and which states of it predict which tokens of which pairs."""

    tokens: Ints  # (length,)
    positions: Ints  # (length,)
    branches: Ints  # (length,): TRUNK, or 1 + the pair's place in the item
    sources: Ints  # (n_scored,): place in the row of the state that predicts the token
    targets: Ints  # (n_scored,): the token
    pairs: Ints  # (n_scored,): the pair that it belongs to


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right to one length."""

    tokens: Ints  # (n, length)
    positions: Ints  # (n, length)
    branches: NDArray[np.int64]  # (n, length)
    sources: Ints  # (n_scored,): place among the n × length states
    targets: Ints
    pairs: Ints
    branched: bool  # whether any row has branches; without, each token sees those before it


def rows_of(packed: Mapping[str, NDArray[Any]], longest: int) -> list[Row]:
    """Return the rows of packed items; `longest` is the most tokens that a pair may have as input."""
    ends = np.cumsum(packed["lengths"], dtype=np.int64)
    starts = ends - packed["lengths"]
    borders = np.searchsorted(packed["item"], np.arange(len(packed["gold"]) + 1))
    tokens, contexts = packed["tokens"].astype(np.int64), packed["contexts"]
    rows = []
    for first, last in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        spans = [tokens[starts[pair] : ends[pair]] for pair in range(first, last)]
        if last - first > 1 and max(map(len, spans)) <= longest + 1:
            rows.append(_tree(spans, contexts[first:last], first))
        else:
            rows += [_alone(span, int(contexts[first + i]), first + i, longest) for i, span in enumerate(spans)]
    return rows


def batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[Batch]:
    """Yield all rows, near lengths together so that little is padded; each batch has at most so many tokens."""
    for branched in (False, True):
        mine = [row for row in rows if bool(row.branches[-1]) == branched]
        mine.sort(key=lambda row: len(row.tokens))
        begin = 0
        while begin < len(mine):
            n = max(1, batch_tokens // len(mine[begin].tokens))
            while n > 1 and n * len(mine[min(len(mine), begin + n) - 1].tokens) > batch_tokens:
                n = n * 3 // 4
            yield _padded(mine[begin : begin + n], branched)
            begin += n


def _alone(span: Ints, context: int, pair: int, longest: int) -> Row:
    """Return the row of one pair, without the beginning of its context where it is too long."""
    cut = max(0, len(span) - longest - 1)
    kept = span[cut:]
    sources = np.arange(max(0, context - cut - 1), len(kept) - 1)
    n = len(kept) - 1
    return Row(
        kept[:-1],
        np.arange(n),
        np.full(n, TRUNK, dtype=np.int64),
        sources,
        kept[1 + sources],
        np.full(len(sources), pair, dtype=np.int64),
    )


def _tree(spans: Sequence[Ints], contexts: NDArray[Any], first: int) -> Row:
    """Return the row of an item whose pairs share a beginning."""
    trunk = _shared(spans)
    tokens, positions, branches = [spans[0][:trunk]], [np.arange(trunk)], [np.full(trunk, TRUNK)]
    sources, targets, pairs = [], [], []
    end = trunk
    for i, (span, context) in enumerate(zip(spans, contexts.tolist(), strict=True)):
        n = len(span) - 1 - trunk  # the last token is only predicted
        tokens.append(span[trunk:-1])
        positions.append(np.arange(trunk, trunk + n))
        branches.append(np.full(n, 1 + i))
        before = np.arange(context - 1, len(span) - 1)  # places in the pair of the predicting states
        sources.append(np.where(before < trunk, before, before - trunk + end))
        targets.append(span[context:])
        pairs.append(np.full(len(before), first + i))
        end += n
    parts = (tokens, positions, branches, sources, targets, pairs)
    return Row(*(np.concatenate(part) for part in parts))


def _shared(spans: Sequence[Ints]) -> int:
    """Return how many tokens all spans begin with; the last of each does not count, since it is only predicted."""
    least = min(map(len, spans)) - 1
    block = np.stack([span[:least] for span in spans])
    same = (block == block[0]).all(0)
    return least if same.all() else int(same.argmin())


def _padded(rows: Sequence[Row], branched: bool) -> Batch:
    width = max(len(row.tokens) for row in rows)
    tokens, positions, branches = (np.zeros((len(rows), width), dtype=np.int64) for _ in range(3))
    for i, row in enumerate(rows):
        n = len(row.tokens)
        tokens[i, :n], positions[i, :n], branches[i, :n] = row.tokens, row.positions, row.branches
        branches[i, n:] = -1  # padding: seen by nobody, and sees the trunk
    return Batch(
        tokens,
        positions,
        branches,
        np.concatenate([row.sources + i * width for i, row in enumerate(rows)]),
        np.concatenate([row.targets for row in rows]),
        np.concatenate([row.pairs for row in rows]),
        branched,
    )
