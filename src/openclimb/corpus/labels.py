"""Reads `labels/unit-00012.parquet`: a row for each document with its cluster or source, scores and sizes, no text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def read_labels(folder: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (unit number, pyarrow.Table of the columns) for each unit, in order."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("unit-*.parquet")):
        yield int(path.stem.removeprefix("unit-")), pq.read_table(path, columns=list(columns) if columns else None)
