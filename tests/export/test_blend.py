"""Blend files: parsed as their trainers parse them, with the keys that their documentation names."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import openclimb
from openclimb.export.blend import describe_blend, write_blends
from openclimb.export.facts import shares_of
from openclimb.export.writers.writer import find_writer
from openclimb.workspace.files import read_json

BUDGET = 30_000


def facts_of(*rows: tuple[str, float, int]) -> dict[str, Any]:
    """Return facts of domains (name, weight, tokens) in folders d0, d1, … of a dataset of every document."""
    domains = [
        {"name": name, "folder": f"d{i}", "weight": weight, "tokens": n, "documents": n // 10, "repetitions": 1.0}
        for i, (name, weight, n) in enumerate(rows)
    ]
    total = sum(row["tokens"] for row in domains)
    return {"token_budget": 10**6, "by_domain": False, "by_cluster": True, "tokens": total, "domains": domains}


def shards_of(facts: dict[str, Any], suffix: str, *parts: float) -> list[dict[str, Any]]:
    """Return what the shards of such a dataset hold, each domain cut into these parts."""
    shards = []
    for d, row in enumerate(facts["domains"]):
        for i, part in enumerate(parts):
            tokens = [round(part * row["tokens"]) if d == at else 0 for at in range(len(facts["domains"]))]
            file = f"{row['folder']}/shard-{i}{suffix}"
            shards.append({"file": file, "tokens": tokens, "documents": [n // 10 for n in tokens]})
    return shards


ODD = 'a "quoted": \u2028\x85\x7f name, [日本] \U0001f600 # no'
ROWS = (("web", 0.5, 400_000), (ODD, 0.49999, 100_000), ("rare", 1e-5, 20_000), ("out", 0.0, 30_000))


def test_probabilities_tokens_and_epochs_of_each_domain() -> None:
    facts = facts_of(*ROWS)
    shards = shards_of(facts, ".bin", 0.75, 0.25)
    blend = describe_blend(facts, shards)
    assert blend["tiny"] == ["rare"]
    assert blend["never"] == ["out"]
    web = blend["domains"][0]
    assert (web["folder"], web["tokens_read"], web["epochs"]) == ("data/d0", 500_000, 1.25)
    assert web["files"][0] == {"file": "data/d0/shard-0.bin", "weight": pytest.approx(0.375), "tokens": 300_000}
    assert sum(file["weight"] for row in blend["domains"] for file in row["files"]) == pytest.approx(1)
    assert blend["domains"][1]["epochs"] == pytest.approx(4.9999)
    assert shares_of(facts, shards)[-1] == 0


def written(tmp_path: Path, format: str) -> tuple[Path, dict[str, Any]]:
    facts = facts_of(*ROWS)
    writer = find_writer(format)
    blend = write_blends(tmp_path, facts, shards_of(facts, writer.suffixes[0], 0.75, 0.25), writer)
    assert read_json(tmp_path / "blend.json") == blend
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["blend.json", *writer.blends])
    return tmp_path / writer.blends[0], blend


def test_nemo_has_weights_and_prefixes_in_turn(tmp_path: Path) -> None:
    """MegatronPretraining of NeMo AutoModel: {"train": [weight, prefix, weight, prefix, …]}, all of them texts."""
    path, blend = written(tmp_path, "megatron")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert list(found) == ["train"]
    assert all(isinstance(one, str) for one in found["train"])
    expected = [
        (file["file"].removesuffix(".bin"), file["weight"]) for row in blend["domains"][:3] for file in row["files"]
    ]
    assert list(zip(found["train"][1::2], map(float, found["train"][::2]), strict=True)) == [
        (prefix, pytest.approx(weight, rel=1e-6)) for prefix, weight in expected
    ]


def test_olmo_core_has_a_list_of_sources(tmp_path: Path) -> None:
    """SourceMixtureList: sources with source_name, target_ratio (sum 1), max_repetition_ratio (≥ 1) and paths."""
    path, blend = written(tmp_path, "tokens")
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(found) == ["sources"]
    assert [source["source_name"] for source in found["sources"]] == ["web", ODD, "rare"]
    for source, row in zip(found["sources"], blend["domains"], strict=False):
        assert set(source) == {"source_name", "target_ratio", "max_repetition_ratio", "paths"}
        assert isinstance(source["target_ratio"], float)
        assert 0 < source["target_ratio"] <= 1
        assert source["max_repetition_ratio"] >= 1
        needed = int(blend["token_budget"] * source["target_ratio"])
        assert int(row["tokens"] * source["max_repetition_ratio"]) >= needed  # else OLMo-core refuses the mixture
        assert source["paths"] == [file["file"] for file in row["files"]]
    assert sum(source["target_ratio"] for source in found["sources"]) == pytest.approx(1, abs=1e-9)


def test_levanter_has_configs_and_weights(tmp_path: Path) -> None:
    """The section data: configs with train_urls, train_weights with the same names, tokenizer, cache_dir."""
    path, blend = written(tmp_path, "jsonl.zst")
    found = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]
    assert set(found) == {"tokenizer", "cache_dir", "configs", "train_weights"}
    assert list(found["configs"]) == list(found["train_weights"]) == ["d0", "d1", "d2"]
    assert all(isinstance(weight, float) for weight in found["train_weights"].values())
    assert found["train_weights"]["d2"] == pytest.approx(1e-5)
    for row in blend["domains"][:3]:
        assert found["configs"][row["folder"].removeprefix("data/")] == {
            "train_urls": [file["file"] for file in row["files"]]
        }


@pytest.mark.parametrize("by", ["by_domain", "by_cluster"])
@pytest.mark.parametrize(("format", "file"), [("tokens", "olmo-core.yaml"), ("parquet", "")])
def test_the_files_of_a_dataset_are_there(by: str, format: str, file: str, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    facts = openclimb.open(finished).export(BUDGET, out, format, shard_bytes=20_000, **{by: True})
    blend = read_json(out / "blend.json")
    for row, domain in zip(blend["domains"], facts["domains"], strict=True):
        assert row["epochs"] == pytest.approx(domain["weight"] * BUDGET / domain["tokens"])
        assert row["repetitions"] == domain["repetitions"]
        assert all((out / one["file"]).is_file() for one in row["files"])
        assert {one["file"].rpartition("/")[0] for one in row["files"]} == {row["folder"]}
    assert "blend.json" in read_json(out / "record.json")["files"]
    if file:
        paths = [path for source in yaml.safe_load((out / file).read_text())["sources"] for path in source["paths"]]
        assert all((out / path).is_file() for path in paths)


def test_a_mixture_in_order_has_no_blend(finished: Path, tmp_path: Path) -> None:
    openclimb.open(finished).export(2_000, tmp_path / "data", "tokens")
    assert not (tmp_path / "data" / "blend.json").exists()
    assert not (tmp_path / "data" / "olmo-core.yaml").exists()


def test_weights_that_may_round_to_nothing_are_named(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("openclimb.export.blend.TINY", 2.0)
    from openclimb.cli.main import main

    assert main(["export", str(finished), "--tokens", "2K", "--by-domain", "--out", str(tmp_path / "data")]) == 0
    names = [row.name for row in openclimb.open(finished).mixture().domains]
    assert read_json(tmp_path / "data" / "blend.json")["tiny"] == names
    printed = capsys.readouterr()
    assert f"may round to nothing: {', '.join(names)}" in " ".join((printed.out + printed.err).split())
