"""Which words a vocabulary knows: whole ones of its languages, and not what it only spells."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from openclimb.clustering.trust.vocabulary import known_share, script_of
from openclimb.corpus.tokenizer import train_tokenizer

RUSSIAN = "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью."
GERMAN = "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt."
CHINESE = "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
HINDI = "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।"
ENGLISH = "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience."


def word_piece(folder: Path, *texts: str, letters: str = "") -> Path:
    """Write a WordPiece vocabulary, as a BERT has it, with the words of texts and some letters."""
    normalizer, cutter = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in cutter.pre_tokenize_str(normalizer.normalize_str(text))}
    entries = ["[UNK]", *sorted(words | set(letters)), *(f"##{letter}" for letter in sorted(set(letters)))]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(entries)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, cutter
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (ENGLISH, "Latin"),
        (GERMAN, "Latin"),
        (RUSSIAN, "Cyrillic"),
        (CHINESE, "CJK"),
        (JAPANESE, "CJK"),
        (HINDI, "Devanagari"),
        (f"{RUSSIAN} {ENGLISH[:30]}", "Cyrillic"),
        ("12 345 — 678 …", ""),
        ("ok", ""),
    ],
)
def test_the_script_is_that_of_most_letters(text: str, script: str) -> None:
    assert script_of(text) == script


def test_words_of_the_vocabulary_are_known(tmp_path: Path) -> None:
    known = known_share([ENGLISH, GERMAN, RUSSIAN, CHINESE], word_piece(tmp_path, ENGLISH))
    assert known.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_words_that_are_spelt_by_their_letters_are_not_known(tmp_path: Path) -> None:
    every = "".join({*ENGLISH.lower(), *GERMAN.lower(), *RUSSIAN.lower(), *JAPANESE, *HINDI} - {" "})
    path = word_piece(tmp_path, ENGLISH, letters=every)
    tokenizer = Tokenizer.from_file(str(path))
    assert "[UNK]" not in tokenizer.encode(RUSSIAN + GERMAN + HINDI).tokens
    english, german, russian, hindi = known_share([ENGLISH, GERMAN, RUSSIAN, HINDI], path)
    assert english == 1.0
    assert max(german, russian, hindi) == 0.0
    assert 0.0 < known_share([JAPANESE], path)[0] < 0.5  # its ideographs are entries, its syllables letters only


def test_an_ideograph_is_a_word(tmp_path: Path) -> None:
    path = word_piece(tmp_path, letters=CHINESE)
    assert known_share([CHINESE], path)[0] == 1.0


def test_a_byte_level_vocabulary_knows_the_words_it_was_trained_on(
    texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    manual = [text for kind, text in texts if kind == "manual"]
    train_tokenizer(manual, 3000, tmp_path / "tokenizer.json")
    known = known_share([*manual[:40], RUSSIAN, CHINESE, HINDI], tmp_path / "tokenizer.json")
    assert np.median(known[:40]) > 0.7
    assert known[40:].max() == 0.0  # their bytes are entries, each


def test_the_unknown_entry_of_a_unigram_model_is_found(tmp_path: Path) -> None:
    pieces = [("<nothing>", 0.0), *((f"▁{word}", -1.0) for word in ENGLISH.split())]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    english, russian = known_share([ENGLISH, RUSSIAN], tmp_path / "tokenizer.json")
    assert english > 0.8  # "rights." is an entry with its point
    assert russian == 0.0


def test_what_has_hardly_a_letter_tells_nothing(tmp_path: Path) -> None:
    assert np.isnan(known_share(["1 2 3 4", "of it is a"], word_piece(tmp_path, ENGLISH))).all()
