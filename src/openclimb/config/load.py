"""Settings from `climb.toml` and back: checks, and the commented file that `climb init` writes.

Unknown keys and values are errors that name the nearest known one.
"""

import dataclasses
import json
import math
import re
import shlex
import types
import typing
from dataclasses import fields
from decimal import Decimal
from typing import Any

from openclimb.config.scales import SCALES, preset
from openclimb.config.schema import SECTIONS, SEEDS, TOKENS, Config
from openclimb.config.sizes import SHAPES, derived_settings
from openclimb.errors import ConfigError, nearest
from openclimb.masking import masked_words, secret_values, without_secrets

SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def parse_count(text: str) -> int:
    """Return the number that "40B", "1.5M", "2_000", "1e9" or "10000" stands for.

    Raises ConfigError for another form, and for more than TOKENS.
    """
    match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:E\+?[0-9]{1,2})?)\s*([KMBT]?)", text.strip().upper(), re.ASCII)
    if not match:
        raise ConfigError(f"'{text}' is not a count", "write a number, with K, M, B or T behind it if you like: 40B")
    exact = Decimal(match[1].replace("_", "")) * SUFFIXES[match[2]]
    if exact > TOKENS:
        raise ConfigError(f"'{_short(text)}' is out of range", f"it must be at most {TOKENS:,}")
    return round(exact)


def format_count(n: int) -> str:
    """Return a count with the largest suffix that loses nothing: 40000000000 → "40B"."""
    for suffix, unit in reversed(SUFFIXES.items()):
        if unit > 1 and n >= unit and n % (unit // 10) == 0:
            whole, tenths = divmod(n // (unit // 10), 10)
            if whole < 10_000:
                return f"{whole}.{tenths}{suffix}" if tenths else f"{whole}{suffix}"
    return str(n)


def from_dict(raw: dict[str, Any]) -> Config:
    """Return the settings in a parsed `climb.toml`, checked; what is absent has its scale's preset."""
    raw = dict(raw)
    config = preset(_typed("scale", raw.pop("scale", "laptop"), str))
    seed = _typed("seed", raw.pop("seed", 0), int, _range(*SEEDS))
    _within("seed", seed, *SEEDS)
    sections: dict[str, Any] = {}
    config = _with_size(config, raw.get("proxy"))
    for name, values in raw.items():
        if name not in SECTIONS:
            raise ConfigError(
                f"unknown section [{name}] in climb.toml{nearest(name, SECTIONS)}",
                f"sections are: {', '.join(SECTIONS)}",
            )
        if not isinstance(values, dict):
            raise ConfigError(f"[{name}] must be a section, not a value", f"write [{name}] on a line of its own")
        sections[name] = _section(name, getattr(config, name), values)
    return dataclasses.replace(config, seed=seed, **sections)


def _with_size(config: Config, proxy: Any) -> Config:
    """Return the settings with those that follow from `proxy.size`, where a file or a call names one."""
    size = proxy.get("size", "") if isinstance(proxy, dict) else ""
    changed = {
        name: dataclasses.replace(getattr(config, name), **values)
        for name, values in (derived_settings(size) if isinstance(size, str) and size in SHAPES else {}).items()
    }
    return dataclasses.replace(config, **changed)


def with_changes(config: Config, raw: dict[str, dict[str, Any]]) -> Config:
    """Return the settings with some sections' values changed, checked as those of `climb.toml` are."""
    config = _with_size(config, raw.get("proxy"))
    changed = {name: _section(name, getattr(config, name), values) for name, values in raw.items()}
    return dataclasses.replace(config, **changed)


def empty_value(section: str, name: str) -> Any:
    """Return what an empty word stands for: an empty list or table where the setting is one, else an empty text."""
    kind = typing.get_type_hints(SECTIONS[section]).get(name) if section in SECTIONS else None
    return {tuple: [], dict: {}}.get(typing.get_origin(kind), "")  # type: ignore[arg-type]


def result_settings(section: Any) -> dict[str, Any]:
    """Return the settings of a section that change a result, as JSON values (for fingerprints)."""
    return {
        f.name: list(value) if isinstance(value := getattr(section, f.name), tuple) else value
        for f in fields(section)
        if not f.metadata["where"]
    }


def recorded_settings(section: Any) -> dict[str, Any]:
    """Return the settings of a section that change a result, as records hold them: without secrets.

    A token that was renewed makes nothing stale.
    """
    words = {f.name for f in fields(section) if f.metadata["words"]}
    return {
        name: masked_words(value) if name in words else _masked(value)
        for name, value in result_settings(section).items()
    }


def secrets_of(config: Config) -> list[str]:
    """Return the secrets that the settings hold, the longest first."""
    texts = []
    for name in SECTIONS:
        texts += _texts([getattr(getattr(config, name), f.name) for f in fields(getattr(config, name))])
    found = {*secret_values(config.objective.command), *(each for text in texts for each in secret_values([text]))}
    return sorted(found, key=lambda each: (-len(each), each))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return without_secrets(value) if isinstance(value, str) else value


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    return [text for each in value for text in _texts(each)] if isinstance(value, (list, tuple)) else _text(value)


def _text(value: Any) -> list[str]:
    return [value] if isinstance(value, str) and "://" in value else []


def to_toml(config: Config) -> str:
    """Return `climb.toml`: every setting with its explanation; those that follow from `proxy.size` as comments."""
    lines = [
        "# The settings of this workspace. Every one is here; what you delete takes its scale's preset.",
        "",
        f"scale = {_toml(config.scale)}  # the presets that these settings started from: {', '.join(SCALES)}",
        f"seed = {config.seed}  # every random draw derives from it",
    ]
    derived = derived_settings(config.proxy.size)
    for name in SECTIONS:
        section = getattr(config, name)
        follows = derived.get(name, {})
        lines += ["", f"[{name}]  # {_first_line(section)}"]
        for f in fields(section):
            value = getattr(section, f.name)
            text = _toml(format_count(value)) if f.metadata["count"] else _toml(value)
            comment = f.metadata["doc"]
            if f.metadata["choices"]:
                more = ("package.module:function",) if f.metadata["open_choice"] else ()
                comment += f" ({' | '.join(filter(None, (*f.metadata['choices'], *more)))})"
            line = f"{f.name} = {text}"
            # As a comment, so that another size, written in the file, brings its own.
            lines += [f"# {comment}", f"# {line}  (from proxy.size)" if follows.get(f.name) == value else line]
    return "\n".join(lines) + "\n"


def _first_line(section: Any) -> str:
    return (type(section).__doc__ or "").strip().splitlines()[0]


def _section(name: str, section: Any, values: dict[str, Any]) -> Any:
    known = {f.name: f for f in fields(section)}
    hints = typing.get_type_hints(type(section))
    changed = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(
                f"unknown setting '{key}' in [{name}]{nearest(key, known)}",
                f"settings of [{name}] are: {', '.join(known)}",
            )
        changed[key] = _check(f"{name}.{key}", value, hints[key], known[key].metadata)
    return dataclasses.replace(section, **changed)


def _check(label: str, value: Any, kind: Any, metadata: types.MappingProxyType[Any, Any]) -> Any:
    low, high = metadata["low"], metadata["high"]
    if metadata["count"] and isinstance(value, str) and value:
        try:
            value = parse_count(value)
        except ConfigError as error:
            raise ConfigError(f"{label}: {error.message}", f"{error.fix}; it must be {_range(low, high)}") from None
    if metadata["words"] and isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError as error:
            raise ConfigError(
                f"{label} cannot be cut into words: {error}", "close the quotes, or write a list"
            ) from None
    value = _typed(label, value, kind, _range(low, high))
    choices = metadata["choices"]
    if choices and value not in choices and not (metadata["open_choice"] and ":" in value):
        raise ConfigError(
            f"{label} = '{value}' is not known{nearest(value, choices)}",
            f"use one of: {', '.join(filter(None, choices))}",
        )
    if metadata["some"] and not value:
        raise ConfigError(f"{label} is empty", "give at least one")
    _within(label, value, low, high)
    return value


def _within(label: str, value: Any, low: float | None, high: float | None) -> None:
    """Raise ConfigError for numbers out of range; NaN is in none."""
    if low is None or high is None or all(low <= one <= high for one in _numbers(value)):
        return
    raise ConfigError(f"{label} = {_short(str(value))} is out of range", f"it must be {_range(low, high)}")


def _range(low: float | None, high: float | None) -> str:
    """Return a range in words; empty where there is none."""
    if low is None or high is None:
        return ""
    if high <= 1:
        return f"between {low} and {high}"
    return f"at least {_shown(low)} and at most {_shown(high)}"


def _shown(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _numbers(value: Any) -> list[Any]:
    """Return the single values of a setting that may be a list or a table."""
    if isinstance(value, dict):
        value = tuple(value.values())
    return [one for part in value for one in _numbers(part)] if isinstance(value, tuple) else [value]


def _typed(label: str, value: Any, kind: Any, bounds: str = "") -> Any:
    """Return `value` as `kind` (int, float, str, tuple[x, ...] or dict[str, x]), or raise ConfigError.

    `bounds` is the range of its numbers, in words.
    """
    origin = typing.get_origin(kind)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_typed(label, item, typing.get_args(kind)[0], bounds) for item in value)
    if origin is dict and isinstance(value, dict):
        inner = typing.get_args(kind)[1]
        return {str(key): _typed(f"{label}.{key}", item, inner, bounds) for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1000 else math.inf if value > 0 else -math.inf
    if origin is None and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    wanted = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}.get(kind)
    wanted = wanted or ("a list" if origin is tuple else "a table: { name = value }")
    raise ConfigError(
        f"{label} = {_short(repr(value))} has the wrong type", f"it must be {wanted}{bounds and f', {bounds}'}"
    )


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + " }" if value else "{}"
        )
    return repr(value)
