"""WARC files → records of text (ISO 28500:2017): Common Crawl's WET files, and plain text in other archives.

A record is a header of lines and then so many bytes as it says. A file that ends within one raises DamagedError. No
record and no line of a header, however long, fills the memory.

The library warcio is not used: it takes what is there of a record that ends early for all of it, only prints what it
finds damaged in gzip, reads lines of any length, and refuses gzip files of one member.
"""

import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from openclimb.corpus.reading.formats import BLOCK
from openclimb.corpus.reading.lines import BOM
from openclimb.corpus.reading.store import DamagedError

DOCUMENTS = ("conversion", "resource", "response")  # types of records that may be documents; others describe them
PLAIN, PAGES = "text/plain", ("text/html", "application/xhtml+xml")
MOST_LINE = 1 << 16  # bytes of a line of a header
MOST_LINES = 1000  # of a header
CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
UTF8 = "utf-8"
OWN = ("", "identity", "gzip", "x-gzip", "deflate")  # content encodings that are read

Fields = dict[str, str]  # names in lower case


class NotPlain(Exception):
    """What a record holds is not plain text; the message says what it is."""


class Unreadable(Exception):
    """A record of plain text cannot be read; the message says why."""


@dataclass
class Record:
    """A record. Its bytes are those that come next in the stream."""

    number: int  # from 0, among all records of the file
    fields: Fields
    stream: io.BufferedReader
    left: int  # bytes that are not read yet

    @property
    def kind(self) -> str:
        """WARC-Type, in lower case."""
        return self.fields.get("warc-type", "").strip().lower()

    @property
    def url(self) -> str:
        """What was fetched: WARC-Target-URI, which some write in angle brackets."""
        return self.fields.get("warc-target-uri", "").strip("<>")

    @property
    def id(self) -> str:
        """WARC-Record-ID without its angle brackets."""
        return self.fields.get("warc-record-id", "").strip("<>")

    def text(self, limit: int) -> str:
        """Return the text of the record.

        Raises NotPlain when it is none, Unreadable when it is longer than `limit` bytes or its encoding is broken.
        """
        fields = self._fields_of_content()
        kind, encoding = fields.get("content-type", ""), fields.get("content-encoding", "").strip().lower()
        mime = kind.partition(";")[0].strip().lower() or (PLAIN if self.kind == "conversion" else "")
        if mime != PLAIN:
            raise NotPlain(mime or "without a type")
        if encoding not in OWN:
            raise NotPlain(f"{mime} packed by {encoding}")
        if self.left > limit:
            raise Unreadable(f"longer than {limit // 1_000_000} MB")
        data = self.take(self.left)
        if fields.get("transfer-encoding", "").strip().lower() == "chunked":
            data = unchunked(data)
        data = unpacked(data, limit) if encoding not in OWN[:2] else data
        named = CHARSET.search(kind)
        return _decoded(data.removeprefix(BOM), named[1].lower() if named else UTF8)

    def _fields_of_content(self) -> Fields:
        """Return the header fields of what the record holds: its own or, for an answer of a web server, the server's.

        Raises NotPlain for an answer that says that there is no document.
        """
        if not self.fields.get("content-type", "").strip().lower().startswith("application/http"):
            return self.fields
        status = self._line().split(None, 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/") or not re.fullmatch(rb"2\d\d", status[1]):
            raise NotPlain("an answer without success")
        try:
            return read_fields(self._line)
        except DamagedError:
            raise NotPlain("an answer without a header") from None

    def _line(self) -> bytes:
        line = self.stream.readline(min(MOST_LINE + 1, self.left))
        self.left -= len(line)
        return line

    def take(self, n: int) -> bytes:
        """Return the next n bytes. Raises DamagedError when the file ends before."""
        data = self.stream.read(n)
        self.left -= len(data)
        if len(data) < n:
            raise DamagedError(f"it ends within its record {self.number}")
        return data

    def skip(self) -> None:
        """Pass over what is not read yet."""
        while self.left:
            self.take(min(BLOCK, self.left))


def warc_records(stream: io.BufferedReader) -> Iterator[Record]:
    """Yield the records of a WARC file in order. What a record was not asked for is passed over."""
    number = 0
    while line := _first_line(stream):
        if not line.startswith(b"WARC/"):
            raise DamagedError(f"where its record {number} should begin there is no record of a WARC file")
        try:
            fields = read_fields(lambda: stream.readline(MOST_LINE + 1))
        except DamagedError as error:
            raise DamagedError(f"the header of its record {number} {error}") from None
        length = fields.get("content-length", "").strip()
        if not re.fullmatch(r"\d{1,18}", length):
            raise DamagedError(f"its record {number} does not say how long it is")
        record = Record(number, fields, stream, int(length))
        yield record
        record.skip()
        number += 1


def _first_line(stream: io.BufferedReader) -> bytes:
    """Return the first line of the next record, behind the empty ones that end the one before; b"" at the end."""
    while (line := stream.readline(MOST_LINE + 1)) and not line.strip():
        pass
    return line


def read_fields(next_line: Callable[[], bytes]) -> Fields:
    """Return the fields of a header up to the empty line that ends it; of several of a name the first.

    Raises DamagedError for a header that has no end, or lines longer or more than MOST_LINE bytes and MOST_LINES.
    """
    fields: Fields = {}
    last = ""
    for _ in range(MOST_LINES):
        line = next_line()
        if not line.endswith(b"\n"):
            raise DamagedError("has a line that is too long" if len(line) > MOST_LINE else "has no end")
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:
            return fields
        if text[0] in " \t":  # a line that goes on
            if last:
                fields[last] += f" {text.strip()}"
            continue
        name, _, value = text.partition(":")
        last = name.strip().lower() if name.strip().lower() not in fields else ""
        if last:
            fields[last] = value.strip()
    raise DamagedError("has too many lines")


def unchunked(data: bytes) -> bytes:
    """Return what was sent in chunks (RFC 9112, 7.1), or data as they are where they do not begin with one: many
    archives keep the field of an answer whose chunks were joined.

    Raises Unreadable for chunks that end early.
    """
    parts: list[bytes] = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        found = re.match(rb"\s*([0-9a-fA-F]{1,8})\s*(?:;|$)", data[at : max(end, at)])
        if end < 0 or found is None:
            if parts:
                raise Unreadable("its chunks end early")
            return data
        size = int(found[1], 16)
        if not size:
            return b"".join(parts)
        at = end + 2 + size + 2
        if at > len(data):
            raise Unreadable("its chunks end early")
        parts.append(data[end + 2 : end + 2 + size])


def unpacked(data: bytes, limit: int) -> bytes:
    """Return the content of gzip or zlib data, or data as they are where they are neither, as archives may have
    unpacked an answer and kept the field.

    Raises Unreadable for data that end early, or have more than `limit` bytes inside.
    """
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either by its head
    try:
        found = unpacking.decompress(data, limit + 1)
    except zlib.error:
        if data.startswith(b"\x1f\x8b"):
            raise Unreadable("its gzip data are damaged") from None
        return data
    if len(found) > limit:
        raise Unreadable(f"longer than {limit // 1_000_000} MB")
    if not unpacking.eof:
        raise Unreadable("its packed data end early")
    return found


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding, "surrogatepass" if encoding == UTF8 else "strict")
    except LookupError:  # no encoding has that name
        return _decoded(data, UTF8)
    except UnicodeError as error:
        raise Unreadable(f"the text is not {encoding}: {error}") from None
