"""What goes wrong at the command line: told in an `error:` and a `fix:` line, exit 1, nothing lost, the run goes on."""

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.corpus.tokenizer import train_tokenizer
from openclimb.testing.fixtures import complaint, make_tiny_workspace
from openclimb.workspace import lock
from openclimb.workspace.files import read_json

LIMITED = """
import resource, sys
from openclimb.cli.main import main
from openclimb.corpus.tokenizer import train_tokenizer
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)  # as a full disk: no file grows beyond this
sys.exit(main(sys.argv[2:]))
"""


def _complaint(capsys: pytest.CaptureFixture[str]) -> str:
    return complaint(capsys.readouterr().err)


@pytest.mark.parametrize("kilobytes", [2, *(pytest.param(more, marks=pytest.mark.slow) for more in (40, 150))])
def test_a_full_disk_is_told_and_the_run_goes_on(
    kilobytes: int, tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, finished: Path
) -> None:
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(kilobytes * 1000), "run", str(root), "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: no space left to write" in done.stderr
    assert "Traceback" not in done.stderr
    assert openclimb.open(root).run() == openclimb.open(finished).mixture()


def test_a_held_workspace_is_left_alone(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WAIT", 0.1)
    with open(finished / ".lock", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(["run", str(finished)]) == 1
        assert "is held by" in _complaint(capsys)
        assert main(["export", str(finished), "--tokens", "1K", "--out", str(tmp_path / "data")]) == 1
        assert "is held by" in _complaint(capsys)
        assert main(["status", str(finished)]) == 0  # reading holds nothing
        assert main(["report", str(finished)]) == 0


def test_no_file_matches_is_told_by_plan_and_run_alike(
    tmp_path: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tiny_workspace(tmp_path / "run", tmp_path / "nothing" / "*.parquet", tiny_tasks)
    for command in ("plan", "run"):
        assert main([command, str(root)]) == 1
        assert "no file matches" in _complaint(capsys)


def test_a_missing_text_column_is_told_by_plan(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, corpus={"text": "txt"})
    assert main(["plan", str(root)]) == 1
    message = _complaint(capsys)
    assert "no column 'txt' (did you mean 'text'?)" in message
    assert "domain, id" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "proxy.widht=64"], "did you mean 'width'"),
        (["--set", "embed.embedder=model3vec"], "did you mean 'model2vec'"),
        (["--set", "proxy=64"], "is not understood"),
        (["--set", "search.trials=[0]"], "search.trials"),
        (["--target-tokens", "lots"], "'lots' is not a count"),
    ],
)
def test_a_bad_setting_makes_no_workspace(
    arguments: list[str], message: str, tmp_path: Path, tiny_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "run"), "--corpus", str(tiny_corpus), *arguments]) == 1
    assert message in _complaint(capsys)
    assert not (tmp_path / "run").exists()


def test_an_unknown_stage_to_redo_is_told(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(finished), "--redo", "cluster"]) == 1
    assert "did you mean 'clusters'" in _complaint(capsys)
    assert (finished / "clusters" / "record.json").is_file()


def test_too_many_damaged_documents_stop_the_run_and_raising_the_limit_goes_on(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(tiny_corpus.read_bytes() + b"{broken\n" * 4)
    ends_after_labels = {"prune_below": {"heuristics": 2.0}}
    root = make_tiny_workspace(
        tmp_path / "run", corpus, tiny_tasks, corpus={"max_rejected": 3}, domains=ends_after_labels
    )
    assert main(["run", str(root), "--quiet"]) == 1
    message = _complaint(capsys)
    assert "more than 3 documents could not be read: corpus.jsonl (4)" in message
    rejected = [json.loads(line) for line in (root / "labels.partial" / "rejected.jsonl").read_text().splitlines()]
    assert {row["reason"].split(":")[0] for row in rejected} == {"not a JSON line"}
    path = root / "climb.toml"
    path.write_text(path.read_text().replace("max_rejected = 3", "max_rejected = 4"))
    assert main(["run", str(root), "--quiet"]) == 1
    assert "is pruned" in _complaint(capsys)
    assert len((root / "labels" / "rejected.jsonl").read_text().splitlines()) == 4


def test_more_clusters_than_documents_is_told(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, clusters={"k": 5000})
    assert main(["run", str(root), "--quiet"]) == 1
    assert "fewer than 5000 clusters" in _complaint(capsys)


def test_every_cluster_pruned_is_told(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, domains={"prune_below": {"heuristics": 2.0}})
    assert main(["run", str(root), "--quiet"]) == 1
    assert "is pruned" in _complaint(capsys)
    assert (root / "labels" / "record.json").is_file()


def test_caps_that_no_mixture_can_meet_are_told(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, target={"token_budget": "1B"})
    assert main(["run", str(root), "--quiet"]) == 1
    assert "max_repetitions" in _complaint(capsys)


def test_a_task_with_a_bad_gold_index_is_told_before_the_work(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = shutil.copytree(tiny_tasks, tmp_path / "tasks")
    with open(tasks / "speech.jsonl", "a") as file:
        file.write('{"context": "a", "options": [" b", " c"], "gold": 2}\n')
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tasks)
    assert main(["plan", str(root)]) == 1
    message = _complaint(capsys)
    assert "gold" in message
    assert "speech.jsonl" in message


def test_plan_says_what_ends_a_document_or_asks(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given.json"
    train_tokenizer(["so far, so good"] * 9, 300, given)
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, tokens={"tokenizer": str(given)})
    assert main(["plan", str(root)]) == 0
    told = "a document begins with <|endoftext|> and ends with <|endoftext|>"
    assert told in " ".join(capsys.readouterr().out.split())
    given.write_text(given.read_text().replace('"special": true', '"special": false'))
    assert main(["plan", str(root)]) == 1
    assert "ends a document is not known" in _complaint(capsys)


def test_a_workspace_of_a_newer_version_is_told(finished: Path, tmp_path: Path, capsys) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    path = root / "climb.toml"
    path.write_text(path.read_text().replace("format = 2", "format = 3"))
    for command in ("run", "status", "plan", "report"):
        assert main([command, str(root)]) == 1
        assert "newer version" in _complaint(capsys)


def test_a_folder_that_is_no_workspace_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "status", "plan", "report", "ask"):
        assert main([command, str(tmp_path)]) == 1
        assert "is not a workspace" in _complaint(capsys)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("scores", ['{"stories": NaN}', '{"stories": "high"}', "{}", "[1]", "{", '{"stories": true}'])
def test_scores_that_are_no_numbers_are_refused(
    scores: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    assert main(["ask", str(root)]) == 0
    number = json.loads(capsys.readouterr().out)["trial"]
    (tmp_path / "scores.json").write_text(scores)
    assert main(["tell", str(root), str(number), str(tmp_path / "scores.json")]) == 1
    _complaint(capsys)
    assert not (root / "trials" / f"{number:04d}" / "scores.json").exists()


def test_a_damaged_record_is_told_not_served(finished: Path, tmp_path: Path, capsys) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    (root / "labels" / "record.json").write_text("{")
    assert main(["run", str(root)]) == 1
    assert "is not valid JSON" in _complaint(capsys)
    assert read_json(root / "mixture" / "mixture.json")
