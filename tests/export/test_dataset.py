"""The dataset: shares, order, repetition, provenance, reuse, the same bytes from any number of workers."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import openclimb
from openclimb.corpus.heldout import is_heldout
from openclimb.corpus.reading.read import content_hash
from openclimb.engines.local import LocalEngine
from openclimb.errors import DomainError, InputError, StaleError, WorkspaceError
from openclimb.export import dataset
from openclimb.export.assembly import deals, pieces
from openclimb.export.dataset import export
from openclimb.export.facts import ExportSpec
from openclimb.export.writers import rows as rows_writers
from openclimb.export.writers.rows import write_parquet
from openclimb.mixture import Domain
from openclimb.progress import Progress
from openclimb.workspace.files import read_json

BUDGET = 100_000


def _export(root: Path, out: Path, budget: int = BUDGET, format: str = "parquet", workers: int = 1, **more) -> dict:
    config = openclimb.open(root).config
    engine = LocalEngine(workers)
    try:
        return export(root, config, ExportSpec(budget, format, **more), out, engine, Progress())
    finally:
        engine.release()


def _rows(out: Path) -> list[dict]:
    return [row for path in sorted((out / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "data"
    facts = _export(finished, out, shard_bytes=40_000)
    assert facts["within_tolerance"]
    assert len(facts["shards"]) > 2
    return out


def test_shares_of_all_rows_are_the_mixture(made: Path, finished: Path) -> None:
    rows = _rows(made)
    tokens: Counter[str] = Counter()
    for row in rows:
        tokens[row["domain"]] += row["tokens"]
    total = sum(tokens.values())
    assert total == pytest.approx(BUDGET, rel=0.002)
    for row in openclimb.open(finished).mixture().domains:
        assert tokens[row.name] / total == pytest.approx(row.weight, abs=0.001)


def test_tokens_are_counted_with_the_search_tokenizer(made: Path, finished: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(finished / "tokens" / "tokenizer.json"))
    for row in _rows(made)[:40]:
        assert row["tokens"] == len(tokenizer.encode(row["text"], add_special_tokens=False).ids) + 1


def test_a_token_that_the_tokenizer_puts_first_is_counted(
    finished: Path, tmp_path: Path, with_start: Callable[[Path], int]
) -> None:
    from tokenizers import Tokenizer

    root = shutil.copytree(finished, tmp_path / "run")
    with_start(root / "tokens" / "tokenizer.json")
    _export(root, tmp_path / "data", 20_000)
    tokenizer = Tokenizer.from_file(str(root / "tokens" / "tokenizer.json"))
    for row in _rows(tmp_path / "data")[:40]:
        assert row["tokens"] == len(tokenizer.encode(row["text"]).ids) + 1  # and the end token


def test_reading_a_part_is_the_mixture_too(made: Path) -> None:
    rows = _rows(made)
    weights = {row["name"]: row["realised"] for row in read_json(made / "mixture.json")["domains"]}
    longest = max(row["tokens"] for row in rows)
    seen: Counter[str] = Counter()
    for i, row in enumerate(rows):
        seen[row["domain"]] += row["tokens"]
        if i in (len(rows) // 4, len(rows) // 2):
            total = sum(seen.values())
            for name, weight in weights.items():
                assert abs(seen[name] - weight * total) < 4 * longest


def test_documents_repeat_only_as_the_mixture_asks_and_held_out_ones_never_come(made: Path, finished: Path) -> None:
    rows = _rows(made)
    config = openclimb.open(finished).config
    times = Counter((row["source_file"], row["position"]) for row in rows)
    by_domain: dict[str, list[int]] = {}
    for row in rows:
        by_domain.setdefault(row["domain"], []).append(times[row["source_file"], row["position"]])
    assert max(times.values()) > 1
    for counts in by_domain.values():
        assert max(counts) - min(counts) <= 1
    for row in rows:
        assert row["repetition"] < times[row["source_file"], row["position"]]
    hashes = np.array([content_hash(row["text"]) for row in rows], dtype=np.uint64)
    assert not is_heldout(hashes, config.tokens.heldout).any()


def test_every_row_leads_back_to_its_document(made: Path, tiny_corpus: Path) -> None:
    data = tiny_corpus.read_bytes()
    for row in _rows(made)[:30]:
        assert row["source_file"] == tiny_corpus.name
        line = data[row["position"] : data.index(b"\n", row["position"])]
        assert json.loads(line)["text"] == row["text"]


def test_both_formats_hold_the_same_rows_and_load_dataset_reads_them(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from datasets import load_dataset

    _export(finished, tmp_path / "a", shard_bytes=40_000)
    _export(finished, tmp_path / "b", format="jsonl.zst", shard_bytes=40_000)
    expected = _rows(tmp_path / "a")
    for folder in ("a", "b"):
        loaded = load_dataset(str(tmp_path / folder), split="train", streaming=True)
        assert [dict(row) for row in loaded] == expected


@pytest.mark.parametrize("format", ["parquet", "jsonl.zst"])
def test_bytes_do_not_depend_on_workers_or_on_the_units(
    tmp_path: Path, finished: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _export(finished, tmp_path / "one", format=format, shard_bytes=60_000)
    _export(finished, tmp_path / "two", format=format, shard_bytes=60_000, workers=2)
    monkeypatch.setattr(pieces, "STRETCH_CHARS", 50_000)
    monkeypatch.setattr(deals, "READ_ROWS", 7)
    monkeypatch.setattr(deals, "HAND_BYTES", 30_000)
    monkeypatch.setattr(deals, "PIECES_BYTES", 1)
    monkeypatch.setattr(deals, "FAN", 2)
    _export(finished, tmp_path / "small", format=format, shard_bytes=60_000)
    assert _checksums(tmp_path / "one") == _checksums(tmp_path / "two") == _checksums(tmp_path / "small")


def _checksums(out: Path) -> dict[str, str]:
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "record.json"]
    return {str(path.relative_to(out)): hashlib.blake2b(path.read_bytes()).hexdigest() for path in files}


def test_a_finished_export_is_reused_and_another_is_refused(made: Path, finished: Path) -> None:
    before = _checksums(made)
    assert _export(finished, made, shard_bytes=40_000)["tokens"] == read_json(made / "mixture.json")["tokens"]
    with pytest.raises(WorkspaceError, match="another token_budget"):
        _export(finished, made, budget=50_000, shard_bytes=40_000)
    assert _checksums(made) == before


def test_a_folder_with_something_else_is_left_alone(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.txt").write_text("…")
    with pytest.raises(WorkspaceError, match="no export"):
        _export(finished, tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter-1.txt"]


def test_an_interrupted_export_goes_on_to_the_same_bytes(
    finished: Path, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def breaks(rows: object, path: Path) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write_parquet(rows, path)

    monkeypatch.setattr(rows_writers, "PARQUET", replace(rows_writers.PARQUET, write=breaks))
    with pytest.raises(KeyboardInterrupt):
        _export(finished, tmp_path / "data", shard_bytes=40_000)
    assert not (tmp_path / "data").exists()
    assert len(list((tmp_path / "data.partial" / "shards").iterdir())) == 2
    with pytest.raises(WorkspaceError, match="token_budget"):
        _export(finished, tmp_path / "data", budget=50_000, shard_bytes=40_000)
    n_before = len(calls)
    facts = _export(finished, tmp_path / "data", shard_bytes=40_000)
    assert len(calls) - n_before == len(facts["shards"]) - 2
    assert _checksums(tmp_path / "data") == _checksums(made)


def test_a_budget_beyond_the_repetitions_is_refused_with_what_fits(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(DomainError, match="max_repetitions") as caught:
        _export(finished, tmp_path / "data", budget=100 * BUDGET)
    assert "export at most" in caught.value.fix
    assert not (tmp_path / "data").exists()


def test_a_tiny_budget_says_plainly_that_documents_are_too_long_for_it(finished: Path, tmp_path: Path) -> None:
    facts = _export(finished, tmp_path / "data", budget=60)
    assert not facts["within_tolerance"]
    assert "more than 0.1%" in (tmp_path / "data" / "README.md").read_text()


def test_estimates_that_are_far_off_cost_a_second_look_not_the_result(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _export(finished, tmp_path / "a", budget=30_000)
    monkeypatch.setattr(dataset, "pick_rate", lambda need, n_tokens, n: min(1.0, 0.5 * need / n_tokens))
    found = _export(finished, tmp_path / "b", budget=30_000)
    for one, other in zip(found["domains"], expected["domains"], strict=True):
        assert one["tokens"] == pytest.approx(other["tokens"], abs=600)


def test_documents_that_vanished_stop_the_export(finished: Path, tmp_path: Path, tiny_corpus: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    corpus = tmp_path / "corpus.jsonl"
    lines = tiny_corpus.read_text().splitlines(keepends=True)
    text = "".join(lines[:50])
    corpus.write_bytes(text.encode() + b"\n" * (tiny_corpus.stat().st_size - len(text.encode())))  # of the same size
    units = root / "corpus" / "units.parquet"
    table = pq.read_table(units)
    table = table.set_column(table.schema.get_field_index("path"), "path", [[str(corpus)] * len(table)])
    pq.write_table(table, units)
    with pytest.raises(InputError, match="cannot be read any more"):
        _export(root, tmp_path / "data")
    config = root / "climb.toml"
    config.write_text(config.read_text().replace(str(tiny_corpus), str(corpus)))
    with pytest.raises(StaleError):
        openclimb.open(root).export(BUDGET, tmp_path / "data")


def test_the_weights_come_along_for_other_trainers(made: Path, finished: Path) -> None:
    answer = openclimb.open(finished).mixture()
    lines = (made / "mixture.csv").read_text().splitlines()
    assert len(lines) == 1 + len(answer.domains)


def test_a_domain_whose_quota_is_under_a_sequence_is_named() -> None:
    domains = [Domain("C", 1000), Domain("C++", 1000), Domain("日本語", 1000), Domain("C#", 1000)]
    said = dataset.name_small(domains, [0.999, 0.0, 4e-7, 1e-5], [999_000, 0, 0, 10], 128)
    assert said == "less than one sequence of 128 tokens at this budget: 日本語 (0 tokens), C# (10 tokens)"
    assert dataset.name_small(domains[:1], [1.0], [999_000], 128) == ""
