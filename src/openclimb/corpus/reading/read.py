"""Formats → documents: JSONL, JSONL.gz, JSONL.zst and Parquet, from any fsspec URL, one unit at a time.

A document that cannot be read is not lost silently: it comes back as `Rejected`, with file, position and reason. A
unit is read whole, or reading it raises: a file that is gone, cut short or out of reach is never one rejected document.
"""

import gzip
import hashlib
import io
import posixpath
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.store import DamagedError, is_remote, tries, unreadable, wait
from openclimb.corpus.reading.text import parse_json, whole
from openclimb.errors import OpenclimbError
from openclimb.masking import without_secrets

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl.gz",
    ".ndjson.gz": "jsonl.gz",
    ".json.gz": "jsonl.gz",
    ".jsonl.zst": "jsonl.zst",
    ".json.zst": "jsonl.zst",
    ".parquet": "parquet",
}
BLOCK = 1 << 20
MOST_BYTES = 100_000_000  # of a line; a longer one is rejected and not kept. Also characters of a text
TOO_LONG = f"longer than {MOST_BYTES // 1_000_000} MB"
LARGEST_WINDOW = 1 << 31  # bytes: what `zstd --long=31` makes; the library's own limit is that of --long=27
ROWS = 1024  # of Parquet decoded at once
MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of splitmix64 (Steele et al. 2014)


@dataclass(frozen=True)
class Unit:
    """A piece of input small enough to redo: a file, or a byte or row-group range of one."""

    number: int
    path: str  # as fsspec opens it
    name: str  # below the common parent of all files; stands in hashes, so that a corpus can be moved
    format: str
    start: int  # jsonl: first byte; parquet: first row group; else 0
    stop: int  # jsonl: last byte + 1; parquet: last row group + 1; else the file's size
    n_bytes: int
    first_row: int  # parquet: number of its first row in the file; else 0
    size: int  # of the whole file, bytes
    fingerprint: str  # of the whole file


@dataclass(frozen=True)
class Document:
    """One text with an id."""

    position: int  # jsonl: byte offset of its line; .gz, .zst: line number from 0; parquet: row number in the file
    text: str
    id: str
    source: str = ""  # ready-made domain
    repaired: bool = False  # it had halves of surrogate pairs, which are U+FFFD now


@dataclass(frozen=True)
class Rejected:
    """A document that cannot be read, or has no text, which is no fault."""

    file: str
    position: int
    line: int | None  # counted from 1 within the unit's range; None for Parquet
    reason: str
    empty: bool = False


def format_of(path: str) -> str:
    """Return the format that a file's name says, or ""."""
    lower = posixpath.basename(without_secrets(path)).lower()  # of a URL without its query
    return next((known for suffix, known in SUFFIXES.items() if lower.endswith(suffix)), "")


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


def read_unit(
    unit: Unit, settings: CorpusSettings, wanted: Callable[[int], bool] | None = None
) -> Iterator[Document | Rejected]:
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


def _read_once(unit: Unit, settings: CorpusSettings, wanted: Callable[[int], bool]) -> Iterator[Document | Rejected]:
    """Yield what is in a unit. Raises DamagedError where it ends too early, and what the store raises."""
    import fsspec

    with fsspec.open(unit.path, "rb") as stream:
        size = getattr(stream, "size", None)
        if size is not None and size != unit.size:
            raise DamagedError(f"it has {size:,} bytes now and had {unit.size:,} when the run began")
        with damage():
            if unit.format == "parquet":
                yield from _read_parquet(stream, unit, settings, wanted)
            else:
                yield from _read_lines(stream, unit, settings, wanted)


@contextmanager
def damage() -> Iterator[None]:
    """Raise DamagedError for what libraries say of a file that is damaged or ends too early."""
    import pyarrow as pa

    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, pa.ArrowInvalid) as error:
        raise DamagedError(str(error)) from error
    except OSError as error:
        if error.errno is not None or type(error) is not OSError:
            raise  # the store's; Arrow's own have no number
        raise DamagedError(str(error)) from error


def columns_of(path: str, kind: str) -> list[str]:
    """Return the columns of a file: a Parquet schema, or the keys of the first JSON line ([] if there is none)."""
    import fsspec

    with fsspec.open(path, "rb") as stream, damage():
        if kind == "parquet":
            import pyarrow.parquet as pq

            return list(pq.ParquetFile(stream).schema_arrow.names)
        for line in _decompressed(stream, kind):
            if line.strip():
                first = parse_json(line)
                return list(first) if isinstance(first, dict) else []
    return []


def _read_lines(
    stream: IO[bytes], unit: Unit, settings: CorpusSettings, wanted: Callable[[int], bool]
) -> Iterator[Document | Rejected]:
    parse = _Parser(unit, settings)
    for number, position, line in _lines(stream, unit, MOST_BYTES):
        if not wanted(position):
            continue
        if line is None:
            yield Rejected(unit.name, position, number, TOO_LONG)
        elif line.strip():
            yield parse.line(line, position, number)


def _lines(stream: IO[bytes], unit: Unit, limit: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield (line number from 1, position, line); the line is None when it is longer than `limit` bytes.

    A line belongs to the byte range that its first byte lies in, so every line is read in exactly one unit.
    """
    plain = unit.format == "jsonl"
    lines = _decompressed(stream, unit.format)
    offset = unit.start if plain else 0
    if plain and offset:
        lines.seek(offset - 1)
        offset += _skip_line(lines) - 1
    number = 0
    while not plain or offset < unit.stop:
        line = lines.readline(limit + 1)
        if not line:
            if plain:
                raise DamagedError(f"it ends at byte {offset:,}, before {unit.stop:,}")
            return
        position, length = offset if plain else number, len(line)
        whole = line.endswith(b"\n") or length <= limit
        if not whole:
            length += _skip_line(lines)
        number += 1
        yield number, position, line if whole else None
        offset += length


def _skip_line(stream: IO[bytes]) -> int:
    """Pass over the rest of a line, in blocks; return how many bytes that was."""
    passed = 0
    while block := stream.readline(BLOCK):
        passed += len(block)
        if block.endswith(b"\n"):
            break
    return passed


def _decompressed(stream: IO[bytes], kind: str) -> IO[bytes]:
    from fsspec.spec import AbstractBufferedFile

    if kind == "jsonl.gz":
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    if kind == "jsonl.zst":
        return io.BufferedReader(_ZstdReader(stream), BLOCK)
    # a remote file's own readline knows no limit
    return io.BufferedReader(stream, BLOCK) if isinstance(stream, AbstractBufferedFile) else stream


class _ZstdReader(io.RawIOBase):
    """Frames of zstd one after the other; the library's own reader ends quietly when a file is cut short."""

    def __init__(self, stream: IO[bytes]) -> None:
        import zstandard

        self.stream = stream
        self.context = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        self.error = zstandard.ZstdError
        self.frame: Any = None
        self.ready = memoryview(b"")
        self.rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            data = self.rest or self.stream.read(BLOCK)
            self.rest = b""
            if not data:
                if self.frame is not None:
                    raise EOFError("the last frame has no end")
                return 0
            if self.frame is None:
                self.frame = self.context.decompressobj()
            try:
                self.ready = memoryview(self.frame.decompress(data))
            except self.error as error:
                raise EOFError(str(error)) from None
            if self.frame.eof:
                self.rest, self.frame = self.frame.unused_data, None
        n = min(len(buffer), len(self.ready))
        buffer[:n] = self.ready[:n]
        self.ready = self.ready[n:]
        return n


def _read_parquet(
    stream: IO[bytes], unit: Unit, settings: CorpusSettings, wanted: Callable[[int], bool]
) -> Iterator[Document | Rejected]:
    import pyarrow.parquet as pq

    parse = _Parser(unit, settings)
    row = unit.first_row
    file = pq.ParquetFile(stream)
    if unit.stop > file.num_row_groups:
        raise DamagedError(f"it has {file.num_row_groups} row groups, not {unit.stop}")
    names = [name for name in parse.columns if name in file.schema_arrow.names]
    for batch in file.iter_batches(ROWS, row_groups=list(range(unit.start, unit.stop)), columns=names):
        columns = {name: batch.column(name) for name in names}
        for i in range(batch.num_rows):
            if wanted(row + i):
                try:
                    values = {name: column[i].as_py() for name, column in columns.items()}
                except UnicodeDecodeError:
                    yield Rejected(unit.name, row + i, None, "the text is not UTF-8")
                    continue
                yield parse.values(values, row + i, None)
        row += batch.num_rows


class _Parser:
    """Turns a line or a row into a document, or says why it cannot."""

    def __init__(self, unit: Unit, settings: CorpusSettings) -> None:
        self.unit = unit
        self.text, self.id = settings.text, settings.id
        kind, _, column = settings.domains.partition(":")
        self.source_column = column if kind == "column" else ""
        self.folder = unit.name.split("/", 1)[0] if kind == "folders" and "/" in unit.name else ""
        self.columns = [name for name in (self.text, self.id, self.source_column) if name]

    def line(self, line: bytes, position: int, number: int) -> Document | Rejected:
        try:
            values = parse_json(line)
        except ValueError as error:
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as cause:
                return self._reject(position, number, f"the line is not UTF-8: {cause.reason} at byte {cause.start}")
            return self._reject(position, number, f"not a JSON line: {error}")
        if not isinstance(values, dict):
            return self._reject(position, number, f"not a JSON object but {type(values).__name__}")
        return self.values(values, position, number)

    def values(self, values: dict[str, Any], position: int, number: int | None) -> Document | Rejected:
        text = values.get(self.text)
        if isinstance(text, bytes):  # a binary column
            try:
                text = text.decode("utf-8")
            except UnicodeDecodeError:
                return self._reject(position, number, "the text is not UTF-8")
        if not isinstance(text, str):
            if self.text not in values:
                listed = ", ".join(map(str, values)) or "none"
                return self._reject(position, number, f"no column '{self.text}'; it has: {listed}")
            return self._reject(position, number, f"'{self.text}' is {type(text).__name__}, not text")
        if not text.strip():
            return Rejected(self.unit.name, position, number, f"'{self.text}' is empty", empty=True)
        if len(text) > MOST_BYTES:
            return self._reject(position, number, TOO_LONG)
        source = self.folder
        if self.source_column:
            source = _domain_name(values.get(self.source_column))
            if not source:
                return self._reject(position, number, f"no name in the domain column '{self.source_column}'")
        found = values.get(self.id) if self.id else None
        name = f"{self.unit.name}:{position}" if found is None else whole(str(found))
        repaired = whole(text)
        return Document(position, repaired, name, source, repaired is not text)

    def _reject(self, position: int, number: int | None, reason: str) -> Rejected:
        return Rejected(self.unit.name, position, number, reason)


def _domain_name(value: Any) -> str:
    """Return the domain that a value names, "" where it names none: text, a whole number, true or false."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))  # a column of integers with gaps comes as floats
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return whole(value).strip() if isinstance(value, str) else ""
