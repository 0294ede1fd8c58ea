"""Reads `labels/unit-00012.parquet`: a row for each document with its cluster or source, scores and sizes, no text."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DONE = b"done"  # the key of a unit's metadata with what became of the documents that have no row, as JSON


def read_labels(folder: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (unit number, pyarrow.Table of the columns) for each unit, in order."""
    import pyarrow.parquet as pq

    for number, path in label_files(folder):
        yield number, pq.read_table(path, columns=list(columns) if columns else None)


def label_files(folder: Path) -> list[tuple[int, Path]]:
    """Return (unit number, path) of each unit's file, in order of the numbers."""
    return sorted((int(path.stem.removeprefix("unit-")), path) for path in folder.glob("unit-*.parquet"))


def read_empty_sources(folder: Path) -> dict[str, int]:
    """Return how many documents without text the ready-made domains have: those that have some, and every folder."""
    import pyarrow.parquet as pq

    found: Counter[str] = Counter()
    for _, path in label_files(folder):
        metadata = pq.read_metadata(path).metadata or {}
        found.update(json.loads(metadata.get(DONE, b"{}")).get("empty_sources", {}))
    return dict(found)
