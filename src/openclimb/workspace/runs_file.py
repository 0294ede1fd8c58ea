"""Runs that were finished elsewhere: a table of mixtures and a table of scores that share a column of names.

Reads `ratios.csv` (name, then one weight a domain) and `metrics.csv` (name, then one score a task).
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openclimb.errors import InputError, nearest

NAMES = ("run", "index", "name", "id", "trial", "")  # which of several shared columns names a run; "" as some write it
SUM_TOLERANCE = 1e-3  # weights that people rounded are renormalised; more than this is a mistake
SHOWN = 5  # names listed in a message


@dataclass(frozen=True)
class Run:
    """One finished run."""

    name: str
    weights: tuple[float, ...]  # in the order of the domains, sum 1
    scores: dict[str, float]  # by task, higher is better


def read_runs(ratios: Path, metrics: Path, domains: Sequence[str], *, losses: bool = False) -> list[Run]:
    """Return the runs in the order of `ratios`. With `losses` all metrics are lower is better and change sign.

    Raises InputError for domains without a column or columns without a domain, weights that are negative or do not sum
    to 1 within SUM_TOLERANCE, numbers that are not finite, names that repeat, and runs in one file only.
    """
    mixtures, results = _read_table(ratios), _read_table(metrics)
    key = _shared_column(ratios, mixtures[0], metrics, results[0])
    weights = _by_name(ratios, mixtures, key)
    scores = _by_name(metrics, results, key)
    columns = [column for column in mixtures[0] if column != key]
    for missing in [name for name in domains if name not in columns]:
        raise InputError(
            f"{ratios} has no column for the domain '{missing}'{nearest(missing, columns)}",
            f"it must have one column a domain: {', '.join(domains)}",
        )
    for unknown in [name for name in columns if name not in domains]:
        raise InputError(
            f"{ratios} has a column '{unknown}', which is no domain{nearest(unknown, domains)}",
            f"domains are: {', '.join(domains)}",
        )
    _same_names(ratios, weights, metrics, scores)
    sign = -1.0 if losses else 1.0
    return [
        Run(name, _mixture(ratios, name, [row[d] for d in domains]), {k: sign * v for k, v in scores[name].items()})
        for name, row in weights.items()
    ]


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    if not path.is_file():
        raise InputError(f"{path} is missing", "give the two tables: climb import DIR ratios.csv metrics.csv")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file: {error}", "write it as comma-separated UTF-8 text") from None
    if len(rows) < 2:
        raise InputError(f"{path} has no rows", "it needs a line of column names and a line for each run")
    head = [column.strip() for column in rows[0]]
    if len(set(head)) < len(head):
        twice = next(column for column in head if head.count(column) > 1)
        raise InputError(f"{path} has two columns '{twice}'", "give every column another name")
    for i, row in enumerate(rows[1:], 2):
        if len(row) != len(head):
            raise InputError(f"{path} line {i} has {len(row)} cells, not {len(head)}", "correct that line")
    return head, rows[1:]


def _shared_column(ratios: Path, first: Sequence[str], metrics: Path, second: Sequence[str]) -> str:
    """Return the column that names the runs: shared by both files. Domains may have metrics of the same name."""
    shared = [column for column in first if column in second]
    named = [column for column in NAMES if column in [name.lower() for name in shared]]
    if named:
        return next(column for column in shared if column.lower() == named[0])
    if len(shared) == 1 and shared[0] == first[0]:
        return shared[0]
    raise InputError(
        f"{ratios} and {metrics} share no column that names the runs",
        f"give both a first column 'run'; {ratios.name} has {', '.join(first[:SHOWN])}, … and {metrics.name} has "
        f"{', '.join(second[:SHOWN])}, …",
    )


def _by_name(path: Path, table: tuple[list[str], list[list[str]]], key: str) -> dict[str, dict[str, float]]:
    head, rows = table
    at = head.index(key)
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        name = row[at].strip()
        if name in found:
            raise InputError(f"{path} has two rows for run '{name}'", "a run has one name for itself")
        found[name] = {
            column: _number(path, name, column, cell) for column, cell in zip(head, row, strict=True) if column != key
        }
    return found


def _number(path: Path, name: str, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{path}, run '{name}', {column}: '{cell}' is not a finite number", "correct it, or leave out the run"
        )
    return value


def _same_names(
    ratios: Path, weights: dict[str, dict[str, float]], metrics: Path, scores: dict[str, dict[str, float]]
) -> None:
    for here, mine, there, other in ((ratios, weights, metrics, scores), (metrics, scores, ratios, weights)):
        lone = [name for name in mine if name not in other]
        if lone:
            more = f" and {len(lone) - SHOWN} more" if len(lone) > SHOWN else ""
            raise InputError(
                f"runs that are in {here} and not in {there}: {', '.join(lone[:SHOWN])}{more}",
                "both files must have a row for each run",
            )


def _mixture(path: Path, name: str, raw: list[float]) -> tuple[float, ...]:
    total = sum(raw)
    if min(raw) < 0 or abs(total - 1.0) > SUM_TOLERANCE:
        what = "are negative" if min(raw) < 0 else f"sum to {total:.6g}, not 1"
        raise InputError(f"{path}, run '{name}': the weights {what}", f"they must sum to 1 within {SUM_TOLERANCE:g}")
    return tuple(weight / total for weight in raw)
