"""The setting `search.hint` in a real small workspace: a run, ask and best with hints, made once."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import openclimb
from openclimb.cli import main
from openclimb.corpus.domains_file import read_domains
from openclimb.hints import HINTERS, N_HINTS, with_hints
from openclimb.search.hint import ROLE
from openclimb.search.region import allowed, region_of
from openclimb.search.required import required_of
from openclimb.search.reuse import without_old
from openclimb.stages import current_recipes


def set_hint(root: Path, name: str) -> None:
    path = root / "climb.toml"
    lines = path.read_text().splitlines()
    path.write_text("".join(f'hint = "{name}"\n' if line.startswith("hint = ") else line + "\n" for line in lines))


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A finished workspace, searched with bigrams, to be changed."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_with_hints_keeps_its_trials_and_says_what_the_forecast_rests_on(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n_before = len(list((copy / "trials").iterdir()))
    set_hint(copy, "trigram")
    assert main(["run", str(copy), "--quiet"]) == 1  # another search: the answer is stale
    assert "search.hint" in capsys.readouterr().err
    assert main(["run", str(copy), "--quiet", "--redo", "mixture"]) == 0
    hints = json.loads((copy / "iterations" / "hints.json").read_text())
    assert len(hints["weights"]) == N_HINTS
    assert set(hints["scores"]) == {"stories", "speech"}
    rows = np.array(hints["weights"])
    assert allowed(rows, region_of(read_domains(copy / "domains"))).all()
    assert all(np.std(scores) > 0.01 for scores in hints["scores"].values())
    diagnostics = json.loads((copy / "iterations" / "00" / "diagnostics.json").read_text())
    assert all("× hint" in said for said in diagnostics["predictor"].values())
    numbers = [int(path.name) for path in (copy / "trials").iterdir()]
    assert diagnostics["trials"] == [1, 2, 3, 4]  # the first batch is the same, and trained once
    assert len(numbers) >= n_before
    assert not any(ROLE in path.read_text() for path in (copy / "trials").glob("*/trial.json"))
    report = main(["report", str(copy)])
    assert report == 0


@pytest.mark.parametrize("name", HINTERS)
def test_hints_are_made_once_and_again_for_other_constraints(copy: Path, name: str) -> None:
    set_hint(copy, name)
    opened = openclimb.open(copy)
    domains = read_domains(copy / "domains")
    plain = without_old(domains, required_of(opened.config))
    path = copy / "iterations" / "hints.json"
    made = with_hints(plain, copy, opened.config, domains)
    before = path.stat().st_mtime_ns
    assert with_hints(plain, copy, opened.config, domains).hints == made.hints
    assert path.stat().st_mtime_ns == before
    first = domains[0].name
    text = (copy / "climb.toml").read_text()
    (copy / "climb.toml").write_text(text.replace("cap = {}", f'cap = {{ "{first}" = 0.1 }}'))
    again = with_hints(plain, copy, openclimb.open(copy).config, domains)
    assert max(hint.mixture.as_dict()[first] for hint in again.hints) <= 0.1 + 1e-6
    assert {trial.role for trial in again.hints} == {ROLE}


def test_ask_and_best_know_the_hints(copy: Path) -> None:
    set_hint(copy, "")
    plain = openclimb.open(copy).best()
    set_hint(copy, "bigram")
    opened = openclimb.open(copy)
    best = opened.best()
    assert best["trials"] == plain["trials"]
    assert best["expected"] != pytest.approx(plain["expected"], abs=1e-12)
    assert len(opened.ask(2)) == 2


def test_without_a_hint_nothing_is_made_and_recipes_stay_as_they_were(copy: Path) -> None:
    set_hint(copy, "")
    (copy / "iterations" / "hints.json").unlink()
    opened = openclimb.open(copy)
    domains = read_domains(copy / "domains")
    plain = without_old(domains, required_of(opened.config))
    assert with_hints(plain, copy, opened.config, domains) is plain
    assert not (copy / "iterations" / "hints.json").exists()
    assert "search.hint" not in current_recipes(opened.workspace, opened.config)["mixture"].settings


def test_before_the_tokens_are_packed_there_is_no_hint(copy: Path) -> None:
    set_hint(copy, "bigram")
    shutil.rmtree(copy / "tokens")
    opened = openclimb.open(copy)
    domains = read_domains(copy / "domains")
    plain = without_old(domains, required_of(opened.config))
    assert with_hints(plain, copy, opened.config, domains) is plain
