"""A workspace without a corpus: its domains are given by hand (name, tokens), its trials are trained elsewhere.

`climb.toml` then has `corpus.paths = []` and `corpus.domains = "file:domains.csv"`, a table in the workspace. Reads and
writes that table; caps follow from [target] whenever it is read.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from openclimb.config.load import parse_count
from openclimb.config.schema import Config, TargetSettings
from openclimb.corpus.domains import read_domains
from openclimb.errors import ConfigError, InputError, WorkspaceError
from openclimb.mixture import Domain, caps
from openclimb.progress import counted, silent
from openclimb.workspace.tables import read_csv, write_csv

FILE = "domains.csv"
SETTING = f"file:{FILE}"
NO_DATA = "given"  # what trials of such a workspace have for the fingerprint of their data


def has_custom_domains(config: Config) -> bool:
    """Return whether the domains are given by hand, so that there is no corpus."""
    return config.corpus.domains.startswith("file:")


def custom_domains(root: Path, config: Config) -> list[Domain]:
    """Return the domains of a workspace without a corpus, with their caps."""
    return read_custom(root / config.corpus.domains.removeprefix("file:"), config.target)


def weighed_domains(root: Path, config: Config) -> tuple[list[Domain], Path | None]:
    """Return the domains that a mixture weighs, and the folder of their packed tokens; None without a corpus."""
    if has_custom_domains(config):
        return custom_domains(root, config), None
    return read_domains(root / "domains"), root / "tokens"


def stop_without_corpus(root: Path, config: Config) -> None:
    """Raise WorkspaceError where the domains are given by hand: nothing can be trained or written there."""
    if has_custom_domains(config):
        raise WorkspaceError(
            f"{root} has no corpus: its domains are given by hand, so there is nothing to read, train on or write",
            "set objective.command to a trainer of your own; or "
            f"train elsewhere: `climb ask {root} -n 8`, `climb tell` for each trial, then `climb best {root}`; "
            "or make a workspace with `climb init DIR --corpus PATH`",
        )


def read_custom(path: Path, target: TargetSettings, note: Callable[[str], None] = silent) -> list[Domain]:
    """Return the domains in a table with the columns name and tokens ("40B" is a count), with their caps.

    `note` is given what is unusual about the file.

    Raises InputError when it cannot be read: a column is missing, a name repeats, tokens are no positive count.
    """
    rows = read_csv(path, ("name", "tokens"), note)
    names = [row["name"] or "" for row in rows]
    _check_names(path, names)
    tokens = [_count(path, name, row["tokens"]) for name, row in zip(names, rows, strict=True)]
    limits = caps(tokens, target.token_budget, target.max_repetitions).tolist()
    return [Domain(name, n, cap) for name, n, cap in zip(names, tokens, limits, strict=True)]


def write_custom(root: Path, domains: Sequence[Domain]) -> None:
    """Write the table of domains into a workspace."""
    write_csv(root / FILE, ("name", "tokens"), [(domain.name, domain.n_tokens) for domain in domains])


def _check_names(path: Path, names: Sequence[str]) -> None:
    if len(names) < 2:
        raise InputError(
            f"{path} has {counted(len(names), 'domains')}, and a mixture needs two", "write one line for each domain"
        )
    for i, name in enumerate(names, 2):
        if not name:
            raise InputError(f"{path} line {i} has no name", "give every domain a name")
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise InputError(f"{path} has the domain '{twice}' twice", "give every domain a name of its own")


def _count(path: Path, name: str, cell: str | None) -> int:
    try:
        n = parse_count(cell or "")
    except ConfigError as error:
        raise InputError(f"{path}, domain '{name}', tokens: {error.message}", error.fix) from None
    if n < 1:
        raise InputError(f"{path}: the domain '{name}' has no tokens", "leave out domains without tokens")
    return n
