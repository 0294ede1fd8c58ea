"""What `duplicates/` says of documents that repeat an earlier one.

Reads `unit-00012.parquet` (positions of the documents left out), `places.csv` and `sources.csv`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.workspace.tables import read_rows

FOLDER = "duplicates"
PLACES, SOURCES = "places.csv", "sources.csv"
COUNTS = ("documents", "tokens", "duplicates", "duplicate_tokens")


def unit_path(folder: Path, number: int) -> Path:
    """Return the file of a unit."""
    return folder / f"unit-{number:05d}.parquet"


def read_positions(folder: Path, number: int) -> NDArray[np.int64]:
    """Return the positions of a unit's documents that are left out."""
    import pyarrow.parquet as pq

    return pq.read_table(unit_path(folder, number)).column("position").to_numpy()


def duplicate_shares(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what repeats of a workspace by "domain" and by "source", {} where nobody looked.

    Rows have `name`, `documents`, `tokens`, `duplicates`, `duplicate_tokens` and `share` of the documents, those with
    most duplicates first. Clusters that are in no domain are "pruned", and before there are domains they have their
    numbers. The sources are the folders of the input, or ready-made; one alone is not listed.
    """
    folder = root / FOLDER
    if not (folder / "record.json").is_file():
        return {}
    clusters = root / "domains" / "clusters.csv"
    domain_of = {row["cluster"]: row["domain"] or "pruned" for row in read_rows(clusters)} if clusters.is_file() else {}
    domains = _rows((domain_of.get(row["place"], row["place"]), row) for row in read_rows(folder / PLACES))
    sources = _rows((row["source"], row) for row in read_rows(folder / SOURCES))
    return {"domain": domains, "source": sources if len(sources) > 1 else []}


def _rows(named: Iterable[tuple[str, Mapping[str, str]]]) -> list[dict[str, Any]]:
    sums: dict[str, list[int]] = {}
    for name, row in named:
        before = sums.get(name, [0] * len(COUNTS))
        sums[name] = [n + int(row[count]) for n, count in zip(before, COUNTS, strict=True)]
    rows: list[dict[str, Any]] = []
    for name, numbers in sums.items():
        counts = dict(zip(COUNTS, numbers, strict=True))
        rows.append({"name": name, **counts, "share": counts["duplicates"] / max(1, counts["documents"])})
    return sorted(rows, key=lambda row: (-row["duplicates"], row["name"]))


def duplicates_sentence(shares: Mapping[str, Sequence[Mapping[str, Any]]], how: str) -> str:
    """Return how many documents repeat an earlier one; `how`: corpus.dedup."""
    n, gone, tokens, gone_tokens = (
        sum(row[name] for row in shares["domain"]) for name in ("documents", "duplicates", "tokens", "duplicate_tokens")
    )
    what = "nearly or word for word" if how == "near" else "word for word"
    if not gone:
        return f"None of the {n:,} documents repeats an earlier one {what}."
    return (
        f"Of {n:,} documents {gone:,} ({gone / n:.1%}), with {gone_tokens / max(1, tokens):.1%} of the tokens, repeat "
        f"an earlier one {what}; they are left out of training and export."
    )
