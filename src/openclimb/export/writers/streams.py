"""Shards that are streamed to a training run: MDS of mosaicml-streaming, and the chunks of litdata.

Both are written here, as the pins of their packages exclude ours, and are alike: the number of rows n (uint32), the
places in the file where each row begins and the last one ends (n + 1 uint32), in MDS the JSON of the columns, then the
rows. A row is the sizes in bytes of its columns (uint32; MDS leaves out those of one size) and their values: UTF-8, or
a number in eight bytes (int64). All is little-endian. MDS has its columns in alphabetical order.
(streaming.base.format.mds.writer, litdata.streaming.writer)

`index.json` beside the shards says which there are and what their columns are; each domain has one where shards are of
one domain.
"""

import json
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from openclimb.errors import ConfigError
from openclimb.export.writers.rows import ROWS
from openclimb.export.writers.writer import COLUMNS, Writer
from openclimb.workspace.files import write_text

NUMBERS = ("tokens", "repetition", "position")
ORDER = ("text", *COLUMNS)
SORTED = tuple(sorted(ORDER))
NUMBER = struct.Struct("<q")
MOST_BYTES = (1 << 32) - 1  # of a shard, in which places have four bytes
ENCODINGS = ["int" if name in NUMBERS else "str" for name in SORTED]
MDS_COLUMNS = {
    "version": 2,
    "format": "mds",
    "compression": None,
    "hashes": [],
    "size_limit": None,
    "column_names": list(SORTED),
    "column_encodings": ENCODINGS,
    "column_sizes": [NUMBER.size if name in NUMBERS else None for name in SORTED],
}
LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
TREE = {"type": "builtins.dict", "context": json.dumps(ORDER), "children_spec": [LEAF] * len(ORDER)}


def _write(columns: Sequence[str], sized: Sequence[str], head: bytes, rows: Any, path: Path) -> None:
    """Write rows with these columns, of which those in `sized` have their sizes before them."""
    items: list[bytes] = []
    for batch in rows.select(columns).to_batches(max_chunksize=ROWS):
        for row in batch.to_pylist():
            values = {
                name: NUMBER.pack(row[name]) if name in NUMBERS else row[name].encode("utf-8") for name in columns
            }
            sizes = struct.pack(f"<{len(sized)}I", *(len(values[name]) for name in sized))
            items.append(sizes + b"".join(values.values()))
    begin = 4 + 4 * (len(items) + 1) + len(head)
    places = begin + np.concatenate([[0], np.cumsum([len(item) for item in items], dtype=np.int64)])
    if places[-1] > MOST_BYTES:
        raise ConfigError(f"a shard of {places[-1]:,} bytes is too long for its format", "choose a smaller --shard-mb")
    with open(path, "wb") as file:
        file.write(struct.pack("<I", len(items)) + places.astype("<u4").tobytes() + head)
        file.writelines(items)


def _read(columns: Sequence[str], sized: Sequence[str], path: Path) -> Iterator[Any]:
    """Yield tables of the rows of a file that `_write` wrote."""
    import pyarrow as pa

    with open(path, "rb") as file:
        (n,) = struct.unpack("<I", file.read(4))
        places = np.frombuffer(file.read(4 * (n + 1)), "<u4").astype(np.int64)
        file.seek(int(places[0]))
        for first in range(0, n, ROWS):
            found = [
                _row(columns, sized, file.read(int(size)))
                for size in np.diff(places[first : min(n, first + ROWS) + 1]).tolist()
            ]
            yield pa.Table.from_pylist(found).select(ORDER)
        if file.read(1):
            raise ValueError(f"{path.name} goes on after its last row")


def _row(columns: Sequence[str], sized: Sequence[str], data: bytes) -> dict[str, Any]:
    sizes = dict(zip(sized, struct.unpack_from(f"<{len(sized)}I", data), strict=True))
    at, row = 4 * len(sized), {}
    for name in columns:
        value = data[at : at + sizes.get(name, NUMBER.size)]
        at += len(value)
        row[name] = NUMBER.unpack(value)[0] if name in NUMBERS else value.decode("utf-8")
    if at != len(data):
        raise ValueError("a row has more bytes than its columns")
    return row


def _finish(
    index: Callable[[Sequence[tuple[str, int, int]]], dict[str, Any]],
    folder: Path,
    shards: Sequence[Mapping[str, Any]],
) -> None:
    """Write index.json into each folder of shards: index([(file, bytes, rows), …])."""
    found: dict[Path, list[tuple[str, int, int]]] = defaultdict(list)
    for shard in shards:
        path = folder / "data" / PurePosixPath(shard["file"])
        found[path.parent].append((path.name, path.stat().st_size, sum(shard["documents"])))
    for parent, files in found.items():
        write_text(parent / "index.json", json.dumps(index(files), sort_keys=True))


def _mds_index(files: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
    shards = [
        {
            **MDS_COLUMNS,
            "raw_data": {"basename": name, "bytes": n_bytes, "hashes": {}},
            "zip_data": None,
            "samples": n,
        }
        for name, n_bytes, n in files
    ]
    return {"version": 2, "shards": shards}


def _litdata_index(files: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
    config = {
        "chunk_bytes": max(n_bytes for _, n_bytes, _ in files),
        "chunk_size": None,
        "compression": None,
        "data_format": ["int" if name in NUMBERS else "str" for name in ORDER],
        "data_spec": json.dumps([1, TREE]),
        "encryption": None,
        "item_loader": "PyTreeLoader",
    }
    chunks = [{"chunk_bytes": n_bytes, "chunk_size": n, "dim": None, "filename": name} for name, n_bytes, n in files]
    return {"chunks": chunks, "config": config, "updated_at": "0"}  # a time would give the same rows other bytes


_MDS_SIZED = tuple(name for name in SORTED if name not in NUMBERS)
_MDS_HEAD = json.dumps(MDS_COLUMNS, sort_keys=True).encode()
MDS = Writer(
    (".mds",),
    partial(_write, SORTED, _MDS_SIZED, _MDS_HEAD),
    partial(_read, SORTED, _MDS_SIZED),
    loading="mds",
    finish=partial(_finish, _mds_index),
)
LITDATA = Writer(
    (".bin",),
    partial(_write, ORDER, ORDER, b""),
    partial(_read, ORDER, ORDER),
    loading="litdata",
    finish=partial(_finish, _litdata_index),
)
