"""Shards of rows that `datasets.load_dataset` opens: Parquet, and JSON lines in Zstandard."""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openclimb.export.writers.writer import Writer

ROWS = 1024  # written or read at once


def write_parquet(rows: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(rows, path, compression="zstd", row_group_size=4096)


def read_parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(ROWS):
        yield pa.Table.from_batches([batch])


def write_json_lines(rows: Any, path: Path) -> None:
    import zstandard

    with open(path, "wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as stream:
        for batch in rows.to_batches(max_chunksize=ROWS):
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
            stream.write("".join(lines).encode("utf-8"))


def read_json_lines(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import zstandard

    with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        lines = iter(io.BufferedReader(stream))
        while some := list(itertools.islice(lines, ROWS)):
            yield pa.Table.from_pylist([json.loads(line) for line in some])


PARQUET = Writer((".parquet",), write_parquet, read_parquet, builder="parquet")
JSON_LINES = Writer((".jsonl.zst",), write_json_lines, read_json_lines, builder="json", blends=("levanter.yaml",))
