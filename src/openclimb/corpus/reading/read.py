"""Units → documents: a file of any format and store that fsspec knows, or a range of one, read one after the other.

A document that cannot be read is not lost silently: it comes back as `Rejected`, with file, position and reason. A
unit is read whole, or reading it raises: a file that is gone, cut short or out of reach is never one rejected document.
"""

import csv
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading import parse
from openclimb.corpus.reading.formats import SEEKABLE_ZST, text_stream
from openclimb.corpus.reading.lines import (
    BOM,
    all_lines,
    array_elements,
    csv_records,
    first_element,
    first_line,
    is_array,
    lines_between,
)
from openclimb.corpus.reading.parse import Document, Parser, Rejected
from openclimb.corpus.reading.store import DamagedError, is_remote, open_file, tries, unreadable, wait
from openclimb.corpus.reading.tables import arrow_batches, arrow_schema, example_row, parquet_batches, parquet_file
from openclimb.corpus.reading.text import parse_json, whole
from openclimb.corpus.reading.warc import DOCUMENTS, PAGES, NotPlain, Unreadable, warc_records
from openclimb.errors import OpenclimbError

FIRST_BYTES = 4_000_000  # of a file are looked at for its columns
CUT = ("jsonl", f"jsonl.{SEEKABLE_ZST}")  # formats of units that are byte ranges
PACKED = 3  # times its bytes that a compressed file has of text, about
MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of splitmix64 (Steele et al. 2014)

Item = Document | Rejected


@dataclass(frozen=True)
class Unit:
    """A piece of input small enough to redo: a file, or a byte or row-group range of one."""

    number: int
    path: str  # as `open_file` takes it
    name: str  # below the common parent of all files; stands in hashes, so that a corpus can be moved
    format: str
    start: int  # jsonl: first byte (seekable zstd: of the text); parquet: first row group; else 0
    stop: int  # jsonl: last byte + 1; parquet: last row group + 1; else the file's size
    n_bytes: int  # of text, but of a compressed file that is one unit: its own
    first_row: int  # parquet: number of its first row in the file; else 0
    size: int  # of the whole file, bytes
    fingerprint: str  # of the whole file
    folder: str = ""  # which domain its documents are of, where folders are the domains
    tokenizer: str = ""  # path of a tokenizer.json that decodes texts of token ids; a setting, not in units.parquet


def place_hash(name: str, position: int, salt: int = 0) -> int:
    """Return 64 bits that are uniform over documents and follow from a document's place alone."""
    key = salt.to_bytes(8, "little", signed=True)
    digest = hashlib.blake2b(f"{name}\0{position}".encode(), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little")


def document_order(unit: Unit, positions: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Return 64 uniform bits for each position of a unit (splitmix64): the order in which documents are drawn.

    A smaller draw holds the first documents of a larger one. It follows from place and seed alone.
    """
    with np.errstate(over="ignore"):
        z = positions.astype(np.uint64) * np.uint64(MIX[0]) + np.uint64(place_hash(unit.name, -1, seed))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX[1])
        z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX[2])
        return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def content_hash(text: str) -> int:
    """Return 64 bits that follow from a document's text alone; equal texts share them."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def read_unit(unit: Unit, settings: CorpusSettings, wanted: Callable[[int], bool] | None = None) -> Iterator[Item]:
    """Yield the documents of a unit in order, and a `Rejected` for each that cannot be read.

    Positions for which `wanted` is false are passed over without being parsed; it is asked once for each. After a fault
    of the store that passes, reading goes on where it was. Raises InputError when the unit cannot be read whole.
    """
    seen, tried = -1, 0

    def take(position: int) -> bool:
        nonlocal seen
        if position <= seen:
            return False
        seen = position
        return wanted is None or wanted(position)

    while True:
        before = seen
        try:
            yield from _read_once(unit, settings, take)
            return
        except OpenclimbError:
            raise
        except Exception as error:
            tried = 1 if seen > before else tried + 1
            if tried >= tries(error, is_remote(unit.path)):
                raise unreadable(unit.name, error) from error
            wait(unit.path, tried)


def _read_once(unit: Unit, settings: CorpusSettings, wanted: Callable[[int], bool]) -> Iterator[Item]:
    """Yield what is in a unit. Raises DamagedError where it ends too early, and what the store raises."""
    with open_file(unit.path) as stream:
        size = _size(stream)
        if size is not None and size != unit.size:
            raise DamagedError(f"it has {size:,} bytes now and had {unit.size:,} when the run began")
        parser = Parser(unit.name, settings, unit.tokenizer, unit.folder)
        kind, _, compression = unit.format.partition(".")
        with damage():
            if kind in ("parquet", "arrow"):
                yield from _read_table(stream, unit, parser, wanted)
                return
            text, translated = text_stream(stream, compression)
            if kind in ("csv", "tsv"):
                yield from _read_csv(text, kind, parser, wanted)
            elif kind == "text":
                yield from _read_text(text, parser, wanted)
            elif kind == "warc":
                yield from _read_warc(text, parser, wanted)
            else:
                plain = unit.format in CUT and not translated
                yield from _read_json(text, unit, plain, parser, wanted)


def _size(stream: Any) -> int | None:
    """Return how many bytes an open file has, as its store says now; None where it does not."""
    if isinstance(stream, io.BufferedReader):
        return os.fstat(stream.fileno()).st_size
    size = getattr(stream, "size", None)
    return None if size is None else int(size)


@contextmanager
def damage() -> Iterator[None]:
    """Raise DamagedError for what libraries say of a file that is damaged or ends too early."""
    import pyarrow as pa

    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, csv.Error, pa.ArrowInvalid) as error:
        raise DamagedError(str(error)) from error
    except OSError as error:
        if error.errno is not None or type(error) is not OSError:
            raise  # the store's; Arrow's own have no number
        raise DamagedError(str(error)) from error


def first_row(path: str, kind: str, column: str) -> dict[str, Any] | None:
    """Return the first row of a file, or one as its types say it may be; None where it cannot be told from a few MB.

    {} for a WARC file that holds web pages alone there. `column` is the name that plain text goes by.
    Raises ValueError for a first line that is no JSON.
    """
    kind, _, compression = kind.partition(".")
    with open_file(path) as stream, damage():
        if kind == "parquet":
            return example_row(parquet_file(stream).schema_arrow)
        if kind == "arrow":
            return example_row(arrow_schema(stream))
        if kind == "text":
            return {column: "text"}
        text, _ = text_stream(stream, compression)
        if kind == "warc":
            return _first_text(text, column)
        if kind in ("csv", "tsv"):
            header = next(_records(text, kind, FIRST_BYTES), (1, []))[1]
            return dict.fromkeys(header, "text") if header else None
        line = first_element(text, FIRST_BYTES) if kind == "json" and is_array(text) else first_line(text, FIRST_BYTES)
        first = parse_json(line) if line else None
        return first if isinstance(first, dict) else None


def _read_json(
    stream: io.BufferedReader, unit: Unit, plain: bool, parser: Parser, wanted: Callable[[int], bool]
) -> Iterator[Item]:
    """Yield documents of JSON lines, by byte offset where they are plain, else by number; or of a JSON array."""
    limit = parse.MOST_BYTES
    array = unit.format.startswith("json.") or unit.format == "json"
    array = array and is_array(stream)
    if array:
        lines = array_elements(stream, limit)
    else:
        lines = lines_between(stream, unit.start, unit.stop, limit) if plain else all_lines(stream, limit)
    for number, (position, line) in enumerate(lines, 1):
        if not wanted(position):
            continue
        at = None if array else number
        if line is None:
            yield parser.reject(position, at, parse.TOO_LONG)
        elif line.removeprefix(BOM).strip():
            yield parser.line(line, position, at)


def _records(stream: io.BufferedReader, kind: str, limit: int) -> Iterator[tuple[int, list[str]]]:
    return csv_records(stream, "\t" if kind == "tsv" else "", limit)


def _read_csv(stream: io.BufferedReader, kind: str, parser: Parser, wanted: Callable[[int], bool]) -> Iterator[Item]:
    """Yield documents of the records behind the header, by their number from 0."""
    records = _records(stream, kind, parse.MOST_BYTES)
    header = next(records, (1, []))[1]
    for position, (line, fields) in enumerate(records):
        if not wanted(position):
            continue
        if len(fields) != len(header):
            yield parser.reject(position, line, f"{len(fields)} fields, where the header has {len(header)}")
            continue
        try:
            row = {name: _utf8(field) for name, field in zip(header, fields, strict=True)}
        except UnicodeDecodeError:
            yield parser.reject(position, line, "the row is not UTF-8")
            continue
        yield parser.values(row, position, line)


def _utf8(text: str) -> str:
    """Return a text that was read with bytes that are no UTF-8 as surrogates. Raises UnicodeDecodeError for such."""
    if text.isascii() or whole(text) is text:
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogatepass")


def _read_text(stream: io.BufferedReader, parser: Parser, wanted: Callable[[int], bool]) -> Iterator[Item]:
    """Yield the one document that a file of plain text is."""
    if not wanted(0):
        return
    data = stream.read(parse.MOST_BYTES + 1).removeprefix(BOM)
    if len(data) > parse.MOST_BYTES:
        yield parser.reject(0, None, parse.TOO_LONG)
        return
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        yield parser.reject(0, None, f"the text is not UTF-8: {error.reason} at byte {error.start}")
        return
    yield parser.values({parser.text: text}, 0, None)


def _read_warc(stream: io.BufferedReader, parser: Parser, wanted: Callable[[int], bool]) -> Iterator[Item]:
    """Yield documents of a WARC file's records of plain text, by their number; the other contents are left out."""
    for record in warc_records(stream):
        if record.kind not in DOCUMENTS or not wanted(record.number):
            continue
        try:
            text = record.text(parse.MOST_BYTES)
        except NotPlain as what:
            yield Rejected(parser.name, record.number, None, str(what), parse.NOT_PLAIN)
        except Unreadable as why:
            yield parser.reject(record.number, None, str(why))
        else:
            yield parser.values({"url": record.url, "id": record.id, parser.text: text}, record.number, None)


def _first_text(stream: io.BufferedReader, column: str) -> dict[str, Any] | None:
    """Return a row of a WARC file that holds plain text in its first MB, {} where it has web pages alone there."""
    n_read, html = 0, False
    for record in warc_records(stream):
        n_read += record.left
        try:
            if record.kind in DOCUMENTS:
                record.text(FIRST_BYTES)
                return {"url": "text", "id": "text", column: "text"}
        except NotPlain as what:
            html = html or str(what) in PAGES
        except Unreadable:
            pass
        if n_read > FIRST_BYTES:
            break
    return {} if html else None


def _read_table(stream: IO[bytes], unit: Unit, parser: Parser, wanted: Callable[[int], bool]) -> Iterator[Item]:
    """Yield documents of a table's rows, by their number in the file."""
    if unit.format == "parquet":
        batches = parquet_batches(stream, unit.start, unit.stop, parser.tops)
    else:
        batches = arrow_batches(stream, parser.tops)
    row = unit.first_row
    for batch in batches:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for i in range(batch.num_rows):
            if wanted(row + i):
                try:
                    values = {name: column[i].as_py() for name, column in columns.items()}
                except UnicodeDecodeError:
                    yield parser.reject(row + i, None, "the text is not UTF-8")
                    continue
                yield parser.values(values, row + i, None)
        row += batch.num_rows
