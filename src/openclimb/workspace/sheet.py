"""Tables as people write them: CSV in the dialects of spreadsheets, and numbers with a decimal comma or a percent sign.

Reads UTF-8 and, with a byte order mark or zero bytes, UTF-16 and UTF-32; what is none of them is read as Windows-1252,
in which Excel saves "CSV". Separators are , ; tab and |, or what Excel's first line `sep=;` says. What cannot be told
for sure (is 1,234 one or a thousand?) is refused.
"""

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openclimb.errors import InputError

LARGEST = 1e15  # beyond this a number is a fault of its writer; squares of it are still finite
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
MARKS = (  # UTF-32 first: its mark begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
ANSI = "cp1252"  # what Windows calls so in western Europe and America, and Excel writes without being asked
NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f]")  # characters that no table has
LOOK = 50  # rows from which the separator is told
SPACES = str.maketrans({" ": "", "\u00a0": "", "\u202f": "", "'": "", "’": "", "\u2212": "-"})  # in and before numbers
DIGITS = re.compile(r"[+-]?[0-9.,]*[0-9][0-9.,]*(?:[eE][+-]?[0-9]+)?")
WORDS = {"nan", "inf", "-inf", "+inf", "infinity", "-infinity", "+infinity", "true", "false"}  # no scores, but meant so


@dataclass(frozen=True)
class Sheet:
    """The cells of a table as text, stripped."""

    path: Path
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]  # of each row, its last line in the file
    separator: str
    encoding: str

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        at = self.head.index(name)
        return [row[at] for row in self.rows]

    def place(self, row: int, column: str) -> str:
        """Return where a cell is, in words."""
        return f"{self.path} line {self.lines[row]}, column '{column}'"

    @property
    def dialect(self) -> str:
        """What is unusual about the file, in words; empty for UTF-8 with commas."""
        encoding = "" if self.encoding.startswith("utf-8") else self.encoding.upper()
        if self.encoding == ANSI:
            encoding = "Windows-1252, as it is not UTF-8 (check names with accents, or save it as CSV UTF-8)"
        separator = "" if self.separator == "," else f"separator {SEPARATORS.get(self.separator, self.separator)}"
        return ", ".join(filter(None, (encoding, separator)))


def read_sheet(path: Path, missing: str, *, ragged: bool = False) -> Sheet:
    """Return the cells of a CSV file. Empty rows, and columns without a name or a cell, are left out.

    With `ragged`, cells that a short row lacks are empty. Raises InputError when the file is missing (with the fix
    `missing`), is no CSV, has no row, or rows of other widths.
    """
    text, encoding = read_table_text(path, missing)
    separator, text, first = choose_separator(text)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        found = [([cell.strip() for cell in row], reader.line_num + first) for row in reader]
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}", "write it as comma-separated UTF-8 text") from None
    found = [(row, line) for row, line in found if any(row)]
    if len(found) < 2:
        raise InputError(f"{path} has no rows", "it needs a line of column names and lines below it")
    head = found[0][0]
    width = max(len(head), *(_used(row) for row, _ in found[1:]))
    for row, line in found[1:]:
        if (len(row) < len(head) and not ragged) or _used(row) > len(head):
            raise InputError(
                f"{path} line {line} has {len(row)} cells, not {len(head)}",
                "correct that line; decimal commas need quotes or another separator than the comma",
            )
    table = [(*row, *[""] * (width - len(row)))[:width] for row, _ in found]
    kept = [i for i in range(width) if any(row[i] for row in table)]
    names = tuple(table[0][i] for i in kept)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} has two columns '{twice}'", "give every column another name")
    rows = tuple(tuple(row[i] for i in kept) for row in table[1:])
    return Sheet(path, names, rows, tuple(line for _, line in found[1:]), separator, encoding)


def _used(row: Sequence[str]) -> int:
    """Return the cells of a row up to the last one that is not empty."""
    return max((i for i, cell in enumerate(row, 1) if cell), default=0)


def read_table_text(path: Path, missing: str) -> tuple[str, str]:
    """Return the text of a table and its encoding. Raises InputError when it is missing or no text."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing", missing) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", missing) from None
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    if (
        encoding == "utf-8" and b"\0" in data[:2] and len(data) % 2 == 0
    ):  # UTF-16 without a mark: ASCII every other byte
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError as error:
        if (ansi := _decode_ansi(data)) is not None and encoding == "utf-8":
            return ansi, ANSI
        what = "an Excel workbook" if data.startswith(b"PK") else f"not a CSV file: {error}"
        fix = "in Excel: Save as, CSV UTF-8" if data.startswith(b"PK") else "write it as comma-separated UTF-8 text"
        raise InputError(f"{path} is {what}", fix) from None


def _decode_ansi(data: bytes) -> str | None:
    """Return the text of a table in Windows-1252; None for no text, and for UTF-8 that is damaged in places.

    A character of UTF-8 beyond ASCII is two or more bytes that hardly stand beside each other in words of Windows-1252.
    """
    if not data.decode("utf-8", errors="ignore").isascii():
        return None
    try:
        text = data.decode(ANSI)
    except UnicodeDecodeError:
        return None
    return None if NO_TEXT.search(text) else text


def choose_separator(text: str) -> tuple[str, str, int]:
    """Return the separator, the text without Excel's line `sep=;`, and how many lines that was.

    The separator is the one with which most rows are as wide as the first; where several are so, the widest.
    """
    first, _, rest = text.partition("\n")
    given = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)
    if given:
        return given[1], rest, 1

    def fit(separator: str) -> tuple[bool, float, int]:
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
            rows = [row for row, _ in zip(reader, range(LOOK), strict=False) if any(cell.strip() for cell in row)]
        except csv.Error:
            return False, 0.0, 0
        width = len(rows[0]) if rows else 0
        return width > 1, sum(len(row) == width for row in rows) / max(1, len(rows)), width

    return max(SEPARATORS, key=fit), text, 0


def is_numberlike(cell: str) -> bool:
    """Return whether a cell is meant as a number, be it a usable one or not."""
    plain = cell.translate(SPACES).removesuffix("%")
    return bool(DIGITS.fullmatch(plain)) or plain.lower() in WORDS


def read_numbers(sheet: Sheet, columns: Iterable[str]) -> dict[str, list[float | None]]:
    """Return the numbers of columns; None for empty cells. A percent sign divides by 100.

    Whether a comma is decimal follows from all these cells together. Raises InputError, with the line and the column,
    for a cell that is no finite number up to LARGEST, and for a column that mixes cells with and without percent signs.
    """
    cells = {name: sheet.column(name) for name in columns}
    mark = _decimal_mark(sheet, [cell for column in cells.values() for cell in column])
    found = {}
    for name, column in cells.items():
        found[name] = [
            None if not cell else _number(cell, mark, sheet.place(row, name)) for row, cell in enumerate(column)
        ]
        signs = {cell.endswith("%"): row for row, cell in enumerate(column) if cell and found[name][row] != 0.0}
        if len(signs) == 2:
            raise InputError(
                f"{sheet.place(signs[False], name)}: {column[signs[False]]} without a percent sign, in line "
                f"{sheet.lines[signs[True]]} {column[signs[True]]} with one",
                "write the whole column in one way",
            )
    return found


def _number(cell: str, mark: str, place: str) -> float:
    plain = cell.translate(SPACES)
    percent = plain.endswith("%")
    plain = plain.removesuffix("%")
    thousands = "." if mark == "," else ","
    if thousands in plain:
        plain = plain.replace(thousands, "") if _is_grouped(plain, thousands, mark) else ""
    plain = plain.replace(mark, ".")
    value = float(plain) if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", plain) else math.nan
    if not math.isfinite(value):
        raise InputError(f"{place}: '{cell}' is not a finite number", "correct it, or leave the cell empty")
    if abs(value) > LARGEST:
        raise InputError(f"{place}: '{cell}' is out of range", f"it must be between -{LARGEST:g} and {LARGEST:g}")
    return value / 100 if percent else value


def _is_grouped(cell: str, thousands: str, mark: str) -> bool:
    """Return whether the digits of a number stand in groups of three, the first of which is no zero."""
    group, decimal = re.escape(thousands), re.escape(mark)
    return bool(re.fullmatch(rf"[+-]?[1-9][0-9]{{0,2}}({group}[0-9]{{3}})+({decimal}[0-9]*)?", cell))


def _decimal_mark(sheet: Sheet, cells: Sequence[str]) -> str:
    """Return "," or ".", whichever the cells use before decimals. Raises InputError where that cannot be told."""
    plain = [cell.translate(SPACES).removesuffix("%") for cell in cells]
    plain = [cell for cell in plain if DIGITS.fullmatch(cell)]
    mixed = [cell for cell in plain if "," in cell and "." in cell]
    both = {max(",.", key=cell.rfind) for cell in mixed}
    commas = [cell for cell in plain if "," in cell and "." not in cell]
    points = [cell for cell in plain if "." in cell and "," not in cell]
    if len(both) == 1:
        return both.pop()
    if not both and not commas:
        return "."
    if not both and not points and (sheet.separator == ";" or not all(_is_grouped(c, ",", ".") for c in commas)):
        return ","
    if not both and points:
        grouped = {
            ".": all(_is_grouped(cell, ",", ".") for cell in commas),
            ",": all(_is_grouped(cell, ".", ",") for cell in points),
        }
        if sum(grouped.values()) == 1:
            return next(mark for mark, fits in grouped.items() if fits)
    examples = " and ".join((*commas[:1], *points[:1], *mixed[:2])[:2])
    raise InputError(
        f"{sheet.path}: it cannot be told whether commas or points come before decimals: {examples}",
        "write numbers without separators of thousands and with a decimal point",
    )
