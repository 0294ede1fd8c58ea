"""Runs of words: the index finds what a plain search finds, whatever the form of the text."""

import random
import re

import numpy as np
import pytest

from openclimb.quality import ngrams
from openclimb.quality.ngrams import LEAST_WORDS, MOST_ITEMS, N_WORDS, OVERLAP, Index, words_of

ITEM = "The heron stood at the edge of the reeds, and waited there; until the very last light had gone."
OTHER = "Our ferry leaves the northern harbour shortly after noon and takes an hour to cross the narrow sound."
FILLER = "It was nobody's business what the clerk wrote in his ledger that day. "


def items_in(index: Index, text: str) -> set[int]:
    return set(index.items_of(index.find([text])[1])[1].tolist())


@pytest.fixture(scope="module")
def index() -> Index:
    return Index.of([ITEM, OTHER])


@pytest.mark.parametrize(
    "text",
    [
        ITEM,
        ITEM.upper(),
        re.sub(r"[.,;]", " –", ITEM),
        ITEM.replace(" ", " \n\t"),
        ITEM.replace("heron", "ｈｅｒｏｎ"),  # full width: NFKC
        ITEM.replace("edge", "brink"),  # a word near the beginning; the words after it are a run
        FILLER * 40 + ITEM + FILLER * 40,
    ],
)
def test_an_item_is_found_whatever_its_form(index: Index, text: str) -> None:
    assert items_in(index, text) == {0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        FILLER * 50,
        ITEM.replace("of", "by").replace("until", "till"),  # no 13 words in a row are left
        " ".join(reversed(ITEM.split())),
        ITEM[: len(ITEM) // 2],
    ],
)
def test_what_is_no_run_is_not_found(index: Index, text: str) -> None:
    assert items_in(index, text) == set()


def test_a_run_does_not_cross_from_one_document_to_the_next(index: Index) -> None:
    words = ITEM.split()
    text, _ = index.find([" ".join(words[:9]), " ".join(words[9:])])
    assert len(text) == 0


def test_short_items_are_found_whole_and_shorter_ones_are_not_looked_for() -> None:
    nine, seven = "Which planet has the largest moon? Answer: Jupiter does so.", "A cow eats grass all day long."
    index = Index.of([nine, seven])
    assert index.n_runs.tolist() == [1, 0]
    assert items_in(index, f"{FILLER} which planet has the largest moon — Jupiter does so! {FILLER}") == {0}
    assert items_in(index, "which planet has the largest moon jupiter does") == set()
    assert items_in(index, seven) == set()


def test_the_wording_that_many_items_share_is_no_overlap() -> None:
    wording = "Which of the following statements about the subject is most nearly true according to them"
    own = [f"{wording} {name} {OTHER.replace('ferry', name)}" for name in ("a" * n for n in range(1, MOST_ITEMS + 2))]
    assert items_in(Index.of(own[:-1]), wording) == set(range(MOST_ITEMS))
    assert items_in(Index.of(own), wording) == set()


def test_scripts_without_spaces_have_a_word_a_character() -> None:
    item = "苍鹭站在芦苇边上等到最后一缕光消失才离开"
    assert items_in(Index.of([item]), f"他说：{item}。") == {0}
    assert items_in(Index.of([item]), item[: N_WORDS - 1]) == set()


def test_a_long_text_is_looked_at_whole(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "STRETCH", 5000)
    text = FILLER * 200
    for cut in (0, 4990, 5000, 5000 + OVERLAP - 50, 10_000, len(text)):
        assert items_in(index, f"{text[:cut]} {ITEM} {text[cut:]}") == {0}


def test_the_index_finds_what_a_plain_search_finds() -> None:
    draw = random.Random(0)
    words = ["ab", "c", "a", "bc", "abc", "b"]  # runs of letters that are alike, cut otherwise
    items = [" ".join(draw.choices(words, k=draw.randint(LEAST_WORDS, 30))) for _ in range(60)]
    texts = []
    for _ in range(200):
        item = draw.choice(items).split()
        begin = draw.randrange(len(item))
        part = item[begin : begin + draw.randint(5, 20)]
        texts.append(" ".join([*draw.choices(words, k=5), *part, *draw.choices(words, k=5)]))

    def runs(item: str) -> list[str]:
        cut = item.split()
        size = min(N_WORDS, len(cut))
        return [f" {' '.join(cut[i : i + size])} " for i in range(len(cut) - size + 1)]

    plain = {
        (t, i)
        for t, text in enumerate(texts)
        for i, item in enumerate(items)
        if any(r in f" {text} " for r in runs(item))
    }
    index = Index.of(items)
    text, run = index.find(texts)
    at, item = index.items_of(run)
    assert plain
    assert set(zip(text[at].tolist(), item.tolist(), strict=True)) == plain


def test_hashes_are_the_same_on_every_machine() -> None:
    runs = words_of(["The heron stood.", "Ein Reiher: größer als Ångström — 苍鹭"])
    assert runs.hashes(np.array([0, 3]), 3).tolist() == [2341260879628235468, 18018169924018250141]
