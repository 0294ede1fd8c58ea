"""S3 as corpus and as place of exports, on a server of this machine: the bytes of a disk, also where requests fail."""

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

pytest.importorskip("s3fs", reason="needs the extra test-s3")
pytest.importorskip("moto", reason="needs the extra test-s3")
pytest.importorskip("flask_cors", reason="needs the extra test-s3")

from s3fs import S3FileSystem

from _faults_store import S3_FAULTS, Proxy, s3_environment, s3_server
from openclimb.cli.main import main
from openclimb.corpus.reading import store
from openclimb.errors import InputError
from openclimb.testing.fixtures import complaint, make_tiny_workspace

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


@pytest.mark.parametrize("failing", [pytest.param(0, marks=pytest.mark.slow), FAILING])
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
    assert set(proxy.failed) == (set(S3_FAULTS) if failing else set())
    proxy.begin(0)
    assert (root / "mixture" / "mixture.json").read_bytes() == (local / "run" / "mixture" / "mixture.json").read_bytes()
    wanted, exported, there = files_of(local / "data"), files_of(tmp_path / "data"), objects()
    for made in (exported, there):
        assert sorted(made) == sorted(wanted)
        assert [name for name in wanted if made[name] != wanted[name]] in ([], ["record.json"])  # has where and when
    assert not list(root.glob("export-*"))


@pytest.mark.parametrize("name", ["no-such-bucket", "no keys", "403"])
def test_what_does_not_pass_is_one_sentence_without_keys(
    name: str,
    proxy: Proxy,
    local: Path,
    shards: Path,
    tiny_tasks: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request that is refused is tried three times, and no more."""
    bucket = name if name == "no-such-bucket" else "bucket"
    root = make_tiny_workspace(
        tmp_path / "run", shards, tiny_tasks, corpus={"paths": [f"s3://{bucket}/corpus/*.jsonl"]}
    )
    finished = Path(shutil.copytree(local / "run", tmp_path / "finished"))
    secrets = [os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]]
    if name == "no keys":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(proxy, "kinds", ("403",))
    cause = {"no-such-bucket": "there is no such bucket", "no keys": "Unable to locate credentials"}
    for command in (["run", str(root), "--quiet"], [*export(finished), f"s3://{bucket}/data"]):
        S3FileSystem.clear_instance_cache()
        proxy.begin(1 if name == "403" else 0)
        assert main(command) == 1
        out, err = capfd.readouterr()
        said = complaint(err)
        assert f"s3://{bucket}/" in said
        assert cause.get(name, "permission denied") in said
        assert "go" in said.partition("fix: ")[2]
        if name != "no-such-bucket":
            assert "\nfix: set up the store's credentials" in said
        assert proxy.requests == {"403": store.FEW_TRIES, "no keys": 0}.get(name, proxy.requests)
        files = b"".join(path.read_bytes() for folder in (root, finished) for path in folder.rglob("*.*"))
        assert not [one for one in secrets if one in out + err or one.encode() in files]
    proxy.begin(0)
    assert not S3FileSystem().exists("no-such-bucket")


@pytest.mark.slow
def test_a_dead_store_ends_a_reading(proxy: Proxy) -> None:
    """Not after the tries of three layers, multiplied."""
    S3FileSystem().pipe_file("bucket/a.txt", b"text")
    with store.open_file("s3://bucket/a.txt") as file:
        proxy.begin(1)
        proxy.kinds = ("500",)
        with pytest.raises(InputError, match="cannot be read"):
            file.read()
    proxy.kinds = S3_FAULTS
    assert proxy.requests <= 5 * store.TRIES  # 5: botocore's


@pytest.mark.parametrize(
    "sent", [signal.SIGKILL, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGTERM))]
)
def test_an_upload_that_is_ended_goes_on(sent: int, proxy: Proxy, local: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(local / "run", tmp_path / "run"))
    command = [*export(root), "s3://bucket/data"]
    wanted = files_of(local / "data")
    for most in (5, 15, 25):  # requests that are answered; those of an export are about 40
        proxy.begin(0)
        process = subprocess.Popen([sys.executable, "-m", "openclimb.cli.main", *command], stderr=subprocess.PIPE)
        while proxy.requests < most and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(sent)
        said = process.communicate()[1].decode()
        assert process.returncode, said
        assert "Traceback" not in said
        assert "record.json" not in objects()
    assert main(command) == 0
    made = objects()
    assert sorted(made) == sorted(wanted)
    assert [name for name in wanted if made[name] != wanted[name]] == []
