"""What the commands share: their class, their common options, settings written as `section.key=value`."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from openclimb.errors import ConfigError
from openclimb.masking import masked_words

DEBUG = "openclimb.debug"  # in the context's `meta`: whether an error shows its traceback
PLACES = "openclimb.places"  # there too: what a command reads and writes, by what people call it
HELP = {"help_option_names": ["-h", "--help"]}
Function = TypeVar("Function", bound=Callable[..., None])

workspace = click.argument("workspace", metavar="DIR", help="the workspace's folder")
as_json = click.option("--json", "as_json", is_flag=True, help="print JSON")


def with_progress(function: Function) -> Function:
    """Add the options of long work: --quiet and --json."""
    text = "print JSON: progress as lines, then the result"
    function = click.option("--json", "as_json", is_flag=True, help=text)(function)
    return click.option("--quiet", is_flag=True, help="print only the result")(function)


class Several(click.Option):
    """An option that takes one or more values, as a shell makes them of `--corpus *.jsonl`."""

    def __init__(self, names: Sequence[str], **more: Any) -> None:
        super().__init__(names, multiple=True, **more)


class Command(click.Command):
    """A command with --debug, and with options of several values."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **{"context_settings": HELP, **more})
        text = "show the traceback of an error"
        self.params.append(click.Option(["--debug"], is_flag=True, expose_value=False, callback=_keep, help=text))

    def invoke(self, context: click.Context) -> Any:
        named = {"workspace": "workspace", "output": "out"}
        context.meta[PLACES] = {
            what: Path(str(context.params[name])) for what, name in named.items() if context.params.get(name)
        }
        return super().invoke(context)

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        options = [parameter for parameter in self.params if isinstance(parameter, click.Option)]
        valued = {name for option in options if not option.is_flag for name in option.opts}
        several = {name for option in options if isinstance(option, Several) for name in option.opts}
        try:
            return super().parse_args(context, spread(arguments, valued, several))
        except click.UsageError as error:
            error.ctx = error.ctx or context  # the parser leaves it out of some
            raise


def _keep(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.meta[DEBUG] = value


def spread(arguments: Iterable[str], valued: set[str], several: set[str]) -> list[str]:
    """Return the arguments with `--corpus a b` written as `--corpus a --corpus b`.

    Raises UsageError where an option of `valued` is followed by another option, which click would take as its value.
    """
    found: list[str] = []
    before = option = ""
    for argument in arguments:
        if argument.startswith("-"):
            if before in valued and argument.startswith("--") and " " not in argument:
                raise click.UsageError(f"Option '{before}' requires an argument.")
            option = argument if argument in several else ""
        elif option and before != option:
            found.append(option)
        found.append(argument)
        before = argument
    return found


def assign(raw: dict[str, Any], assignments: Iterable[str]) -> None:
    """Put settings written as `section.key=value` into a dict of sections. Raises ConfigError for another form.

    No value is an empty word, list or table, as the setting is one.
    """
    import tomllib

    from openclimb.config.load import empty_value
    from openclimb.config.schema import SECTIONS

    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        section, _, name = key.strip().partition(".")
        if not equals or (section != "seed" and (section not in SECTIONS or not name)):
            raise ConfigError(
                f"--set {masked_words([assignment])[0]} is not understood",
                "write --set section.key=value, such as proxy.size=2M",
            )
        try:
            parsed = tomllib.loads(f"value = {value}")["value"] if value.strip() else empty_value(section, name)
        except (ValueError, RecursionError):
            parsed = value  # bare text need not be quoted on a command line
        if name:
            raw.setdefault(section, {})[name] = parsed
        else:
            raw[section] = parsed


def parse_over(words: Iterable[str]) -> dict[str, list[Any]]:
    """Return settings with their values from words as `clusters.k=12,48` and `search.trials=[[16, 8], [24]]`.

    Where a setting is a list or a table, its values stand in a list; one that is not in a list is the only one. Raises
    ConfigError for another form.
    """
    import tomllib

    from openclimb.config.load import empty_value

    found: dict[str, list[Any]] = {}
    for word in words:
        factor, equals, text = word.partition("=")
        if not equals or not text.strip():
            raise ConfigError(f"--over {masked_words([word])[0]} is not understood", "write --over clusters.k=12,48")
        factor = factor.strip()
        several = type(empty_value(*factor.split(".", 1))) if "." in factor else str  # list, dict or str
        try:
            parsed = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            parts = text.split(",")
            if several is not str:
                raise ConfigError(
                    f"--over {factor}: {text} is no list of values", f"write --over '{factor}=[[16, 8, 4], [28]]'"
                ) from None
            found.setdefault(factor, []).extend(_scalar(part.strip()) for part in parts)
            continue
        listed = isinstance(parsed, list) and (several is str or all(isinstance(one, several) for one in parsed))
        found.setdefault(factor, []).extend(parsed if listed else [parsed])
    return found


def _scalar(text: str) -> Any:
    """Return a value as TOML reads it; bare text as it is."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text
