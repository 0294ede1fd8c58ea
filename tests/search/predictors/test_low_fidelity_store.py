"""The setting `search.low_fidelity` in a real small workspace: a run, ask and best with such scores, made once."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.config.registry import names
from openclimb.corpus.domains import read_domains
from openclimb.search.predictors.low_fidelity_store import N_MIXTURES, low_fidelity
from openclimb.search.space.region import allowed, region_of
from openclimb.testing.fixtures import complaint
from openclimb.workspace.observations import LOW_FIDELITY


def set_low_fidelity(root: Path, name: str) -> None:
    path = root / "climb.toml"
    lines = path.read_text().splitlines()
    path.write_text(
        "".join(f'low_fidelity = "{name}"\n' if line.startswith("low_fidelity = ") else line + "\n" for line in lines)
    )


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A finished workspace, searched with bigrams, to be changed."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_with_hints_keeps_its_trials_and_says_what_the_forecast_rests_on(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n_before = len(list((copy / "trials").iterdir()))
    set_low_fidelity(copy, "trigram")
    assert main(["run", str(copy), "--quiet"]) == 1  # another search: the answer is stale
    assert "search.low_fidelity" in capsys.readouterr().err
    assert main(["run", str(copy), "--quiet", "--redo", "mixture"]) == 0
    low_fidelity = json.loads((copy / "iterations" / "low_fidelity.json").read_text())
    assert len(low_fidelity["weights"]) == N_MIXTURES
    assert set(low_fidelity["scores"]) == {"stories", "speech"}
    rows = np.array(low_fidelity["weights"])
    assert allowed(rows, region_of(read_domains(copy / "domains"))).all()
    assert all(np.std(scores) > 0.01 for scores in low_fidelity["scores"].values())
    diagnostics = json.loads((copy / "iterations" / "00" / "diagnostics.json").read_text())
    assert all("× low-fidelity" in said for said in diagnostics["predictor"].values())
    numbers = [int(path.name) for path in (copy / "trials").iterdir()]
    assert diagnostics["trials"] == [1, 2, 3, 4]  # the first batch is the same, and trained once
    assert len(numbers) >= n_before
    assert len(list((copy / "trials").glob("*/trial.json"))) == len(numbers)  # cheap scores are no trials
    report = main(["report", str(copy)])
    assert report == 0


@pytest.mark.parametrize("name", names("low_fidelity"))
def test_hints_are_made_once_and_again_for_other_constraints(copy: Path, name: str) -> None:
    set_low_fidelity(copy, name)
    opened = openclimb.open(copy)
    domains = read_domains(copy / "domains")
    path = copy / "iterations" / "low_fidelity.json"
    made = low_fidelity(copy, opened.config, domains)
    before = path.stat().st_mtime_ns
    assert low_fidelity(copy, opened.config, domains) == made
    assert path.stat().st_mtime_ns == before
    first = domains[0].name
    text = (copy / "climb.toml").read_text()
    (copy / "climb.toml").write_text(text.replace("cap = {}", f'cap = {{ "{first}" = 0.1 }}'))
    again = low_fidelity(copy, openclimb.open(copy).config, domains)
    assert max(low_fidelity.mixture.as_dict()[first] for low_fidelity in again) <= 0.1 + 1e-6
    assert {one.source for one in again} == {LOW_FIDELITY}


def test_ask_and_best_know_the_hints(copy: Path) -> None:
    set_low_fidelity(copy, "")
    plain = openclimb.open(copy).best()
    set_low_fidelity(copy, "bigram")
    opened = openclimb.open(copy)
    best = opened.best()
    assert best.trials == plain.trials
    assert best.expected != pytest.approx(plain.expected, abs=1e-12)
    assert len(opened.ask(2)) == 2


def test_without_low_fidelity_scores_nothing_is_made(copy: Path) -> None:
    set_low_fidelity(copy, "")
    (copy / "iterations" / "low_fidelity.json").unlink()
    opened = openclimb.open(copy)
    domains = read_domains(copy / "domains")
    assert low_fidelity(copy, opened.config, domains) == []
    assert not (copy / "iterations" / "low_fidelity.json").exists()


def test_hints_from_fewer_tokens_than_were_packed_are_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_low_fidelity(copy, "bigram")
    (copy / "iterations" / "low_fidelity.json").unlink(missing_ok=True)
    packed = max((copy / "tokens").glob("*.bin"), key=lambda path: path.stat().st_size)
    packed.write_bytes(packed.read_bytes()[:-20])
    assert main(["ask", str(copy), "-n", "1"]) == 1
    said = complaint(capsys.readouterr().err)
    assert (
        f"tokens/{packed.name}: 10 of {packed.stat().st_size // 2 + 10} packed tokens cannot be read any more" in said
    )
    assert "climb run DIR --redo tokens" in said


def test_before_the_tokens_are_packed_there_is_no_hint(copy: Path) -> None:
    set_low_fidelity(copy, "bigram")
    shutil.rmtree(copy / "tokens")
    opened = openclimb.open(copy)
    domains = read_domains(copy / "domains")
    assert low_fidelity(copy, opened.config, domains) == []
