"""Rule signals of a document: what the Gopher, C4 and FineWeb filters look at, and the share of their rules it keeps.

Sources: Gopher = Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1; C4 = Raffel et al. 2020 (1910.10683), section 2.2;
FineWeb = Penedo et al. 2024 (2406.17557), section 3.6. The rules were made for English web pages. Repeated n-grams are
counted in words, not characters. Arrays cover a whole batch, because a loop over words would cost more than embedding.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Signals = dict[str, NDArray[np.float64]]  # name → one number a document, shape (n,)

MOST_CHARS = 20_000  # of a document that are looked at, from its start
BATCH_CHARS = 400_000
BATCH = 128  # documents measured at once: about what one core's cache holds
ALIKE = (("…", "..."), ("”", '"'), ("’", "'"), ("•", "*"))  # so that one byte tells how a line begins and ends


@dataclass(frozen=True)
class Rule:
    """A signal and the range that the rule's source allows (both ends included)."""

    signal: str
    low: float
    high: float
    source: str
    meaning: str


RULES = (
    Rule("words", 50, 100_000, "Gopher", "number of words"),
    Rule("word_length", 3, 10, "Gopher", "mean characters of a word"),
    Rule("symbols", 0, 0.1, "Gopher", "hash signs and ellipses, for each word"),
    Rule("bullet_lines", 0, 0.9, "Gopher", "share of the lines that begin with a bullet"),
    Rule("ellipsis_lines", 0, 0.3, "Gopher", "share of the lines that end with an ellipsis"),
    Rule("letter_words", 0.8, 1, "Gopher", "share of the words with a letter in them"),
    Rule("stop_words", 2, 8, "Gopher", "how many of eight English stop words occur"),
    Rule("repeated_lines", 0, 0.3, "Gopher", "share of the lines that stood there before"),
    Rule("repeated_line_bytes", 0, 0.1, "FineWeb", "share of the bytes in such lines (Gopher: 0.2)"),
    Rule("top_2_gram", 0, 0.2, "Gopher", "share of the words in the most frequent pair of words"),
    Rule("top_3_gram", 0, 0.18, "Gopher", "the same of three words"),
    Rule("top_4_gram", 0, 0.16, "Gopher", "the same of four words"),
    Rule("repeated_5_grams", 0, 0.15, "Gopher", "share of the runs of five words that stood there before"),
    Rule("repeated_10_grams", 0, 0.1, "Gopher", "the same of ten words"),
    Rule("sentences", 3, np.inf, "C4", "sentence ends: . ! or ? before white space"),
    Rule("braces", 0, 0, "C4", "curly brackets: programs, not prose"),
    Rule("placeholders", 0, 0, "C4", 'times "lorem ipsum" occurs'),
    Rule("ended_lines", 0.12, 1, "FineWeb", "share of the lines that end with punctuation"),
    Rule("short_lines", 0, 0.67, "FineWeb", "share of the lines under 30 bytes"),
    Rule("digits", 0, 0.2, "ours", "digits, for each byte"),
)


def rules_kept(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return for each text the share of `RULES` it keeps, 0 to 1, shape (n,)."""
    return np.concatenate([_kept(batch) for batch in _batches(texts)]) if len(texts) else np.empty(0)


def _kept(texts: Sequence[str]) -> NDArray[np.float64]:
    found = measure(texts)
    kept = [(found[rule.signal] >= rule.low) & (found[rule.signal] <= rule.high) for rule in RULES]
    return np.mean(kept, axis=0)


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield texts, at most `BATCH` and about `BATCH_CHARS` at a time: arrays over their bytes are many."""
    begin = n_chars = 0
    for i, text in enumerate(texts):
        n_chars += min(len(text), MOST_CHARS)
        if i + 1 - begin == BATCH or n_chars >= BATCH_CHARS:
            yield texts[begin : i + 1]
            begin, n_chars = i + 1, 0
    if begin < len(texts):
        yield texts[begin:]


def measure(texts: Sequence[str]) -> Signals:
    """Return every signal of `RULES` for each of at most `BATCH` texts, from its first `MOST_CHARS` characters."""
    lower = [_plain(text[:MOST_CHARS].lower()) for text in texts]
    if not lower:
        return {rule.signal: np.empty(0) for rule in RULES}
    batch = _batch(lower)
    n_words = np.bincount(batch.word_owner, minlength=len(lower)).astype(np.float64)
    return {
        "braces": _counts(text.count("{") + text.count("}") for text in lower),
        "placeholders": _counts(text.count("lorem ipsum") for text in lower),
        "symbols": _share(_counts(text.count("#") + text.count("...") for text in lower), n_words),
        **_word_signals(batch, n_words, _counts(map(len, lower))),
        **_ngram_signals(batch, n_words),
        **_line_signals(batch, lower),
    }


@dataclass(frozen=True)
class _Batch:
    """Texts as one array of bytes. Each ends with a newline, so that no word or line crosses it."""

    data: NDArray[np.uint8]
    begin: NDArray[np.int64]  # of each text
    n_bytes: NDArray[np.int64]  # of each text, with its newline
    word_begin: NDArray[np.int64]
    word_end: NDArray[np.int64]
    word_owner: NDArray[np.int64]  # the text that each word is in
    word_key: NDArray[np.uint64]  # equal for equal words


def _batch(texts: Sequence[str]) -> _Batch:
    encoded = [text.encode("utf-8", "replace") for text in texts]
    n_bytes = np.fromiter(map(len, encoded), dtype=np.int64) + 1
    margin = b" " * 8  # before the first word and behind the last: `_word_keys` reads eight bytes at once
    data = np.frombuffer(margin + b"\n".join(encoded) + b"\n" + margin, dtype=np.uint8)
    begin = np.cumsum(n_bytes) - n_bytes + len(margin)
    space = data <= ord(" ")
    edge = np.flatnonzero(space[1:] != space[:-1]) + 1
    word_begin, word_end = edge[::2], edge[1::2]
    owner = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(word_begin, begin), append=len(word_begin)))
    return _Batch(data, begin, n_bytes, word_begin, word_end, owner, _word_keys(data, word_begin, word_end))


def _word_keys(
    data: NDArray[np.uint8], word_begin: NDArray[np.int64], word_end: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return a number for each word from its length, first eight and last eight bytes."""
    eight = np.ndarray(
        (len(data) - 7,), dtype="<u8", buffer=data.data, strides=(1,)
    )  # at every byte, the eight from it
    length = word_end - word_begin
    unused = (8 * (8 - np.minimum(length, 8))).astype(np.uint64)
    first = eight[word_begin] << unused
    last = eight[word_end - 8] >> unused
    return np.asarray((first * FACTOR ^ last) * FACTOR + length.astype(np.uint64), dtype=np.uint64)


def _word_signals(batch: _Batch, n_words: NDArray[np.float64], n_chars: NDArray[np.float64]) -> Signals:
    n = len(n_words)
    length = (batch.word_end - batch.word_begin).astype(np.float64)
    in_words = np.bincount(batch.word_owner, weights=length, minlength=n)
    beyond = batch.n_bytes - 1 - n_chars  # bytes of characters beyond ASCII, but the first of each
    owner = batch.word_owner
    letters = np.maximum.reduceat(LETTER[batch.data], batch.word_begin) if len(owner) else np.empty(0, np.uint8)
    digits = np.flatnonzero(batch.data - np.uint8(ord("0")) < 10)  # wraps round below "0"
    ends = SENTENCE_END[batch.data[batch.word_end - 1]]
    stops = [np.bincount(owner[batch.word_key == key], minlength=n) > 0 for key in STOP_KEYS]
    return {
        "words": n_words,
        "word_length": _share(in_words - beyond, n_words),
        "letter_words": _share(np.bincount(owner, weights=letters, minlength=n), n_words),
        "sentences": np.bincount(owner, weights=ends, minlength=n).astype(np.float64),
        "stop_words": np.sum(stops, axis=0, dtype=np.float64),
        "digits": np.bincount(np.searchsorted(batch.begin, digits, side="right") - 1, minlength=n) / batch.n_bytes,
    }


def _ngram_signals(batch: _Batch, n_words: NDArray[np.float64]) -> Signals:
    n = len(n_words)
    document = batch.word_owner.astype(np.uint64) << np.uint64(48)
    runs = {1: batch.word_key}
    found: Signals = {}
    for length, before, last in ((2, 1, 1), (3, 2, 1), (4, 3, 1), (5, 4, 1), (10, 5, 5)):
        # The key of a run of words from those of its two parts; the factor keeps their order.
        key = runs[length] = runs[before][:-last] * FACTOR + runs[last][before:]
        inside = document[: len(key)] == document[length - 1 :]
        owner, times = _repeats((document[: len(key)] | (key * FACTOR >> np.uint64(16)))[inside])
        if length <= 4:
            most = np.ones(n)
            np.maximum.at(most, owner, times)
            found[f"top_{length}_gram"] = _share(np.where(most > 1, most, 0) * length, n_words)
        else:
            repeated = np.bincount(owner, weights=times - 1, minlength=n)
            found[f"repeated_{length}_grams"] = _share(repeated, n_words - length + 1)
    return found


def _repeats(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return for each key that occurs more than once the document in its first 16 bits, and how often it occurs.

    The other 48 bits tell the run of words: chance makes two of a document's runs alike once in a billion documents.
    """
    keys = np.sort(keys)
    edge = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
    times = np.diff(edge)
    repeated = times > 1
    return (keys[edge[:-1][repeated]] >> np.uint64(48)).astype(np.int64), times[repeated].astype(np.float64)


def _line_signals(batch: _Batch, texts: Sequence[str]) -> Signals:
    n = len(texts)
    data = batch.data
    line_end = np.flatnonzero(data == ord("\n"))
    first = np.searchsorted(batch.word_begin, np.concatenate([[0], line_end[:-1] + 1]))
    last = np.searchsorted(batch.word_end, line_end, side="right") - 1
    full = last >= first  # lines that are not blank
    lines = chain.from_iterable(text.split("\n") for text in texts)
    hashes = np.fromiter(map(hash, lines), dtype=np.int64)[full]
    start, end = batch.word_begin[first[full]], batch.word_end[last[full]]
    owner = np.searchsorted(batch.begin, start, side="right") - 1
    n_lines = np.bincount(owner, minlength=n).astype(np.float64)
    length = end - start

    order = np.lexsort((start, hashes, owner))
    again = np.zeros(len(order))
    again[order[1:]] = (hashes[order[1:]] == hashes[order[:-1]]) & (owner[order[1:]] == owner[order[:-1]])
    dots = (data[end - 1] == ord(".")) & (data[end - 2] == ord(".")) & (data[end - 3] == ord(".")) & (length >= 3)

    def share(of_lines: NDArray[Any]) -> NDArray[np.float64]:
        return _share(np.bincount(owner, weights=of_lines, minlength=n), n_lines)

    return {
        "bullet_lines": share(BULLET[data[start]]),
        "ellipsis_lines": share(dots),
        "ended_lines": share(LINE_END[data[end - 1]]),
        "short_lines": share(length < 30),
        "repeated_lines": share(again),
        "repeated_line_bytes": _share(
            np.bincount(owner, weights=again * length, minlength=n), np.bincount(owner, weights=length, minlength=n)
        ),
    }


def _plain(text: str) -> str:
    if not text.isascii():
        for mark, plain in ALIKE:
            text = text.replace(mark, plain)
    return text


def _counts(values: Iterable[int]) -> NDArray[np.float64]:
    return np.fromiter(values, dtype=np.float64)


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(part / np.maximum(whole, 1), dtype=np.float64)


def _table(characters: str) -> NDArray[np.uint8]:
    return np.isin(np.arange(256), np.frombuffer(characters.encode("ascii"), dtype=np.uint8)).astype(np.uint8)


FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, of mixed bits (2^64 over the golden ratio): products spread
BULLET = _table("*-")
SENTENCE_END = _table(".!?")
LINE_END = _table(".!?\"':;,)")
# Every byte of a character beyond ASCII counts as a letter. Texts are in lower case here.
LETTER = _table("abcdefghijklmnopqrstuvwxyz") | (np.arange(256) >= 128).astype(np.uint8)
STOP_KEYS = _batch(["the be to of and that have with"]).word_key  # Gopher's eight
