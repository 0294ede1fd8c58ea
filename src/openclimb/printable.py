"""Names and messages as a terminal or a page may show them: no character of theirs steers it.

A name may come from a file, a column or another person. Control characters (a terminal obeys some of them), marks that
turn the reading direction and halves of surrogate pairs are written as Python writes them: \\x1b, \\u202e.
"""

import re
from collections.abc import Sequence

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
BREAKS = re.compile("[\t\n]")
MOST_SHOWN = 60  # characters of a name in a table of a terminal


def printable(text: str) -> str:
    """Return a text in which nothing but line breaks and tabs steers a terminal."""
    return STEERING.sub(_escaped, text)


def one_line(name: str) -> str:
    """Return a name on one line, with nothing that steers a terminal."""
    return BREAKS.sub(_escaped, printable(name))


def short_names(names: Sequence[str], most: int = MOST_SHOWN) -> list[str]:
    """Return names on one line each, cut in the middle to about so many characters; different ones stay different."""
    lines = [one_line(name) for name in names]
    cut = [line if len(line) <= most else f"{line[: most * 2 // 3]}…{line[-most // 4 :]}" for line in lines]
    return [one if cut.count(one) == 1 else f"{one} ({i})" for i, one in enumerate(cut, 1)]


def say(text: str) -> None:
    """Print what a command has to say to people."""
    print(printable(text))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
