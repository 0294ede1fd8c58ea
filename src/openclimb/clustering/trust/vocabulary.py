"""Which script a text is written in, and how much of it an embedder's vocabulary knows."""

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.corpus.tokenizer import load_tokenizer

READ = 400  # characters of a text that are looked at
LEAST_LETTERS = 20  # a text with fewer tells nothing
WORD = 3  # letters: shorter words stand in many languages
JOINED = ("CJK", "HIRAGANA", "KATAKANA")  # Japanese is written in all three
UNSPACED = ("HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR")  # words are not parted, or are long
BATCH = 256  # texts tokenised at once


def script_of(text: str) -> str:
    """Return the script of most letters at a text's beginning ("Latin", "Cyrillic", "CJK", …); "" for too few letters.

    It is the first word of their names in Unicode. Japanese counts as CJK.
    """
    letters = Counter(_script(character) for character in text[:READ] if _is_letter(character))
    if letters.total() < LEAST_LETTERS:
        return ""
    for part in JOINED[1:]:
        letters[JOINED[0]] += letters.pop(part, 0)
    name, _ = letters.most_common(1)[0]
    return name if name in JOINED else name.capitalize()


def known_share(texts: Sequence[str], path: Path) -> NDArray[np.float64]:
    """Return for each text (n,) the share of its letters in words that a tokenizer.json knows; NaN for too few letters.

    Known is a word of three letters or more that is one entry, an ideograph that is one, and two letters or more of one
    entry in scripts that do not part words. Spelling a word by its letters is not to know it.
    """
    tokenizer = load_tokenizer(path)
    unknown = _unknown(path, tokenizer)
    found = np.empty(len(texts))
    for begin in range(0, len(texts), BATCH):
        some = [text[:READ] for text in texts[begin : begin + BATCH]]
        for i, encoded in enumerate(tokenizer.encode_batch(some, add_special_tokens=False)):
            found[begin + i] = _known(some[i], encoded.ids, encoded.offsets, unknown)
    return found


def _unknown(path: Path, tokenizer: Any) -> int | None:
    """Return the id of the entry for what is not known; None where a tokenizer has none."""
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    found: int | None = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return found


def _known(text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]], unknown: int | None) -> float:
    n_letters = _countable(text)
    if n_letters < LEAST_LETTERS:
        return float("nan")
    known = 0
    starts = Counter(begin for begin, _ in spans)  # several entries with one start spell one character
    for entry, (begin, end) in zip(ids, spans, strict=True):
        if entry == unknown or starts[begin] > 1:
            continue
        piece = text[begin:end].strip()
        if piece and all(map(_is_letter, piece)):
            known += _counts(text, piece, begin + text[begin:end].index(piece))
    return min(1.0, known / n_letters)


def _counts(text: str, piece: str, begin: int) -> int:
    """Return how many known letters a piece of a text is, which begins there."""
    script, end = _script(piece[0]), begin + len(piece)
    if script == JOINED[0]:
        return len(piece)
    if script in UNSPACED:
        return len(piece) if len(piece) > 1 else 0
    parted = not any(map(_is_letter, text[max(0, begin - 1) : begin] + text[end : end + 1]))
    return len(piece) if parted and len(piece) >= WORD else 0


def _countable(text: str) -> int:
    """Return the letters of a text in words of `WORD` letters or more, and those of scripts that do not part words."""
    runs = "".join(character if _is_letter(character) else " " for character in text).split()
    return sum(len(run) for run in runs if len(run) >= WORD or _script(run[0]) in (*JOINED, *UNSPACED))


@lru_cache(maxsize=100_000)
def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"  # vowels of many scripts are marks


@lru_cache(maxsize=100_000)
def _script(character: str) -> str:
    return unicodedata.name(character, "").partition(" ")[0]
