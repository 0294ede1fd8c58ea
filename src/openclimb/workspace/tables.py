"""CSV, read and written here alone. What people write by hand is checked; our own tables are read as they are.

A text that a spreadsheet would take for a formula has an apostrophe before it, as people write it there; reading takes
it off again. Numbers are left alone.
"""

import csv
import io
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openclimb.errors import InputError, WorkspaceError, nearest
from openclimb.progress import silent
from openclimb.workspace.files import write_text
from openclimb.workspace.sheet import read_sheet

FORMULA = re.compile(r"'*[=+\-@\t\r]")
MIXTURE = ("name", "weight", "natural", "cap", "tokens", "repetitions")  # columns of mixture.csv; "domain" for the name


def read_csv(path: Path, columns: Sequence[str], note: Callable[[str], None] = silent) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column, stripped; a cell that a short line leaves out is empty.

    `note` is given the encoding and the separator where they are unusual.
    Raises InputError when the file is missing, is not CSV or lacks one of `columns`.
    """
    first_line = ",".join(columns)
    sheet = read_sheet(path, f"write a CSV file with the columns {first_line}", ragged=True)
    if sheet.dialect:
        note(f"{path.name} is read as: {sheet.dialect}")
    head = [unguarded(column) for column in sheet.head]
    for wanted in columns:
        if wanted not in head:
            raise InputError(
                f"{path} has no column '{wanted}'{nearest(wanted, head)}", f"its first line must be: {first_line}"
            )
    return [dict(zip(head, map(unguarded, row), strict=True)) for row in sheet.rows]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table that Openclimb wrote. Raises WorkspaceError when it is missing."""
    csv.field_size_limit(sys.maxsize)  # the user's own domain names may be of any length
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [{unguarded(name): unguarded(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing", "run the stage that makes it: climb run") from None


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV with a line of column names."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")  # so that a cell with either character is quoted
    for row in (head, *rows):
        writer.writerow([_guarded(cell) for cell in row])
        out.seek(out.tell() - 2)
        out.write("\n")
        out.truncate()
    return out.getvalue()


def _guarded(cell: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) and not _is_number(cell) else cell


def unguarded(cell: Any) -> Any:
    """Return a cell without the apostrophe that `csv_text` put before it; any other as it is."""
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and FORMULA.match(cell) else cell


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, whole or not at all."""
    write_text(path, csv_text(head, rows))


def mixture_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return mixture.csv: one line a domain with its weight, natural share, cap, tokens and repetitions."""
    return csv_text(("domain", *MIXTURE[1:]), [[row[column] for column in MIXTURE] for row in rows])
