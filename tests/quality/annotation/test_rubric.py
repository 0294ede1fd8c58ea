"""The rubric: its file, what a model is sent, and that an answer is read strictly."""

from pathlib import Path

import pytest

from openclimb.errors import ConfigError
from openclimb.quality.annotation.rubric import (
    FILE,
    Rubric,
    Unusable,
    enclosed,
    open_rubric,
    read_rubric,
    scores_of,
    write_default,
)

NAMES = ["quality", "educational_value", "informational_value", "no_advertisement", "cultural_value"]
GOOD = '{"a": 3, "b": 5}'


def test_the_packaged_rubric_has_the_five_scales_and_is_never_written_over(tmp_path: Path) -> None:
    said: list[str] = []
    rubric = open_rubric(tmp_path, said.append)
    assert list(rubric.scales) == NAMES
    assert said == [f"wrote {tmp_path / FILE}"]
    text = (tmp_path / FILE).read_text().replace("characters = 2000", "characters = 500")
    (tmp_path / FILE).write_text(text)
    assert open_rubric(tmp_path).characters == 500
    with pytest.raises(ConfigError, match="is there already"):
        write_default(tmp_path / FILE)


def test_every_part_of_a_rubric_changes_its_fingerprint_and_a_comment_does_not(tmp_path: Path) -> None:
    write_default(tmp_path / FILE)
    before, text = read_rubric(tmp_path / FILE), (tmp_path / FILE).read_text()
    for old, new in (("2000", "1999"), ("= 200 ", "= 201 "), ("You rate", "You judge"), ("nothing to learn", "none")):
        (tmp_path / FILE).write_text(text.replace(old, new, 1))
        assert read_rubric(tmp_path / FILE).fingerprint != before.fingerprint, old
    (tmp_path / FILE).write_text("# mine\n" + text)
    assert read_rubric(tmp_path / FILE).fingerprint == before.fingerprint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("characters", "caracters", "unknown key 'caracters' .did you mean 'characters'"),
        ("characters = 2000", "characters = 9000", "characters is 9000"),
        ("answer_tokens = 200", "answer_tokens = true", "answer_tokens is True"),
        ("instructions = ", "instructions = 3 #", "not valid TOML"),
        ("\nquality = ", "\n'a b' = ", "'a b' is no name of a scale"),
        ("[scales]", "[scales.deep]", "unknown key|no meaning"),
    ],
)
def test_a_rubric_that_cannot_be_used_is_told_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_default(tmp_path / FILE)
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as found:
        read_rubric(tmp_path / FILE)
    assert str(tmp_path / FILE) in found.value.message
    assert found.value.fix


def test_the_prompt_names_the_scales_and_bars_instructions_of_the_document() -> None:
    rubric = Rubric(100, 50, "Rate.", {"a": "0: bad.\n5: good.", "b": "x"})
    assert "a: 0: bad. 5: good." in rubric.system()
    assert "ignore every request" in rubric.system()
    assert rubric.schema()["required"] == ["a", "b"]
    assert rubric.schema()["properties"]["a"]["enum"] == [0, 1, 2, 3, 4, 5]


def test_a_document_cannot_hold_its_own_end() -> None:
    inner = enclosed("harmless")
    outer = enclosed(inner)
    assert outer.splitlines()[0] not in inner
    assert outer.splitlines()[-1] not in inner


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        f"  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"<think>a {{}} b</think>\n{GOOD}",
        '{"a": 3.0, "b": 5, "why": "x"}',
    ],
)
def test_what_is_a_label(content: str) -> None:
    found = scores_of(content, ["a", "b"])
    assert found == {"a": 3, "b": 5}
    assert type(found["a"]) is int


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not JSON"),
        ("a: 3, b: 5", "not JSON"),
        (f"Here: {GOOD}", "not JSON"),
        (f"{GOOD} {GOOD}", "not JSON"),
        ('{"a": 3, "b": 5, "a": 4}', "not JSON"),
        ('{"a": NaN, "b": 5}', "not JSON"),
        ("[3, 5]", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a": 3}', "scale missing"),
        ('{"a": 3, "b": 6}', "out of range"),
        ('{"a": -1, "b": 5}', "out of range"),
        ('{"a": 3, "b": 1e400}', "out of range"),
        ('{"a": "3", "b": 5}', "no number"),
        ('{"a": true, "b": 5}', "no number"),
        ('{"a": null, "b": 5}', "no number"),
    ],
)
def test_what_is_none(content: str, reason: str) -> None:
    with pytest.raises(Unusable) as found:
        scores_of(content, ["a", "b"])
    assert found.value.reason == reason
