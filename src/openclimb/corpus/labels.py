"""Reads `labels/unit-00012.parquet`: a row for each document with its cluster or source, scores and sizes, no text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def read_labels(folder: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (unit number, pyarrow.Table of the columns) for each unit, in order."""
    import pyarrow.parquet as pq

    for number, path in label_files(folder):
        yield number, pq.read_table(path, columns=list(columns) if columns else None)


def label_files(folder: Path) -> list[tuple[int, Path]]:
    """Return (unit number, path) of each unit's file, in order of the numbers."""
    return sorted((int(path.stem.removeprefix("unit-")), path) for path in folder.glob("unit-*.parquet"))
