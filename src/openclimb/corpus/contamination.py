"""What `contamination/` says of documents and items that share a run of words.

Reads `unit-00012.parquet` (a row for each document and run of an item's that it holds) and `items.csv` (a row an item:
task, part, hash, runs, how many of them the corpus has).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import TasksSettings
from openclimb.workspace.tables import read_rows

FOLDER = "contamination"


def unit_path(folder: Path, number: int) -> Path:
    """Return the file of a unit."""
    return folder / f"unit-{number:05d}.parquet"


def read_unit_runs(folder: Path, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (position of the document, number of the run) for every run of an item's in a unit."""
    import pyarrow.parquet as pq

    table = pq.read_table(unit_path(folder, number))
    return table.column("position").to_numpy(), table.column("run").to_numpy()


def contaminated(folder: Path | None, number: int, labels: Any) -> NDArray[np.bool_]:
    """Return for each row of a unit's labels (with `position`) whether its document holds a run of an item's.

    None does where there is no folder.
    """
    if folder is None:
        return np.zeros(labels.num_rows, dtype=np.bool_)
    return np.isin(labels.column("position").to_numpy(), read_unit_runs(folder, number)[0])


def documents_left_out(root: Path, tasks: TasksSettings) -> Path | None:
    """Return the folder that says which documents of a workspace are left out; None where none are."""
    return root / FOLDER if tasks.contamination == "documents" and tasks.paths else None


def contaminated_items(root: Path, tasks: TasksSettings) -> dict[str, frozenset[float]]:
    """Return {task: hashes of its items that are left out}; {} where none are."""
    found: dict[str, set[float]] = {}
    on = tasks.contamination == "items" and tasks.paths
    for row in read_rows(root / FOLDER / "items.csv") if on else []:
        if int(row["found"]):
            found.setdefault(row["task"], set()).add(float(row["hash"]))
    return {task: frozenset(hashes) for task, hashes in found.items()}
