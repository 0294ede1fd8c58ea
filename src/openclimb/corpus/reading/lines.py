"""Texts → rows: JSON lines, JSON arrays, CSV and TSV, plain text. No row, however long, fills the memory."""

import csv
import io
import re
from collections.abc import Iterator
from typing import IO

from openclimb.corpus.reading.formats import BLOCK
from openclimb.corpus.reading.store import DamagedError

BOM = b"\xef\xbb\xbf"
MARK = re.compile(rb'["\[\]{},]')  # of JSON outside strings
STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)  # of JSON, up to its closing quote
DELIMITERS = ",;\t|"


def lines_between(stream: io.BufferedReader, start: int, stop: int, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield (byte offset, line) of the lines of a file that begin in [start, stop); None for a line over `limit` bytes.

    A line belongs to the byte range that its first byte lies in, so every line is read in exactly one unit.
    """
    offset = start
    if offset:
        stream.seek(offset - 1)
        offset += _skip_line(stream) - 1
    while offset < stop:
        length, line = _next_line(stream, limit)
        if not length:
            raise DamagedError(f"it ends at byte {offset:,}, before {stop:,}")
        yield offset, line
        offset += length


def all_lines(stream: io.BufferedReader, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number from 0, line) of all lines of a stream; None for a line over `limit` bytes."""
    number = 0
    while True:
        length, line = _next_line(stream, limit)
        if not length:
            return
        yield number, line
        number += 1


def _next_line(stream: io.BufferedReader, limit: int) -> tuple[int, bytes | None]:
    """Return the bytes that the next line has, and the line where that is at most `limit`."""
    line = stream.readline(limit + 1)
    if line.endswith(b"\n") or len(line) <= limit:
        return len(line), line
    return len(line) + _skip_line(stream), None


def _skip_line(stream: IO[bytes]) -> int:
    """Pass over the rest of a line, in blocks; return how many bytes that was."""
    passed = 0
    while block := stream.readline(BLOCK):
        passed += len(block)
        if block.endswith(b"\n"):
            break
    return passed


def first_line(stream: io.BufferedReader, limit: int) -> bytes:
    """Return the first line that is not blank, or "" where it does not end within `limit` bytes; reads no more."""
    while limit > 0 and (line := stream.readline(limit)):
        limit -= len(line)
        if line.removeprefix(BOM).strip():
            return line if limit else b""
    return b""


def first_element(stream: io.BufferedReader, limit: int) -> bytes:
    """Return the first element of a JSON array, or "" where it does not end within `limit` bytes; reads no more."""
    splitter = _Splitter(limit)
    for _ in range(0, limit, BLOCK):
        for element in splitter.split(stream.read(BLOCK)):
            return element or b""
    return b""


def is_array(stream: io.BufferedReader) -> bool:
    """Return whether a JSON text begins with an array."""
    return stream.peek(BLOCK).removeprefix(BOM).lstrip()[:1] == b"["


def array_elements(stream: io.BufferedReader, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number from 0, JSON text) of the elements of a JSON array; None for one over `limit` bytes."""
    splitter = _Splitter(limit)
    number = 0
    while block := stream.read(BLOCK):
        for element in splitter.split(block):
            yield number, element
            number += 1
    if not splitter.closed:
        raise EOFError("the array has no end")


class _Splitter:
    """Cuts a JSON array into its elements, a block of bytes at a time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.depth = 0  # 1: between elements of the array
        self.in_string = self.closed = self.too_long = False
        self.element = bytearray()
        self.rest = b""  # a backslash at the end of a block

    def split(self, block: bytes) -> Iterator[bytes | None]:
        """Yield the elements that end in this block."""
        block = self.rest + block
        self.rest = b""
        start = 0
        for at, mark in self._marks(block):
            if mark in (b"[", b"{"):
                self.depth += 1
                start = at + 1 if self.depth == 1 else start
            elif self.depth > 1:
                self.depth -= mark != b","
            elif self.depth == 1:
                self._keep(block[start:at])
                start = at + 1
                if self.too_long or self.element.strip() or mark == b",":
                    yield None if self.too_long else bytes(self.element)
                self.element, self.too_long = bytearray(), False
                self.closed = mark == b"]"
                if self.closed:
                    break
        self._keep(block[start : len(block) - len(self.rest)])
        if self.closed and self.element.strip():
            raise DamagedError("there is more behind the end of its array")

    def _marks(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (place, mark) of the brackets and commas of a block that stand outside strings."""
        at = 0
        while not self.closed:
            if self.in_string:
                at = STRING.match(block, at).end()  # type: ignore[union-attr]
                if block[at : at + 1] != b'"':
                    self.rest = block[at:]
                    return
                self.in_string = False
                at += 1
            found = MARK.search(block, at)
            if found is None:
                return
            at = found.end()
            if found[0] == b'"':
                self.in_string = True
            else:
                yield found.start(), found[0]

    def _keep(self, part: bytes) -> None:
        if self.depth and not self.too_long:
            self.element += part
        if len(self.element) > self.limit:
            self.element, self.too_long = bytearray(), True


def csv_records(stream: io.BufferedReader, delimiter: str, limit: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line from 1, fields) of the records of a CSV text; the first one is the header.

    Without a delimiter, the one that cuts the header into most fields is taken. Bytes that are not UTF-8 come as
    surrogates. Raises DamagedError for a record over `limit` characters and for a quote that is never closed, which
    would make one document of all that follows.
    """
    csv.field_size_limit(max(limit, csv.field_size_limit()))
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        first = text.readline(limit + 1)
        delimiter = delimiter or max(DELIMITERS, key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
        yield from _records(text, first, delimiter, limit)
    finally:
        if not stream.closed:
            text.detach()  # else it would close the stream


def _records(text: io.TextIOWrapper, first: str, delimiter: str, limit: int) -> Iterator[tuple[int, list[str]]]:
    record: list[str] = []  # the lines of the present one
    n_chars, number = 0, 1

    def lines() -> Iterator[str]:
        nonlocal n_chars
        line = first
        while line:
            record.append(line)
            n_chars += len(line)
            if n_chars > limit:
                what = f"longer than {limit // 1_000_000} MB; is a quote left open?"
                raise DamagedError(f"its row at line {number:,} is {what}")
            yield line
            line = text.readline(limit + 1)

    last: list[str] = []
    for fields in csv.reader(lines(), delimiter=delimiter):
        if fields:
            yield number, fields
        number += len(record)
        last = record.copy()
        record.clear()
        n_chars = 0
    try:
        list(csv.reader(last, delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise DamagedError(f"a quote at line {number - len(last):,} is never closed") from None
