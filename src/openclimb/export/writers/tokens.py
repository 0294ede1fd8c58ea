"""Plain token shards, as nanoGPT and nanochat read them with `np.memmap`.

`NAME.bin`: the ids of all documents one after the other, unsigned and little-endian, two bytes each where the
vocabulary has at most 65,536 entries and four else; nothing before, between or after them. Each document ends with the
end token, and begins with the start token where the tokenizer has one that is not its end.

`NAME.json`: {"format": "tokens", "version": 1, "dtype": "uint16" or "uint32", "byte_order": "little", "tokens",
"documents", "vocab_size", "end", "start" (null where there is none)}.

`NAME.documents.parquet`: a row a document, in the same order: id, domain, tokens, repetition, source_file, position,
and for `--by-cluster` what the labels say of it. A document's ids begin where the tokens of those before it end.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.export.writers.rows import ROWS
from openclimb.export.writers.writer import Writer

VERSION = 1


def write_tokens(rows: Any, path: Path, header: Path, documents: Path) -> None:
    described = {
        "format": "tokens",
        "version": VERSION,
        "dtype": str(id_type(rows)),
        "byte_order": "little",
        "tokens": write_ids(rows, path, id_type(rows)),
        "documents": len(rows),
        **json.loads(rows.schema.metadata[b"tokenizer"]),
    }
    header.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    write_documents(rows, documents)


def read_tokens(path: Path, header: Path, documents: Path) -> Iterator[Any]:
    described = json.loads(header.read_text(encoding="utf-8"))
    if described["version"] != VERSION or described["dtype"] not in ("uint16", "uint32"):
        raise ValueError(f"{header.name} is of a form that is not known")
    ids = np.fromfile(path, np.dtype(described["dtype"]).newbyteorder("<"))
    if len(ids) != described["tokens"]:
        raise ValueError(f"{path.name} has {len(ids)} tokens, and {header.name} says {described['tokens']}")
    yield from with_ids(ids, documents)


def id_type(rows: Any) -> np.dtype[Any]:
    """Return the type of the ids in rows."""
    return np.dtype(rows.schema.field("ids").type.value_type.to_pandas_dtype())


def write_ids(rows: Any, path: Path, number: np.dtype[Any]) -> int:
    """Write the ids of all rows, little-endian; return how many there are."""
    n = 0
    with open(path, "wb") as file:
        for chunk in rows.column("ids").chunks:
            ids = chunk.flatten().to_numpy().astype(number.newbyteorder("<"), copy=False)
            file.write(ids.tobytes())
            n += len(ids)
    return n


def write_documents(rows: Any, path: Path) -> None:
    """Write all columns of rows but the ids."""
    import pyarrow.parquet as pq

    pq.write_table(rows.drop_columns(["ids"]).replace_schema_metadata(None), path, compression="zstd")


def with_ids(ids: NDArray[Any], documents: Path) -> Iterator[Any]:
    """Yield tables of documents with their ids. Raises ValueError where there are more or fewer than they have."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = 0
    for batch in pq.ParquetFile(documents).iter_batches(ROWS):
        ends = np.concatenate([[0], np.cumsum(batch.column("tokens").to_numpy().astype(np.int64))])
        mine = ids[at : at + int(ends[-1])]
        if len(mine) < ends[-1]:
            raise ValueError(f"{documents.name} has more tokens than the {len(ids)} that are there")
        at += len(mine)
        lists = pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(mine))
        yield pa.table({"ids": lists, **{name: batch.column(name) for name in batch.schema.names}})
    if at != len(ids):
        raise ValueError(f"{documents.name} has {at} tokens, and {len(ids)} are there")


TOKENS = Writer(
    (".bin", ".json", ".documents.parquet"),
    write_tokens,
    read_tokens,
    tokens=True,
    loading="tokens",
    blends=("olmo-core.yaml",),
)
