"""The seam "writer": how a shard's rows become files, and how they are read back.

Rows are a pyarrow table. Its columns are `text` (or `ids`, the tokens, for formats of tokens), id, domain, tokens,
repetition, source_file and position; and for `--by-cluster` what the labels say of the document, which a format of
fixed columns leaves out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclimb.config.registry import load
from openclimb.errors import ConfigError

COLUMNS = ("id", "domain", "tokens", "repetition", "source_file", "position")  # of a row, beside its text or its ids


@dataclass(frozen=True)
class Writer:
    """One format of the shards."""

    suffixes: tuple[str, ...]  # of a shard's files, with their dots; what follows the first belongs to it
    write: Callable[..., None]  # (rows, a path for each suffix)
    read: Callable[..., Iterator[Any]]  # (a path for each suffix) → tables, in order
    builder: str = ""  # the name that `datasets.load_dataset` has for it
    tokens: bool = False  # whether rows have `ids` in place of `text`
    loading: str = "datasets"  # which part of the card says how to load it: templates/load/NAME.md
    # (folder, what each shard holds: file, tokens, …, and its share of what is drawn): writes what stands beside them
    finish: Callable[[Path, Sequence[Mapping[str, Any]]], None] | None = None
    blends: tuple[str, ...] = ()  # trainers' files of weights, where each domain has a folder: templates/blend/NAME

    def paths(self, folder: Path, name: str) -> list[Path]:
        """Return the files of a shard."""
        return [folder / f"{name}{suffix}" for suffix in self.suffixes]


def find_writer(name: str) -> Writer:
    """Return a writer by name, or `package.module:WRITER`. Raises ConfigError where there is none."""
    found = load("writer", name)
    if not isinstance(found, Writer):
        raise ConfigError(f"writer '{name}' is a {type(found).__name__}, not a Writer", "see export/writers/writer.py")
    return found
