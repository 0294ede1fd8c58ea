"""An n-gram model of any mixture in hundredths of a second: the lowest fidelity of a proxy, which trains nothing.

Counts of a mixture are the domains' counts, each times how often the proxy would read the domain. Smoothing is modified
Kneser-Ney (Chen and Goodman 1999), interpolated. Discounts and continuation counts follow from the expected number of
distinct readings, so that they vary smoothly with the weights and a domain that is read twice is no new evidence.
Reads `tokens/`: the packed domains and the search items of the tasks.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.corpus.packed import read_packed
from openclimb.mixture import Weights
from openclimb.tasks.items import gold_pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_TOKENS = 2_000_000  # of all domains together; of more, the same share of each domain's beginning is counted
UNSEEN = 1e-12  # a history with fewer expected readings was not seen: the shorter one decides


@dataclass(frozen=True)
class Items:
    """The tokens of a task's right answers, each behind those before it."""

    grams: Ints  # (n_scored, order)
    n_bytes: Floats  # (n_items,)


@dataclass(frozen=True)
class Level:
    """The counted grams of one length, and where the scored ones stand among them (−1: nowhere)."""

    history: Ints  # (n_grams,): what a gram has before its last token, by number
    n_histories: int
    at: Ints  # (n_scored,): the gram
    at_history: Ints  # (n_scored,): its history
    discounts: Floats  # (4,): of 0, 1, 2 and more readings

    def discount(self, counts: Floats) -> Floats:
        """Return what is taken from counts, whole or not."""
        return np.interp(counts, np.arange(4.0), self.discounts)

    def interpolate(self, counts: Floats, discounts: Floats, shorter: Floats) -> Floats:
        """Return probabilities (n_scored,): what discounts leave of counts, the rest by those of a shorter history."""
        total = _at(np.bincount(self.history, counts, self.n_histories), self.at_history)
        spare = _at(np.bincount(self.history, discounts, self.n_histories), self.at_history)
        seen = total > UNSEEN
        own = _at(counts - discounts, self.at) + spare * shorter
        return np.where(seen, own / np.where(seen, total, 1.0), shorter)


@dataclass(frozen=True)
class Ngrams:
    """The counted n-grams of a workspace's domains, and what is needed to score the tasks by any mixture of them."""

    tasks: tuple[str, ...]
    domains: tuple[str, ...]
    items: tuple[Items, ...]  # of each task
    vocab_size: int
    readings: Floats  # (n_domains,): how often a proxy reads a domain that has all the weight
    counts: NDArray[np.float32]  # (n_grams, n_domains), of the longest grams
    suffixes: tuple[Ints, ...]  # of each length but the shortest: the gram without its first token, by number
    levels: tuple[Level, ...]  # from the longest grams to single tokens
    scored: Ints  # (n_scored,): each scored gram of all tasks among the distinct ones

    def scores(self, weights: Weights) -> Floats:
        """Return minus the bits per byte of the right answers, (n, n_tasks), for mixtures (n, n_domains)."""
        found = np.empty((len(weights), len(self.items)))
        for i, row in enumerate(weights):
            bits = -np.log2(self._probabilities(row))[self.scored]
            end = 0
            for j, task in enumerate(self.items):
                begin, end = end, end + len(task.grams)
                found[i, j] = -bits[begin:end].sum() / task.n_bytes.sum()
        return found

    def _probabilities(self, weights: Weights) -> Floats:
        """Return the probability (n_distinct,) of each distinct scored gram's last token."""
        readings = weights * self.readings
        seen, read = (self._expected(each) for each in (np.minimum(readings, 1.0), readings))
        longest = self.levels[0]
        # A gram that is read again keeps the share that its distinct readings are discounted by.
        tables = [(longest, read, longest.discount(seen) * read / np.maximum(seen, 1e-300))]
        for level, suffix in zip(self.levels[1:], self.suffixes, strict=True):
            seen = self._behind(suffix, seen, len(level.history))
            tables.append((level, seen, level.discount(seen)))
        chances = np.full(len(longest.at), 1.0 / self.vocab_size)
        for level, counts, discounts in reversed(tables):
            chances = level.interpolate(counts, discounts, chances)
        return chances

    def _expected(self, readings: Floats) -> Floats:
        return (self.counts @ readings.astype(np.float32)).astype(np.float64)

    def _behind(self, suffix: Ints, seen: Floats, n: int) -> Floats:
        """Return behind how many different tokens each of n shorter grams is expected to be seen."""
        return np.bincount(suffix, np.minimum(seen, 1.0), n).astype(np.float64)


def count_ngrams(tokens: Path, token_budget: int, order: int) -> Ngrams:
    """Count the packed domains of a workspace for proxies of that token budget; a gram has `order` ≥ 2 tokens.

    Raises InputError for a domain of which fewer tokens are there than were packed.
    """
    facts = read_packed(tokens)
    size = int(facts["vocab_size"])
    share = min(1.0, MOST_TOKENS / max(1, sum(row["n_read"] for row in facts["domains"])))
    arrays = [
        np.fromfile(tokens / Path(row["file"]).name, facts["dtype"], max(order, round(share * row["n_read"])))
        for row in facts["domains"]
    ]
    tasks = {path.stem: _items(path, order, int(facts["eos"])) for path in sorted((tokens / "tasks").glob("*.npz"))}
    tasks = {name: items for name, items in tasks.items() if len(items.n_bytes)}
    grams = [np.empty((0, order), dtype=np.int64), *(items.grams for items in tasks.values())]
    wanted, scored = np.unique(_keys(np.concatenate(grams), size), return_inverse=True)
    keys, counts = _counted([array.astype(np.int64) for array in arrays], order, size)
    seen: NDArray[Any] = counts.sum(1)
    levels, suffixes = [_level(keys, wanted, size, seen)], []
    for length in range(order - 1, 0, -1):
        shorter, suffix = np.unique(keys % size**length, return_inverse=True)
        seen = np.bincount(suffix, np.minimum(seen, 1.0))
        levels.append(_level(shorter, wanted % size**length, size, seen))
        suffixes.append(suffix)
        keys = shorter
    return Ngrams(
        tuple(tasks),
        tuple(row["name"] for row in facts["domains"]),
        tuple(tasks.values()),
        size,
        share * token_budget / np.array([len(array) for array in arrays], dtype=np.float64),
        counts,
        tuple(suffixes),
        tuple(levels),
        scored,
    )


def _items(path: Path, order: int, end: int) -> Items:
    """Return the scored tokens of a task's search items; before an item stand ends of documents."""
    with np.load(path, allow_pickle=False) as stored:
        names = ("tokens", "lengths", "contexts", "bytes", "chars", "item", "gold")
        packed = gold_pairs({name: stored[f"search/{name}"] for name in names})
    lengths, contexts = packed["lengths"].astype(np.int64), packed["contexts"].astype(np.int64)
    n = lengths - contexts
    item = np.repeat(np.arange(len(n)), n)
    place = np.arange(len(item)) - np.repeat(np.cumsum(n) - n, n) + contexts[item]
    at = (np.cumsum(lengths) - lengths)[item] + place
    tokens = packed["tokens"].astype(np.int64)
    columns = [np.where(place >= back, tokens[np.maximum(at - back, 0)], end) for back in range(order - 1, -1, -1)]
    return Items(np.stack(columns, axis=1), packed["bytes"].astype(np.float64))


def _keys(grams: Ints, size: int) -> Ints:
    """Return one number for each gram (n, order); the last token is its remainder by `size`."""
    powers = size ** np.arange(grams.shape[1] - 1, -1, -1, dtype=np.int64)
    keys: Ints = grams @ powers
    return keys


def _counted(arrays: list[Ints], order: int, size: int) -> tuple[Ints, NDArray[np.float32]]:
    """Return the keys of all domains' grams, sorted, and how often each domain has them, (n_grams, n_domains)."""
    windows = [np.lib.stride_tricks.sliding_window_view(array, order) for array in arrays]
    found = [np.unique(_keys(grams, size), return_counts=True) for grams in windows]
    keys = np.unique(np.concatenate([mine for mine, _ in found]))
    counts = np.zeros((len(keys), len(arrays)), dtype=np.float32)
    for domain, (mine, n) in enumerate(found):
        counts[np.searchsorted(keys, mine), domain] = n
    return keys, counts


def _level(keys: Ints, wanted: Ints, size: int, counts: NDArray[Any]) -> Level:
    histories, history = np.unique(keys // size, return_inverse=True)
    return Level(history, len(histories), _find(keys, wanted), _find(histories, wanted // size), discounts_of(counts))


def _find(keys: Ints, wanted: Ints) -> Ints:
    """Return the places of `wanted` in sorted keys, −1 where they are not there."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


def _at(values: NDArray[Any], places: Ints) -> Floats:
    return np.where(places >= 0, values[places], 0.0)


def discounts_of(counts: NDArray[Any]) -> Floats:
    """Return what is taken from a gram that was read 0, 1, 2 and more times (Chen and Goodman 1999, equation 17)."""
    n1, n2, n3, n4 = (max(1.0, float(np.count_nonzero(counts == n))) for n in (1, 2, 3, 4))
    y = n1 / (n1 + 2.0 * n2)
    raw = np.array([0.0, 1.0 - 2.0 * y * n2 / n1, 2.0 - 3.0 * y * n3 / n2, 3.0 - 4.0 * y * n4 / n3])
    # With few tokens the formula leaves its bounds: something is always taken, never all, and more of a larger count.
    return np.maximum.accumulate(np.clip(raw, [0.0, 0.1, 0.1, 0.1], [0.0, 0.95, 1.9, 2.85]))
