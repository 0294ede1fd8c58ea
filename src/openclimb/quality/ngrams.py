"""Runs of words that documents share with the items of tasks, found by 64-bit hashes.

A text is brought to NFKC and lower case; its words are what letters, digits and marks stand between everything else.
A character of a script that puts no space between words is a word. An item is known by every run of 13 words
(Brown et al. 2020, arXiv 2005.14165, appendix C), a shorter one by its whole text. Hashes are polynomials modulo 2^64,
so that any run is the difference of two sums, and are the same on every machine.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openclimb.workspace.files import atomic

N_WORDS = 13  # of a run
LEAST_WORDS = 8  # of an item that is looked for: shorter ones are met by chance (bench/contamination.py)
MOST_ITEMS = 10  # that share a run; one of more is the task's own wording ("which of the following …")
STRETCH = 200_000  # characters worked on at once: their arrays fit a core's cache
OVERLAP = 2000  # characters of a long text that two stretches share: more than a run has
FILTER_SHARE = 48  # bits of the filter a run, at least: it lets one in 48 runs through that are of no item
BASE = np.uint64(0x9E3779B97F4A7C15)
MIX = np.uint64(0xBF58476D1CE4E5B9)
CODES = 0x40000  # code points with a kind of their own; those behind part words
ALONE = (  # a character is a word
    (0x0E00, 0x0F00),  # Thai, Lao
    (0x1000, 0x10A0),  # Myanmar
    (0x1780, 0x1800),  # Khmer
    (0x3040, 0x3100),  # kana
    (0x3400, 0xA000),  # Han
    (0xF900, 0xFB00),
    (0x20000, CODES),
)

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Runs:
    """The words of some texts: the text of each, and sums by which any run of them is hashed."""

    owner: NDArray[np.int64]  # (n,)
    sums: Hashes  # (n + 1,)

    def hashes(self, begin: NDArray[np.int64], length: int) -> Hashes:
        """Return the hash of the run of `length` words that begins at each of these words."""
        n = len(self.owner)
        return _spread((self.sums[begin + length] - self.sums[begin]) * _powers(n)[1][begin])

    def begins(self, length: int) -> NDArray[np.bool_]:
        """Return whether a run of `length` words begins at each of the first n − length + 1 words: in one text."""
        return self.owner[: len(self.owner) - length + 1] == self.owner[length - 1 :]


def words_of(texts: Sequence[str]) -> Runs:
    """Return the words of the texts. "question" and "answer" are none: some who copy an item write them, some not."""
    hashes, owner = _words(texts)
    kept = (hashes != _labels()[0]) & (hashes != _labels()[1])
    hashes, owner = hashes[kept], owner[kept]
    sums = np.zeros(len(hashes) + 1, dtype=np.uint64)
    np.cumsum(hashes * _powers(len(hashes))[0], out=sums[1:])
    return Runs(owner, sums)


@cache
def _labels() -> Hashes:
    return _words(["question answer"])[0]


def _words(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the hash of each word, and the text that it is in."""
    plain = [text if text.isascii() else unicodedata.normalize("NFKC", text) for text in texts]
    plain = [text.lower() for text in plain]  # one by one: a text may grow
    codes = np.frombuffer("\n".join([*plain, ""]).encode("utf-32-le", "replace"), dtype=np.uint32)
    kind = _kinds().take(codes, mode="clip")
    edge = np.concatenate([[True], (kind[1:] != kind[:-1]) | (kind[1:] == 2)])
    begin = np.flatnonzero(edge)
    end = np.append(begin[1:], len(codes))
    some = kind[begin] > 0
    begin, end = begin[some], end[some]
    ends_of_texts = np.cumsum(np.fromiter(map(len, plain), dtype=np.int64, count=len(plain)) + 1)
    owner = np.searchsorted(ends_of_texts, begin, side="right")
    powers, inverses = _powers(len(codes))
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(codes.astype(np.uint64) * powers, out=sums[1:])
    return _spread((sums[end] - sums[begin]) * inverses[begin]), owner


def _spread(hashes: Hashes) -> Hashes:
    hashes = (hashes ^ (hashes >> np.uint64(32))) * MIX
    return np.asarray(hashes ^ (hashes >> np.uint64(29)), dtype=np.uint64)


@cache
def _kinds() -> NDArray[np.uint8]:
    """Return for each code point 0 where it parts words, 1 where it is of a word, 2 where it is a word."""
    kinds = np.array([unicodedata.category(chr(code))[0] in "LMN" for code in range(CODES)], dtype=np.uint8)
    for low, high in ALONE:
        kinds[low:high] *= 2
    return np.append(kinds, np.uint8(0))


def _powers(n: int) -> tuple[Hashes, Hashes]:
    """Return BASE to the powers 0…n − 1, and their inverses modulo 2^64."""
    powers, inverses = _powers_to(1 << max(10, n.bit_length()))
    return powers[:n], inverses[:n]


@cache
def _powers_to(size: int) -> tuple[Hashes, Hashes]:
    inverse = np.uint64(pow(int(BASE), -1, 1 << 64))
    steps = np.array([[BASE], [inverse]]).repeat(size, axis=1)
    steps[:, 0] = 1
    powers, inverses = np.multiply.accumulate(steps, axis=1)
    return powers, inverses


@dataclass(frozen=True)
class Index:
    """The runs of items: their hashes, and for each the items that have it, by their place in the list given."""

    hashes: Hashes  # (n,), sorted
    starts: NDArray[np.int64]  # (n + 1,) of the items of each run
    items: NDArray[np.int64]
    lengths: NDArray[np.int32]  # of runs: N_WORDS, and those of short items
    n_runs: NDArray[np.int32]  # (n_items,) of each item; 0: too short, or all of it is its task's wording
    filter: NDArray[np.uint8]  # bits: the first LEAST_WORDS words of a run have this hash

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Index":
        """Return the index of items by their texts."""
        found: list[tuple[Hashes, NDArray[np.int64]]] = []
        heads: list[Hashes] = []
        lengths = {N_WORDS}
        for first, part in stretches(texts):
            runs = words_of(part)
            n = np.bincount(runs.owner, minlength=len(part))
            start = np.cumsum(n) - n
            long = np.flatnonzero(runs.begins(N_WORDS)) if len(runs.owner) >= N_WORDS else np.empty(0, np.int64)
            found.append((runs.hashes(long, N_WORDS), first[runs.owner[long]]))
            heads.append(runs.hashes(long, LEAST_WORDS))
            for length in range(LEAST_WORDS, N_WORDS):
                short = np.flatnonzero(n == length)
                if len(short):
                    lengths.add(length)
                    found.append((runs.hashes(start[short], length), first[short]))
                    heads.append(runs.hashes(start[short], LEAST_WORDS))
        keys, items = (np.concatenate(columns) for columns in zip(*found, strict=True))
        return cls._sorted(keys, items, np.concatenate(heads), sorted(lengths), len(texts))

    @classmethod
    def _sorted(
        cls, keys: Hashes, items: NDArray[np.int64], heads: Hashes, lengths: Sequence[int], n_items: int
    ) -> "Index":
        order = np.lexsort((items, keys))
        keys, items = keys[order], items[order]
        first = np.append(True, (keys[1:] != keys[:-1]) | (items[1:] != items[:-1]))[: len(keys)]
        hashes, place, counts = np.unique(keys[first], return_inverse=True, return_counts=True)
        own = counts <= MOST_ITEMS
        items = items[first][own[place]]
        bits = np.zeros(1 << max(10, (FILTER_SHARE * len(heads)).bit_length() - 3), dtype=np.uint8)
        np.bitwise_or.at(bits, *_bit(heads, bits))
        return cls(
            hashes[own],
            np.append(0, np.cumsum(counts[own])),
            items,
            np.array(lengths, dtype=np.int32),
            np.bincount(items, minlength=n_items).astype(np.int32),
            bits,
        )

    def find(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (text, run) of every run of the index that a text holds, each pair once, in order."""
        pairs = [np.empty((0, 2), dtype=np.int64)]
        for first, part in stretches(texts):
            runs = words_of(part)
            if len(runs.owner) < LEAST_WORDS or not len(self.hashes):
                continue
            begin = np.arange(len(runs.owner) - LEAST_WORDS + 1)
            place, bit = _bit(runs.hashes(begin, LEAST_WORDS), self.filter)
            begin = np.flatnonzero((self.filter[place] & bit) != 0)
            for length in self.lengths.tolist():
                inside = begin[begin + length <= len(runs.owner)]
                inside = inside[runs.owner[inside] == runs.owner[inside + length - 1]]
                hashes = runs.hashes(inside, length)
                at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
                there = self.hashes[at] == hashes
                pairs.append(np.stack([first[runs.owner[inside[there]]], at[there]], axis=1))
        found = np.unique(np.concatenate(pairs), axis=0)
        return found[:, 0], found[:, 1]

    def items_of(self, runs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (place in `runs`, item) of every item that has one of these runs."""
        n = self.starts[runs + 1] - self.starts[runs]
        place = np.repeat(np.arange(len(runs)), n)
        within = np.arange(len(place)) - np.repeat(np.cumsum(n) - n, n)
        return place, self.items[self.starts[runs][place] + within]

    def save(self, path: Path) -> None:
        """Write the index to a file, whole or not at all."""
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Return an index that was saved."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{name: stored[name] for name in stored.files})


def _bit(hashes: Hashes, bits: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the place of each hash in a filter: byte and bit."""
    place = (hashes >> np.uint64(32)) & np.uint64(8 * len(bits) - 1)
    return (place >> np.uint64(3)).astype(np.int64), _BITS[place & np.uint64(7)]


_BITS = (1 << np.arange(8)).astype(np.uint8)


def stretches(texts: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], list[str]]]:
    """Yield (numbers of the texts, texts) of about STRETCH characters; a longer text comes in parts that overlap."""
    numbers: list[int] = []
    part: list[str] = []
    n_chars = 0
    for number, text in enumerate(texts):
        for begin in range(0, max(1, len(text) - OVERLAP), STRETCH):
            numbers.append(number)
            part.append(text[begin : begin + STRETCH + OVERLAP])
            n_chars += len(part[-1])
            if n_chars >= STRETCH:
                yield np.array(numbers, dtype=np.int64), part
                numbers, part, n_chars = [], [], 0
    if part:
        yield np.array(numbers, dtype=np.int64), part
