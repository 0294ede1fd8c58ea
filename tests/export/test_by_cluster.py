"""`--by-cluster`: every kept document once, a folder a domain, with what the labels say of it."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

import openclimb
from openclimb.cli.main import main
from openclimb.config.registry import names
from openclimb.corpus.domains import read_assignment, read_domains
from openclimb.corpus.heldout import is_heldout
from openclimb.corpus.labels import read_labels
from openclimb.corpus.reading.read import content_hash
from openclimb.corpus.reading.units import read_units
from openclimb.errors import ConfigError
from openclimb.export.verify import verify
from openclimb.export.writers import rows as rows_writers
from openclimb.export.writers.rows import write_parquet
from openclimb.progress import Progress
from openclimb.testing.fixtures import complaint
from openclimb.workspace.files import file_checksum, read_json, write_json

SHARD = 20_000


def exported(root: Path, out: Path, format: str = "parquet", budget: int | None = None, **more: Any) -> dict[str, Any]:
    return openclimb.open(root).export(budget, out, format, by_cluster=True, shard_bytes=SHARD, **more)


def rows_in(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each folder, in order."""
    return {
        folder.name: [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
        for folder in sorted((out / "data").iterdir())
    }


def kept_documents(root: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return {(file, position): row of the labels and name of the domain} of the documents that are to be there."""
    config = openclimb.open(root).config
    files = {unit.number: unit.name for unit in read_units(root / "corpus", config.corpus, "")}
    domains = [row.name for row in openclimb.open(root).mixture().domains]
    domain_of = read_assignment(root / "domains")
    kept = {}
    for unit, table in read_labels(root / "labels"):
        heldout = is_heldout(table.column("hash").to_numpy(), config.tokens.heldout)
        for row, domain, out in zip(table.to_pylist(), domain_of(table).tolist(), heldout.tolist(), strict=True):
            if domain >= 0 and not out:
                kept[files[unit], row["position"]] = {**row, "domain": domains[domain]}
    return kept


@pytest.fixture(scope="module")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("by-cluster") / "data"
    facts = exported(finished, out)
    assert len(facts["shards"]) > len(facts["domains"])
    return out


def test_every_kept_document_comes_once_with_its_labels(made: Path, finished: Path) -> None:
    kept = kept_documents(finished)
    assert len({row["cluster"] for row in kept.values()}) > 1
    seen: Counter[tuple[str, int]] = Counter()
    for folder, rows in rows_in(made).items():
        for row in rows:
            own = kept[row["source_file"], row["position"]]
            seen[row["source_file"], row["position"]] += 1
            assert row["domain"] == folder == own["domain"]
            assert row["repetition"] == 0
            assert int(row["hash"], 16) == own["hash"] == content_hash(row["text"])
            assert len(row["hash"]) == 16
            scores = set(own) - {"position", "source", "bytes", "hash", "domain"}
            assert scores > {"cluster", "distance", "tokens"}
            assert {name: row[name] for name in scores} == {name: own[name] for name in scores}
    assert set(seen) == set(kept)
    assert set(seen.values()) == {1}


def test_the_order_within_a_domain_is_not_the_corpus_order(made: Path) -> None:
    for rows in rows_in(made).values():
        positions = np.array([row["position"] for row in rows])
        assert 0.2 < (np.diff(positions) > 0).mean() < 0.8


def test_facts_card_and_blend_say_sizes_words_examples_and_epochs(made: Path, finished: Path) -> None:
    facts = read_json(made / "mixture.json")
    target = openclimb.open(finished).config.target.token_budget
    assert (facts["by_cluster"], facts["counted"], facts["token_budget"]) == (True, False, target)
    card = (made / "README.md").read_text()
    found = rows_in(made)
    words = {row.name: row.words for row in read_domains(finished / "domains")}
    for row in facts["domains"]:
        rows = found[row["folder"]]
        assert (row["documents"], row["copies"]) == (len(rows), 1)
        assert row["tokens"] == sum(one["tokens"] for one in rows)
        assert row["text_bytes"] == sum(len(one["text"].encode()) for one in rows)
        assert row["repetitions"] == pytest.approx(row["weight"] * target / row["tokens"])
        assert row["examples"] == [" ".join(one["text"][:200].split()) for one in rows[:3]]
        part = card.partition(f"\n## {row['name']}\n")[2].partition("\n## ")[0]
        assert "Top words: " in part
        assert "Mean scores: " in part
        assert part.count("\n> ") == 3
        assert words[row["name"]]
        assert all(word in part for word in words[row["name"]])
    assert facts["documents"] == sum(map(len, found.values()))
    assert "Tokens are estimated" in card


def test_each_folder_is_a_configuration_of_the_dataset(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from datasets import load_dataset

    found = rows_in(made)
    for folder, rows in found.items():
        assert [dict(row) for row in load_dataset(str(made), folder, split="train", streaming=True)] == rows
    everything = load_dataset(str(made), split="train", streaming=True)
    assert sum(1 for _ in everything) == sum(map(len, found.values()))


def test_json_lines_have_the_same_rows(made: Path, finished: Path, tmp_path: Path) -> None:
    exported(finished, tmp_path / "data", "jsonl.zst")
    for folder, rows in rows_in(made).items():
        found = []
        for path in sorted((tmp_path / "data" / "data" / folder).iterdir()):
            found += [row for table in rows_writers.JSON_LINES.read(path) for row in table.to_pylist()]
        assert [{**row, **_floats(row)} for row in rows] == [{**row, **_floats(row)} for row in found]


def _floats(row: dict[str, Any]) -> dict[str, Any]:
    return {name: np.float32(value) for name, value in row.items() if isinstance(value, float)}


@pytest.mark.parametrize("format", names("writer"))
def test_every_format_is_verified(format: str, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    facts = exported(finished, out, format)
    assert facts["counted"] is (format in ("tokens", "megatron"))
    found = verify(str(out), Progress())
    assert found.faults == ()
    assert found.documents == facts["documents"] == len(kept_documents(finished))
    expected = ["files", *(["tokens"] if facts["counted"] else []), "counts", "once"]
    assert list(found.checks) == [*expected, *(["hashes"] if format in ("parquet", "jsonl.zst") else [])]
    if facts["counted"]:
        beside = next((out / "data").rglob("*.documents.parquet"))
        assert {"cluster", "distance", "hash"} < set(pq.read_schema(beside).names)
        examples = facts["domains"][0]["examples"]
        assert examples
        assert all(examples)


def test_a_tokenizer_that_is_named_counts(finished: Path, tmp_path: Path) -> None:
    named = str(finished / "tokens" / "tokenizer.json")
    facts = exported(finished, tmp_path / "data", tokenizer=named)
    assert facts["counted"]
    tokenizer = Tokenizer.from_file(named)
    for rows in rows_in(tmp_path / "data").values():
        for row in rows[:10]:
            assert row["tokens"] == len(tokenizer.encode(row["text"], add_special_tokens=False).ids) + 1
    assert "tokens" in verify(str(tmp_path / "data"), Progress()).checks
    assert "the target's tokenizer" in (tmp_path / "data" / "README.md").read_text()


def test_the_budget_decides_the_epochs_alone(made: Path, finished: Path, tmp_path: Path) -> None:
    facts = exported(finished, tmp_path / "data", budget=1_000_000_000)
    assert checksums(tmp_path / "data" / "data") == checksums(made / "data")
    for row, other in zip(facts["domains"], read_json(made / "mixture.json")["domains"], strict=True):
        times = 1_000_000_000 / openclimb.open(finished).config.target.token_budget
        assert row["repetitions"] == pytest.approx(times * other["repetitions"])


def checksums(out: Path) -> dict[str, str]:
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "record.json"]
    return {str(path.relative_to(out)): hashlib.blake2b(path.read_bytes()).hexdigest() for path in files}


def test_an_interrupted_export_goes_on_to_the_same_bytes_without_reading_the_corpus_again(
    made: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    calls = []

    def breaks(rows: object, path: Path) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write_parquet(rows, path)

    monkeypatch.setattr(rows_writers, "PARQUET", replace(rows_writers.PARQUET, write=breaks))
    with pytest.raises(KeyboardInterrupt):
        exported(root, tmp_path / "data")
    pieces = {path: path.stat().st_mtime_ns for path in (tmp_path / "data.partial").rglob("unit-*.parquet")}
    dealt = {path: path.stat().st_mtime_ns for path in (tmp_path / "data.partial" / "deals").iterdir()}
    assert pieces
    assert dealt
    seen = []
    monkeypatch.setattr(
        rows_writers,
        "PARQUET",
        replace(
            rows_writers.PARQUET,
            write=lambda rows, path: (
                seen.append({one: one.stat().st_mtime_ns for one in (*pieces, *dealt)}),
                write_parquet(rows, path),
            )[1],
        ),
    )
    facts = exported(root, tmp_path / "data")
    assert len(seen) == len(facts["shards"]) - 2
    assert all(times == {**pieces, **dealt} for times in seen)
    assert checksums(tmp_path / "data") == checksums(made)


def test_it_goes_to_a_store_and_is_verified_there(made: Path, finished: Path) -> None:
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    try:
        openclimb.open(finished).export(None, "memory://bucket/corpus", by_cluster=True, shard_bytes=SHARD)
        there = {path.removeprefix("/bucket/corpus/"): store.size(path) for path in store.find("/bucket/corpus")}
        assert set(there) == {*checksums(made), "record.json"}
        assert verify("memory://bucket/corpus", Progress()).faults == ()
    finally:
        store.store.clear()


def rewrite(out: Path, change: Any) -> str:
    """Change the rows of one shard and its checksum in the record; return the shard's name."""
    path = sorted((out / "data").rglob("*.parquet"))[0]
    table = pq.read_table(path)
    pq.write_table(type(table).from_pylist(change(table.to_pylist()), schema=table.schema), path)
    record = read_json(out / "record.json")
    record["files"][str(path.relative_to(out))] = {"bytes": path.stat().st_size, "checksum": file_checksum(path)}
    write_json(out / "record.json", record)
    return str(path.relative_to(out))


def faults(out: Path) -> list[str]:
    return [str(fault) for fault in verify(str(out), Progress()).faults]


def test_a_document_that_comes_twice_or_with_another_text_is_told(made: Path, tmp_path: Path) -> None:
    out = shutil.copytree(made, tmp_path / "twice")
    name = rewrite(out, lambda rows: [*rows[:-1], rows[0]])
    assert f"once: {name} row {len(pq.read_table(out / name)) - 1} comes a second time" in faults(out)
    out = shutil.copytree(made, tmp_path / "text")
    name = rewrite(out, lambda rows: [{**rows[0], "text": rows[0]["text"] + "!"}, *rows[1:]])
    assert any(fault.startswith(f"hashes: {name} document ") for fault in faults(out))
    out = shutil.copytree(made, tmp_path / "number")
    name = rewrite(out, lambda rows: [{**rows[0], "repetition": 1}, *rows[1:]])
    assert f"once: {name} row 0 has a number of repetition, and each comes once" in faults(out)
    out = shutil.copytree(made, tmp_path / "gone")
    name = rewrite(out, lambda rows: rows[1:])
    assert any(fault.startswith(f"counts: {name} has ") for fault in faults(out))


def test_the_command_line(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(finished), "--by-cluster", "--shard-mb", "0.02", "--out", str(tmp_path / "data")]
    assert main([*command, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "each document once; epochs at" in printed
    assert "about " in printed
    assert main([*command, "--tokens", "1B", "--quiet"]) == 1
    assert "another token_budget" in complaint(capsys.readouterr().err)
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["by_cluster"] is True
    assert main([*command, "--by-domain", "--quiet"]) == 1
    assert "a dataset is one of them" in complaint(capsys.readouterr().err)
    with pytest.raises(ConfigError, match="is empty"):
        exported(finished, tmp_path / "none", budget=0)
