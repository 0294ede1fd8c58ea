"""`climb validate`: the table, its accounting, resumption, staleness, and what it refuses."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openclimb
from openclimb.baselines import best_of_n
from openclimb.baselines.baseline import Baseline
from openclimb.baselines.recipe import recipe_rounds
from openclimb.cli.main import main
from openclimb.config.load import with_changes
from openclimb.config.scales import preset
from openclimb.validation.compare import DEFAULT, target_of
from openclimb.validation.judge import Judgement, sentence
from openclimb.workspace.files import read_json
from openclimb.workspace.results import MarginRow, TargetModel, ValidationRow
from openclimb.workspace.trials import read_trials

ALL = ("found", "natural", "uniform", "best-of-n", "olmix", "doremi")
TARGET = ["--set", "proxy.width=48", "--token-budget", "12K", "--seeds", "2"]
MINE = Baseline(best_of_n.propose, lambda spec, _seen, _rng: np.eye(len(spec.domains))[0])  # all of the first domain
AGAINST = ["--against", ",".join(ALL[1:])]


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ({"width": 192}, 1.87e-3),
        ({"depth": 4}, 5.3e-3),
        ({"width": 192, "learning_rate": 1e-3}, 1e-3),
        ({"size": "2M"}, 2.02e-3),
        ({"width": 192, "checkpoint": "folder"}, 5.3e-3),
    ],
)
def test_a_wider_target_has_its_own_learning_rate(given: dict[str, Any], rate: float) -> None:
    laptop = with_changes(preset("laptop"), {"proxy": {"checkpoint": given.pop("checkpoint", "")}})
    assert target_of(laptop, given).proxy.learning_rate == pytest.approx(rate, rel=2e-3)


@pytest.fixture(scope="module")
def validated(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished workspace with a validation of a larger target. Tests that change it copy it first."""
    root = shutil.copytree(finished, tmp_path_factory.mktemp("validated") / "run")
    assert main(["validate", str(root), "--quiet", *AGAINST, *TARGET]) == 0
    return root


def table_of(root: Path) -> dict[str, Any]:
    return dict(read_json(root / "validation" / "validation.json"))


def test_the_table_has_every_mixture_and_what_its_search_cost(validated: Path) -> None:
    table = table_of(validated)
    rows = {row["name"]: row for row in table["rows"]}
    assert tuple(rows) == ALL
    answer = openclimb.open(validated).mixture()
    assert rows["found"]["weights"] == {row.name: row.weight for row in answer.domains}
    caps = {row.name: row.cap for row in answer.domains}
    budget = openclimb.open(validated).config.proxy.token_budget
    rounds = {row.seed for row in answer.rounds}
    claimed = next(row.trials for row in answer.mixtures if row.name == answer.choice)
    ours = [
        trial
        for trial in openclimb.open(validated).trials()
        if trial.role == "search" or trial.seed in rounds or trial.number in claimed
    ]
    assert rows["found"]["search_tokens"] == len(ours) * budget
    for name in ("best-of-n", "olmix"):
        assert rows[name]["search_trials"] == len(ours)
        assert rows[name]["search_tokens"] == rows["found"]["search_tokens"]
    assert rows["natural"]["search_tokens"] == 0
    assert 0 < rows["doremi"]["search_tokens"] <= rows["found"]["search_tokens"]
    for row in rows.values():
        assert sum(row["weights"].values()) == pytest.approx(1.0)
        assert all(row["weights"][name] <= cap + 1e-6 for name, cap in caps.items())
        assert len(row["by_seed"]) == 2
    assert table["target"]["token_budget"] == 12_000
    assert table["target"]["parameters"] > 48 * 512
    assert -1.0 <= table["rank_correlation"] <= 1.0
    assert sum(row["probability_best"] for row in rows.values()) == pytest.approx(1.0)


def test_targets_are_judged_on_report_items(validated: Path) -> None:
    table = table_of(validated)
    row = next(row for row in table["rows"] if row["name"] == "uniform")
    targets = [trial for trial in read_trials(validated / "validation" / "trials") if trial.token_budget == 12_000]
    mine = [trial for trial in targets if trial.mixture.as_dict() == row["weights"]]
    assert len(mine) == 2
    folders = [validated / "validation" / "trials" / f"{trial.number:04d}" for trial in mine]
    means = []
    for folder in folders:
        report = read_json(folder / "scores.json")["report"]
        means.append(-sum(share * report[task]["bpb"] for task, share in table["objective"]["tasks"].items()))
    assert sorted(row["by_seed"]) == pytest.approx(sorted(means), abs=1e-5)
    assert min(means) < row["score"] < max(means)


def test_the_report_shows_it(validated: Path) -> None:
    page = openclimb.open(validated).report().read_text()
    assert "<h2>As targets</h2>" in page
    assert 'id="validation"' in page
    assert "is of an earlier mixture" not in page
    assert len((validated / "validation" / "validation.csv").read_text().splitlines()) == 1 + len(ALL)


def test_the_same_again_does_nothing_and_other_options_are_told(
    validated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(validated, tmp_path / "run")
    before = table_of(root)
    assert main(["validate", str(root), "--quiet", *AGAINST, *TARGET]) == 0
    assert table_of(root) == before
    capsys.readouterr()
    assert main(["validate", str(root), "--quiet", "--against", "natural", *TARGET]) == 1
    said = capsys.readouterr().err
    assert "against:" in said
    assert "--redo" in said
    n = len(read_trials(root / "validation" / "trials"))
    assert main(["validate", str(root), "--quiet", "--redo", "--against", "natural", *TARGET]) == 0
    assert "the found mixture" in capsys.readouterr().out
    assert len(read_trials(root / "validation" / "trials")) == n
    assert (root / "validation.old-1" / "validation.json").is_file()
    again = table_of(root)
    assert [row["by_seed"] for row in again["rows"]] == [row["by_seed"] for row in before["rows"][:2]]


def test_a_validation_of_another_mixture_is_not_served(
    validated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(validated, tmp_path / "run")
    path = root / "climb.toml"
    path.write_text(path.read_text().replace("finalists = 1", "finalists = 2"))
    assert main(["validate", str(root), "--quiet", *AGAINST, *TARGET]) == 1
    assert "selection.finalists" in capsys.readouterr().err
    assert main(["run", str(root), "--quiet", "--redo", "mixture"]) == 0
    assert not (root / "validation").exists()
    shutil.copytree(root / "validation.old-1", root / "validation")
    assert "is of an earlier mixture" in openclimb.open(root).report().read_text()
    assert main(["validate", str(root), "--quiet", *AGAINST, *TARGET]) == 1
    assert "its input: mixture/" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_validation_goes_on_to_the_same_table(validated: Path, finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    command = [sys.executable, "-m", "openclimb.cli.main", "validate", str(root), "--quiet", *AGAINST, *TARGET]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 300
        while len(list(root.glob("validation.partial/trials/*/scores.json"))) < 12:
            if time.monotonic() > deadline:
                process.kill()
                pytest.fail("too few trials in time")
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (root / "validation").exists()
    assert main(command[3:]) == 0
    assert table_of(root) == table_of(validated)


@pytest.mark.slow
def test_the_proxys_own_shape_needs_no_other_tokens(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    table = openclimb.open(root).validate(seeds=2)
    assert [row.name for row in table.rows] == ["found", "natural", "uniform", "best-of-n", "regmix", "olmix"]
    ours, *_, regmix, olmix = table.rows
    n = ours.search_trials
    assert n == olmix.search_trials == regmix.search_trials
    assert f"{n} trials, as many as our search took, are too few for recipe (at least 22)." in table.sentence
    trials = read_trials(root / "validation" / "trials")
    # A mixture that another baseline drew first is trained once, and counted for both.
    assert n // 2 < sum(trial.proposer == "regmix" for trial in trials) <= regmix.search_trials
    draws = [trial.weights for trial in trials if trial.proposer == "regmix"]
    assert tuple(regmix.weights.values()) not in draws  # the mean of the best candidates, not the best draw
    assert sum(regmix.weights.values()) == pytest.approx(1.0)
    assert table.rank_correlation is None
    assert all(row.proxy_score is None for row in table.rows)


def test_a_baseline_that_cannot_learn_from_so_few_trials_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(finished), "--against", "natural,recipe"]) == 1
    said = capsys.readouterr().err
    assert "recipe cannot learn from" in said
    assert "it needs 22" in said
    assert "leave recipe out" in said
    assert not (finished / "validation.partial").exists()


@pytest.mark.slow
def test_all_but_doremi_are_compared_by_default_and_the_recipe_plays_its_own_rounds(tmp_path: Path) -> None:
    (tmp_path / "domains.csv").write_text("name,tokens\na,900\nb,500\nc,300\n")
    text = (
        "import json, os, random\n"
        "asked = json.load(open(os.environ['CLIMB_TRIAL']))\n"
        "random.seed(str(asked['mixture']) + str(asked['seed']))\n"
        "score = sum(w ** 0.5 for w in asked['mixture'].values()) + 0.01 * random.random()\n"
        "json.dump({'spread': score}, open(os.path.join(asked['output'], 'scores.json'), 'w'))\n"
    )
    (tmp_path / "train.py").write_text(text)
    sets = ["search.trials=[17, 6]", "selection.finalists=1", "selection.seeds=2"]
    words = [word for one in (*sets, f"objective.command={sys.executable} -S ../train.py") for word in ("--set", one)]
    root = tmp_path / "run"
    given = ["--domains-file", str(tmp_path / "domains.csv"), "--target-tokens", "1000"]
    assert main(["init", str(root), *given, *words]) == 0
    assert main(["run", str(root), "--quiet"]) == 0
    assert main(["validate", str(root), "--quiet", "--seeds", "2"]) == 0
    table = table_of(root)
    assert [row["name"] for row in table["rows"]] == ["found", *DEFAULT]
    assert "too few" not in table["sentence"]
    n = table["rows"][0]["search_trials"]
    assert all(row["search_trials"] == n for row in table["rows"] if row["name"] not in ("natural", "uniform"))
    theirs = [trial for trial in read_trials(root / "validation" / "trials") if trial.proposer == "recipe"]
    rounds = [sum(trial.iteration == i for trial in theirs) for i in range(3)]
    assert tuple(rounds[1:]) == recipe_rounds(n)[1:]
    assert 0 < rounds[0] <= recipe_rounds(n)[0]  # draws that regmix had, too, were trained under its name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--against", "naturall"], "'naturall' is not known (did you mean 'natural'?)"),
        (["--against", "natural,natural"], "named once each"),
        (["--seeds", "1"], "1 seeds cannot tell"),
        (["--set", "proxy.width=50", "--set", "proxy.heads=4"], "an even multiple"),
        (["--set", "proxy.wide=50"], "unknown setting 'wide'"),
        (["--set", "search.trials=[1]"], "only settings of [proxy]"),
    ],
)
def test_options_that_make_no_sense_are_told(
    options: list[str], message: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(finished), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (finished / "validation.partial").exists()


def test_without_a_mixture_there_is_nothing_to_validate(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(root / "mixture")
    assert main(["validate", str(root)]) == 1
    assert "has no mixture yet" in capsys.readouterr().err


def test_a_command_validates_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "domains.csv").write_text("name,tokens\na,900\nb,500\nc,300\n")
    text = (
        "import json, os, pathlib\n"
        "asked = json.loads(pathlib.Path(os.environ['CLIMB_TRIAL']).read_text())\n"
        "score = sum(w ** 0.5 for w in asked['mixture'].values())\n"
        "score += asked['token_budget'] * 1e-6 + asked['seed'] * 1e-5\n"
        "pathlib.Path(asked['output'], 'scores.json').write_text(json.dumps({'spread': score}))\n"
    )
    (tmp_path / "train.py").write_text(text)
    sets = [
        "search.trials=[3, 2]",
        "selection.finalists=1",
        "selection.seeds=2",
        f"objective.command={sys.executable} ../train.py",
    ]
    words = [word for one in sets for word in ("--set", one)]
    given = ["--domains-file", str(tmp_path / "domains.csv"), "--target-tokens", "1000"]
    root = tmp_path / "run"
    assert main(["init", str(root), *given, *words]) == 0
    assert main(["run", str(root), "--quiet"]) == 0
    assert main(["validate", str(root), "--against", "doremi"]) == 1
    assert "leave it out" in capsys.readouterr().err
    options = ["--against", f"natural,best-of-n,{__name__}:MINE", "--seeds", "2", "--token-budget", "2M", "--json"]
    assert main(["validate", str(root), *options]) == 0
    completed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    table = next(event for event in completed if event.get("event") == "validation")
    assert table["target"] == {"parameters": None, "token_budget": 2_000_000}
    assert "report items" not in table["sentence"]
    rows = {row["name"]: row for row in table["rows"]}
    assert next(iter(rows[f"{__name__}:MINE"]["weights"].values())) == 1.0
    assert rows[f"{__name__}:MINE"]["search_trials"] == rows["best-of-n"]["search_trials"]

    trainer = tmp_path / "train.py"
    text = trainer.read_text()
    found = {row.name: row.weight for row in openclimb.open(root).mixture().domains}
    fault = f"if asked['token_budget'] == 3_000_000 and asked['mixture'] == {found}:\n    raise SystemExit(3)\n"
    trainer.write_text(text + fault)
    options[options.index("2M")] = "3M"
    assert main(["validate", str(root), *options, "--redo"]) == 1
    trainer.write_text(text)
    assert main(["validate", str(root), *options]) == 1
    assert "no target of the found mixture has scores" in capsys.readouterr().err
    assert main(["validate", str(root), *options, "--retry"]) == 0


def test_a_mixture_under_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "domains.csv").write_text("name,tokens\na,500\nb,500\nc,500\n")
    text = (
        "import json, os, pathlib, random\n"
        "asked = json.loads(pathlib.Path(os.environ['CLIMB_TRIAL']).read_text())\n"
        "random.seed(str(asked['mixture']) + str(asked['seed']))\n"
        "score = sum(w ** 0.5 for w in asked['mixture'].values()) + 0.01 * random.random()\n"
        "pathlib.Path(asked['output'], 'scores.json').write_text(json.dumps({'spread': score}))\n"
    )
    (tmp_path / "train.py").write_text(text)
    sets = [
        "search.trials=[3]",
        "selection.finalists=1",
        "selection.seeds=2",
        f"objective.command={sys.executable} ../train.py",
    ]
    words = [word for one in sets for word in ("--set", one)]
    root = tmp_path / "run"
    given = ["--domains-file", str(tmp_path / "domains.csv"), "--target-tokens", "1000"]
    assert main(["init", str(root), *given, *words]) == 0
    assert main(["run", str(root), "--quiet"]) == 0
    answer = openclimb.open(root).mixture()
    assert answer.trials["failed"] == 0
    assert answer.choice == "natural"  # an equal share is best
    tables = {}
    for against in ("natural,uniform,best-of-n", "best-of-n"):
        assert main(["validate", str(root), "--against", against, "--seeds", "3", "--quiet", "--redo"]) == 0
        tables[against] = read_json(root / "validation" / "validation.json")
    with_twins, plain = ({row["name"]: row for row in table["rows"]} for table in tables.values())
    assert with_twins["best-of-n"]["margin"] == plain["best-of-n"]["margin"]
    assert with_twins["natural"]["same_mixture"]
    assert with_twins["uniform"]["same_mixture"]
    assert with_twins["uniform"]["score"] == with_twins["found"]["score"]


def row(name: str, comparison: str = "", same_mixture: bool = False) -> ValidationRow:
    margin = MarginRow(0.01, [-0.01, 0.03], 0.1, 0.1, comparison) if comparison else None
    return ValidationRow(name, {}, 0, 0, None, None, [], None, 0.0, margin, same_mixture)


def test_the_sentence_says_where_ours_does_not_win() -> None:
    rows = [
        row("found"),
        row("natural", "beaten"),
        row("regmix", "better"),
        row("doremi", "not significant"),
        row("uniform", same_mixture=True),
        row("recipe"),
    ]
    assert sentence(Judgement(3, None, rows), TargetModel(2_500_000, 4_000_000), has_items=True) == (
        "Trained as a target (2.5M parameters, 4M tokens, 3 seeds) and judged on report items, the found mixture "
        "beats natural (+0.0100, -0.0100 to +0.0300): significant at 5 % after Holm; it loses to regmix (+0.0100, "
        "-0.0100 to +0.0300): significant at 5 % after Holm; it differs from doremi (+0.0100, -0.0100 to +0.0300): not "
        "significant; it is the same mixture as uniform. No target of recipe has scores."
    )
