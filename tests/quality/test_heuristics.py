"""Each rule signal measures what its source says, document by document, whatever stands beside it in the batch."""

import math

import numpy as np
import pytest

from openclimb.quality.heuristics import BATCH, MOST_CHARS, RULES, measure, rules_kept

PROSE = (
    "The committee met on Tuesday to consider the report that the engineers had sent. It was the first time in a year "
    "that all of the members came. They have agreed with most of it, and the rest will be read again in spring.\n"
    "Nobody asked for a vote! Would it have changed anything? The chair doubts that, but the minutes do not say so."
)

# (signal, text, value): the smallest texts that show what is counted.
CASES = [
    ("words", "one two  three\nfour", 4),
    ("word_length", "ab abcd", 3),
    ("word_length", "né ну", 2),
    ("symbols", "# a b ... c", 2 / 5),
    ("symbols", "a… b", 1 / 2),
    ("bullet_lines", "- a\n* b\n• c\nd\n\n", 3 / 4),
    ("ellipsis_lines", "so...\nand…\nend.\nx", 2 / 4),
    ("letter_words", "a 1 2b -- ж", 3 / 5),
    ("stop_words", "The the BE cat", 2),
    ("repeated_lines", "a\nb\na\n\na\n\n", 2 / 4),
    ("repeated_line_bytes", "aaa\nb\naaa", 3 / 7),
    ("top_2_gram", "a b a b c d", 2 * 2 / 6),
    ("top_2_gram", "a b c d", 0),
    ("top_3_gram", "a b c x a b c", 2 * 3 / 7),
    ("top_4_gram", "a b c d a b c d", 2 * 4 / 8),
    ("repeated_5_grams", "a b c d e a b c d e", 1 / 6),
    ("repeated_10_grams", " ".join("abcdefghij" * 2), 1 / 11),
    ("sentences", "One. Two! Three? 3.14 is no end", 3),
    ("braces", "if (x) { y }", 2),
    ("placeholders", "Lorem ipsum dolor, lorem ipsum", 2),
    ("ended_lines", "said “so”\nyes,\nno\nmaybe.", 3 / 4),
    ("short_lines", "short\n" + "a line that is longer than thirty bytes", 1 / 2),
    ("digits", "1234 abcd", 4 / 10),
]


@pytest.mark.parametrize(("signal", "text", "value"), CASES)
def test_a_signal_is_what_its_source_counts(signal: str, text: str, value: float) -> None:
    alone = measure([text])[signal]
    beside = measure([PROSE, text, "", "a b a b a b"])[signal]
    assert alone.tolist() == pytest.approx([value])
    assert beside[1] == pytest.approx(value)


def test_every_rule_has_a_case_and_a_measure() -> None:
    assert {rule.signal for rule in RULES} == {signal for signal, _, _ in CASES} == set(measure(["a"]))


def test_every_signal_is_finite_for_odd_texts() -> None:
    odd = ["", " ", "\n\n", "\0", "\r\n\r\n", "\ud800", "☃" * 50, "x" * 100_000, "a\n" * 20_000]
    for name, values in measure(odd).items():
        assert values.shape == (len(odd),), name
        assert np.isfinite(values).all(), name


def test_prose_keeps_all_rules_and_rubbish_few() -> None:
    table = "\n".join(f"{i} {i * i} {{ }}" for i in range(100))
    kept = rules_kept([PROSE, table, "buy now " * 100])
    assert kept[0] == 1
    assert kept[1] < 0.75
    assert kept[2] < 0.75


def test_only_the_beginning_is_looked_at_and_batches_do_not_matter() -> None:
    long = PROSE * math.ceil(MOST_CHARS / len(PROSE))
    assert rules_kept([long]) == rules_kept([long + "{ } 1 2 3" * 1000])
    many = [PROSE[: 7 * i] for i in range(1, 3 * BATCH)]
    np.testing.assert_array_equal(rules_kept(many), np.concatenate([rules_kept([text]) for text in many]))
    assert rules_kept([]).shape == (0,)
