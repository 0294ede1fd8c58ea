"""CSV, read and written here alone. What people write by hand is checked; our own tables are read as they are."""

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openclimb.errors import InputError, WorkspaceError, nearest
from openclimb.workspace.files import write_text
from openclimb.workspace.sheet import read_sheet

MIXTURE = ("name", "weight", "natural", "cap", "tokens", "repetitions")  # columns of mixture.csv; "domain" for the name


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column, stripped; a cell that a short line leaves out is empty.

    Raises InputError when the file is missing, is not CSV or lacks one of `columns`.
    """
    first_line = ",".join(columns)
    sheet = read_sheet(path, f"write a CSV file with the columns {first_line}", ragged=True)
    for wanted in columns:
        if wanted not in sheet.head:
            raise InputError(
                f"{path} has no column '{wanted}'{nearest(wanted, sheet.head)}", f"its first line must be: {first_line}"
            )
    return [dict(zip(sheet.head, row, strict=True)) for row in sheet.rows]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table that Openclimb wrote. Raises WorkspaceError when it is missing."""
    csv.field_size_limit(sys.maxsize)  # the user's own domain names may be of any length
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing", "run the stage that makes it: climb run") from None


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV with a line of column names."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *rows])
    return out.getvalue()


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, whole or not at all."""
    write_text(path, csv_text(head, rows))


def mixture_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return mixture.csv: one line a domain with its weight, natural share, cap, tokens and repetitions."""
    return csv_text(("domain", *MIXTURE[1:]), [[row[column] for column in MIXTURE] for row in rows])
