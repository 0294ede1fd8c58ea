"""S3 as corpus and as place of exports, on a server of this machine: the bytes of a disk, also where requests fail."""

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

pytest.importorskip("s3fs", reason="needs the extra test-s3")
pytest.importorskip("moto", reason="needs the extra test-s3")
pytest.importorskip("flask_cors", reason="needs the extra test-s3")

from s3fs import S3FileSystem  # noqa: E402

from _faults_store import Proxy, s3_environment, s3_server  # noqa: E402
from openclimb.cli.main import main  # noqa: E402
from openclimb.corpus.reading import store  # noqa: E402
from openclimb.testing.fixtures import complaint, make_tiny_workspace  # noqa: E402

pytestmark = [
    pytest.mark.s3,
    # Of aiohttp's own: connections to a store that failed are left to be collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
FAILING = 5  # one request in so many
TOKENS = 30_000


@pytest.fixture(scope="module")
def started() -> Iterator[Proxy]:
    with s3_server() as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in s3_environment(proxy).items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        yield proxy
        S3FileSystem.clear_instance_cache()


@pytest.fixture
def proxy(started: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The server, with the empty bucket `bucket`; it does not fail yet, and the second try comes soon."""
    monkeypatch.setattr(store, "PAUSE", 0.01)
    started.begin(0)
    S3FileSystem.clear_instance_cache()
    s3 = S3FileSystem()
    if s3.exists("bucket"):
        s3.rm("bucket", recursive=True)
    s3.mkdir("bucket")
    yield started
    started.begin(0)


@pytest.fixture(scope="module")
def shards(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small corpus as four files of four formats."""
    folder = tmp_path_factory.mktemp("shards")
    lines = tiny_corpus.read_bytes().splitlines(keepends=True)
    parts = [lines[i::4] for i in range(4)]
    (folder / "a.jsonl").write_bytes(b"".join(parts[0]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(parts[1]), mtime=0))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(b"".join(parts[2])))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([json.loads(line) for line in parts[3]]), sink, row_group_size=50)
    (folder / "d.parquet").write_bytes(sink.getvalue())
    return folder


@pytest.fixture(scope="module")
def local(shards: Path, tiny_tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace over the files on a disk, run to its end, and beside it an export: run/, data/."""
    folder = tmp_path_factory.mktemp("local")
    root = make_tiny_workspace(folder / "run", shards, tiny_tasks)
    assert main(["run", str(root), "--quiet"]) == 0
    assert main([*export(root), str(folder / "data")]) == 0
    return folder


def export(root: Path) -> list[str]:
    return ["export", str(root), "--tokens", str(TOKENS), "--quiet", "--out"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def objects() -> dict[str, bytes]:
    """Return the objects below bucket/data."""
    s3 = S3FileSystem()
    s3.invalidate_cache()
    return {path.removeprefix("bucket/data/"): s3.cat_file(path) for path in s3.find("bucket/data")}


def upload(shards: Path) -> None:
    S3FileSystem().put([str(path) for path in sorted(shards.iterdir())], "bucket/corpus/")


@pytest.mark.parametrize("failing", [0, FAILING])
def test_a_corpus_and_an_export_on_s3_are_those_of_a_disk(
    failing: int, proxy: Proxy, shards: Path, local: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    upload(shards)
    paths = ["s3://bucket/corpus/*.jsonl", "s3://bucket/corpus/*.gz", "s3://bucket/corpus/[c-d].*"]
    root = make_tiny_workspace(tmp_path / "run", shards, tiny_tasks, corpus={"paths": paths})
    proxy.begin(failing)
    assert main(["run", str(root), "--quiet"]) == 0
    assert main([*export(root), str(tmp_path / "data")]) == 0
    assert main([*export(root), "s3://bucket/data"]) == 0
    assert proxy.failed.total() == (proxy.requests // failing if failing else 0)
    proxy.begin(0)
    assert (root / "mixture" / "mixture.json").read_bytes() == (local / "run" / "mixture" / "mixture.json").read_bytes()
    wanted, exported, there = files_of(local / "data"), files_of(tmp_path / "data"), objects()
    for made in (exported, there):
        assert sorted(made) == sorted(wanted)
        assert [name for name in wanted if made[name] != wanted[name]] in ([], ["record.json"])  # has where and when
    assert not list(root.glob("export-*"))
