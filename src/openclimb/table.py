"""Small tables that people write by hand: CSV files with a line of column names."""

import csv
from collections.abc import Sequence
from pathlib import Path

from openclimb.errors import InputError, nearest


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str | None]]:
    """Return the rows of a CSV file by column, stripped; a cell that a short line leaves out is None.

    Raises InputError when the file is missing, is not CSV or lacks one of `columns`.
    """
    first_line = ",".join(columns)
    if not path.is_file():
        raise InputError(f"{path} is missing", f"write a CSV file with the columns {first_line}")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            found = [column.strip() for column in reader.fieldnames or []]
            reader.fieldnames = found
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file: {error}", "write it as comma-separated UTF-8 text") from None
    for wanted in columns:
        if wanted not in found:
            raise InputError(
                f"{path} has no column '{wanted}'{nearest(wanted, found)}", f"its first line must be: {first_line}"
            )
    return [
        {column: (row[column] or "").strip() if row[column] is not None else None for column in found} for row in rows
    ]
