"""`climb plan`: a plan that one can budget with, for this machine or another, for files that are there or not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from openclimb.cli.main import main
from openclimb.cli.plan_text import short_count, short_flops, time_text
from openclimb.testing.fixtures import complaint, make_tiny_workspace


@pytest.fixture
def new(tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path) -> Path:
    return make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that gives what a plan prints as JSON."""

    def plan(root: Path, *options: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["plan", str(root), "--json", *options]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return plan


def test_a_plan_says_the_same_from_one_call_to_the_next(new: Path, ask: Any) -> None:
    before = sorted(new.rglob("*"))
    assert ask(new)["plan"] == ask(new)["plan"]
    assert sorted(new.rglob("*")) == before


def test_a_plan_has_a_row_for_each_stage_and_their_sum(new: Path, ask: Any, tiny_corpus: Path) -> None:
    plan = ask(new)["plan"]
    names = ["corpus", "clusters", "labels", "domains", "tokens", "search", "selection", "predictions"]
    assert [row["stage"] for row in plan["rows"]] == names
    assert plan["total"]["hours"] == pytest.approx(sum(row["hours"] for row in plan["rows"]))
    assert all(row["hours"] > 0 and row["memory_bytes"] > 0 for row in plan["rows"])
    assert all(row["gpu_hours"] == 0 and row["real_hours"] is None for row in plan["rows"])
    labels = plan["rows"][2]
    assert labels["documents"] == len(tiny_corpus.read_text().splitlines())
    assert labels["bytes"] == tiny_corpus.stat().st_size
    assert plan["export"]["stage"] == "export"


def test_more_cores_and_more_cards_take_less_time(new: Path, ask: Any) -> None:
    few, many = (ask(new, "--cores", n)["plan"]["total"]["hours"] for n in ("1", "64"))
    assert many < few
    one, eight = (ask(new, "--gpus", n, "--gpu", "h100")["plan"] for n in ("1", "8"))
    assert eight["machine"]["described"] == "8 × NVIDIA H100, 128 cores"
    assert eight["machine"]["gpu_measured"]
    assert eight["stack"]["models"] < one["stack"]["models"]
    search = next(row for row in eight["rows"] if row["stage"] == "search")
    assert search["gpu_hours"] == pytest.approx(8 * search["hours"])
    assert eight["gpu_hours_held"] == pytest.approx(8 * eight["total"]["hours"])


def test_a_card_that_was_not_measured_is_said_to_be(new: Path, ask: Any) -> None:
    plan = ask(new, "--gpu", "a100")["plan"]
    assert not plan["machine"]["gpu_measured"]
    assert any("NVIDIA A100, 312 TFLOP/s in bf16: not measured" in line for line in plan["assumptions"])


def test_a_corpus_that_cannot_be_listed_is_planned_by_its_size(
    tmp_path: Path, ask: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    assert main(["init", str(root), "--corpus", "s3://no-such-bucket/x/*.parquet", "--scale", "paper"]) == 0
    plan = ask(root, "--documents", "1e9", "--bytes", "4e12", "--gpus", "8", "--gpu", "h100")["plan"]
    assert plan["corpus"] == {
        "documents": 10**9,
        "bytes": 4 * 10**12,
        "text_bytes": 4 * 10**12,
        "known": "as given",
    }
    rows = {row["stage"]: row for row in plan["rows"]}
    assert (rows["labels"]["documents"], rows["labels"]["bytes"]) == (10**9, 4 * 10**12)
    assert rows["labels"]["gpu_hours"] > 100 * rows["clusters"]["gpu_hours"] / 2
    assert rows["search"]["trials"] == 64 + 32 + 16
    # 6 × 63.6M and attention's 12 × 12 × 512 × 1024 FLOPs on each of 1.24B tokens, without tasks nothing else
    flops = 112 * (1_240_000_000 // 1024 * 1024) * (6 * 63_564_288 + 12 * 12 * 512 * 1024)
    assert rows["search"]["flops"] == pytest.approx(flops, rel=1e-3)
    assert any("no tasks yet" in line for line in plan["assumptions"])
    assert main(["plan", str(root), "--bytes", "4T"]) == 0
    assert "1B documents, 4 TB, as given; not looked at" in capsys.readouterr().out


def test_domains_given_by_hand_are_planned_without_a_corpus(
    tmp_path: Path, ask: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table, root = tmp_path / "domains.csv", tmp_path / "run"
    table.write_text("name,tokens\nweb,40B\ncode,10B\n")
    assert main(["init", str(root), "--domains-file", str(table), "--set", "proxy.size=62M"]) == 0
    found = ask(root, "--gpus", "8", "--gpu", "h100")
    assert [row["stage"] for row in found["plan"]["rows"]] == ["search", "predictions"]
    assert found["plan"]["corpus"] is None
    assert found["plan"]["export"] is None
    assert found["plan"]["rows"][0]["gpu_hours"] > 0
    assert main(["plan", str(root)]) == 0
    assert "trials elsewhere, completed by hand" in capsys.readouterr().out
    assert main(["plan", str(root), "--documents", "1000"]) == 1
    assert "has no corpus" in complaint(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu", "h101"], "--gpu 'h101' is not known (did you mean 'h100'?)"),
        (["--documents", "many"], "'many' is not a count"),
        (["--gpus", "0"], "invalid value for '--gpus'"),
    ],
)
def test_what_cannot_be_planned_is_said(
    new: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(new), *options]) != 0
    assert message in complaint(capsys.readouterr().err)


def test_what_ran_stands_beside_what_was_predicted(finished: Path, ask: Any) -> None:
    plan = ask(finished)["plan"]
    rows = {row["stage"]: row for row in plan["rows"]}
    assert all(row["real_hours"] is not None for row in rows.values())
    record = json.loads((finished / "labels" / "record.json").read_text())
    assert rows["labels"]["real_hours"] == pytest.approx(record["seconds"] / 3600)
    told = [json.loads(path.read_text()) for path in finished.glob("trials/*/scores.json")]
    assert rows["search"]["trials"] + rows["selection"]["trials"] == len(told)  # as many as it took
    whole = json.loads((finished / "mixture" / "record.json").read_text())["seconds"]
    parts = sum(rows[stage]["real_hours"] for stage in ("search", "selection", "predictions"))
    assert parts >= whole / 3600 * 0.999
    assert plan["total"]["real_hours"] == pytest.approx(sum(row["real_hours"] for row in plan["rows"]))
    assert plan["corpus"]["known"] == "as labelled"
    other = ask(finished, "--cores", "64")["plan"]
    assert all(row["real_hours"] is None for row in [*other["rows"], other["total"]])


@pytest.mark.parametrize("options", [[], ["--gpus", "8", "--gpu", "rtx4090"]])
def test_a_plan_fits_a_terminal(finished: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(finished), *options]) == 0
    text = capsys.readouterr().out
    table = text[text.index("\non ") :]
    assert max(map(len, table.splitlines())) <= 100
    header = next(line for line in table.splitlines() if line.startswith("stage"))
    rows = [line for line in table.splitlines() if re.match(r"(corpus|labels|search|all|export) ", line)]
    assert len(rows) == 5
    assert {len(line) for line in rows} == {len(header)}
    assert ("real" in header) == (not options)


def test_numbers_are_short() -> None:
    assert [short_count(n) for n in (0, 7, 6302, 147_000, 1e9, 4e12)] == ["–", "7", "6.3k", "147k", "1B", "4T"]
    assert [short_flops(n) for n in (0, 4.71e14)] == ["–", "4.7e14"]
    assert [time_text(s / 3600) for s in (0.3, 38, 720, 16_560, 1_116_000)] == [
        "0.3 s",
        "38 s",
        "12 min",
        "4.6 h",
        "310 h",
    ]
