"""Trials that are trained elsewhere: a workspace without a corpus, ask, tell, import, best."""

import csv
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.mixture import caps, natural
from openclimb.testing.fixtures import complaint
from openclimb.testing.problems import Problem, make_problem
from openclimb.workspace.files import writer
from openclimb.workspace.tables import write_csv

PROBLEM = make_problem("interactions", 5, seed=3)
NAMES = [domain.name for domain in PROBLEM.domains]


@pytest.fixture
def root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A workspace with the domains of PROBLEM, given by hand."""
    table = tmp_path / "given.csv"
    write_csv(table, ["name", "tokens"], [[d.name, d.n_tokens] for d in PROBLEM.domains])
    budget = str(sum(domain.n_tokens for domain in PROBLEM.domains))
    assert main(["init", str(tmp_path / "run"), "--domains-file", str(table), "--target-tokens", budget]) == 0
    assert "next: climb ask" in capsys.readouterr().out
    return tmp_path / "run"


def measure(problem: Problem, mixture: dict[str, float], seed: int) -> dict[str, float]:
    return problem.observe(np.array([[mixture[name] for name in NAMES]]), np.random.default_rng(seed))[0]


def tables(folder: Path, n: int = 6, first: int = 0) -> tuple[Path, Path]:
    """Write n runs of PROBLEM as two tables."""
    weights = np.random.default_rng(first).dirichlet(np.ones(5), n).round(4)
    scores = [measure(PROBLEM, dict(zip(NAMES, row, strict=True)), i) for i, row in enumerate(weights)]
    names = [f"run-{first + i}" for i in range(n)]
    write_csv(folder / "ratios.csv", ["run", *NAMES], [[k, *row] for k, row in zip(names, weights, strict=True)])
    write_csv(
        folder / "metrics.csv", ["run", *scores[0]], [[k, *row.values()] for k, row in zip(names, scores, strict=True)]
    )
    return folder / "ratios.csv", folder / "metrics.csv"


def test_a_search_by_ask_and_tell_alone_finds_a_good_mixture(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in (10, 6, 6):
        assert main(["ask", str(root), "-n", str(n), "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert len(rows) == n
        for row in rows:
            path = root.parent / "scores.json"
            path.write_text(json.dumps(measure(PROBLEM, row["mixture"], row["trial"])))
            assert main(["tell", str(root), str(row["trial"]), str(path)]) == 0
        assert capsys.readouterr().out.count(" is done: task-0 ") == n
    assert main(["best", str(root), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    weights = np.array([row["weight"] for row in answer["domains"]])
    tokens = [domain.n_tokens for domain in PROBLEM.domains]
    assert weights.sum() == pytest.approx(1.0)
    assert (weights <= caps(tokens, sum(tokens), 4.0) + 1e-9).all()
    assert PROBLEM.regret(weights) < 0.1
    assert PROBLEM.regret(weights) < PROBLEM.regret(natural(PROBLEM.domains))
    low, high = answer["interval_80"]
    assert low < answer["expected"] < high
    assert answer["trials"] == 22
    assert 1.0 <= answer["effective_domains"] <= 5.0
    assert max(row["loss"] for row in answer["domains"]) > 0
    assert main(["best", str(root)]) == 0
    assert "expected score" in capsys.readouterr().out
    assert main(["status", str(root)]) == 0
    assert "5 given by hand; no corpus" in capsys.readouterr().out


def test_asking_while_trials_run_gives_others(root: Path) -> None:
    opened = openclimb.open(root)
    first, second = opened.ask(4), opened.ask(4)
    assert {trial.number for trial in first}.isdisjoint(trial.number for trial in second)
    assert len({trial.weights for trial in [*first, *second]}) == 8
    opened.tell_failed(first[0].number, "node lost")
    opened.tell_failed(first[0].number, "node lost")
    third = opened.ask(4)
    assert first[0].weights not in {trial.weights for trial in third}
    assert opened.trials()[0].failure == "node lost"


def test_status_names_the_trial_that_waits(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    openclimb.open(root).ask(2)
    assert main(["status", str(root)]) == 0
    assert f"next      climb tell {root} 1 FILE" in capsys.readouterr().out


def test_where_no_other_mixture_is_left_one_has_another_seed(tmp_path: Path) -> None:
    table = tmp_path / "two.csv"
    write_csv(table, ["name", "tokens"], [["code", 100], ["web", 300]])
    sets = ["--set", "constraints.floor={code=0.2}", "--set", "constraints.cap={code=0.2}"]
    assert main(["init", str(tmp_path / "two"), "--domains-file", str(table), "--target-tokens", "100", *sets]) == 0
    opened = openclimb.open(tmp_path / "two")
    trials = opened.ask(3)
    opened.tell(trials[0].number, {"score": 0.5})
    trials += opened.ask(2)
    assert len({trial.number for trial in trials}) == 5
    assert len({trial.seed for trial in trials}) == 5
    assert {trial.weights for trial in trials} == {(0.2, 0.8)}


def test_trials_that_end_at_once_wait_for_one_another(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = [trial.number for trial in openclimb.open(root).ask(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: openclimb.open(root).tell(number, {"piqa": number / 10}), numbers[:7]))
    assert [trial.scores for trial in openclimb.open(root).trials()][:7] == [{"piqa": n / 10} for n in numbers[:7]]
    assert main(["status", str(root)]) == 0
    said = capsys.readouterr().out
    assert "7 done, 1 waiting" in said
    assert "waiting   for the scores of 8" in said


def test_mixtures_do_not_depend_on_the_order_of_tells(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    for folder, turn in ((root, 1), (copy, -1)):
        opened = openclimb.open(folder)
        for trial in opened.ask(6)[::turn]:
            opened.tell(trial.number, measure(PROBLEM, trial.mixture.as_dict(), trial.number))
    first, second = (openclimb.open(folder).ask(3) for folder in (root, copy))
    assert [trial.weights for trial in first] == [trial.weights for trial in second]


def test_tells_that_do_not_fit_are_told(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = openclimb.open(root)
    opened.ask(3)
    opened.tell(1, {"arc_easy": 0.5, "piqa": 0.6})
    path = tmp_path / "scores.json"
    path.write_text("not JSON")
    assert main(["tell", str(root), "2", str(path)]) == 1
    assert 'fix: {"task": 0.5}' in complaint(capsys.readouterr().err)
    path.write_text("\ufeff" + json.dumps({"arc_easy": 0.4, "piqa": 0.5}), encoding="utf-8")
    assert main(["tell", str(root), "3", str(path)]) == 0
    for scores, message in (
        ({"arc_eazy": 0.5, "piqa": 0.6}, "'arc_eazy', which no trial so far has (did you mean 'arc_easy'?)"),
        ({"mmlu": 0.5}, "expected are: arc_easy, piqa"),
    ):
        path.write_text(json.dumps(scores))
        assert main(["tell", str(root), "2", str(path)]) == 1
        assert message in complaint(capsys.readouterr().err)
    assert main(["tell", str(root), "4", str(path)]) == 1
    assert "trials are numbered 1 to 3" in complaint(capsys.readouterr().err)
    assert main(["tell", str(root), "2", str(tmp_path / "none.json")]) == 1
    assert "is missing" in complaint(capsys.readouterr().err)
    assert main(["tell", str(root), "2"]) == 1
    assert "--failed MESSAGE" in complaint(capsys.readouterr().err)
    assert main(["tell", str(root), "1", "--failed", "late"]) == 1
    assert "has its scores already" in complaint(capsys.readouterr().err)
    assert main(["ask", str(root), "-n", "0"]) == 1
    assert "0 mixtures" in complaint(capsys.readouterr().err)


def test_tell_says_what_it_took_and_what_is_missing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    openclimb.open(root).ask(3)
    path = tmp_path / "scores.json"
    path.write_bytes('{"arc_easy": 0.5, "piqa": 0.25}'.encode("utf-16"))  # as a shell of Windows writes it
    assert main(["tell", str(root), "1", str(path)]) == 0
    assert capsys.readouterr().out == "trial 1 is done: arc_easy 0.5, piqa 0.25\n"
    assert main(["tell", str(root), "1", str(path)]) == 0
    assert "trial 1 had these scores already" in capsys.readouterr().out
    path.write_text('{"piqa": 1}')
    assert main(["tell", str(root), "2", str(path)]) == 0
    assert "no score for arc_easy: trial 2 tells nothing of them" in capsys.readouterr().out
    assert openclimb.open(root).trials()[1].scores == {"piqa": 1.0}
    assert main(["tell", str(root), "3", "--failed", "node lost"]) == 0
    assert "trial 3 is closed without scores: node lost" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"piqa": NaN}', "the score of 'piqa' is nan, no finite number"),
        ('{"piqa": 0.5, "arc": -Infinity}', "the score of 'arc' is -inf, no finite number"),
        ('{"piqa": 1e999}', "the score of 'piqa' is inf, no finite number"),
        ('{"piqa": 1e300}', "the score of 'piqa' is 1e+300, out of range"),
        ('{"piqa": ' + "9" * 400 + "}", "out of range"),
        ('{"piqa": true}', "the score of 'piqa' is True, no finite number"),
        ('{"piqa": "0.5"}', "the score of 'piqa' is '0.5', no finite number"),
        ('{"piqa": null}', "the score of 'piqa' is None, no finite number"),
        ('{"piqa": {"mean": 1}}', "no finite number"),
        ('{"piqa": 0.5, "piqa": 0.6}', "'piqa' is in it twice"),
        ('{" ": 0.5}', "a task without a name"),
        ("[0.5]", "one number a task"),
        ("0.5", "one number a task"),
        ("{}", "one number a task"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
    ],
)
def test_numbers_that_are_no_scores_are_refused_before_anything_is_written(
    text: str, message: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    openclimb.open(root).ask(1)
    path = tmp_path / "scores.json"
    path.write_text(text)
    assert main(["tell", str(root), "1", str(path)]) == 1
    assert message in complaint(capsys.readouterr().err)
    assert openclimb.open(root).trials()[0].state == "waiting"


def test_a_task_that_the_settings_name_must_be_told(root: Path) -> None:
    path = root / "climb.toml"
    path.write_text(path.read_text().replace("weights = {}", "weights = { piqa = 2.0 }"))
    opened = openclimb.open(root)
    opened.ask(1)
    with pytest.raises(openclimb.errors.SearchError, match="no score for 'piqa'"):
        opened.tell(1, {"pica": 0.5})


def test_a_least_score_is_kept_and_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = openclimb.open(root)
    for trial in opened.ask(12):
        opened.tell(trial.number, {"gain": trial.weights[0] ** 0.5, "keep": trial.weights[1] ** 0.5})
    path = root / "climb.toml"
    path.write_text(path.read_text().replace("thresholds = {}", "thresholds = { keep = 0.4 }"))
    answer = openclimb.open(root).best()
    (row,) = answer.thresholds
    assert answer.tasks == {"gain": 1.0, "keep": 0.0}
    assert row["expected"] >= 0.38
    assert 0.0 <= row["probability"] <= 1.0
    assert answer.domains[1].weight >= 0.1
    assert main(["best", str(root)]) == 0
    assert "keep is expected at" in capsys.readouterr().out
    assert len(openclimb.open(root).ask(3)) == 3
    path.write_text(path.read_text().replace("{ keep = 0.4 }", "{ keeps = 0.4 }"))
    assert main(["best", str(root)]) == 1
    assert "'keeps', which is no task of the search (did you mean 'keep'?)" in complaint(capsys.readouterr().err)


def test_imported_runs_are_told_trials_and_a_second_import_adds_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios, metrics = tables(tmp_path)
    for new in (6, 0):
        assert main(["import", str(root), str(ratios), str(metrics)]) == 0
        assert f"6 runs, {new} of them new: trials 1 to 6" in capsys.readouterr().out
    trials = openclimb.open(root).trials()
    assert {(trial.role, trial.proposer, trial.state) for trial in trials} == {("external", "import", "done")}
    assert all(sum(trial.weights) == pytest.approx(1.0, abs=1e-12) for trial in trials)
    assert openclimb.open(root).best().trials == 6
    ratios, metrics = tables(tmp_path, 3, first=10)
    assert main(["import", str(root), str(ratios), str(metrics)]) == 0
    assert "3 of them new: trials 7 to 9" in capsys.readouterr().out


def test_two_runs_of_one_mixture_are_two_trials(root: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "r.csv", ["index", *NAMES], [["a", *[0.2] * 5], ["b", *[0.2] * 5]])
    write_csv(tmp_path / "m.csv", ["loss", "index"], [[3.5, "b"], [3.25, "a"]])
    found = openclimb.open(root).import_runs(tmp_path / "r.csv", tmp_path / "m.csv", losses=True)
    assert found.new == 2
    assert [trial.scores["loss"] for trial in found.trials] == [-3.25, -3.5]


GOOD = {"a": ["0.2"] * 5, "b": ["0.6", "0.1", "0.1", "0.1", "0.1"]}


@pytest.mark.parametrize(
    ("head", "weights", "metrics", "message"),
    [
        (["run", *NAMES[:4]], {"a": ["0.25"] * 4}, {"a": ["1"]}, f"no column for the domain '{NAMES[4]}'"),
        (["run", *NAMES, "web"], {"a": ["0.2"] * 5 + ["0"]}, {"a": ["1"]}, "'web', which is no domain"),
        (["run", *NAMES], {"a": ["0.21"] * 5}, {"a": ["1"]}, "sum to 1.05, not 1"),
        (["run", *NAMES], {"a": ["-0.2", "0.6", "0.2", "0.2", "0.2"]}, {"a": ["1"]}, "are negative"),
        (["run", *NAMES], GOOD, {"c": ["1"]}, "no run is in both tables"),
        (["run", *NAMES], GOOD, {"a": [""], "b": [""]}, "has no column of scores"),
        (["run", *NAMES], GOOD, {"a": ["1"], "": ["1"]}, "line 3, column 'run' is empty"),
        (["run", *NAMES], GOOD, {"a": ["1"], "b": ["nan"]}, "line 3, column 'piqa': 'nan' is not a finite number"),
        (["run", *NAMES], GOOD, {"a": ["1"], "b": ["true"]}, "column 'piqa': 'true' is not a finite number"),
        (["run", *NAMES], GOOD, {"a": ["1"], "b": ["high"]}, "column 'piqa': 'high' is not a finite number"),
        (["run", *NAMES], GOOD, {"a": ["1"], "b": ["1e999"]}, "'1e999' is not a finite number"),
        (["run", *NAMES], GOOD, {"a": ["1"], "b": ["-1e300"]}, "'-1e300' is out of range"),
        (["run", *NAMES], GOOD, {"a": ["45%"], "b": ["0.5"]}, "0.5 without a percent sign"),
        (["run", *NAMES], GOOD, {"a": ["1,234"], "b": ["2,345"]}, "commas or points come before decimals: 1,234"),
        (["run", *NAMES], {"a": ["0.3", "0.3", "0.2", "0.1", ""]}, {"a": ["1"]}, "sum to 0.9, not 1 (1 empty cell)"),
        (["run", *NAMES], {"a": ["inf"] * 5}, {"a": ["1"]}, "'inf' is not a finite number"),
        (["experiment", *NAMES], GOOD, {"a": ["1"], "b": ["1"]}, "share no column"),
        (["run", *NAMES], GOOD, {"a": ["1", "2"], "b": ["1"]}, "line 2 has 3 cells, not 2"),
        (["run", *NAMES], {}, {"a": ["1"]}, "has no rows"),
    ],
)
def test_tables_that_do_not_fit_add_nothing(
    head: list[str],
    weights: dict[str, list[str]],
    metrics: dict[str, list[str]],
    message: str,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_csv(tmp_path / "r.csv", head, [[name, *row] for name, row in weights.items()])
    write_csv(tmp_path / "m.csv", ["run", "piqa"], [[name, *row] for name, row in metrics.items()])
    assert main(["import", str(root), str(tmp_path / "r.csv"), str(tmp_path / "m.csv")]) == 1
    assert message in complaint(capsys.readouterr().err)
    assert openclimb.open(root).trials() == []


def test_an_import_that_contradicts_what_is_there_adds_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = openclimb.open(root)
    ratios, metrics = tables(tmp_path)
    opened.import_runs(ratios, metrics)
    ratios, _ = tables(tmp_path, 7)
    with open(metrics) as file:
        head, first, *rest = list(csv.reader(file))
    write_csv(metrics, head, [[first[0], "0.5", *first[2:]], *rest])
    assert main(["import", str(root), str(ratios), str(metrics)]) == 1
    assert "run 'run-0' was imported before as trial 1, with other scores" in complaint(capsys.readouterr().err)
    write_csv(metrics, ["run", "other"], [[row[0], "1"] for row in [first, *rest]])
    assert main(["import", str(root), str(ratios), str(metrics)]) == 1
    assert "'other', which no trial so far has" in complaint(capsys.readouterr().err)
    assert main(["import", str(root), str(ratios), str(tmp_path / "none.csv")]) == 1
    assert "is missing" in complaint(capsys.readouterr().err)
    assert len(opened.trials()) == 6


def test_run_and_export_say_that_there_is_no_corpus(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(root)]) == 0
    assert "nothing: the domains are given by hand" in capsys.readouterr().out
    for command in (["run"], ["export", "--tokens", "1K", "--out", str(tmp_path / "data")]):
        assert main([command[0], str(root), *command[1:]]) == 1
        message = complaint(capsys.readouterr().err)
        assert "has no corpus" in message
        assert "climb ask" in message
    assert main(["best", str(root)]) == 1
    assert "no trial has scores yet" in complaint(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,count\na,1\nb,2\n", "no column 'tokens'"),
        ("name,tokens\na,1\na,2\n", "has the domain 'a' twice"),
        ("name,tokens\na,1\n", "a mixture needs two"),
        ("name,tokens\na,1\nb,many\n", "'many' is not a count"),
        ("name,tokens\na,1\nb\n", "domain 'b', tokens"),
        ("name,tokens\na,1\nb,0\n", "'b' has no tokens"),
        ("name,tokens\na,1\n ,2\n", "line 3 has no name"),
        ("name,tokens\na,1\nb,2\n", "no mixture meets them"),
    ],
)
def test_a_file_of_domains_that_cannot_be_used_makes_no_workspace(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d.csv").write_text(text)
    assert main(["init", str(tmp_path / "run"), "--domains-file", str(tmp_path / "d.csv")]) == 1
    assert message in complaint(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_counts_may_have_suffixes_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("name, tokens\nweb, 40B\ncode, 1.5B\n")
    assert main(["init", str(tmp_path / "run"), "--domains-file", str(tmp_path / "d.csv")]) == 0
    assert "code,1500000000" in (tmp_path / "run" / "domains.csv").read_text()


def test_init_wants_a_corpus_or_domains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--corpus", "a.jsonl", "--domains-file", "d.csv"]):
        assert main(["init", str(tmp_path / "run"), *more]) == 1
        assert "either a corpus or a file of domains" in complaint(capsys.readouterr().err)


@pytest.mark.slow
def test_the_front_of_two_named_goals(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = root / "climb.toml"
    goals = '{ "left" = ["task-0", "task-1"], "right" = ["task-2"] }'
    settings.write_text(settings.read_text().replace("goals = {}", f"goals = {goals}"))
    openclimb.open(root).import_runs(*tables(tmp_path, 16))
    assert main(["best", str(root), "--pareto", "left", "right", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["goals"]) == ["left", "right"]
    assert found["trials"] == 16
    tokens = [domain.n_tokens for domain in PROBLEM.domains]
    for point in found["points"]:
        weights = np.array([point["weights"][name] for name in NAMES])
        assert weights.sum() == pytest.approx(1.0)
        assert (weights <= caps(tokens, sum(tokens), 4.0) + 1e-9).all()
    assert main(["best", str(root), "--pareto", "left", "right"]) == 0
    assert "the natural mixture" in capsys.readouterr().out
    assert main(["best", str(root), "--pareto", "left", "write"]) == 1
    assert "'write' is no goal" in complaint(capsys.readouterr().err)


def test_what_a_killed_command_left_among_the_trials_goes_with_the_next(root: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = root / "trials" / "0007" / f".trial.json.{writer().partition('-')[0]}-{ended.pid}.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    ratios, metrics = tables(tmp_path)
    openclimb.open(root).import_runs(ratios, metrics)
    assert not left.exists()
