"""Annotations of a workspace: which documents, what is kept over kills and budgets, what is never mixed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.corpus.reading.read import place_hash
from openclimb.corpus.reading.units import read_units
from openclimb.engines import interruption
from openclimb.errors import ConfigError, EndpointError, StaleError, WorkspaceError
from openclimb.quality.annotation.budget import Limits
from openclimb.quality.annotation.endpoint import Endpoint
from openclimb.quality.annotation.rubric import open_rubric
from openclimb.testing.endpoint import Rules, Server, rule_endpoint, rule_scores
from openclimb.testing.fixtures import SETTINGS, complaint

KEY = "sk-openclimb-0123456789abcdef"
SIZES = {"code": 200, "manual": 40, "names": 10}


@pytest.fixture(scope="module")
def corpus(texts: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of three kinds, of which there are very different numbers."""
    path, number = tmp_path_factory.mktemp("skewed") / "docs.jsonl", Counter[str]()
    lines = []
    for turn in range(2):
        for kind, text in texts:
            number[kind] += 1
            if number[kind] <= SIZES[kind]:
                lines.append(json.dumps({"text": f"{turn} {text}", "kind": kind}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def root(corpus: Path, tmp_path: Path) -> Path:
    return make(tmp_path / "run", corpus)


@pytest.fixture
def server() -> Iterator[Server]:
    with rule_endpoint() as one:
        yield one


def make(root: Path, corpus: Path, **more: Any) -> Path:
    sections = {**SETTINGS, "corpus": {"paths": [str(corpus)], **more}, "clusters": {"k": 3, "sample": 400}}
    openclimb.init(root, scale="demo", **sections)
    return root


def annotate(root: Path, server: Server, n: int, concurrency: int = 4, **more: Any) -> dict[str, Any]:
    return openclimb.open(root).annotate(n, endpoint=Endpoint(server.url, "rules", concurrency), **more)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def command(root: Path, server: Server, *more: str) -> list[str]:
    words = ["annotate", str(root), "--endpoint", server.url, "--model", "rules", "--concurrency", "4"]
    return [*words, *more]


def start(root: Path, server: Server, *more: str) -> "subprocess.Popen[str]":
    code = "import sys; from openclimb.cli.main import main; sys.exit(main())"
    words = [sys.executable, "-c", code, *command(root, server, *more)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_labels_are_of_a_uniform_sample_and_say_what_the_model_saw(root: Path, server: Server) -> None:
    facts = annotate(root, server, 60)
    found = rows(root / "annotations" / "labels.jsonl")
    assert [sorted(row) for row in found] == [["position", "scores", "text", "unit"]] * 60
    assert all(row["scores"] == rule_scores(row["text"]) for row in found)
    assert [(row["unit"], row["position"]) for row in found] == sorted((row["unit"], row["position"]) for row in found)
    assert {row["text"] for row in found} == set(server.seen.documents)
    (unit,) = read_units(root / "corpus")
    starts, at = [], 0
    for line in Path(unit.path).read_bytes().splitlines(keepends=True):
        starts.append(at)
        at += len(line)
    least = sorted(starts, key=lambda position: place_hash(unit.name, position, 0))[:60]
    assert sorted(least) == [row["position"] for row in found]
    record = json.loads((root / "annotations" / "record.json").read_text())
    assert facts == record["facts"]
    assert facts["labels"] == 60
    assert facts["tokens_in"] + facts["tokens_out"] == server.seen.tokens
    assert sum(facts["counts"]["quality"]) == 60
    assert not (root / "clusters").exists()  # a uniform sample needs none
    assert openclimb.open(root).check() == []


def test_more_labels_are_added_and_none_is_paid_twice(root: Path, server: Server) -> None:
    annotate(root, server, 20)
    first = rows(root / "annotations" / "labels.jsonl")
    annotate(root, server, 50)
    assert set(server.seen.documents.values()) == {1}
    assert len(server.seen.documents) == 50
    second = rows(root / "annotations" / "labels.jsonl")
    assert len(second) == 50
    assert all(row in second for row in first)
    assert annotate(root, server, 30)["labels"] == 50
    assert annotate(root, server, 50)["labels"] == 50
    assert server.seen.requests == 50


def test_long_texts_are_cut_where_the_rubric_says(root: Path, server: Server) -> None:
    open_rubric(root)
    rubric = (root / "rubric.toml").read_text().replace("characters = 2000", "characters = 120")
    (root / "rubric.toml").write_text(rubric)
    annotate(root, server, 20)
    assert {len(row["text"]) for row in rows(root / "annotations" / "labels.jsonl")} == {120}


def test_a_kill_loses_no_label_and_the_file_is_the_same_as_without_one(
    root: Path, corpus: Path, tmp_path: Path
) -> None:
    with rule_endpoint(Rules(seconds=0.05)) as slow:
        running = start(root, slow, "-n", "80")
        until(lambda: slow.seen.requests > 24)
        running.kill()
        running.communicate()
        log = root / "annotations.partial" / "answers.jsonl"
        had = len(rows(log))
        assert had > 10
        with open(log, "a") as file:
            file.write('{"unit": 0, "position": 99')  # a line that was cut in two
        annotate(root, slow, 80)
        answered = rows(root / "annotations" / "answers.jsonl")
        assert len(answered) == len({row["position"] for row in answered}) == 80
        again = [text for text, n in slow.seen.documents.items() if n > 1]
        assert len(again) <= 4  # of those in flight, whose answers nobody heard
        positions = {row["position"] for row in answered[:had]}
        known = {row["text"] for row in rows(root / "annotations" / "labels.jsonl") if row["position"] in positions}
        assert not known & set(again)
    other = make(tmp_path / "other", corpus)
    with rule_endpoint() as quick:
        annotate(other, quick, 80, concurrency=1)
    for name in ("labels.jsonl", "rubric.toml"):
        assert (other / "annotations" / name).read_bytes() == (root / "annotations" / name).read_bytes()


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as a terminal has it: a shell's background jobs, and their children, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_waits_for_what_is_paid_and_says_how_to_go_on(
    root: Path, number: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with rule_endpoint(Rules(seconds=0.1)) as slow:

        def send() -> None:
            until(lambda: slow.seen.requests > 16)
            os.kill(os.getpid(), number)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            assert main(command(root, slow, "-n", "200")) == status
        finally:
            sending.join()
            interruption.catch()  # forgets the signal
        said = capsys.readouterr().err
        assert "stopping: up to 20 s" in said
        assert "run the same command to go on" in said
        answered = rows(root / "annotations.partial" / "answers.jsonl")
        assert len(answered) == sum(slow.seen.documents.values()) < 60
    with rule_endpoint() as quick:
        annotate(root, quick, 70)
        assert sum(quick.seen.documents.values()) == 70 - len(answered)


def test_a_budget_ends_the_work_with_a_sample_and_more_of_it_goes_on(root: Path, server: Server) -> None:
    facts = annotate(root, server, 100, limits=Limits(tokens=30_000))
    assert server.seen.tokens <= 30_000
    assert facts["spent_up"]
    assert facts["labels"] + facts["left"] == 100
    assert 15 < facts["labels"] < 60
    again = annotate(root, server, 100, limits=Limits(tokens=30_000))
    assert again["labels"] == facts["labels"]
    whole = annotate(root, server, 100, limits=Limits(tokens=300_000, usd=1, usd_in=0.5, usd_out=1))
    assert (whole["labels"], whole["left"]) == (100, 0)
    assert whole["usd"] == pytest.approx((whole["tokens_in"] * 0.5 + whole["tokens_out"]) / 1e6, abs=1e-6)
    assert set(server.seen.documents.values()) == {1}


def test_a_budget_for_nothing_is_an_error(root: Path, server: Server) -> None:
    with pytest.raises(EndpointError, match="too small for one document"):
        annotate(root, server, 10, limits=Limits(tokens=500))
    assert server.seen.requests == 0


def test_another_rubric_or_model_is_refused_until_the_old_labels_are_moved_aside(root: Path, server: Server) -> None:
    annotate(root, server, 10)
    rubric = root / "rubric.toml"
    rubric.write_text(rubric.read_text().replace("broken, garbled", "broken"))
    with pytest.raises(StaleError, match="rubric: ") as error:
        annotate(root, server, 20)
    assert "--redo" in error.value.fix
    annotate(root, server, 20, redo=True)
    assert len(rows(root / "annotations" / "labels.jsonl")) == 20
    assert len(rows(root / "annotations.old-1" / "labels.jsonl")) == 10
    with pytest.raises(StaleError, match='by: "rules" then, "larger" now'):
        openclimb.open(root).annotate(30, endpoint=Endpoint(server.url, "larger"))
    with pytest.raises(StaleError, match="balanced: false then, true now"):
        annotate(root, server, 30, balanced=True)
    assert server.seen.requests == 30


def test_what_was_begun_with_a_wrong_name_is_in_nobodys_way(root: Path, server: Server) -> None:
    with rule_endpoint(Rules(refused={"model": "no such model"})) as strict, pytest.raises(EndpointError):
        openclimb.open(root).annotate(10, endpoint=Endpoint(strict.url, "rulse"))
    assert annotate(root, server, 10)["labels"] == 10


def test_failures_are_counted_kept_and_not_paid_again(root: Path) -> None:
    kinds = ("refusal", "length", "", "", "", "")
    with rule_endpoint(Rules(fault=lambda _, text: kinds[len(rule_key(text)) % 6])) as server:
        facts = annotate(root, server, 40)
        assert set(facts["failed"]) == {"refused", "cut off"}
        assert facts["labels"] + sum(facts["failed"].values()) == 40
        assert annotate(root, server, 40) == facts
        assert annotate(root, server, 41)["asked"] == 41
        assert server.seen.requests == 41


def rule_key(text: str) -> str:
    return "".join(str(value) for value in rule_scores(text).values()) + text[:1] * (sum(map(ord, text)) % 6)


def test_when_nothing_is_a_label_the_kinds_are_named(root: Path) -> None:
    none = "none of 10 answers is a label: out of range 10"
    with rule_endpoint(Rules(fault=lambda *_: "range")) as server, pytest.raises(EndpointError, match=none):
        annotate(root, server, 10)
    assert not (root / "annotations").exists()


@pytest.mark.parametrize("domains", ["column:kind", ""])
def test_a_balanced_sample_has_as_many_of_each_group_as_there_are(
    corpus: Path, tmp_path: Path, server: Server, domains: str
) -> None:
    root = make(tmp_path / "run", corpus, domains=domains)
    annotate(root, server, 45, balanced=True)
    (unit,) = read_units(root / "corpus")
    kinds, at = {}, 0
    for line in corpus.read_bytes().splitlines(keepends=True):
        kinds[at] = json.loads(line)["kind"]
        at += len(line)
    group: dict[int, Any] = kinds
    if not domains:
        table = pq.read_table(root / "clusters" / "sample.parquet").to_pydict()
        group = dict(zip(table["position"], table["cluster"], strict=True))
    looked = sorted(kinds, key=lambda position: place_hash(unit.name, position, 0))[: 4 * 45]
    there = Counter(group[position] for position in looked)
    found = Counter(group[row["position"]] for row in rows(root / "annotations" / "labels.jsonl"))
    assert (found.total(), len(found)) == (45, 3)
    level = max(found.values())
    assert all(found[one] >= min(level - 1, n) for one, n in there.items())
    assert level < 0.8 * 45 * max(there.values()) / there.total()  # more even than a uniform sample
    annotate(root, server, 60, balanced=True)
    assert set(server.seen.documents.values()) == {1}


def test_a_key_is_in_no_file_and_no_word(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENCLIMB_API_KEY", KEY)

    def fault(number: int, _text: str) -> str:
        return ("", "flagged", "500")[number % 3]

    with rule_endpoint(Rules(key=KEY, fault=fault)) as server:
        assert main(command(root, server, "-n", "12", "--debug")) == 0
        assert server.seen.keys == {f"Bearer {KEY}"}
    with rule_endpoint(Rules(key="other")) as server:
        assert main(command(root, server, "-n", "20", "--debug")) == 1
    said = capsys.readouterr()
    assert KEY not in said.out + said.err
    assert "refuses the key" in said.err
    for path in root.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_the_command_says_what_it_will_cost_and_what_came(
    root: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = ("--usd-in", "0.5", "--usd-out", "1.5", "--budget-usd", "5", "--budget-tokens", "1M")
    assert main(command(root, server, "-n", "12", *prices)) == 0
    said = capsys.readouterr()
    assert "12 documents to rate on quality, educational_value" in said.err
    assert "budget 1,000,000 tokens; budget $5.00" in said.err
    assert f"12 labels: {root}/annotations/labels.jsonl" in said.out
    assert "cultural_value" in said.out
    assert main(command(root, server, "-n", "14", "--json")) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["event"], last["labels"]) == ("annotated", 14)


def test_what_a_command_lacks_is_told(root: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ([*command(root, server)[2:], "-n", "0"], "0 documents cannot be labelled"),
        ([], "labels come from an endpoint or from a function"),
        (["--endpoint", server.url], "--model is missing"),
        (["--endpoint", "http://me:geheim@h/v1", "--model", "m"], "has a user, a password or a query"),
        (["--annotator", "no.such:thing"], "there is no module no"),
        (["--annotator", "json:loads", "--budget-tokens", "5"], "a function has no budget"),
        ([*command(root, server)[2:], "--budget-usd", "5"], "a budget in dollars needs prices"),
    ):
        assert main(["annotate", str(root), "--quiet", *words]) == 1
        said = complaint(capsys.readouterr().err)
        assert message in said
        assert "geheim" not in said
    assert not (root / "annotations.partial").exists()


def test_the_rubric_is_written_to_be_edited(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", str(root), "--write-rubric"]) == 0
    assert capsys.readouterr().out == f"{root / 'rubric.toml'}\n"
    assert not (root / "annotations.partial").exists()


def by_length(texts: Sequence[str]) -> list[dict[str, float]]:
    return [{} if "def " in text else {**rule_scores(text), "quality": 2.5} for text in texts]


def too_few(texts: Sequence[str]) -> list[dict[str, float]]:
    return by_length(texts)[1:]


def test_a_function_labels_as_well(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (by_length, too_few):
        monkeypatch.setattr(sys.modules["json"], function.__name__, function, raising=False)
    with pytest.raises(ConfigError, match="gave 31 answers for 32 texts"):
        openclimb.open(root).annotate(100, annotator="json:too_few")
    facts = openclimb.open(root).annotate(100, annotator="json:by_length")
    found = rows(root / "annotations" / "labels.jsonl")
    assert facts["failed"] == {"no label": 100 - len(found)}
    assert 0 < len(found) < 100
    assert all(row["scores"]["quality"] == 2.5 for row in found)
    assert facts["means"]["quality"] == 2.5
    assert (facts["tokens_in"], "endpoint" in facts) == (0, False)


def test_a_corpus_smaller_than_what_is_asked_for_is_labelled_whole(root: Path, server: Server) -> None:
    facts = annotate(root, server, 5000, concurrency=16)
    assert (facts["labels"], facts["left"]) == (sum(SIZES.values()), 0)
    assert annotate(root, server, 5000) == facts
    assert server.seen.requests == facts["labels"]


def test_a_damaged_log_is_told_with_its_line(root: Path, server: Server) -> None:
    annotate(root, server, 10)
    log = root / "annotations" / "answers.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines[:3], "{}\n", *lines[4:]]))
    with pytest.raises(WorkspaceError, match=r"answers\.jsonl: line 4 cannot be read"):
        annotate(root, server, 20)


def test_a_workspace_that_was_stopped_while_reopened_goes_on(root: Path, server: Server) -> None:
    annotate(root, server, 10)
    os.rename(root / "annotations", root / "annotations.partial")  # as a kill leaves it, between two steps
    annotate(root, server, 10)
    shutil.copy(root / "annotations" / "record.json", root / "record.json")
    os.rename(root / "annotations", root / "annotations.partial")
    record = json.loads((root / "record.json").read_text())
    recipe = {key: record[key] for key in ("format", "stage", "version", "settings", "inputs")}
    (root / "annotations.partial" / "recipe.json").write_text(json.dumps(recipe))
    (root / "annotations.partial" / "record.json").unlink()
    assert annotate(root, server, 15)["labels"] == 15
    assert set(server.seen.documents.values()) == {1}
