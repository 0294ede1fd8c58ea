"""What `domains/` says to those that read documents or propose mixtures.

Reads `domains.csv` (one row a domain), and `assignment.npy` (cluster → domain) or `sources.json` (source → domain).
"""

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import WorkspaceError
from openclimb.mixture import Domain
from openclimb.workspace import read_json

PRUNED = -1  # the domain of a document whose cluster or source was pruned


def read_domains(folder: Path) -> list[Domain]:
    """Return the domains of a finished domains stage, in the order of their indices."""
    csv.field_size_limit(sys.maxsize)  # the user's own domain names may be of any length
    return [
        Domain(row["name"], int(row["tokens"]), float(row["cap"]), tuple(row["words"].split()))
        for row in read_table(folder / "domains.csv")
    ]


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file of the domains stage."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing", "run the stage that makes it: climb run") from None


def read_assignment(folder: Path) -> Callable[[Any], NDArray[np.int32]]:
    """Return a function from a table of labels (pyarrow, with `cluster` or `source`) to each row's domain index.

    The index is −1 for a document that is in no domain. Which column is read: `read_assignment_column`.
    """
    sources = folder / "sources.json"
    if sources.is_file():
        index = read_json(sources)
        return lambda labels: _by_source(labels.column("source").combine_chunks(), index)
    assignment = np.load(folder / "assignment.npy", allow_pickle=False)
    return lambda labels: assignment[labels.column("cluster").to_numpy()]


def read_assignment_column(folder: Path) -> str:
    """Return the column of the labels that decides a document's domain: "cluster" or "source"."""
    return "source" if (folder / "sources.json").is_file() else "cluster"


def _by_source(column: Any, index: dict[str, int]) -> NDArray[np.int32]:
    import pyarrow as pa

    column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    names = column.dictionary.to_pylist()
    domains = np.array([index.get(name, PRUNED) for name in names], dtype=np.int32)
    return domains[column.indices.to_numpy()] if len(names) else np.empty(0, dtype=np.int32)
