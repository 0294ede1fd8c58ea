"""`climb ablate`: the table on an objective that is known, what is shared and resumed, and real proxies once."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from openclimb.cli.main import main
from openclimb.workspace.files import read_json
from openclimb.workspace.tables import read_rows
from openclimb.workspace.trials import read_trials

OVER = ["--over", "search.trials=[[5]]", "init=random", "--seeds", "3"]
SCORE = """
import os
from pathlib import Path

def score(trial, folder):
    calls = Path(os.environ["CALLS"])
    calls.write_text(calls.read_text() + f"{folder}\\n" if calls.exists() else f"{folder}\\n")
    if len(calls.read_text().splitlines()) > int(os.environ.get("MOST", "1000000")):
        raise KeyboardInterrupt
    a, b, c = trial.weights  # best: nearly all of a
    return {"task": a - 0.5 * a * a - b * b + 0.01 * (trial.seed % 7) + 1e-3 * (hash((a, trial.seed)) % 10) / 10}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished workspace without a corpus whose trials a function scores. Tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("ablate")
    (folder / "known_score.py").write_text(SCORE)
    (folder / "domains.csv").write_text("name,tokens\na,1000\nb,8000\nc,1000\n")
    sets = ["search.trials=[4, 2]", "search.predictor=gp", "selection.finalists=1", "selection.seeds=2"]
    words = [word for one in [*sets, "objective.kind=known_score:score"] for word in ("--set", one)]
    root = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("CALLS", str(folder / "calls"))
        given = ["--domains-file", str(folder / "domains.csv"), "--target-tokens", "1000"]
        assert main(["init", str(root), *given, *words]) == 0
        assert main(["run", str(root), "--quiet"]) == 0
    return root


@pytest.fixture
def calls(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the function notes the trials that it scored."""
    monkeypatch.syspath_prepend(str(base.parent))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def copy_of(base: Path, folder: Path) -> Path:
    return Path(shutil.copytree(base, folder / "run"))


@pytest.mark.usefixtures("calls")
def test_a_dry_run_says_what_it_takes_and_does_nothing(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy_of(base, tmp_path)
    assert main(["ablate", str(root), *OVER, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["search.trials = [5]", "init = random", "judge", "all, at most"]
    assert [int(line.split(" trials")[0].split()[-1]) for line in lines][2] == 3 * 5  # base, natural, uniform, variants
    assert not (root / "ablations").exists()
    assert main(["ablate", str(root), *OVER, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["judge"]["trials"] == 15


def test_the_table_and_nothing_twice(
    base: Path, tmp_path: Path, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy_of(base, tmp_path)
    assert main(["ablate", str(root), *OVER, "--quiet"]) == 0
    table = read_json(root / "ablations" / "ablations.json")
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == ["base", "search.trials = [5]", "init = random", "natural", "uniform"]
    assert rows["search.trials = [5]"]["search_trials"] < rows["base"]["search_trials"]
    judged = {trial.seed for trial in read_trials(root / "ablations" / "trials")}
    searched = {trial.seed for name in (".", "ablations/init-random") for trial in read_trials(root / name / "trials")}
    assert len(judged) == 3
    assert not judged & searched  # fresh seeds, the same for all
    natural = rows["natural"]["difference"]
    assert natural["mean"] == pytest.approx(rows["natural"]["score"] - rows["base"]["score"], abs=1e-3)
    assert natural["comparison"] == "worse"
    assert natural["interval"][0] < natural["mean"] < natural["interval"][1] < 0
    assert natural["p_holm"] >= natural["p"]
    assert "natural" in table["sentence"].partition("significantly worse: ")[2]
    assert table["judge"]["parameters"] is None
    lines = read_rows(root / "ablations" / "ablations.csv")
    assert [line["name"] for line in lines] == list(rows)
    assert float(lines[3]["minus_base"]) == pytest.approx(natural["mean"])
    figure = ET.parse(root / "ablations" / "ablations.svg").getroot()
    assert figure.tag.endswith("svg")
    capsys.readouterr()
    n = len(calls.read_text().splitlines())
    assert main(["ablate", str(root), *OVER]) == 0
    assert len(calls.read_text().splitlines()) == n
    assert "minus base" in capsys.readouterr().out
    assert read_json(root / "ablations" / "ablations.json") == table
    assert main(["ablate", str(root), "--over", "init=random", "--seeds", "3", "--quiet"]) == 0
    assert len(calls.read_text().splitlines()) == n
    assert read_json(root / "ablations" / "ablations.old-1.json") == table  # of another question
    assert len(read_json(root / "ablations" / "ablations.json")["rows"]) == 4


def test_an_ablation_that_was_stopped_goes_on(
    base: Path, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_of(base, tmp_path)
    for most in ("3", "14", "30"):  # in a variant's search and in the judge's trials
        monkeypatch.setenv("MOST", most)
        assert main(["ablate", str(root), *OVER, "--quiet"]) == 130
    monkeypatch.delenv("MOST")
    assert main(["ablate", str(root), *OVER, "--quiet"]) == 0
    scored = calls.read_text().splitlines()
    twice = [one for one in set(scored) if scored.count(one) > 1]
    assert len(twice) <= 3  # those that were running when it was stopped
    whole = copy_of(base, tmp_path / "whole")
    assert main(["ablate", str(whole), *OVER, "--quiet"]) == 0
    assert read_json(root / "ablations" / "ablations.json") == read_json(whole / "ablations" / "ablations.json")


@pytest.mark.usefixtures("calls")
def test_an_answer_that_is_the_same_mixture_counts_once(base: Path, tmp_path: Path) -> None:
    root = copy_of(base, tmp_path)
    over = ["--over", "selection.seeds=3", "--seeds", "3", "--quiet"]  # the same search
    assert main(["ablate", str(root), *over]) == 0
    rows = {row["name"]: row for row in read_json(root / "ablations" / "ablations.json")["rows"]}
    same = rows["selection.seeds = 3"]
    assert same["same_as"] == "base"
    assert same["score"] == rows["base"]["score"]
    assert same["difference"] is None
    assert len(read_trials(root / "ablations" / "trials")) == 3 * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--over", "clusters.k"], "--over clusters.k is not understood"),
        (["--over", "search.trials=5,6"], "is no list of values"),
        (["--over", "clusters.q=5"], "no setting 'clusters.q' (did you mean 'clusters.k'"),
        (["--over", "init=random", "--seeds", "1"], "1 seeds cannot judge"),
        (["--over", "init=random", "--judge-size", "3M"], "proxy.size = '3M' is not known"),
        (["--over", "init=random", "--judge-tokens", "many"], "'many' is not a count"),
    ],
)
@pytest.mark.usefixtures("calls")
def test_options_that_make_no_sense_are_told(
    options: list[str], message: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", str(base), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (base / "ablations").exists()


@pytest.mark.usefixtures("calls")
def test_without_an_answer_there_is_no_base(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = copy_of(base, tmp_path)
    shutil.rmtree(root / "mixture")
    assert main(["ablate", str(root), *OVER]) == 1
    assert "has no mixture yet" in capsys.readouterr().err


@pytest.mark.slow
def test_real_proxies_are_judged_on_their_own_domains(finished: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "run"))
    over = ["--over", "domains.merge_to=3", "--seeds", "2", "--judge-tokens", "12K"]
    assert main(["ablate", str(root), *over, "--quiet"]) == 0
    table = read_json(root / "ablations" / "ablations.json")
    rows = {row["name"]: row for row in table["rows"]}
    assert [row["domains"] for row in table["rows"]] == [4, 3, 4, 4]
    assert table["judge"]["token_budget"] == 12_000
    assert table["has_items"]
    trials = read_trials(root / "ablations" / "trials")
    assert {trial.token_budget for trial in trials} == {12_000}
    assert len({trial.data for trial in trials}) == 2  # tokens of four domains and of three
    by_domains = {len(trial.domains): trial for trial in trials}
    folders = [root / "ablations" / "trials" / f"{by_domains[n].number:04d}" for n in (3, 4)]
    items = [{name: len(one) for name, one in np.load(folder / "items.npz").items()} for folder in folders]
    assert items[0] == items[1]  # the same items of the same tasks
    assert (
        rows["domains.merge_to = 3"]["difference"]["interval"][0] < rows["domains.merge_to = 3"]["difference"]["mean"]
    )
    there = root / "ablations" / "domains.merge_to-3"
    assert (there / "labels" / "record.json").samefile(root / "labels" / "record.json")  # not made again
    assert not (there / "domains" / "record.json").samefile(root / "domains" / "record.json")
    assert not list((root / "ablations").glob("tokens-*"))
