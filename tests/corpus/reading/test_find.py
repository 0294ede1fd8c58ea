"""Which files are read: links, hidden files, test parts, formats; and that nothing is left out without a word."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.find import DANGLING, HIDDEN, NOT_DATA, SPECIAL, SPLIT, TWICE, UNSUPPORTED, left_out_text
from openclimb.corpus.reading.store import open_store
from openclimb.corpus.reading.units import check_inputs, list_files, look, names_of
from openclimb.errors import InputError, MissingDependency

LINE = '{"text": "some words"}\n'


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(LINE)


def names(*paths: Path | str) -> list[str]:
    return [file.name for file in list_files(CorpusSettings(paths=tuple(map(str, paths))))]


def left(*paths: Path | str) -> dict[str, str]:
    return {one.name: one.reason for one in look(CorpusSettings(paths=tuple(map(str, paths))))[1]}


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub cache as huggingface_hub lays it out: every file is a link, one leads nowhere, one folder is a link."""
    hub = tmp_path / "datasets--a--b"
    write(hub, *(f"blobs/{i}f00" for i in range(3)))
    data = hub / "snapshots" / "rev" / "data"
    data.mkdir(parents=True)
    for i in range(2):
        (data / f"train-0000{i}-of-00003.jsonl").symlink_to(Path("../../../blobs") / f"{i}f00")
    (data / "train-00002-of-00003.jsonl").symlink_to(Path("../../../blobs/gone"))
    write(tmp_path, "elsewhere/c.jsonl")
    (data.parent / "more").symlink_to(tmp_path / "elsewhere")
    (data.parent / "data-again").symlink_to(data)
    (data / "up").symlink_to(hub)
    (data / "self.jsonl").symlink_to("self.jsonl")
    return hub


def test_a_hub_cache_is_read_by_the_names_of_its_links(hub: Path) -> None:
    expected = ["data/train-00000-of-00003.jsonl", "data/train-00001-of-00003.jsonl", "more/c.jsonl"]
    snapshot = hub / "snapshots" / "rev"
    assert names(snapshot) == names(hub) == names(snapshot / "**") == names(snapshot / "*" / "*.jsonl") == expected
    gone = {"data/self.jsonl": DANGLING, "data/train-00002-of-00003.jsonl": DANGLING}
    assert {name: reason for name, reason in left(snapshot).items() if reason == DANGLING} == gone
    said = left_out_text(check_inputs(CorpusSettings(paths=(str(snapshot),)))["left_out"])
    assert "2 files, 0 B: links to nothing (data/self.jsonl, data/train-00002-of-00003.jsonl)" in said
    assert sorted(set(left(hub).values())) == [UNSUPPORTED, DANGLING]  # blobs have no suffix


def test_links_give_the_same_domains_as_plain_files(hub: Path, tmp_path: Path) -> None:
    write(tmp_path / "plain", "data/train-00000-of-00003.jsonl", "data/train-00001-of-00003.jsonl", "more/c.jsonl")
    linked, plain = ({name.split("/")[0] for name in names(path)} for path in (hub / "snapshots", tmp_path / "plain"))
    assert linked == plain == {"data", "more"}


def test_two_names_of_a_file_are_one_file(tmp_path: Path) -> None:
    write(tmp_path, "x/b.jsonl")
    (tmp_path / "x" / "a.jsonl").symlink_to("b.jsonl")
    (tmp_path / "x" / "c.jsonl").symlink_to("b.jsonl")
    assert names(tmp_path / "x") == ["b.jsonl"]
    assert left(tmp_path / "x") == {"a.jsonl": TWICE, "c.jsonl": TWICE}
    assert names(tmp_path / "x" / "a.jsonl") == ["a.jsonl"]


def test_a_named_link_to_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to("gone")
    with pytest.raises(InputError, match="links to nothing"):
        list_files(CorpusSettings(paths=(str(tmp_path / "a.jsonl"),)))


def test_a_folder_of_all_kinds_of_files(tmp_path: Path) -> None:
    read = [
        f"a.{suffix}" for suffix in ("csv", "feather", "json", "jsonl", "md", "ndjson.lz4", "parquet", "tsv", "txt")
    ]
    write(tmp_path, *read, "a.JSONL.GZ", "a.json.bz2", "a.txt.xz", "a.csv.zstd", "a.arrow")
    write(tmp_path, "a.docx", "data", "._a.jsonl", ".ipynb_checkpoints/a.jsonl", "__MACOSX/a.jsonl", "b/.cache/x.json")
    write(tmp_path, "README.md", "dataset_infos.json", "b/LICENSE", ".gitattributes")
    expected = sorted([*read, "a.JSONL.GZ", "a.json.bz2", "a.txt.xz", "a.csv.zstd", "a.arrow"])
    assert names(tmp_path) == names(tmp_path / "*") == expected
    reasons = {"a.docx": UNSUPPORTED, "data": UNSUPPORTED, "README.md": NOT_DATA, "dataset_infos.json": NOT_DATA}
    hidden = ("._a.jsonl", ".ipynb_checkpoints/a.jsonl", "__MACOSX/a.jsonl", "b/.cache/x.json", ".gitattributes")
    assert left(tmp_path) == {**reasons, "b/LICENSE": NOT_DATA, **dict.fromkeys(hidden, HIDDEN)}
    facts = check_inputs(CorpusSettings(paths=(str(tmp_path / "a.jsonl"),)))
    assert facts["left_out"] == []


def test_what_is_left_out_has_count_bytes_and_names(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", *(f"{i}.bin" for i in range(5)), ".a.jsonl")
    rows = check_inputs(CorpusSettings(paths=(str(tmp_path),)))["left_out"]
    size = len(LINE)
    assert rows == [
        {"reason": UNSUPPORTED, "files": 5, "bytes": 5 * size, "named": ["0.bin", "1.bin", "2.bin"]},
        {"reason": HIDDEN, "files": 1, "bytes": size, "named": [".a.jsonl"]},
    ]
    assert left_out_text(rows) == (
        "5 files, 115 B: a format that is not read (0.bin, 1.bin, 2.bin, …); 1 file, 23 B: hidden (.a.jsonl)"
    )


@pytest.mark.parametrize("place", [".hidden", "x/.hidden"])
def test_hidden_files_are_read_when_they_are_named(place: str, tmp_path: Path) -> None:
    write(tmp_path, f"{place}/a.jsonl", f"{place}/.b.jsonl")
    assert names(tmp_path / place) == ["a.jsonl"]
    assert names(tmp_path / place / ".b.jsonl") == [".b.jsonl"]
    assert names(tmp_path / place / ".*") == [".b.jsonl"]


HUB = (
    "en/train-00000-of-00002.parquet",
    "en/train-00001-of-00002.parquet",
    "de/train.jsonl",
    "fr/c4-train.00000-of-00008.json.gz",
    "fr/wiki_train.jsonl",
    "fr/dev-docs.jsonl",
    "fr/unit-test-code.jsonl",
    "fr/latest.jsonl",
    "it/train/a.jsonl",
)
HUB_TESTS = (
    "en/test-00000-of-00001-a09b74b3ef9c3b56.parquet",
    "en/validation-00000-of-00001.parquet",
    "de/test.jsonl",
    "de/dev.jsonl",
    "fr/c4-validation.00000-of-00008.json.gz",
    "fr/wiki_val.jsonl",
    "it/test/a.jsonl",
    "it/validation/train.jsonl",
)


def test_test_and_validation_parts_are_left_out_of_hub_layouts(tmp_path: Path) -> None:
    write(tmp_path / "data", *HUB, *HUB_TESTS)
    assert names(tmp_path / "data") == sorted(HUB)
    assert left(tmp_path / "data") == dict.fromkeys(HUB_TESTS, SPLIT)
    assert {name.split("/")[0] for name in names(tmp_path / "data")} == {"en", "de", "fr", "it"}


def test_test_parts_are_read_when_they_are_named(tmp_path: Path) -> None:
    write(tmp_path, "data/test-0.jsonl", "data/train-0.jsonl", "data/test/a.jsonl")
    assert names(tmp_path / "data" / "test-0.jsonl") == ["test-0.jsonl"]
    assert names(tmp_path / "data" / "test-*") == ["test-0.jsonl"]
    assert names(tmp_path / "data" / "test") == ["a.jsonl"]
    assert names(tmp_path / "data", tmp_path / "data" / "test-0.jsonl") == ["test-0.jsonl", "train-0.jsonl"]
    assert left(tmp_path / "data", tmp_path / "data" / "test-0.jsonl") == {"test/a.jsonl": SPLIT}


def test_a_folder_of_test_parts_alone_says_so(tmp_path: Path) -> None:
    write(tmp_path, "data/test-0.jsonl")
    with pytest.raises(InputError, match=r"no file matches .*test or validation \(test-0\.jsonl\)") as caught:
        list_files(CorpusSettings(paths=(str(tmp_path / "data"),)))
    assert "name their files" in caught.value.fix


@pytest.fixture
def shop() -> Iterator[str]:
    filesystem = fsspec.filesystem("memory")
    for name in (
        "train-0.jsonl",
        "test-0.jsonl",
        ".x.jsonl",
        "README.md",
        "notes.docx",
        "de/train.jsonl",
        "de/test.jsonl",
    ):
        filesystem.pipe(f"/shop/data/{name}", LINE.encode())
    yield "memory://shop/data"
    filesystem.rm("/shop", recursive=True)


def test_stores_follow_the_same_rules(shop: str) -> None:
    assert names(shop) == ["de/train.jsonl", "train-0.jsonl"]
    splits = {"test-0.jsonl": SPLIT, "de/test.jsonl": SPLIT}
    assert left(shop) == {**splits, ".x.jsonl": HIDDEN, "README.md": NOT_DATA, "notes.docx": UNSUPPORTED}
    assert names(f"{shop}/*") == names(f"{shop}/**") == ["de/train.jsonl", "train-0.jsonl"]
    assert names(f"{shop}/test-*") == ["test-0.jsonl"]


@pytest.mark.parametrize("name", ["a::b.jsonl", "zip::memory:x.jsonl", "a b#c?.jsonl", "~x.jsonl", "日本.jsonl"])
def test_any_name_of_a_local_file_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, f"data/{name}")
    assert names(tmp_path / "data" / name) == names(tmp_path / "data") == [name]
    assert check_inputs(CorpusSettings(paths=(str(tmp_path / "data"),)))["files"] == 1
    monkeypatch.chdir(tmp_path)
    assert names(f"data/{name}") == [name]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    write(tmp_path, "a.jsonl")
    os.mkfifo(tmp_path / "b.jsonl")
    assert names(tmp_path) == ["a.jsonl"]
    assert left(tmp_path) == {"b.jsonl": SPECIAL}


def test_a_folder_that_may_not_be_read_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.jsonl", "closed/b.jsonl")
    real = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:  # root, which may run tests, may read everything
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(InputError, match="permission denied"):
        list_files(CorpusSettings(paths=(str(tmp_path),)))


def test_a_missing_library_of_a_store_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for module in [name for name in sys.modules if name.startswith("huggingface_hub.")]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "hf", raising=False)
    with pytest.raises(MissingDependency, match="huggingface_hub is not installed") as caught:
        open_store("hf://datasets/a/b")
    assert caught.value.fix == "pip install 'openclimb[hf]'"
    with pytest.raises(InputError, match="nonsense"):
        open_store("nonsense://a/b")


def test_names_hold_when_paths_are_links(tmp_path: Path) -> None:
    write(tmp_path, "real/en/a.jsonl", "real/de/a.jsonl")
    (tmp_path / "link").symlink_to("real")
    found = [file.path for file in list_files(CorpusSettings(paths=(str(tmp_path / "link"),)))]
    assert list(names_of(found).values()) == ["de/a.jsonl", "en/a.jsonl"]
    assert json.loads(Path(found[0]).read_text()) == json.loads(LINE)
