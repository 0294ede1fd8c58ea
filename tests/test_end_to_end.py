"""The whole line on a small real corpus: files to mixture, page, dataset; reuse, staleness, failure, interruption."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import openclimb
from openclimb import pipeline
from openclimb.cli.main import main
from openclimb.config.scales import preset
from openclimb.errors import DomainError, StaleError
from openclimb.testing.fixtures import make_tiny_workspace
from openclimb.workspace.files import read_json, write_json
from openclimb.workspace.trials import read_trials, trial_folder

INTERRUPTIBLE = """
import signal, sys
from openclimb.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and their children, ignore it
sys.exit(main(sys.argv[1:]))
"""


def test_the_answer_is_a_mixture_under_its_caps_with_margins(finished: Path) -> None:
    answer = openclimb.open(finished).mixture()
    weights = [row.weight for row in answer.domains]
    assert sum(weights) == pytest.approx(1.0)
    assert all(row.weight <= row.cap + 1e-6 for row in answer.domains)
    assert all(row.repetitions <= preset("demo").target.max_repetitions + 1e-6 for row in answer.domains)
    assert {"natural", "uniform"} <= {row.name for row in answer.mixtures}
    report = {row.name: row.report.mean for row in answer.mixtures}
    margin = answer.margins["natural"].mean
    assert margin == pytest.approx(report[answer.choice] - report["natural"], abs=0.05)
    assert answer.sentence


def test_search_items_and_report_items_are_disjoint(finished: Path) -> None:
    trials = openclimb.open(finished).trials()
    searched = read_json(finished / "trials" / f"{trials[0].number:04d}" / "scores.json")
    assert searched["search"]
    assert not searched["report"]
    selected = [trial for trial in trials if trial.role != "search"]
    assert {trial.role for trial in selected} >= {"natural", "uniform"}
    assert {trial.seed for trial in selected}.isdisjoint({trial.seed for trial in trials if trial.role == "search"})


def test_a_second_run_reuses_everything(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and "report" not in path.parts
    }
    assert main(["run", str(finished), "--quiet"]) == 0
    after = {path: path.stat().st_mtime_ns for path in before if path.name != ".lock"}
    assert after == {path: before[path] for path in after}
    assert "report:" in capsys.readouterr().out


def test_the_page_needs_no_network(finished: Path) -> None:
    page = (finished / "report" / "index.html").read_text()
    assert openclimb.open(finished).mixture().sentence[:40] in page
    outside_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", page[: page.index("</head>")])
    assert not re.search(r"(src=|url\()[\"']?(https?:)?//", outside_scripts)


def test_the_export_is_the_mixture(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert main(["export", str(finished), "--tokens", "100K", "--out", str(out), "--quiet"]) == 0
    card = (out / "README.md").read_text()
    assert all(row.name in card for row in openclimb.open(finished).mixture().domains)
    assert main(["verify", str(out), "--quiet"]) == 0


def test_status_and_plan_tell_the_state_and_change_nothing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(finished.rglob("*"))
    assert main(["status", str(finished), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in status["stages"]} == {"done"}
    assert status["trials"]["failed"] == 0
    assert status["next"].startswith("climb export")
    assert main(["plan", str(finished), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"]["search"] == 8
    assert main(["plan", str(finished)]) == 0
    assert main(["status", str(finished)]) == 0
    assert sorted(finished.rglob("*")) == before


def test_ask_gives_new_trials_and_tell_closes_them(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    finished = shutil.copytree(finished, tmp_path / "run")
    assert main(["ask", str(finished), "-n", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len({row["trial"] for row in rows}) == 2
    assert all(sum(row["mixture"].values()) == pytest.approx(1.0) for row in rows)
    tasks = openclimb.open(finished).trials()[0].scores
    write_json(tmp_path / "scores.json", dict.fromkeys(tasks, -2.0))
    for _ in range(2):  # the same scores may be told again
        assert main(["tell", str(finished), str(rows[0]["trial"]), str(tmp_path / "scores.json")]) == 0
    write_json(tmp_path / "other.json", dict.fromkeys(tasks, -3.0))
    assert main(["tell", str(finished), str(rows[0]["trial"]), str(tmp_path / "other.json")]) == 1
    assert "has its scores already" in capsys.readouterr().err
    assert main(["tell", str(finished), "9999", str(tmp_path / "scores.json")]) == 1
    assert "there is no trial 9999" in capsys.readouterr().err


def test_changed_settings_stop_the_run_and_redo_moves_aside(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path
) -> None:
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks)
    openclimb.open(root).run()
    path = root / "climb.toml"
    path.write_text(path.read_text().replace("merge_to = 4", "merge_to = 3"))
    with pytest.raises(StaleError) as caught:
        openclimb.open(root).run()
    assert "domains.merge_to: 4 then, 3 now" in caught.value.message
    n_trials = len(openclimb.open(root).trials())
    answer = openclimb.open(root).run(redo="domains")
    assert len(answer.domains) == 3
    assert (root / "domains.old-1" / "record.json").exists()
    assert (root / "mixture.old-1" / "mixture.json").exists()
    assert len(openclimb.open(root).trials()) > n_trials


def test_what_changed_is_said_by_report_and_stops_ask(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    assert main(["report", str(root)]) == 0
    assert "note:" not in capsys.readouterr().out
    assert main(["best", str(root)]) == 0
    assert "what the selection chose is in mixture/" in capsys.readouterr().out
    path = root / "climb.toml"
    line = next(line for line in path.read_text().splitlines() if line.startswith("merge_to"))
    path.write_text(path.read_text().replace(line, "merge_to = 2"))
    assert main(["report", str(root)]) == 0
    assert "note: domains" in capsys.readouterr().out
    for command in (["ask", str(root)], ["best", str(root)]):
        assert main(command) == 1
        assert "merge_to" in capsys.readouterr().err
    assert main(["run", str(root), "--redo", "domains", "--quiet"]) == 0


@pytest.mark.slow
def test_constraints_hold_in_all_trials_and_in_the_answer(tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path) -> None:
    constraints = {"floor": {"novel": 0.1}, "groups": {"scripture + politics": [0.2, 0.4]}, "most_domains": 4}
    root = make_tiny_workspace(
        tmp_path / "run", tiny_corpus, tiny_tasks, corpus={"domains": "column:domain"}, constraints=constraints
    )
    answer = openclimb.open(root).run()
    rows = [{row.name: row.weight for row in answer.domains}]
    rows += [trial.mixture.as_dict() for trial in openclimb.open(root).trials()]
    for row in rows:
        assert row["novel"] >= 0.1 - 1e-6
        assert 0.2 - 1e-6 <= row["scripture"] + row["politics"] <= 0.4 + 1e-6
        assert sum(weight > 0 for weight in row.values()) <= 4
    assert {row.name for row in answer.mixtures} >= {"natural", "uniform"}
    path = root / "climb.toml"
    path.write_text(path.read_text().replace('"novel" = 0.1', '"novel" = 0.2'))
    with pytest.raises(StaleError, match="constraints.floor"):
        openclimb.open(root).run()
    path.write_text(path.read_text().replace('"novel" = 0.2', '"novel" = 0.9'))
    with pytest.raises(DomainError, match=r"floor.novel = 0.9 and groups"):
        openclimb.open(root).run(redo="mixture")


@pytest.mark.slow
def test_an_input_file_that_changes_stops_the_run_at_its_end_and_the_next_at_once(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(tiny_corpus.read_bytes())
    root = make_tiny_workspace(tmp_path / "run", corpus, tiny_tasks)
    real = pipeline.search

    def meanwhile(*arguments: Any) -> dict[str, object]:
        with open(corpus, "a") as file:
            file.write('{"text": "One more document, at the end."}\n')
        return real(*arguments)

    monkeypatch.setattr(pipeline, "search", meanwhile)
    for _ in range(2):
        with pytest.raises(StaleError, match=r"corpus\.jsonl: changed"):
            openclimb.open(root).run()
        assert (root / "mixture" / "mixture.json").exists()


@pytest.mark.slow
def test_a_changed_task_file_stops_the_run(tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for path in tiny_tasks.glob("*.jsonl"):
        (tasks / path.name).write_bytes(path.read_bytes())
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tasks)
    openclimb.open(root).run()
    first = sorted(tasks.glob("*.jsonl"))[0]
    first.write_text("\n".join(first.read_text().splitlines()[1:]) + "\n")
    with pytest.raises(StaleError, match="task_files"):
        openclimb.open(root).run()


def test_a_trial_whose_loss_is_not_a_number_fails_alone(tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path) -> None:
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, proxy={"learning_rate": 10.0})
    assert main(["run", str(root), "--quiet"]) == 1
    trials = openclimb.open(root).trials()
    assert {trial.state for trial in trials} == {"failed"}
    assert "loss" in trials[0].failure


def test_ctrl_c_stops_cleanly_with_130_and_the_run_goes_on(tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path) -> None:
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks)
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "run", str(root)], stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (root / "trials").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1]
    assert process.returncode == 130
    assert "what is done is kept" in error
    assert "Traceback" not in error
    assert openclimb.open(root).run().domains


def test_ready_made_domains_skip_clustering(tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path) -> None:
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, corpus={"domains": "column:domain"})
    answer = openclimb.open(root).run()
    sources = {json.loads(line)["domain"] for line in tiny_corpus.read_text().splitlines()}
    assert {row.name for row in answer.domains} == sources
    assert not (root / "clusters" / "centroids.npy").exists()


@pytest.mark.slow
def test_tasks_weighed_by_their_signal_are_the_answers_objective(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path
) -> None:
    changes = {"tasks": {"weighting": "signal"}, "search": {"trials": [4, 2], "replicates": 3}}
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, **changes)
    answer = openclimb.open(root).run()
    trials = openclimb.open(root).trials()
    assert sum(trial.role == "replicate" for trial in trials) == 3
    first, last = (read_json(root / "iterations" / f"0{i}" / "diagnostics.json")["signal"] for i in (0, 1))
    weights = {row["task"]: row["weight"] for row in first if row["task"] != "objective"}
    assert answer.objective.tasks == pytest.approx(weights)
    assert {row["task"]: row["weight"] for row in last} == {row["task"]: row["weight"] for row in first}
    assert {row.task for row in answer.signal} == {"stories", "speech", "objective"}
    page = openclimb.open(root).report().read_text()
    assert "What the tasks can tell" in page


def test_run_learns_from_told_trials_and_later_ones_make_the_answer_stale(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    opened = openclimb.open(root)
    before = opened.trials()
    names, tasks = before[0].domains, sorted(before[0].scores)
    rows = [[f"run-{i}", *(0.25 for _ in names)] for i in range(2)]
    for path, head, cells in (
        (tmp_path / "ratios.csv", names, rows),
        (tmp_path / "metrics.csv", tasks, [[f"run-{i}", *(-3.0 - i for _ in tasks)] for i in range(2)]),
    ):
        lines = [["run", *head], *cells]
        path.write_text("\n".join(",".join(map(str, line)) for line in lines) + "\n")
    assert main(["import", str(root), str(tmp_path / "ratios.csv"), str(tmp_path / "metrics.csv")]) == 0
    capsys.readouterr()
    assert main(["run", str(root), "--quiet"]) == 1
    message = capsys.readouterr().err
    assert 'trials completed or imported by hand: null then, "2 (' in message
    assert "it learns from them" in message
    assert "--redo mixture" in message
    assert main(["status", str(root)]) == 0
    assert "--redo mixture" in capsys.readouterr().out
    answer = opened.run(redo="mixture")
    assert answer.trials["external"] == 2
    searched = [trial.number for trial in opened.trials() if trial.role == "search"]
    assert searched == [trial.number for trial in before if trial.role == "search"]  # none is trained again
    assert answer.trials["search"] == len(searched)
    assert openclimb.open(root).run() == answer


@pytest.mark.slow
def test_a_search_begins_with_what_was_told_before(tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path) -> None:
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks)
    opened = openclimb.open(root)
    opened.run()
    asked = opened.ask(3)
    for trial in asked[:2]:
        opened.tell(trial.number, dict.fromkeys(opened.trials()[0].scores, -2.5))
    shutil.rmtree(root / "iterations")  # the batches are then proposed anew, from all there is
    opened.run(redo="mixture")
    batch = read_json(root / "iterations" / "00" / "batch.json")
    assert batch["completed"] == [trial.number for trial in asked[:2]]
    assert batch["running"] == [asked[2].number]
    fitted = read_json(root / "iterations" / "00" / "diagnostics.json")["trials"]
    assert set(batch["completed"]) <= set(fitted)
    assert asked[2].number not in fitted


@pytest.mark.slow
def test_the_librarys_example_works_as_a_script_without_a_main_guard(finished: Path, tmp_path: Path) -> None:
    """Trials train in spawned processes, each of which would run the script again."""
    root = shutil.copytree(finished, tmp_path / "my-run")
    shutil.rmtree(root / "mixture")
    for trial in read_trials(root / "trials"):
        if trial.role != "search":
            shutil.rmtree(trial_folder(root / "trials", trial.number))
    settings = root / "climb.toml"
    settings.write_text(settings.read_text().replace("workers = 1", "workers = 2"))
    tutorial = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (tmp_path / "script.py").write_text(tutorial.split("## As a library")[1].split("```python\n")[1].split("```")[0])
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    first, *rows = done.stdout.splitlines()
    answer = openclimb.open(finished).mixture()
    assert first == answer.sentence
    assert [row.split()[0] for row in rows] == [domain.name for domain in answer.domains]
