"""What `domains/` says to those that read documents or propose mixtures.

Reads `domains.csv` (one row a domain), and `assignment.npy` (cluster → domain) or `sources.json` (source → domain).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Domain
from openclimb.workspace.files import read_json
from openclimb.workspace.tables import read_rows

PRUNED = -1  # the domain of a document whose cluster or source was pruned


def read_domains(folder: Path) -> list[Domain]:
    """Return the domains of a finished domains stage, in the order of their indices."""
    return [
        Domain(row["name"], int(row["tokens"]), float(row["cap"]), tuple(row["words"].split()))
        for row in read_rows(folder / "domains.csv")
    ]


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
