"""`climb scaling` on a loss whose law is known: gains, multipliers, the law, what is resumed and refused."""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from openclimb.cli.main import main
from openclimb.workspace.files import read_json
from openclimb.workspace.tables import read_rows
from openclimb.workspace.trials import read_trials

TOKENS = ["--tokens", "1M,2M,4M,8M,16M"]
SCORE = """
import os
from pathlib import Path
import numpy as np

def score(trial, folder):
    calls = Path(os.environ["CALLS"])
    calls.write_text(calls.read_text() + "." if calls.exists() else ".")
    a, b, c = trial.weights
    better = 2.0 ** (-0.5 * (a - 0.1) / 0.6)  # a weight of .7 halves B for b = 0.5: worth 4 times the tokens
    luck = np.random.default_rng([trial.seed, trial.token_budget, int(1e6 * a)]).standard_normal()
    return {"task": -(1.0 + 2.0 * better * (trial.token_budget / 1e6) ** -0.5) + 0.002 * luck}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished workspace without a corpus whose trials a function scores. Tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("scaling")
    (folder / "known_law.py").write_text(SCORE)
    (folder / "domains.csv").write_text("name,tokens\na,1000\nb,8000\nc,1000\n")
    sets = ["search.trials=[4, 2]", "search.predictor=gp", "selection.finalists=1", "selection.seeds=2"]
    sets += ["objective.kind=known_law:score", "proxy.token_budget=1M"]
    words = [word for one in sets for word in ("--set", one)]
    root = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("CALLS", str(folder / "calls"))
        given = ["--domains-file", str(folder / "domains.csv"), "--target-tokens", "1000"]
        assert main(["init", str(root), *given, *words]) == 0
        assert main(["run", str(root), "--quiet"]) == 0
    (folder / "mine.csv").write_text("domain,weight\na,0.7\nb,0.3\n")
    return root


@pytest.fixture
def calls(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the function notes the trials that it scored."""
    monkeypatch.syspath_prepend(str(base.parent))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def curve_of(table: dict[str, Any], mixture: str) -> dict[str, Any]:
    return dict(next(curve for curve in table["curves"] if curve["mixture"] == mixture))


def test_a_known_law_comes_out(base: Path, tmp_path: Path, calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = shutil.copytree(base, tmp_path / "run")
    options = [*TOKENS, "--mixture", str(base.parent / "mine.csv"), "--seeds", "4"]
    assert main(["scaling", str(root), *options, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "natural needs" in said
    table = read_json(root / "scaling" / "scaling.json")
    assert [point["mixture"] for point in table["points"]][:4] == ["found", "natural", "uniform", "mine"]
    mine = curve_of(table, "mine")
    assert [one["tokens"] for one in mine["multipliers"]] == [1e6, 2e6, 4e6, 8e6, 16e6]
    for one in mine["multipliers"][:3]:  # worth twice the tokens: B is 1/√2 of natural's, and b = 1/2
        assert one["value"] == pytest.approx(2.0, rel=0.05)
        assert one["low"] <= one["value"] <= one["high"]
    assert mine["multipliers"][-1]["value"] is None  # beyond what natural was trained on
    assert mine["multipliers"][-1]["most"] == 1.0
    for name, true in (("E", 1.0), ("b", 0.5)):
        value, low, high = mine["law"]["parameters"][name]
        assert value == pytest.approx(true, rel=0.1)
        assert low < true < high
    assert curve_of(table, "natural")["multipliers"] == []
    gain = next(point["gain"] for point in table["points"] if point["mixture"] == "mine")
    assert gain["mean"] == pytest.approx(2.0 * (1 - 2**-0.5), rel=0.05)
    assert gain["comparison"] == "better"
    rows = read_rows(root / "scaling" / "scaling.csv")
    assert len(rows) == len(table["points"]) == 20
    assert ET.parse(root / "scaling" / "scaling.svg").getroot().tag.endswith("svg")

    n = len(calls.read_text())
    assert n == 20 * 4
    assert main(["scaling", str(root), *options, "--quiet"]) == 0
    assert len(calls.read_text()) == n  # nothing twice
    assert read_json(root / "scaling" / "scaling.json") == table
    assert main(["scaling", str(root), "--tokens", "1M,2M,3M", "--seeds", "4", "--quiet"]) == 0
    assert len(calls.read_text()) == n + 3 * 4  # one more budget, of three mixtures
    assert read_json(root / "scaling" / "scaling.old-1.json") == table
    assert "3 token budgets cannot identify a law" in capsys.readouterr().out


@pytest.mark.usefixtures("calls")
def test_a_dry_run_does_nothing(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scaling", str(base), *TOKENS, "--sizes", "own,2M", "--seeds", "2", "--dry-run"]) == 0
    own, larger, whole = capsys.readouterr().out.splitlines()
    assert own.split()[:2] == ["own", "30"]
    assert larger.split()[:2] == ["2M", "30"]
    assert whole.startswith("all, at most")
    assert not (base / "scaling").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", "1M", "--sizes", "3M"], "size '3M' is not known (did you mean"),
        (["--tokens", "1M", "--seeds", "1"], "1 seeds cannot tell"),
        (["--tokens", "1M,1M"], "named once each"),
        (["--tokens", ","], "no token budget or size"),
        (["--tokens", "1M", "--against", "olmix"], "no mixture 'olmix' of this answer's validation"),
    ],
)
@pytest.mark.usefixtures("calls")
def test_options_that_make_no_sense_are_told(
    options: list[str], message: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scaling", str(base), *options]) == 1
    assert message in capsys.readouterr().err
    assert not read_trials(base / "scaling" / "trials")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("domain,weight\na,0.5\nd,0.5\n", "no domain 'd'"),
        ("domain,weight\na,half\n", "is no number: half"),
        ("domain,weight\na,0.5\nb,0.2\n", "their sum is 0.7"),
        ("domain,weight\na,1.5\nb,-0.5\n", "no mixture"),
    ],
)
@pytest.mark.usefixtures("calls")
def test_a_file_that_is_no_mixture_is_told(
    text: str, message: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.csv").write_text(text)
    assert main(["scaling", str(base), "--tokens", "1M", "--mixture", str(tmp_path / "wrong.csv")]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_real_proxies_of_two_sizes_and_a_validated_mixture(finished: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "run"))
    assert main(["validate", str(root), "--against", "best-of-n", "--seeds", "2", "--quiet"]) == 0
    options = ["--tokens", "4K,12K", "--against", "best-of-n", "--seeds", "2", "--quiet"]
    assert main(["scaling", str(root), *options]) == 0
    table = read_json(root / "scaling" / "scaling.json")
    assert list(table["weights"]) == ["found", "natural", "best-of-n"]
    validated = read_json(root / "validation" / "validation.json")["rows"]
    assert table["weights"]["best-of-n"] == validated[1]["weights"]
    assert {point["parameters"] for point in table["points"]} == {validated and table["points"][0]["parameters"]}
    assert {trial.token_budget for trial in read_trials(root / "scaling" / "trials")} == {4_000, 12_000}
    assert not list((root / "scaling").glob("tokens-*"))
