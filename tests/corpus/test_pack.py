"""The token arrays: repetition matched to the target, the same documents first, held-out ones apart."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import openclimb
from openclimb.config.schema import TargetSettings
from openclimb.corpus import pack as pack_module
from openclimb.corpus.domains import read_domains
from openclimb.corpus.pack import MOST_POOL, POOL, Source, n_pooled, n_read, pack, units_read
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.reading.units import read_units, write_units
from openclimb.corpus.select_documents import DocumentChoice
from openclimb.engines.local import LocalEngine
from openclimb.errors import DomainError, InputError
from openclimb.mixture import Domain
from openclimb.progress import Progress
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import file_names, read_json, write_json


def _pack(root: Path, out: Path, budget: int, workers: int = 1, target: int = 100_000) -> dict:
    config = openclimb.open(root).config
    out.mkdir(parents=True)
    engine = LocalEngine(workers)
    try:
        folders = (root / "labels", root / "domains", root / "clusters" / "tokenizer.json")
        source = Source(read_units(root / "corpus"), *folders, config.corpus)
        context = StageContext(out, engine, Progress(), config.seed)
        proxy = replace(config.proxy, token_budget=budget)
        pack(context, source, config.tokens, proxy, TargetSettings(token_budget=target))
    finally:
        engine.release()
    return read_json(out / "domains.json")


def test_a_proxy_repeats_a_domain_as_often_as_the_target_would() -> None:
    domain = Domain("d", 1_000_000, cap=1.0)
    n = n_read(domain, proxy_token_budget=50_000, target_token_budget=10_000_000)
    weight = 0.4
    assert weight * 50_000 / n == pytest.approx(weight * 10_000_000 / 1_000_000)
    assert n_read(Domain("d", 1000, cap=0.1), 5000, 1000) == 500  # never more than the cap lets a proxy read


def test_each_domain_holds_more_than_one_trial_reads(finished: Path, tmp_path: Path) -> None:
    domains = read_domains(finished / "domains")
    facts = _pack(finished, tmp_path / "out", 8_192)["domains"]
    for domain, row in zip(domains, facts, strict=True):
        assert row["n_read"] == n_read(domain, 8_192, 100_000)
        assert row["n_read"] < row["n_tokens"] <= POOL * row["n_read"]


def test_labelled_documents_that_are_gone_stop_the_packing(finished: Path, tmp_path: Path) -> None:
    corpus = Path(read_units(finished / "corpus")[0].path)
    changed = tmp_path / "corpus.jsonl"
    changed.write_bytes(corpus.read_bytes()[:100_000] + b"\n" * (corpus.stat().st_size - 100_000))  # of the same size
    root = shutil.copytree(finished, tmp_path / "run")
    units = [replace(unit, path=str(changed)) for unit in read_units(root / "corpus")]
    write_units(units, root / "corpus" / "units.parquet")
    with pytest.raises(InputError, match=r"\d+ of \d+ labelled documents cannot be read any more"):
        _pack(root, tmp_path / "out", 8_192)


def test_no_more_is_packed_than_tells_documents_apart() -> None:
    assert n_pooled(1000) == POOL * 1000
    assert n_pooled(MOST_POOL // 2) == MOST_POOL
    assert n_pooled(5 * MOST_POOL) == 5 * MOST_POOL


def test_a_larger_budget_packs_the_same_documents_and_more(finished: Path, tmp_path: Path) -> None:
    small, large = (_pack(finished, tmp_path / str(budget), budget) for budget in (8_192, 24_000))
    for one, other in zip(small["domains"], large["domains"], strict=True):
        first, more = (
            np.fromfile(tmp_path / folder / row["file"], small["dtype"])
            for folder, row in (("8192", one), ("24000", other))
        )
        assert len(more) > len(first) == one["n_tokens"]
        assert (more[: len(first)] == first).all()


def test_of_many_units_only_some_are_read_and_more_where_a_domain_is_rare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    units = [Unit(i, "", f"{i}.jsonl", "jsonl", 0, 1, 1, 0, 1, "") for i in range(60)]
    write_json(tmp_path / "domains" / "sources.json", {"web": 0, "rare": 1, "pruned": -1})
    for unit in units:  # every tenth has one of the rare documents
        sources = ["web"] * 99 + ["pruned"] + ["rare"] * (unit.number % 10 == 0)
        n = len(sources)
        labels = {"source": sources, "tokens": np.full(n, 10), "hash": rng.integers(0, 2**64, n, dtype=np.uint64)}
        (tmp_path / "labels").mkdir(exist_ok=True)
        pq.write_table(pa.table(labels), tmp_path / "labels" / f"unit-{unit.number:05d}.parquet")
    choice = DocumentChoice(tmp_path / "labels", tmp_path / "domains", 0.0, 0, (1.0, 1.0, 1.0))
    context = StageContext(tmp_path, LocalEngine(1), Progress())
    everything = np.array([[59_400, 60, 0], [5940, 6, 0]], dtype=np.float64)
    read, held = units_read(units, choice, np.array([500, 10, 0]), everything, context)
    assert (list(read), held.tolist()) == (units, everything.tolist())
    monkeypatch.setattr(pack_module, "MAX_UNITS", 4)
    read, held = units_read(units, choice, np.array([500, 10, 0]), everything, context)
    rare = [unit for unit in read if unit.number % 10 == 0]
    assert len(rare) == 2  # SPARE_UNITS times one document
    assert len(read) - len(rare) <= 4
    assert held.tolist() == [[990 * len(read), 20, 0], [99 * len(read), 2, 0]]
    read, _ = units_read(units, choice, np.array([500, 60, 0]), everything, context)
    assert sum(unit.number % 10 == 0 for unit in read) == 6  # all there are


def test_a_document_begins_with_the_token_that_scored_texts_begin_with(
    finished: Path, tmp_path: Path, with_start: Callable[[Path], int]
) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    start = with_start(root / "clusters" / "tokenizer.json")
    plain, facts = _pack(finished, tmp_path / "plain", 24_000), _pack(root, tmp_path / "out", 24_000)
    end = facts["eos"]
    assert start != end == plain["eos"]
    for one, other in zip(plain["domains"], facts["domains"], strict=True):
        before = np.fromfile(tmp_path / "plain" / one["file"], plain["dtype"])
        after = np.fromfile(tmp_path / "out" / other["file"], facts["dtype"])
        assert start not in before
        assert after[0] == start
        assert (after[1:][after[:-1] == end] == start).all()
        assert (after == start).sum() == other["n_documents"] > 1
        without = after[after != start]
        assert (without == before[: len(without)]).all()
        assert other["n_tokens"] == len(after)


def test_workers_change_nothing_and_no_piece_is_left(finished: Path, tmp_path: Path) -> None:
    _pack(finished, tmp_path / "one", 8_192)
    _pack(finished, tmp_path / "two", 8_192, workers=2)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert not (tmp_path / "one" / "pieces").exists()


def test_held_out_text_is_in_no_array(finished: Path) -> None:
    from tokenizers import Tokenizer

    tokens = finished / "tokens"
    tokenizer = Tokenizer.from_file(str(tokens / "tokenizer.json"))
    facts = read_json(tokens / "domains.json")
    heldout = tokenizer.decode(np.fromfile(tokens / "heldout.bin", facts["dtype"]).tolist(), skip_special_tokens=False)
    training = "\n".join(
        tokenizer.decode(np.fromfile(tokens / row["file"], facts["dtype"]).tolist()) for row in facts["domains"]
    )
    pieces = [piece.strip()[:80] for piece in heldout.split("<|endoftext|>") if len(piece) > 200]
    assert pieces
    assert not any(piece in training for piece in pieces)


def test_a_domain_with_too_few_tokens_is_named_with_the_ways_out(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(DomainError, match="too few tokens for one sequence") as caught:
        _pack(finished, tmp_path / "out", 120)
    assert "proxy.token_budget" in caught.value.fix
    names = [domain.name for domain in read_domains(finished / "domains")]
    assert any(name in caught.value.message for name in names)


def test_names_that_are_no_file_names_never_leave_the_folder(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    table = root / "domains" / "domains.csv"
    first = read_domains(root / "domains")[0].name
    table.write_text(table.read_text().replace(first, "../../evil", 1))
    facts = _pack(root, tmp_path / "out", 8_192)
    assert facts["domains"][0]["name"] == "../../evil"
    assert facts["domains"][0]["file"] == f"{file_names(['../../evil'])[0]}.bin"
    assert (tmp_path / "out" / facts["domains"][0]["file"]).is_file()
    assert not (tmp_path.parent / "evil.bin").exists()
