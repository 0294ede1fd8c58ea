"""Exports for trainers: the tokens of a target's tokenizer, Megatron's files, plain token shards, one domain a shard.

The packages' own readers open these files in tests/export/test_real_readers.py; here each form is read as it is
documented.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

import openclimb
from openclimb.cli.main import main
from openclimb.corpus.tokenizer import train_tokenizer
from openclimb.errors import ConfigError, DomainError, WorkspaceError
from openclimb.export.verify import verify
from openclimb.export.writers import streams
from openclimb.export.writers.megatron import MEGATRON, write_data_path
from openclimb.export.writers.streams import LITDATA, MDS
from openclimb.export.writers.tokens import TOKENS
from openclimb.progress import Progress
from openclimb.testing.fixtures import complaint
from openclimb.workspace.files import read_json

BUDGET = 20_000
SHARD = 8_000


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    """Another tokenizer than the search's: fewer entries, more tokens."""
    path = tmp_path_factory.mktemp("target") / "tokenizer.json"
    train_tokenizer([text for _, text in texts], 300, path)
    return path


@pytest.fixture(scope="module")
def texts_of(finished: Path, tmp_path_factory: pytest.TempPathFactory, target: Path) -> list[list[dict[str, Any]]]:
    """The rows of each shard of the dataset that other formats hold as tokens."""
    out = tmp_path_factory.mktemp("rows") / "data"
    openclimb.open(finished).export(BUDGET, out, tokenizer=str(target), shard_bytes=SHARD)
    return [pq.read_table(path).to_pylist() for path in sorted((out / "data").iterdir())]


def exported(finished: Path, out: Path, format: str, target: Path, **more: Any) -> dict[str, Any]:
    return openclimb.open(finished).export(BUDGET, out, format, tokenizer=str(target), shard_bytes=SHARD, **more)


def encoded(target: Path, rows: list[dict[str, Any]]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(target))
    return [[*tokenizer.encode(row["text"], add_special_tokens=False).ids, 0] for row in rows]


def read_indexed(prefix: Path) -> list[list[int]]:
    """Read a pair of Megatron's indexed dataset as its format says: one list of ids a document."""
    index = prefix.with_name(prefix.name + ".idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, n, n_bounds = struct.unpack_from("<QBQQ", index, 9)
    assert (version, n_bounds) == (1, n + 1)
    lengths = np.frombuffer(index, "<i4", n, 34)
    places = np.frombuffer(index, "<i8", n, 34 + 4 * n)
    bounds = np.frombuffer(index, "<i8", n + 1, 34 + 12 * n)
    assert len(index) == 34 + 12 * n + 8 * (n + 1)
    assert bounds.tolist() == list(range(n + 1))
    data = prefix.with_name(prefix.name + ".bin").read_bytes()
    kind = {8: "<u2", 4: "<i4"}[code]
    return [np.frombuffer(data, kind, size, at).tolist() for size, at in zip(lengths, places, strict=True)]


def test_the_targets_tokenizer_counts(
    finished: Path, tmp_path: Path, target: Path, texts_of: list[list[dict[str, Any]]]
) -> None:
    for rows in texts_of:
        assert [row["tokens"] for row in rows] == [len(ids) for ids in encoded(target, rows)]
    facts = exported(finished, tmp_path / "data", "parquet", target)
    assert facts["tokens"] == pytest.approx(BUDGET, rel=0.01)
    assert facts["tokenizer"] == {"own": False, "vocab_size": 300, "end": 0, "start": None}
    assert facts["largest_difference"] < 0.01
    tokenizer = Tokenizer.from_file(str(tmp_path / "data" / "tokenizer" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 300
    for row, domain in zip(facts["domains"], openclimb.open(finished).mixture().domains, strict=True):
        assert row["repetitions"] < row["tokens"] / domain.tokens  # its tokens are more than the search's
        assert row["natural"] == pytest.approx(domain.natural, abs=0.1)
    with pytest.raises(WorkspaceError, match="another tokenizer"):
        openclimb.open(finished).export(BUDGET, tmp_path / "data", shard_bytes=SHARD)


def test_repetitions_are_limited_in_the_targets_tokens(finished: Path, tmp_path: Path, target: Path) -> None:
    opened = openclimb.open(finished)
    with pytest.raises(DomainError, match="would repeat more than"):
        opened.export(4_000_000, tmp_path / "a", tokenizer=str(target))
    opened.export(1_000, tmp_path / "a", tokenizer=str(target))
    largest = max(opened.mixture().domains, key=lambda row: row.weight / row.tokens)
    budget = int(1.12 * 4 * largest.tokens / largest.weight)
    with pytest.raises(DomainError, match="would repeat more than"):
        opened.export(budget, tmp_path / "b")
    opened.export(budget, tmp_path / "b", tokenizer=str(target))  # the same text has more of its tokens


def test_a_tokenizer_that_is_none_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(finished), "--tokens", "1K", "--out", str(tmp_path / "data"), "--quiet", "--tokenizer"]
    assert main([*command, str(tmp_path / "none.json")]) == 1
    assert "--tokenizer: there is no file" in complaint(capsys.readouterr().err)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert main([*command, str(tmp_path)]) == 1
    assert "tokenizer.json cannot be read" in complaint(capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_megatron_pairs_hold_the_documents_and_the_data_path_names_them(
    finished: Path, tmp_path: Path, target: Path, texts_of: list[list[dict[str, Any]]]
) -> None:
    out = tmp_path / "data"
    facts = exported(finished, out, "megatron", target)
    words = (out / "megatron.txt").read_text().split()
    assert words[0] == "--data-path"
    prefixes = [out / word for word in words[2::2]]
    assert len(prefixes) == len(texts_of) > 2
    for prefix, weight, rows in zip(prefixes, words[1::2], texts_of, strict=True):
        documents = read_indexed(prefix)
        assert documents == encoded(target, rows)
        assert float(weight) == pytest.approx(sum(map(len, documents)) / facts["tokens"], rel=1e-4)
        kept = pq.read_table(prefix.with_name(prefix.name + ".documents.parquet")).to_pylist()
        assert kept == [{name: row[name] for name in row if name != "text"} for row in rows]


def test_plain_token_shards_are_what_their_form_says(
    finished: Path, tmp_path: Path, target: Path, texts_of: list[list[dict[str, Any]]]
) -> None:
    out = tmp_path / "data"
    exported(finished, out, "tokens", target)
    paths = sorted((out / "data").glob("*.bin"))
    for path, rows in zip(paths, texts_of, strict=True):
        ids = np.memmap(path, "<u2", mode="r")
        assert ids.tolist() == [token for document in encoded(target, rows) for token in document]
        assert read_json(path.with_suffix(".json")) == {
            "format": "tokens",
            "version": 1,
            "dtype": "uint16",
            "byte_order": "little",
            "tokens": len(ids),
            "documents": len(rows),
            "vocab_size": 300,
            "end": 0,
            "start": None,
        }


def test_a_start_token_stands_before_each_document(
    finished: Path, tmp_path: Path, target: Path, with_start: Any
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(target.read_bytes())
    start = with_start(path)
    exported(finished, tmp_path / "data", "tokens", path)
    header = read_json(next((tmp_path / "data" / "data").glob("*.json")))
    assert (header["start"], header["end"]) == (start, 0)
    ids = np.fromfile(next((tmp_path / "data" / "data").glob("*00000-of*.bin")), "<u2")
    ends = np.flatnonzero(ids == 0)
    assert ids[0] == start
    assert (ids[ends[:-1] + 1] == start).all()
    assert verify(str(tmp_path / "data"), Progress()).faults == ()


def test_large_vocabularies_have_four_bytes(tmp_path: Path) -> None:
    documents = [[70_000, 1, 0], [2, 0]]
    rows = pa.table(
        {
            "ids": pa.array(documents, pa.list_(pa.uint32())),
            **{name: ["a", "b"] for name in ("id", "domain", "source_file")},
            **{name: [3, 2] for name in ("tokens", "repetition", "position")},
        }
    ).replace_schema_metadata({"tokenizer": json.dumps({"vocab_size": 70_001, "end": 0, "start": None})})
    paths = MEGATRON.paths(tmp_path, "pair")
    MEGATRON.write(rows, *paths)
    assert read_indexed(tmp_path / "pair") == documents
    assert [row["ids"] for table in MEGATRON.read(*paths) for row in table.to_pylist()] == documents
    paths = TOKENS.paths(tmp_path, "plain")
    TOKENS.write(rows, *paths)
    assert np.fromfile(paths[0], "<u4").tolist() == [70_000, 1, 0, 2, 0]
    assert read_json(paths[1])["dtype"] == "uint32"


@pytest.mark.parametrize("writer", [MEGATRON, TOKENS])
def test_files_that_do_not_belong_together_are_not_read(writer: Any, tmp_path: Path) -> None:
    columns = {name: ["a", "b"] for name in ("id", "domain", "source_file")}
    written = {}
    for name, documents in (("one", [[1, 0], [2, 3, 0]]), ("other", [[1, 2, 0], [3, 0]]), ("short", [[1, 0], [0]])):
        counts = {"tokens": [len(ids) for ids in documents], "repetition": [0, 0], "position": [0, 9]}
        rows = pa.table({"ids": pa.array(documents, pa.list_(pa.uint16())), **columns, **counts})
        rows = rows.replace_schema_metadata({"tokenizer": json.dumps({"vocab_size": 4, "end": 0, "start": None})})
        written[name] = writer.paths(tmp_path, name)
        writer.write(rows, *written[name])
    data, beside, documents_file = written["one"]
    with pytest.raises(ValueError, match=r"short\.documents|is of a form|do not fit|tokens"):
        list(writer.read(data, beside, written["short"][2]))
    with pytest.raises(ValueError, match=r"do not fit|tokens, and"):
        list(writer.read(written["short"][0], beside, documents_file))
    if writer is MEGATRON:
        with pytest.raises(ValueError, match="documents of other lengths"):
            list(writer.read(data, beside, written["other"][2]))
        beside.write_bytes(b"x" + beside.read_bytes()[1:])
    else:
        beside.write_text(beside.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match="is of a form that is not known"):
        list(writer.read(data, beside, documents_file))


@pytest.mark.parametrize("writer", [MDS, LITDATA])
def test_rows_of_streams_that_are_not_whole_are_not_read(
    writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {name: ["a", "b"] for name in ("text", "id", "domain", "source_file")}
    rows = pa.table({**words, **{name: [3, 2] for name in ("tokens", "repetition", "position")}})
    (path,) = writer.paths(tmp_path, "shard")
    writer.write(rows, path)
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(ValueError, match="goes on after its last row"):
        list(writer.read(path))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises((ValueError, struct.error)):
        list(writer.read(path))
    monkeypatch.setattr(streams, "MOST_BYTES", 100)
    with pytest.raises(ConfigError, match="too long for its format"):
        writer.write(rows, path)


def test_a_small_share_is_no_zero_in_the_data_path(tmp_path: Path) -> None:
    shares = (1 - 4e-7, 4e-7, 0.0)
    write_data_path(tmp_path, [{"file": f"{name}.bin", "share": n} for name, n in zip("abc", shares, strict=True)])
    assert (tmp_path / "megatron.txt").read_text() == "--data-path 1.000000 data/a 4e-07 data/b\n"


@pytest.mark.parametrize("format", ["parquet", "megatron"])
def test_shards_of_one_domain_hold_the_same_documents(
    format: str,
    finished: Path,
    tmp_path: Path,
    target: Path,
    texts_of: list[list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "data"
    facts = exported(finished, out, format, target, by_domain=True)
    found = []
    for file in facts["shards"]:
        path = out / "data" / file
        table = pq.read_table(path.with_name(path.name.replace(".bin", ".documents.parquet"))).to_pylist()
        assert len({row["domain"] for row in table}) == 1
        found += [(row["id"], row["source_file"], row["position"], row["repetition"], row["domain"]) for row in table]
    expected = [
        (row["id"], row["source_file"], row["position"], row["repetition"], row["domain"])
        for rows in texts_of
        for row in rows
    ]
    assert sorted(found) == sorted(expected)
    if format == "parquet":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        from datasets import load_dataset

        loaded = load_dataset(str(out), split="train", streaming=True)
        assert sorted(row["id"] for row in loaded) == sorted(row[0] for row in expected)
    else:
        words = (out / "megatron.txt").read_text().split()
        for row in facts["domains"]:
            mine = [
                float(w) for w, path in zip(words[1::2], words[2::2], strict=True) if path.split("/")[1] == row["name"]
            ]
            assert sum(mine) == pytest.approx(row["weight"], abs=1e-4)
        assert all((out / f"{path}.{end}").is_file() for path in words[2::2] for end in ("bin", "idx"))


def test_the_seed_decides_the_order_and_the_documents(finished: Path, tmp_path: Path) -> None:
    command = ["export", str(finished), "--tokens", "20K", "--quiet", "--format", "jsonl.zst", "--out"]
    for name, seed in (("a", []), ("b", ["--seed", "0"]), ("c", ["--seed", "1"])):
        assert main([*command, str(tmp_path / name), *seed]) == 0
    one, same, other = (next((tmp_path / name / "data").iterdir()).read_bytes() for name in "abc")
    assert one == same != other
    assert "Openclimb, seed 1," in (tmp_path / "c" / "README.md").read_text()


def test_all_choices_go_together(
    finished: Path, tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "data")
    choices = ["--format", "tokens", "--by-domain", "--tokenizer", str(target), "--seed", "5", "--shard-mb", "0.01"]
    assert main(["export", str(finished), "--tokens", "20K", "--json", "--out", out, *choices]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["format"], facts["by_domain"], facts["tokenizer"]["own"]) == ("tokens", True, False)
    assert main(["verify", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["checks"] == ["files", "tokens", "counts", "shares", "repetitions"]
    assert found["documents"] == facts["documents"]


def test_the_size_of_a_shard_is_chosen(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(finished), "--tokens", "20K", "--quiet", "--out", str(tmp_path / "data"), "--shard-mb"]
    assert main([*command, "0.01"]) == 0
    sizes = [
        sum(len(text.as_py().encode()) for text in pq.read_table(path).column("text"))
        for path in (tmp_path / "data" / "data").iterdir()
    ]
    assert len(sizes) > 2
    assert max(sizes) < 20_000
    for wrong in ("0", "5000"):
        assert main([*command, wrong]) == 1
        assert "give --shard-mb a number from 1 to 1000" in complaint(capsys.readouterr().err)


def test_an_empty_budget_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is empty"):
        openclimb.open(finished).export(0, tmp_path / "data")
