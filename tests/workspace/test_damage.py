"""Files that changed after they were made: found by size at every run, by content where they are read, or by check."""

import json
import shutil
from pathlib import Path

import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.errors import WorkspaceError
from openclimb.testing.fixtures import complaint
from openclimb.workspace.damage import find_damage
from openclimb.workspace.records import STAGES


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def flip(path: Path) -> None:
    """Change one bit in the middle of a file; its size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_an_undamaged_workspace_passes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(root)]) == 0
    assert "as it was made" in capsys.readouterr().out
    assert main(["check", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "duplicates"])  # made with corpus.dedup alone
def test_every_flipped_bit_is_found(stage: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(
        str(path.relative_to(root)) for path in (root / stage).rglob("*") if path.is_file() and path.stat().st_size
    )
    names.remove(f"{stage}/record.json")
    for name in names:
        flip(root / name)
    found = openclimb.open(root).check()
    assert sorted(one.file for one in found) == names
    assert {one.what for one in found} == {"has other content"}
    assert {one.fix for one in found} == {f"climb run {root} --redo {stage}"}
    assert main(["check", str(root)]) == 1
    assert f"--redo {stage}" in complaint(capsys.readouterr().err)


@pytest.mark.parametrize("stage", ["corpus", "clusters", "labels"])
@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_sizes_are_compared_at_every_run(stage: str, damage: object, root: Path) -> None:
    path = max((root / stage).rglob("*.*"), key=lambda one: (one.suffix != ".json", one.stat().st_size))
    damage(path)  # type: ignore[operator]
    with pytest.raises(WorkspaceError, match=rf"{stage}/.* (is gone|bytes, not).*: not as it was made"):
        openclimb.open(root).run()


def test_a_flipped_token_stops_the_run_and_redo_gives_the_same_mixture(root: Path) -> None:
    before = (root / "mixture" / "mixture.json").read_bytes()
    flip(max((root / "tokens").glob("*.bin"), key=lambda path: path.stat().st_size))
    with pytest.raises(WorkspaceError, match="has other content") as caught:
        openclimb.open(root).run()
    assert f"climb run {root} --redo tokens" in caught.value.fix
    openclimb.open(root).run(redo="tokens")
    assert (root / "mixture" / "mixture.json").read_bytes() == before
    assert not openclimb.open(root).check()


def test_the_export_and_the_report_use_nothing_damaged(root: Path, tmp_path: Path) -> None:
    opened = openclimb.open(root)
    opened.export(100_000, tmp_path / "out")
    opened.export(100_000, tmp_path / "out")
    cut(next((tmp_path / "out" / "data").iterdir()))
    with pytest.raises(WorkspaceError, match=r"out/data/.* bytes, not .*: not as it was written"):
        opened.export(100_000, tmp_path / "out")
    flip(next((root / "labels").glob("unit-*.parquet")))
    with pytest.raises(WorkspaceError, match=r"labels/unit-.* has other content"):
        opened.export(100_000, tmp_path / "again")
    opened.report()
    flip(root / "mixture" / "mixture.csv")
    with pytest.raises(WorkspaceError, match=r"mixture/mixture\.csv has other content"):
        opened.report()


def test_what_is_not_finished_has_no_damage(root: Path) -> None:
    (root / "tokens" / "record.json").unlink()
    assert find_damage(root, "tokens", True) == []


def test_damaged_trials_are_set_aside_and_run_again(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = openclimb.open(root).mixture()
    trials = [root / "trials" / f"{trial.number:04d}" for trial in openclimb.open(root).trials()]
    (trials[0] / "scores.json").write_text((trials[0] / "scores.json").read_text()[:-20])
    (trials[1] / "scores.json").write_text('{"scores": {"a": NaN}}')
    flip(trials[-1] / "items.npz")
    (trials[2] / "trial.json").write_text("[]")
    (trials[3] / "failure.json").write_text("{}")
    shutil.rmtree(root / "mixture")
    assert main(["run", str(root)]) == 0
    said = capsys.readouterr().err
    assert said.count("it is run again") == 3
    assert f"trial {trials[3].name}: failure.json cannot be read, set aside\n" in said
    assert f"trials.damaged/{trials[2].name}" in said
    assert (trials[0] / "scores.json.damaged").is_file()
    assert (root / "trials.damaged" / trials[2].name / "scores.json").is_file()
    after = openclimb.open(root).mixture()
    assert after.weights == before.weights
    assert after.sentence == before.sentence
    assert main(["run", str(root)]) == 0
    assert "set aside" not in capsys.readouterr().err


def test_a_digit_that_changed_in_a_trial_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (root / "mixture" / "mixture.json").read_bytes()
    first, second, *_ = sorted((root / "trials").glob("*/scores.json"))
    first.write_text(first.read_text().replace("-3.", "-1.", 1))  # a good number, and a better one
    asked = second.with_name("trial.json")
    asked.write_text(asked.read_text().replace("0.", "0.1", 1))
    names = [f"trials/{first.parent.name}/scores.json", f"trials/{second.parent.name}/trial.json"]
    assert [one.file for one in openclimb.open(root).check()] == names
    shutil.rmtree(root / "mixture")
    assert main(["run", str(root)]) == 0
    said = capsys.readouterr().err
    assert f"trial {first.parent.name}: scores.json cannot be read, set aside; it is run again" in said
    assert f"moved to trials.damaged/{second.parent.name}" in said
    assert (root / "mixture" / "mixture.json").read_bytes() == before
