"""Items as rows for one forward pass: what the options of an item share is read once, and each option after it.

A row holds a trunk (the tokens that all pairs of the item begin with) and, behind it, a branch for each pair (its
tokens after the trunk, at the positions that they would have if it stood alone). A token sees the trunk and its own
branch, so that every pair is scored as if it were read by itself. Pairs that are too long stand alone and lose the
beginning of their context.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRUNK = 0
PADDING = -1
SPREAD = 1.2  # a batch's longest row over its shortest, from which on it is better to begin another …
LEAST_FULL = 0.25  # … unless the batch is smaller than this share of what it may hold
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows one after the other: their inputs, and which states predict which tokens of which pairs."""

    lengths: Ints  # (n_rows,): inputs of each
    tokens: Ints  # (n_tokens,)
    positions: Ints  # (n_tokens,)
    branches: Ints  # (n_tokens,): TRUNK, or 1 + the pair's place in the item
    n_scored: Ints  # (n_rows,): scored tokens of each
    sources: Ints  # (n_scored,): place in its row of the state that predicts the token
    targets: Ints  # (n_scored,): the token
    pairs: Ints  # (n_scored,): the pair that it belongs to


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right to one length."""

    tokens: Ints  # (n, length)
    positions: Ints  # (n, length)
    branches: Ints  # (n, length): padding is PADDING
    sources: Ints  # (n_scored,): place among the n × length states
    targets: Ints
    pairs: Ints
    branched: bool  # whether any row has branches; without, each token sees those before it


def rows_of(packed: Mapping[str, NDArray[Any]], longest: int, widest: int) -> Rows:
    """Return the rows of packed items, at least one; `longest` is the most tokens that a pair may have as input.

    The pairs of an item that would make a row longer than `widest` are read one by one.
    """
    item, lengths = packed["item"], packed["lengths"]
    most = np.zeros(len(packed["gold"]), dtype=np.int64)
    np.maximum.at(most, item, lengths)
    shared = (np.bincount(item) > 1) & (most <= longest + 1)
    rows = _rows(packed, longest, shared)
    if (wide := rows.lengths > widest).any():
        shared[item[rows.pairs[(np.cumsum(rows.n_scored) - rows.n_scored)[wide]]]] = False
        rows = _rows(packed, longest, shared)
    return rows


def _rows(packed: Mapping[str, NDArray[Any]], longest: int, shared: NDArray[np.bool_]) -> Rows:
    """Return the rows; `shared` (n_items,): whether the pairs of an item are read in one."""
    tokens, lengths = packed["tokens"].astype(np.int64), packed["lengths"].astype(np.int64)
    item, contexts, whole = packed["item"], packed["contexts"], np.arange(len(lengths))
    if (lengths - contexts > longest).any():  # from here on a window counts as a pair; `whole` is the pair it is of
        tokens, lengths, contexts, whole = _windows(tokens, lengths, contexts, longest)
        item = item[whole]
    alone = ~shared[item]
    starts = np.cumsum(lengths) - lengths
    begins = alone | (np.diff(item, prepend=-1) > 0)  # the first pair of a row
    row, first = np.cumsum(begins) - 1, np.flatnonzero(begins)
    cut = np.where(alone, np.maximum(0, lengths - longest - 1), 0)

    # From here on one number a token; the last of each pair is only predicted.
    pair = np.repeat(np.arange(len(lengths)), lengths)
    place, its_row, of_first = np.arange(len(tokens)) - starts[pair], row[pair], begins[pair]
    trunk = np.minimum.reduceat(lengths, first) - 1
    twin = starts[first][its_row] + np.minimum(place, trunk[its_row])  # at the same place of the row's first pair
    differs = (place < trunk[its_row]) & (tokens != tokens[twin])
    np.minimum.at(trunk, its_row[differs], place[differs])
    read = (place >= cut[pair]) & (place < lengths[pair] - 1) & (of_first | (place >= trunk[its_row]))
    row_lengths = np.bincount(its_row[read], minlength=len(first))
    slot = np.cumsum(read) - 1 - (np.cumsum(row_lengths) - row_lengths)[its_row]  # place in its row of what is read
    scored = np.flatnonzero(place >= np.maximum(contexts, cut + 1)[pair])
    in_trunk = ~of_first & (place <= trunk[its_row])  # the state that predicts it is read with the first pair
    source = np.where(in_trunk, twin - 1, np.arange(len(tokens)) - 1)[scored]
    return Rows(
        row_lengths,
        tokens[read],
        (place - cut[pair])[read],
        np.where(place < trunk[its_row], TRUNK, 1 + pair - first[its_row])[read],
        np.bincount(its_row[scored], minlength=len(first)),
        slot[source],
        tokens[scored],
        whole[pair[scored]],
    )


def _windows(tokens: Ints, lengths: Ints, contexts: Ints, longest: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Return tokens, lengths, contexts and the pair of each window; a pair that can be read at once is one window.

    Windows are those of lm-evaluation-harness's rolling text: they score `longest` tokens, one after the other, and
    begin with the token before these. The last one scores what is left, after as many tokens as can be read with it.
    """
    n_windows = np.maximum(1, -(-(lengths - contexts) // longest))
    whole = np.repeat(np.arange(len(lengths)), n_windows)
    number = np.arange(len(whole)) - (np.cumsum(n_windows) - n_windows)[whole]
    split, length, context = n_windows[whole] > 1, lengths[whole], contexts[whole]
    ends = np.where(split, np.minimum(context + (number + 1) * longest, length), length)
    begins = np.where(split, ends - longest - 1, 0)
    scored_from = np.where(split, context + number * longest, context)
    sizes = ends - begins
    places = np.repeat((np.cumsum(lengths) - lengths)[whole] + begins - np.cumsum(sizes) + sizes, sizes)
    return tokens[places + np.arange(len(places))], sizes, scored_from - begins, whole


def batches(rows: Rows, batch_tokens: int) -> Iterator[Batch]:
    """Yield all rows, near lengths together so that little is padded; each batch has at most so many tokens."""
    starts = np.cumsum(rows.lengths) - rows.lengths
    has_branches = np.maximum.reduceat(rows.branches, starts) > TRUNK
    for branched in (False, True):
        mine = np.flatnonzero(has_branches == branched)
        mine = mine[np.argsort(rows.lengths[mine], kind="stable")]
        while len(mine):
            lengths = rows.lengths[mine]
            sizes = lengths * np.arange(1, len(mine) + 1)
            fits = (sizes <= batch_tokens) & ((lengths <= SPREAD * lengths[0]) | (sizes <= LEAST_FULL * batch_tokens))
            n = max(1, int(np.argmin(fits)) if not fits.all() else len(mine))
            yield _padded(rows, mine[:n], starts, branched)
            mine = mine[n:]


def _padded(rows: Rows, chosen: Ints, starts: Ints, branched: bool) -> Batch:
    lengths, width = rows.lengths[chosen], int(rows.lengths[chosen].max())
    inside = np.arange(width) < lengths[:, None]
    places = np.where(inside, starts[chosen][:, None] + np.arange(width), 0)
    n_scored, scored_starts = rows.n_scored[chosen], (np.cumsum(rows.n_scored) - rows.n_scored)[chosen]
    in_batch = np.repeat(np.arange(len(chosen)), n_scored)
    scored = np.arange(n_scored.sum()) + (scored_starts - np.cumsum(n_scored) + n_scored)[in_batch]
    return Batch(
        np.where(inside, rows.tokens[places], 0),
        np.where(inside, rows.positions[places], 0),
        np.where(inside, rows.branches[places], PADDING),  # seen by nobody, and sees the trunk
        rows.sources[scored] + in_batch * width,
        rows.targets[scored],
        rows.pairs[scored],
        branched,
    )
