"""Options of several values, and settings on the command line."""

from typing import Any

import click
import pytest

from openclimb.cli.options import assign, parse_over, spread
from openclimb.config.load import from_dict
from openclimb.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("d --corpus a b c --set x=1 --tasks t", "d --corpus a --corpus b --corpus c --set x=1 --tasks t"),
        ("--set x=1 d --corpus a --corpus b c", "--set x=1 d --corpus a --corpus b --corpus c"),
        ("--corpus=a d", "--corpus=a d"),
        ("--corpus a b -- d", "--corpus a --corpus b -- d"),
        ("-n -1 --corpus a", "-n -1 --corpus a"),
    ],
)
def test_an_option_may_have_several_values(written: str, read: str) -> None:
    assert spread(written.split(), {"--set", "-n"}, {"--corpus"}) == read.split()


def test_an_option_is_no_value_but_a_message_may_begin_with_dashes() -> None:
    with pytest.raises(click.UsageError, match="'--failed' requires an argument"):
        spread(["--failed", "--debug"], {"--failed"}, set())
    assert spread(["--failed", "--lr was too high"], {"--failed"}, set()) == ["--failed", "--lr was too high"]


def test_settings_are_toml_or_bare_text() -> None:
    raw: dict[str, Any] = {"proxy": {"width": 64}}
    assign(raw, ["proxy.size=2M", "search.trials=[8, 5]", "seed=3", "corpus.domains=column:source=x", "run.bf16=false"])
    assert raw == {
        "proxy": {"width": 64, "size": "2M"},
        "search": {"trials": [8, 5]},
        "seed": 3,
        "corpus": {"domains": "column:source=x"},
        "run": {"bf16": False},
    }


def test_no_value_is_an_empty_word_list_or_table() -> None:
    raw: dict[str, Any] = {}
    assign(raw, ["search.low_fidelity=", "tasks.report_only=", "tasks.weights= ", "corpus.id="])
    assert raw["search"] == {"low_fidelity": ""}
    assert raw["tasks"] == {"report_only": [], "weights": {}}
    config = from_dict({"scale": "demo", **raw})
    assert (config.search.low_fidelity, config.tasks.report_only, config.corpus.id) == ("", (), "")


@pytest.mark.parametrize("assignment", ["proxy.width=", "target.token_budget=", "seed=", "run.save_seconds="])
def test_no_value_is_no_number(assignment: str) -> None:
    raw: dict[str, Any] = {}
    assign(raw, [assignment])
    with pytest.raises(ConfigError, match="wrong type") as caught:
        from_dict(raw)
    assert "at least" in caught.value.fix


@pytest.mark.parametrize("value", ["[" * 10_000, "9" * 5000, "1979-05-27", "{a", "nan"])
def test_a_value_that_no_setting_can_have_is_refused(value: str) -> None:
    raw: dict[str, Any] = {}
    assign(raw, [f"proxy.width={value}"])
    with pytest.raises(ConfigError, match=r"proxy\.width = ") as caught:
        from_dict(raw)
    assert "at least 8 and at most 65,536" in caught.value.fix
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("assignment", ["proxy=64", "proxy.size", "proxi.size=2M", "=1"])
def test_other_forms_are_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="is not understood"):
        assign({}, [assignment])


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["clusters.k=12,48"], {"clusters.k": [12, 48]}),
        (["clusters.k=12", "clusters.k=48"], {"clusters.k": [12, 48]}),
        (["clusters.k=[12, 48]"], {"clusters.k": [12, 48]}),
        (["proxy.size=0.5M, 2M", "init=random"], {"proxy.size": ["0.5M", "2M"], "init": ["random"]}),
        (["search.trials=[[16, 8, 4], [28]]"], {"search.trials": [[16, 8, 4], [28]]}),
        (["search.trials=[28]"], {"search.trials": [[28]]}),
        (["tasks.weights=[{a = 1.0}, {b = 2.0}]"], {"tasks.weights": [{"a": 1.0}, {"b": 2.0}]}),
        (["tasks.weights={a = 1.0}"], {"tasks.weights": [{"a": 1.0}]}),
        (["selection.sure=0.8,0.9"], {"selection.sure": [0.8, 0.9]}),
    ],
)
def test_values_to_compare(words: list[str], values: dict[str, list[object]]) -> None:
    assert parse_over(words) == values


@pytest.mark.parametrize("word", ["clusters.k", "clusters.k=", "search.trials=16,8"])
def test_values_that_cannot_be_read_are_told(word: str) -> None:
    with pytest.raises(ConfigError, match="--over"):
        parse_over([word])
