"""Settings: every one is written, explained, checked, and comes back as it was."""

import dataclasses
import math
import re
import tomllib
import typing
from typing import Any

import pytest

from openclimb.config.load import format_count, from_dict, parse_count, result_settings, to_toml
from openclimb.config.scales import SCALES, preset
from openclimb.config.schema import SECTIONS, Config
from openclimb.config.sizes import RATE_AT_64
from openclimb.errors import ConfigError


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_survives_its_own_file(scale: str) -> None:
    config = preset(scale)
    assert from_dict(tomllib.loads(to_toml(config))) == config


def test_the_file_shows_and_explains_every_setting() -> None:
    text = to_toml(Config())
    for name, section in SECTIONS.items():
        assert f"[{name}]" in text
        for field in dataclasses.fields(section):
            assert f"\n# {field.metadata['doc']}" in text
            assert f"\n{field.name} = " in text


def test_the_paper_scale_has_the_papers_numbers() -> None:
    config = preset("paper")
    assert config.clusters.k == 1000
    assert config.search.trials == (64, 32, 16)
    assert config.target.token_budget == 40_000_000_000
    assert (config.embed.max_tokens, config.domains.centroids, config.domains.merge_distance) == (512, "raw", 1.5)
    assert (config.search.predictor, config.search.answer, config.tasks.preset) == ("recipe", "argmax", "paper")
    assert config.quality.scorers == ("students",)
    assert (config.domains.prune_below["quality"], config.domains.prune_below["cultural_value"]) == (3.0, 1.0)
    assert not config.embed.trust_remote_code  # consent is the user's


@pytest.mark.parametrize(
    ("raw", "message", "fix"),
    [
        ({"serach": {}}, "unknown section [serach] in climb.toml (did you mean 'search'?)", "sections are"),
        ({"proxy": {"widht": 3}}, "unknown setting 'widht' in [proxy] (did you mean 'width'?)", "settings of [proxy]"),
        ({"search": {"proposer": "climbs"}}, "(did you mean 'climb'?)", "use one of"),
        ({"scale": "lptop"}, "unknown scale 'lptop' (did you mean 'laptop'?)", "use one of"),
        ({"proxy": {"size": "5MB"}}, "proxy.size = '5MB' is not known (did you mean '5M'?)", "use one of: 0.5M, 1M"),
        ({"proxy": {"width": "wide"}}, "proxy.width = 'wide' has the wrong type", "a whole number"),
        ({"proxy": {"width": 2}}, "proxy.width = 2 is out of range", "at least 8"),
        ({"proxy": {"width": True}}, "wrong type", "a whole number"),
        ({"tokens": {"heldout": 0.9}}, "tokens.heldout = 0.9 is out of range", "between 0.0 and 0.5"),
        ({"constraints": {"floor": {"web": 1.5}}}, "constraints.floor", "between 0.0 and 1.0"),
        ({"constraints": {"groups": {"a+b": [0.1, 2.0]}}}, "constraints.groups", "between 0.0 and 1.0"),
        ({"constraints": {"groups": {"a+b": 0.5}}}, "constraints.groups.a+b", "a list"),
        ({"corpus": {"paths": "data"}}, "wrong type", "a list"),
        ({"corpus": 3}, "must be a section", "[corpus]"),
        ({"target": {"token_budget": "many"}}, "'many' is not a count", "40B"),
        ({"tasks": {"weights": {"piqa": "x"}}}, "tasks.weights.piqa", "a number"),
        ({"tasks": {"weights": {"loss": -1.0}}}, "tasks.weights = {'loss': -1.0} is out of range", "at least 0"),
    ],
)
def test_a_bad_setting_is_told_with_its_cure(raw: dict[str, object], message: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(raw)
    assert message in caught.value.message
    assert fix in caught.value.fix


def test_constraints_survive_the_file() -> None:
    raw = {"constraints": {"floor": {"web": 0.1}, "groups": {"a+b": [0.1, 0.5]}, "most_domains": 3}}
    config = from_dict(raw)
    assert config.constraints.groups == {"a+b": (0.1, 0.5)}
    assert from_dict(tomllib.loads(to_toml(config))) == config


def test_what_is_absent_has_the_preset_of_its_scale() -> None:
    config = from_dict({"scale": "demo", "proxy": {"depth": 2}})
    assert config.proxy == dataclasses.replace(preset("demo").proxy, depth=2)


def test_a_size_sets_the_shape_and_a_given_setting_stands() -> None:
    config = from_dict({"proxy": {"size": "5M", "depth": 3}})
    assert (config.proxy.width, config.proxy.depth, config.tokens.vocab_size) == (256, 3, 8192)
    assert config.proxy.learning_rate == pytest.approx(RATE_AT_64 / 8)
    assert from_dict({"proxy": {"size": "5M"}, "tokens": {"vocab_size": 999}}).tokens.vocab_size == 999


def test_another_size_in_the_file_brings_its_own_shape() -> None:
    text = to_toml(from_dict({"proxy": {"size": "5M", "depth": 3}}))
    assert from_dict(tomllib.loads(text)).proxy.depth == 3
    changed = from_dict(tomllib.loads(text.replace('size = "5M"', 'size = "20M"')))
    assert (changed.proxy.width, changed.proxy.depth, changed.tokens.vocab_size) == (384, 3, 16_384)


def test_true_and_false_survive_the_file() -> None:
    config = from_dict({"run": {"bf16": False}})
    assert "bf16 = false" in to_toml(config)
    assert from_dict(tomllib.loads(to_toml(config))) == config
    with pytest.raises(ConfigError, match="wrong type"):
        from_dict({"run": {"bf16": 1}})


@pytest.mark.parametrize(("text", "count"), [("40B", 40 * 10**9), ("1.5M", 1_500_000), ("2_000", 2000), ("7k", 7000)])
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count
    assert parse_count(format_count(count)) == count


@pytest.mark.parametrize(
    "count", [0, 999, 100_000_100, 123_456_700, 999_999_900, 1_310_720_000, 104_857_600_000, 7 * 10**15]
)
def test_a_count_that_is_written_loses_nothing(count: int) -> None:
    assert parse_count(format_count(count)) == count


def test_any_text_survives_the_file() -> None:
    words = ["bash", "-c", 'echo "a"\necho b\t\\ \x7f é 😀']
    config = from_dict({"objective": {"command": words}})
    assert from_dict(tomllib.loads(to_toml(config))) == config


def test_where_work_runs_is_no_part_of_the_result() -> None:
    assert result_settings(Config().run) == {}
    assert "batch" not in result_settings(Config().embed)


def test_an_extension_is_named_by_module_and_function() -> None:
    assert from_dict({"embed": {"embedder": "mine.parts:embed"}}).embed.embedder == "mine.parts:embed"


NUMERIC = [
    (name, field.name)
    for name, section in SECTIONS.items()
    for field in dataclasses.fields(section)
    if set(re.findall(r"\w+", str(field.type))) & {"int", "float"}
]


def put(name: str, key: str, value: float) -> Any:
    """Return a number as the setting holds it: alone, in a list or in a table."""
    kind = str(typing.get_type_hints(SECTIONS[name])[key])
    inner = [value] if "tuple" in kind else value
    return {"x": inner} if "dict" in kind else inner


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -1, 1e300, 10**400, -(10**400)], ids=lambda value: str(value)[:6]
)
@pytest.mark.parametrize(("name", "key"), NUMERIC)
def test_a_number_is_in_range_or_refused_with_its_range(name: str, key: str, value: float) -> None:
    metadata = {f.name: f.metadata for f in dataclasses.fields(SECTIONS[name])}[key]
    if value == -1 and metadata["low"] < 0:
        assert getattr(getattr(from_dict({name: {key: put(name, key, value)}}), name), key) == {"x": -1.0}
        return
    with pytest.raises(ConfigError) as caught:
        from_dict({name: {key: put(name, key, value)}})
    assert f"{name}.{key}" in caught.value.message
    bounds = caught.value.fix.replace(",", "")
    assert f"{metadata['low']:g}".removesuffix(".0") in bounds
    assert str(metadata["high"]).removesuffix(".0") in bounds or f"{metadata['high']:g}" in bounds


@pytest.mark.parametrize(("name", "key"), NUMERIC)
def test_both_ends_of_a_range_are_accepted(name: str, key: str) -> None:
    metadata = {f.name: f.metadata for f in dataclasses.fields(SECTIONS[name])}[key]
    for bound in (metadata["low"], metadata["high"]):
        kept = getattr(getattr(from_dict({name: {key: put(name, key, bound)}}), name), key)
        assert str(float(bound)) in str(kept) or kept == bound or kept == (bound,)


@pytest.mark.parametrize("seed", [-1, 2**70, math.nan, 1.5, "x", True])
def test_a_seed_out_of_range_is_refused(seed: object) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict({"seed": seed})
    assert caught.value.message.startswith("seed = ")
    assert "at least 0 and at most 2,000,000,000" in caught.value.fix
    assert from_dict({"seed": 2_000_000_000}).seed == 2_000_000_000


@pytest.mark.parametrize("text", ["9" * 400, "1000001T", "2e18", "-1", "nan", "٤٠", ""])
def test_a_count_out_of_range_is_refused_with_its_range(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict({"target": {"token_budget": text}})
    assert caught.value.message.startswith("target.token_budget")
    assert "at least 1 and at most 1,000,000,000,000,000,000" in caught.value.fix
