"""Signatures and bands: what is alike has them alike, in any script, however long; what is not has not."""

import numpy as np
import pytest

from openclimb.quality import minhash
from openclimb.quality.minhash import BANDS, LEAST, ROWS, SLOTS, alike, shingles, sign

WORDS = np.array([f"word{i}" for i in range(5000)])
HAN = "人人生而自由在尊严和权利上一律平等他们赋有理性和良心并应以兄弟关系的精神相对待任何人都不得被任意逮捕拘禁或放逐"


def text_of(rng: np.random.Generator, n: int) -> str:
    return " ".join(rng.choice(WORDS, n))


def jaccard(one: str, other: str) -> float:
    hashes, starts = shingles([one, other])
    sets = [set(hashes[a:b].tolist()) for a, b in zip(starts, starts[1:], strict=False)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def pair(rng: np.random.Generator, similarity: float) -> tuple[str, str]:
    """Two texts of about this similarity: they share a middle of n words of 5 shingles each."""
    n = 400
    own = round(n * (1 - similarity) / (1 + similarity))
    shared = text_of(rng, n - own)
    return f"{text_of(rng, own)} {shared}", f"{shared} {text_of(rng, own)}"


def test_agreeing_slots_estimate_the_similarity_and_bands_find_it() -> None:
    rng = np.random.default_rng(0)
    for similarity in (0.3, 0.5, 0.8, 0.95):
        pairs = [pair(rng, similarity) for _ in range(200)]
        true = np.array([jaccard(*some) for some in pairs])
        keys, signatures = sign([text for some in pairs for text in some])
        share = np.mean(signatures[::2] == signatures[1::2], axis=1)
        error = (share - 1 / 256) / (1 - 1 / 256) - true
        assert abs(error.mean()) < 0.01
        assert error.std() < 1.25 * np.sqrt(np.mean(true * (1 - true)) / SLOTS)
        found = (keys[::2] == keys[1::2]).any(axis=1)
        expected = np.mean(1 - (1 - true**ROWS) ** BANDS)
        assert abs(found.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(pairs)) + 0.005


def test_the_bars_of_similarity() -> None:
    """What the module says of its bands and threshold, counted."""
    from scipy.stats import binom

    band = {s: 1 - (1 - s**ROWS) ** BANDS for s in (0.5, 0.7, 0.8)}
    assert band == pytest.approx({0.5: 0.28, 0.7: 0.93, 0.8: 0.998}, abs=0.006)
    agree = {s: binom.sf(LEAST - 1, SLOTS, s + (1 - s) / 256) for s in (0.6, 0.8)}
    assert band[0.8] * agree[0.8] > 0.99
    assert agree[0.6] < 0.015


def test_case_punctuation_and_spaces_do_not_count() -> None:
    one = text_of(np.random.default_rng(1), 60)
    keys, signatures = sign([one, one.upper().replace(" ", ",\n "), text_of(np.random.default_rng(2), 60)])
    assert (keys[0] == keys[1]).all()
    assert (signatures[0] == signatures[1]).all()
    assert not alike(signatures[:1], signatures[2:])
    assert not (keys[0] == keys[2]).any()


def test_short_texts_and_those_without_words() -> None:
    texts = ["One two three", "one, two, THREE!", "one two four", "!!! ???", "!!! ???", "… … …", ""]
    _, starts = shingles(texts)
    assert np.diff(starts).tolist() == [1] * len(texts)
    _, signatures = sign(texts)
    same = [[bool(alike(a[None], b[None])[0]) for b in signatures] for a in signatures]
    assert [row.index(True) for row in same] == [0, 0, 2, 3, 3, 5, 6]


def test_a_script_without_spaces_is_compared_by_its_characters() -> None:
    changed = HAN[:20] + "新" + HAN[21:]
    _, starts = shingles([HAN])
    assert starts[1] == len(HAN) - 4
    _, signatures = sign([HAN * 1, changed, HAN[::-1]])
    assert alike(signatures[:1], signatures[1:2])[0]
    assert not alike(signatures[:1], signatures[2:])[0]


def test_a_long_text_is_signed_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of(np.random.default_rng(3), 4000)
    whole = set(shingles([text])[0].tolist())
    monkeypatch.setattr("openclimb.quality.ngrams.STRETCH", 9000)
    parts = set(shingles(["short one", text])[0].tolist())
    assert len(whole & parts) == len(whole)
    assert len(parts) < len(whole) + 20  # words cut at an edge


def test_the_same_whatever_stands_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    texts = [text_of(rng, n) for n in (3, 40, 7, 300)]
    keys, signatures = sign(texts)
    alone = [sign([text]) for text in texts]
    assert (np.concatenate([key for key, _ in alone]) == keys).all()
    assert (np.concatenate([signature for _, signature in alone]) == signatures).all()


def test_without_rensa_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rensa", None)
    with pytest.raises(minhash.MissingDependency) as error:
        minhash.load_rensa()
    assert "openclimb[dedup]" in error.value.fix
