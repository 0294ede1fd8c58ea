"""Megatron's indexed dataset: `NAME.bin` and `NAME.idx` a shard, and `megatron.txt`, the `--data-path` of all of them.

`.bin` holds the ids of all documents, each with its end token: uint16, or int32 for a vocabulary of more than 65,536
entries. `.idx`, little-endian: nine bytes MMIDIDX\\0\\0, the version 1 (uint64), the code of the ids' type (uint8: 8
for uint16, 4 for int32), the number of sequences n (uint64), of document bounds n + 1 (uint64), then n lengths in ids
(int32), n places in `.bin` in bytes (int64) and the n + 1 bounds (int64). A document is one sequence.
(megatron.core.datasets.indexed_dataset)

Beside them `NAME.documents.parquet`, as for token shards, which Megatron does not read.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.export.writers.tokens import id_type, with_ids, write_documents, write_ids
from openclimb.export.writers.writer import Writer
from openclimb.workspace.files import write_text

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
CODES: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint16), 4: np.dtype(np.int32)}
HEAD = struct.Struct("<9sQBQQ")
LEAST_FIXED = 1e-3


def write_megatron(rows: Any, path: Path, index: Path, documents: Path) -> None:
    number = np.dtype(np.uint16) if id_type(rows).itemsize == 2 else np.dtype(np.int32)
    write_ids(rows, path, number)
    lengths = rows.column("tokens").to_numpy().astype("<i4")
    places = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64)]) * number.itemsize
    code = next(code for code, known in CODES.items() if known == number)
    with open(index, "wb") as file:
        file.write(HEAD.pack(MAGIC, VERSION, code, len(lengths), len(lengths) + 1))
        file.write(lengths.tobytes())
        file.write(places.astype("<i8").tobytes())
        file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
    write_documents(rows, documents)


def read_megatron(path: Path, index: Path, documents: Path) -> Iterator[Any]:
    data = index.read_bytes()
    magic, version, code, n, n_bounds = HEAD.unpack_from(data)
    if (magic, version, n_bounds) != (MAGIC, VERSION, n + 1) or code not in CODES:
        raise ValueError(f"{index.name} is of a form that is not known")
    lengths = np.frombuffer(data, "<i4", n, HEAD.size)
    places = np.frombuffer(data, "<i8", n, HEAD.size + lengths.nbytes)
    ids = np.fromfile(path, CODES[code].newbyteorder("<"))
    ends = np.cumsum(lengths, dtype=np.int64)
    if n and not (np.array_equal(places, (ends - lengths) * CODES[code].itemsize) and ends[-1] == len(ids)):
        raise ValueError(f"{index.name} and {path.name} do not fit one another")
    at = 0
    for table in with_ids(ids.astype(np.uint32) if code == 4 else ids, documents):
        if not np.array_equal(table.column("tokens").to_numpy(), lengths[at : at + len(table)]):
            raise ValueError(f"{documents.name} has documents of other lengths than {index.name}")
        at += len(table)
        yield table


def write_data_path(folder: Path, shards: Sequence[Mapping[str, Any]]) -> None:
    """Write megatron.txt: `--data-path` with each shard's share of what is drawn and its path without suffix.

    Paths are relative to the dataset's folder. Megatron refuses weights of 0: such shards are left out.
    """
    pairs = [
        f"{_weight(shard['share'])} data/{shard['file'].removesuffix('.bin')}" for shard in shards if shard["share"]
    ]
    write_text(folder / "megatron.txt", "--data-path " + " ".join(pairs) + "\n")


def _weight(weight: float) -> str:
    """Return a weight with six decimals, or with six digits where that would change it; none is printed as zero."""
    return f"{weight:.6f}" if weight >= LEAST_FIXED else f"{weight:.6g}"


MEGATRON = Writer(
    (".bin", ".idx", ".documents.parquet"),
    write_megatron,
    read_megatron,
    tokens=True,
    loading="megatron",
    finish=write_data_path,
    blends=("nemo.json",),
)
