"""Exports on another store: the same files as on a disk, temporary names, the record last; and stores that fail."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

import openclimb
from openclimb.cli.main import main
from openclimb.corpus.reading import store as faults_of_stores
from openclimb.testing.fixtures import complaint

OUT = "memory://bucket/data"
TOKENS = 30_000


@pytest.fixture
def store() -> Iterator[Any]:
    """The store `memory://`, empty."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


def names(store: Any) -> list[str]:
    return sorted(path.removeprefix("/bucket/data/") for path in store.find("/bucket"))


def test_an_export_on_a_store_is_the_one_on_a_disk(
    finished: Path, store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(finished), "--tokens", str(TOKENS), "--quiet", "--out"]
    assert main([*command, OUT]) == 0
    assert f" in 1 shard: {OUT}\n" in capsys.readouterr().out
    assert main([*command, str(tmp_path / "data")]) == 0
    local = {
        path.relative_to(tmp_path / "data").as_posix(): path.read_bytes()
        for path in (tmp_path / "data").rglob("*")
        if path.is_file()
    }
    assert names(store) == sorted(local)
    assert {name: store.cat_file(f"/bucket/data/{name}") for name in local} == local
    assert not list(finished.glob("export-*"))
    assert not Path("memory:").exists()
    assert main([*command, OUT]) == 0  # done before, reused
    store.rm_file("/bucket/data/mixture.csv")
    assert main([*command, OUT]) == 1
    assert "mixture.csv is not as it was written" in complaint(capsys.readouterr().err)
    other = [*command[:3], "20K", *command[4:], OUT]
    assert main(other) == 1
    assert "holds another export" in complaint(capsys.readouterr().err)


def test_an_export_that_is_cut_short_has_no_record_and_goes_on(
    finished: Path, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    copied: list[str] = []
    put = MemoryFileSystem.put_file

    def failing(self: Any, local: str, target: str, **more: Any) -> None:
        if len(copied) == 2:
            raise PermissionError(f"no access to {target}")
        copied.append(target)
        put(self, local, target, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", failing)
    monkeypatch.setattr("openclimb.corpus.reading.store.PAUSE", 0.0)
    command = ["export", str(root), "--tokens", str(TOKENS), "--quiet", "--out", OUT]
    assert main(command) == 1
    said = complaint(capsys.readouterr().err)
    assert f"{OUT} cannot be written: permission denied" in said
    assert "export again" in said
    assert all(target.endswith(".part") for target in copied)
    assert "record.json" not in names(store)
    assert "recipe.json" in names(store)
    monkeypatch.setattr(MemoryFileSystem, "put_file", put)
    assert main(command) == 0
    assert json.loads(store.cat_file("/bucket/data/record.json"))["asked"]["token_budget"] == TOKENS
    assert "recipe.json" not in names(store)
    assert not [name for name in names(store) if name.endswith(".part")]
    assert not list(root.glob("export-*"))


def test_a_budget_that_is_refused_leaves_nothing_there(
    finished: Path, store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(finished), "--quiet", "--out", OUT, "--tokens"]
    assert main([*command, "100M"]) == 1
    assert "would repeat more than" in complaint(capsys.readouterr().err)
    assert names(store) == []
    assert main([*command, "1K"]) == 0
    assert "record.json" in names(store)


def test_what_is_no_export_is_left_alone(finished: Path, store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    store.pipe_file("/bucket/data/notes.txt", b"mine")
    assert main(["export", str(finished), "--tokens", "1K", "--quiet", "--out", OUT]) == 1
    assert "holds something that is no export" in complaint(capsys.readouterr().err)
    assert names(store) == ["notes.txt"]


@pytest.mark.parametrize(
    ("url", "message", "fix"),
    [
        ("s3://bucket/data", "s3fs is not installed", "pip install 'openclimb[s3]'"),
        ("gs://bucket/data", "gcsfs is not installed", "pip install 'openclimb[gcs]'"),
        ("abfs://bucket/data", "adlfs is not installed", "pip install 'openclimb[azure]'"),
        ("nowhere://bucket/data", "there is no store 'nowhere'", "s3://bucket/path"),
    ],
)
def test_a_store_without_its_package_is_said_with_the_install_line(
    url: str,
    message: str,
    fix: str,
    finished: Path,
    tmp_path: Path,
    tiny_corpus: Path,
    tiny_tasks: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For what is read and for what is written."""
    scheme, package = url.partition("://")[0], message.partition(" ")[0]
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.delitem(_registry, scheme, raising=False)
    assert main(["export", str(finished), "--tokens", "1K", "--quiet", "--out", url]) == 1
    said = complaint(capsys.readouterr().err)
    assert message in said
    assert fix in said
    for corpus, tasks in ((f"{url}/*.jsonl", str(tiny_tasks)), (str(tiny_corpus), f"{url}/*.jsonl")):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        openclimb.init(root, corpus={"paths": [corpus]}, tasks={"paths": [tasks]}, embed={"embedder": "hashing"})
        for command in ("plan", "run"):
            assert main([command, str(root)]) == 1
            said = complaint(capsys.readouterr().err)
            assert message in said
            assert fix in said


def test_a_store_that_cannot_be_written_is_one_sentence(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults_of_stores, "PAUSE", 0.0)
    command = ["export", str(finished), "--tokens", "1K", "--quiet", "--out"]
    assert main([*command, "https://user:secret@localhost:1/data?key=secret"]) == 1
    said = complaint(capsys.readouterr().err)
    assert "https://localhost:1/data cannot be written" in said
    assert "secret" not in said


@pytest.mark.parametrize("url", ["s3://bucket/run", "memory://run", "file:///tmp/run"])
def test_a_workspace_is_a_local_folder(
    url: str, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["init", url, "--corpus", str(tiny_corpus)], ["run", url], ["status", url], ["plan", url]):
        assert main(command) == 1
        assert "is an address, and a workspace is a folder of this machine" in complaint(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_status_works_without_the_network(
    finished: Path, tmp_path: Path, tiny_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    openclimb.init(root, corpus={"paths": ["s3://bucket/*.jsonl"]}, tasks={"paths": ["gs://bucket/*.jsonl"]})
    assert main(["status", str(root)]) == 0
    assert f"next      climb run {root}" in capsys.readouterr().out
    copy = shutil.copytree(finished, tmp_path / "done")
    settings = copy / "climb.toml"
    settings.write_text(settings.read_text().replace(json.dumps(str(tiny_corpus)), '"s3://bucket/corpus.jsonl"'))
    assert main(["status", str(copy), "--json"]) == 0
    stages = {row["stage"]: row for row in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["corpus"]["differs"] == [f'corpus.paths: ["{tiny_corpus}"] then, ["s3://bucket/corpus.jsonl"] now']
