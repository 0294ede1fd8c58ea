"""The seam "writer": how a shard's rows become a file, and how `datasets.load_dataset` reads it back."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclimb.config.registry import load
from openclimb.errors import ConfigError


@dataclass(frozen=True)
class Writer:
    """One format of the shards."""

    suffix: str  # of a shard's file, with its dot
    builder: str  # the name that `datasets.load_dataset` has for it
    write: Callable[[Any, Path], None]  # a pyarrow table, and the file to make


def find_writer(name: str) -> Writer:
    """Return a writer by name, or `package.module:WRITER`. Raises ConfigError where there is none."""
    found = load("writer", name)
    if not isinstance(found, Writer):
        raise ConfigError(f"writer '{name}' is a {type(found).__name__}, not a Writer", "see export/writers.py")
    return found


def write_parquet(rows: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(rows, path, compression="zstd", row_group_size=4096)


def write_json_lines(rows: Any, path: Path) -> None:
    import zstandard

    with open(path, "wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as stream:
        for batch in rows.to_batches(max_chunksize=1024):
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
            stream.write("".join(lines).encode("utf-8"))


PARQUET = Writer(".parquet", "parquet", write_parquet)
JSON_LINES = Writer(".jsonl.zst", "json", write_json_lines)
