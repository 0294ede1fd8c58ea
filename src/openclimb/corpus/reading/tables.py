"""Tables → rows: Parquet, Arrow and Feather files, a few rows at a time."""

from collections.abc import Callable, Iterator
from typing import IO, Any

from openclimb.corpus.reading.store import DamagedError

Choose = Callable[[list[str]], list[str]]  # names of a table's columns → those that are read

ROWS = 8  # of Parquet decoded at once: a dictionary's one long text may stand in each of them
MOST_PAGE = 1 << 28  # bytes of a page of Parquet, decompressed; writers make pages of 1 MB
BUFFER = 1 << 20  # bytes of a column read at once
ARROW_FILE = b"ARROW1"
OLD_FEATHER = b"FEA1"


def parquet_file(stream: IO[bytes]) -> Any:
    """Return a Parquet file that reads its columns in pieces. What it raises for a damaged one is Arrow's."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(stream, buffer_size=BUFFER)


def parquet_batches(stream: IO[bytes], start: int, stop: int, choose: Choose) -> Iterator[Any]:
    """Yield the rows of a range of row groups as record batches of the chosen columns."""
    file = parquet_file(stream)
    if stop > file.num_row_groups:
        raise DamagedError(f"it has {file.num_row_groups} row groups, not {stop}")
    names = choose(file.schema_arrow.names)
    for group in range(start, stop):
        _stop_at_large_pages(stream, file.metadata.row_group(group), names)
    yield from file.iter_batches(ROWS, row_groups=list(range(start, stop)), columns=names)


def _stop_at_large_pages(stream: IO[bytes], group: Any, names: list[str]) -> None:
    """Raise DamagedError where the first page of a column is so large that decompressing it fills the memory."""
    for i in range(group.num_columns):
        column = group.column(i)
        if column.total_uncompressed_size <= MOST_PAGE or column.path_in_schema.partition(".")[0] not in names:
            continue
        for offset in (column.dictionary_page_offset, column.data_page_offset):
            if offset is not None:
                stream.seek(offset)
                size = _page_size(stream.read(16))
                if size > MOST_PAGE:
                    what = f"a page of its column '{column.path_in_schema}' has {size // 1_000_000:,} MB"
                    raise DamagedError(f"{what}, more than fits into memory; write it with smaller pages")


def _page_size(header: bytes) -> int:
    """Return the bytes that a page has decompressed: the second field of its header, in Thrift's compact protocol."""
    at, values = 0, []
    for _ in range(2):
        at += 1  # the field's number and type
        value = shift = 0
        while True:
            value |= (header[at] & 0x7F) << shift
            shift += 7
            at += 1
            if header[at - 1] < 0x80:
                break
        values.append(value >> 1)  # zigzag; sizes are not negative
    return values[1]


def arrow_batches(stream: IO[bytes], choose: Choose) -> Iterator[Any]:
    """Yield the record batches of an Arrow file or stream, with the chosen columns."""
    import pyarrow as pa

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
