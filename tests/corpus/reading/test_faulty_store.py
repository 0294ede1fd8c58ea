"""A store that fails one request in five gives the documents of a store that does not, whatever the format."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile
from pyarrow import feather

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading import store
from openclimb.corpus.reading.parse import Document
from openclimb.corpus.reading.read import read_unit
from openclimb.corpus.reading.units import read_units, survey
from openclimb.engines.local import LocalEngine
from openclimb.progress import Progress
from openclimb.workspace.context import StageContext

FAILING = 5  # one request in so many
BLOCK = 4096  # bytes of a request
N = 400


class Busy(OSError):
    """What a store raises for a status 500."""

    status = 500


FAULTS: tuple[Callable[[], Exception], ...] = (
    lambda: Busy("internal error"),
    lambda: ConnectionResetError(104, "connection reset by peer"),
    lambda: TimeoutError("no answer"),
)


class FaultyFile(AbstractBufferedFile):
    """A file of the store, read a block at a time."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        cut = self.fs.ask()
        data = bytes(self.fs.inside.cat_file(self.path, start, end))
        return data[: len(data) // 2] if cut else data


class Faulty(fsspec.AbstractFileSystem):
    """A store in this process: fsspec's memory, of whose requests one in FAILING fails, each kind of fault in turn."""

    protocol = "faulty"
    inside = MemoryFileSystem()
    fails = False
    asked = failed = 0

    def ask(self) -> bool:
        """Answer a request, or raise; return whether half of the answer is lost."""
        Faulty.asked += 1
        if not Faulty.fails or Faulty.asked % FAILING:
            return False
        Faulty.failed += 1
        kind = Faulty.failed % (len(FAULTS) + 1)
        if kind < len(FAULTS):
            raise FAULTS[kind]()
        return True

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self.ask()
        return self.inside.ls(path, detail=detail)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        self.ask()
        return dict(self.inside.info(path))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> FaultyFile:
        return FaultyFile(self, path, mode, block_size=BLOCK, cache_type="readahead")


@pytest.fixture(autouse=True)
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The store, empty, without faults yet; its second try comes at once."""
    monkeypatch.setattr(store, "PAUSE", 0.0)
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    Faulty.fails, Faulty.asked, Faulty.failed = False, 0, 0
    yield
    Faulty.inside.rm("/", recursive=True)


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def parquet(texts: list[str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), sink, row_group_size=100)
    return sink.getvalue()


def arrow(texts: list[str]) -> bytes:
    sink = io.BytesIO()
    feather.write_feather(pa.table({"text": texts}), sink, compression="uncompressed", chunksize=50)
    return sink.getvalue()


def arrow_stream(texts: list[str]) -> bytes:
    table, sink = pa.table({"text": texts}), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    return sink.getvalue()


def table(texts: list[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([["text"], *([text] for text in texts)])
    return out.getvalue().encode()


def records(texts: list[str]) -> bytes:
    head = "WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{}\r\n\r\n"
    return "".join(head.format(len(text), text) for text in texts).encode()


FORMATS: dict[str, Callable[[list[str]], bytes]] = {
    "a.parquet": parquet,
    "a.feather": arrow,
    "a.arrow": arrow_stream,
    "a.csv": table,
    "a.csv.gz": lambda texts: gzip.compress(table(texts), 1),
    "a.json": lambda texts: json.dumps([{"text": text} for text in texts]).encode(),
    "a.json.gz": lambda texts: gzip.compress(json.dumps([{"text": text} for text in texts]).encode(), 1),
    "a.jsonl": lines,
    "a.jsonl.gz": lambda texts: gzip.compress(lines(texts), 1),
    "a.jsonl.zst": lambda texts: zstandard.compress(lines(texts), 1),
    "a.jsonl.bz2": lambda texts: bz2.compress(lines(texts), 1),
    "a.jsonl.xz": lambda texts: lzma.compress(lines(texts), preset=0),
    "a.jsonl.lz4": lambda texts: pa.Codec("lz4").compress(lines(texts), asbytes=True),
    "a.warc": records,
    "a.warc.wet.gz": lambda texts: gzip.compress(records(texts), 1),
    "a.txt": lambda texts: "\n".join(texts).encode(),
    "a.txt.gz": lambda texts: gzip.compress("\n".join(texts).encode(), 1),
}


def documents(path: str, out: Path) -> list[tuple[int, str, str]]:
    settings = CorpusSettings(paths=(path,))
    out.mkdir()
    survey(StageContext(out, LocalEngine(1), Progress()), settings)
    found = [one for unit in read_units(out, settings) for one in read_unit(unit, settings)]
    assert all(isinstance(one, Document) for one in found)
    return [(one.position, one.id, one.text) for one in found if isinstance(one, Document)]


@pytest.mark.parametrize("name", FORMATS)
def test_a_store_that_fails_one_request_in_five_gives_the_same_documents(name: str, tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = [f"{i} " + rng.randbytes(200).hex() for i in range(N)]
    Faulty.inside.pipe_file(f"/{name}", FORMATS[name](texts))
    whole = documents(f"faulty:///{name}", tmp_path / "whole")
    assert [text for _, _, text in whole] == (["\n".join(texts)] if ".txt" in name else texts)
    assert Faulty.failed == 0
    Faulty.fails = True
    for again in range(3):
        assert documents(f"faulty:///{name}", tmp_path / f"again-{again}") == whole
    assert Faulty.failed >= len(FAULTS)  # each kind was met
