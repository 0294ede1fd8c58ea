"""What `contamination/` says of documents and items that share a run of words.

Reads `unit-00012.parquet` (a row for each document and run of an item's that it holds), `items.csv` (a row an item:
task, part, hash, runs, how many of them the corpus has), `tasks.csv` and `documents.csv`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
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


def task_overlap(root: Path) -> list[dict[str, Any]]:
    """Return what the corpus of a workspace has of each task, [] where nobody looked.

    `items`, `overlap`: items, and those of which a run stands in the corpus; `report_items`, `report_overlap`: the same
    of the report part; `too_short`: items too short to be looked for; `share` of the task's runs that were found;
    `documents` that hold some; `domains`: {domain: documents}, those with most first.
    """
    folder = root / FOLDER
    if not (folder / "record.json").is_file():
        return []
    clusters = root / "domains" / "clusters.csv"
    domain_of = {row["cluster"]: row["domain"] for row in read_rows(clusters)} if clusters.is_file() else {}
    domains: dict[str, Counter[str]] = {}
    for row in read_rows(folder / "documents.csv"):
        name = domain_of.get(row["place"], row["place"]) or "pruned"
        domains.setdefault(row["task"], Counter())[name] += int(row["documents"])
    rows = []
    for row in read_rows(folder / "tasks.csv"):
        numbers = {name: int(value) for name, value in row.items() if name != "task"}
        share = numbers.pop("found") / max(1, numbers.pop("runs"))
        most = dict(domains.get(row["task"], Counter()).most_common())
        rows.append({"task": row["task"], **numbers, "share": share, "domains": most})
    return rows


def overlap_sentence(rows: Sequence[Mapping[str, Any]], how: str) -> str:
    """Return how many of the report items stand in the corpus and what became of that; `how`: tasks.contamination."""
    n, found = (sum(row[name] for row in rows) for name in ("report_items", "report_overlap"))
    if not found:
        return f"None of the {n:,} report items shares a run of 13 words with the corpus."
    became = {
        "documents": "the documents that hold them are in no training.",
        "items": "they are left out of the scores.",
    }.get(how, "they count in the scores.")
    return f"Of {n:,} report items {found:,} ({found / n:.1%}) share a run of 13 words with the corpus; {became}"


def contaminated_items(root: Path, tasks: TasksSettings) -> dict[str, frozenset[float]]:
    """Return {task: hashes of its items that are left out}; {} where none are."""
    found: dict[str, set[float]] = {}
    on = tasks.contamination == "items" and tasks.paths
    for row in read_rows(root / FOLDER / "items.csv") if on else []:
        if int(row["found"]):
            found.setdefault(row["task"], set()).add(float(row["hash"]))
    return {task: frozenset(hashes) for task, hashes in found.items()}
