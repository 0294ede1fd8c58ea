"""Tables → rows: Parquet, Arrow and Feather files, a few rows at a time."""

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from openclimb.corpus.reading.store import DamagedError, TooLargeError

Choose = Callable[[list[str]], list[str]]  # names of a table's columns → those that are read

ROWS = 8  # of Parquet decoded at once
LARGE_DICTIONARY = 4_000_000  # bytes: above, texts stay numbers of a dictionary: one long text may stand in every row
MOST_PAGE = 1 << 28  # bytes of a page of Parquet, decompressed; writers make pages of 1 MB
LONG_VALUE = 100_000  # bytes: of columns whose values are longer all pages are looked at
HEADER = 1 << 16  # bytes of a page's header, at most
UNCOMPRESSED, COMPRESSED = 2, 3  # fields of it, in bytes of the page
NUMBERS, BINARY, STRUCT = (4, 5, 6), 8, 12  # types of Thrift's compact protocol
MOST_BATCH = 1 << 28  # bytes of a record batch of Arrow; it is read as a whole
DICTIONARY_BATCH, RECORD_BATCH = 2, 3  # kinds of Arrow's messages
BUFFER = 1 << 20  # bytes of a column read at once
ARROW_FILE = b"ARROW1"
OLD_FEATHER = b"FEA1"


def parquet_file(stream: IO[bytes], as_dictionary: Sequence[str] = ()) -> Any:
    """Return a Parquet file that reads its columns in pieces, some as dictionaries.

    What it raises for a damaged one is Arrow's.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(stream, buffer_size=BUFFER, read_dictionary=list(as_dictionary))


def parquet_batches(stream: IO[bytes], start: int, stop: int, choose: Choose) -> Iterator[Any]:
    """Yield the rows of a range of row groups as record batches of the chosen columns."""
    file = parquet_file(stream)
    if stop > file.num_row_groups:
        raise DamagedError(f"it has {file.num_row_groups} row groups, not {stop}")
    names = choose(file.schema_arrow.names)
    large = set[str]()
    for group in range(start, stop):
        large |= _large_dictionaries(stream, file.metadata.row_group(group), names)
    if large:
        file = parquet_file(stream, sorted(large))
    yield from file.iter_batches(ROWS, row_groups=list(range(start, stop)), columns=names)


def _large_dictionaries(stream: IO[bytes], group: Any, names: list[str]) -> set[str]:
    """Return the columns of a row group whose dictionary is large.

    Raises TooLargeError where a page of one is so large that decompressing it fills the memory.
    """
    found = set()
    for i in range(group.num_columns):
        column = group.column(i)
        path = column.path_in_schema
        if column.total_uncompressed_size <= min(LARGE_DICTIONARY, MOST_PAGE) or path.partition(".")[0] not in names:
            continue
        sizes = list(_page_sizes(stream, column))
        if sizes[0] > LARGE_DICTIONARY and column.dictionary_page_offset is not None:
            found.add(path)
        if max(sizes) > MOST_PAGE:
            what = f"a page of its column '{path}' has {max(sizes) // 1_000_000:,} MB"
            raise TooLargeError(f"{what}, more than fits into memory; write it with smaller pages")
    return found


def _page_sizes(stream: IO[bytes], column: Any) -> Iterator[int]:
    """Yield the bytes that pages of a column have decompressed: the first two or, where values are long, all.

    Writers look at a page's size after some values, a thousand say: only long ones make a page that fills the memory.
    """
    first, data = column.dictionary_page_offset, column.data_page_offset
    at = data if first is None else first
    end = at + column.total_compressed_size
    most = math.inf if column.total_uncompressed_size > LONG_VALUE * column.num_values else 2
    n = 0
    while at < end and n < most:
        stream.seek(at)
        fields, length = _page_header(stream.read(HEADER))
        yield fields[UNCOMPRESSED]
        at += length + fields[COMPRESSED]
        n += 1


def _page_header(data: bytes) -> tuple[dict[int, int], int]:
    """Return the numbers of a page's header, by field, and its length in bytes: Thrift's compact protocol.

    Raises DamagedError where it is none.
    """
    try:
        return _struct(data, 0)
    except IndexError:
        raise DamagedError("the header of a page is damaged or has more than 64 kB") from None


def _struct(data: bytes, at: int) -> tuple[dict[int, int], int]:
    numbers, field = dict[int, int](), 0
    while data[at]:
        step, kind = data[at] >> 4, data[at] & 15
        at += 1
        if step:
            field += step
        else:
            coded, at = _varint(data, at)
            field = coded >> 1 ^ -(coded & 1)
        if kind in NUMBERS:
            coded, at = _varint(data, at)
            numbers[field] = coded >> 1 ^ -(coded & 1)
        else:
            at = _skipped(data, at, kind)
    return numbers, at + 1


def _skipped(data: bytes, at: int, kind: int) -> int:
    """Return where a value ends that is no number and no list: pages' headers have none."""
    if kind in (1, 2):  # true and false, which have no bytes
        return at
    if kind == BINARY:
        length, at = _varint(data, at)
        return at + length
    if kind == STRUCT:
        return _struct(data, at)[1]
    raise DamagedError("the header of a page is damaged")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] >= 0x80:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return value | data[at] << shift, at + 1


def arrow_batches(stream: IO[bytes], choose: Choose) -> Iterator[Any]:
    """Yield the record batches of an Arrow file or stream, with the chosen columns."""
    import pyarrow as pa

    for size in _batch_sizes(stream):
        if size > MOST_BATCH:
            what = f"a record batch of it has {size // 1_000_000:,} MB"
            raise TooLargeError(f"{what}, more than fits into memory; write it with smaller batches")
    schema = _arrow_reader(stream).schema
    names = choose(schema.names)
    options = pa.ipc.IpcReadOptions(included_fields=[i for i, name in enumerate(schema.names) if name in names])
    reader = _arrow_reader(stream, options)
    if hasattr(reader, "num_record_batches"):
        for i in range(reader.num_record_batches):
            yield _checked(reader.get_batch(i))
    else:
        for batch in reader:
            yield _checked(batch)


def _batch_sizes(stream: IO[bytes]) -> Iterator[int]:
    """Yield the bytes that each batch of an Arrow file or stream has in memory, from the messages' heads alone.

    Arrow's format of encapsulated messages: a length, metadata as a flatbuffer, and a body. A file is a stream between
    a magic word and a footer. What cannot be understood here is left to Arrow, which says what is wrong.
    """
    stream.seek(0)
    at = 8 if stream.read(len(ARROW_FILE)) == ARROW_FILE else 0
    while True:
        stream.seek(at)
        head = stream.read(8)
        marked = head[:4] == b"\xff\xff\xff\xff"  # writers before 0.15 have none
        length = int.from_bytes(head[4:8] if marked else head[:4], "little", signed=True)
        if len(head) < 8 or not 0 < length <= MOST_BATCH:
            return
        start = at + (8 if marked else 4)
        stream.seek(start)
        try:
            body, batch = _message(stream.read(length))
        except (IndexError, struct.error):
            return
        at = start + length
        if batch:
            yield max(body, sum(_unpacked(stream, at, *buffer) for buffer in batch))
        at += body


def _message(data: bytes) -> tuple[int, list[tuple[int, int, bool]]]:
    """Return the bytes of a message's body, and of a batch (offset, bytes, compressed) of each buffer."""
    table = _target(data, 0)
    kind, length = _field(data, table, 1), _field(data, table, 3)
    body = struct.unpack_from("<q", data, length)[0] if length else 0
    header = _field(data, table, 2)
    if not kind or not header or data[kind] not in (DICTIONARY_BATCH, RECORD_BATCH):
        return body, []
    batch = _target(data, header)
    if data[kind] == DICTIONARY_BATCH:
        inner = _field(data, batch, 1)
        batch = _target(data, inner) if inner else batch
    vector, packed = _field(data, batch, 2), bool(_field(data, batch, 3))
    if not vector:
        return body, []
    first = _target(data, vector)
    n = struct.unpack_from("<I", data, first)[0]
    return body, [(*struct.unpack_from("<qq", data, first + 4 + 16 * i), packed) for i in range(n)]


def _unpacked(stream: IO[bytes], body: int, offset: int, n_bytes: int, packed: bool) -> int:
    """Return the bytes of a buffer in memory: a compressed one begins with them, or with -1 where it is as it was."""
    if not packed or n_bytes < 8:
        return n_bytes
    stream.seek(body + offset)
    return max(n_bytes, int.from_bytes(stream.read(8), "little", signed=True))


def _target(data: bytes, at: int) -> int:
    """Return where an offset of a flatbuffer leads."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Return where a field of a flatbuffer's table is, 0 where it has none."""
    names = table - int(struct.unpack_from("<i", data, table)[0])
    place = 4 + 2 * number
    size = struct.unpack_from("<H", data, names)[0]
    offset = struct.unpack_from("<H", data, names + place)[0] if place < size else 0
    return table + int(offset) if offset else 0


def arrow_schema(stream: IO[bytes]) -> Any:
    """Return the schema of an Arrow file or stream."""
    return _arrow_reader(stream).schema


def _arrow_reader(stream: IO[bytes], options: Any = None) -> Any:
    import pyarrow as pa

    stream.seek(0)
    magic = stream.read(len(ARROW_FILE))
    stream.seek(0)
    if magic.startswith(OLD_FEATHER):
        raise DamagedError("it is of Feather's first version, which is not read; write it with pyarrow.feather again")
    if magic == ARROW_FILE:
        return pa.ipc.open_file(stream, options=options)
    return pa.ipc.open_stream(stream, options=options)


def _checked(batch: Any) -> Any:
    """Return a batch whose offsets point into its buffers, which a damaged one's may not; text that is not UTF-8
    is met when it is read.
    """
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
    return batch


def example_row(schema: Any) -> dict[str, Any]:
    """Return a row as such a table's may be, from its types alone."""
    return {field.name: _example(field.type) for field in schema}


def _example(kind: Any) -> Any:
    from pyarrow import types

    if types.is_struct(kind):
        return {field.name: _example(field.type) for field in kind}
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return b"text"
    if types.is_boolean(kind):
        return True
    if types.is_integer(kind):
        return 1
    if types.is_null(kind):
        return None
    if hasattr(kind, "storage_type"):
        return _example(kind.storage_type)
    inner = getattr(kind, "value_type", None)  # of lists of any kind, dictionaries, run ends
    if inner is None:
        return kind
    flat = types.is_dictionary(kind) or types.is_run_end_encoded(kind)
    return _example(inner) if flat else [_example(inner)]
