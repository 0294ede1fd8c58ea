"""A part of bench/faults.py: bad inputs are told with their fix and change nothing; damaged files are found."""

import shutil
from pathlib import Path

import pytest

from _faults_damage import EXPORTED, EXPORTS, FAULTS, Fault, told
from _faults_inputs import Case, Ground, all_cases
from faults import TOLD, judged

CASES = all_cases()
PART = 4  # one case in so many is in `make test`, all are in `make slow`


def a_part(cases: list[object]) -> list[object]:
    return [pytest.param(case, marks=pytest.mark.slow) if i % PART else case for i, case in enumerate(cases)]


def test_there_are_eighty_bad_inputs_and_thirty_damaged_files() -> None:
    assert len(CASES) == len({(case.kind, case.name) for case in CASES}) >= 80
    assert len({fault.name for fault in (*FAULTS, *EXPORTS)}) >= 30


@pytest.mark.parametrize("case", a_part(list(CASES)), ids=lambda case: f"{case.kind}: {case.name}")
def test_a_bad_input_is_told_with_its_fix(
    case: Case, tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome, said = judged(case, Ground(tmp_path, tiny_corpus, tiny_tasks, finished))
    assert outcome == TOLD, said


@pytest.mark.parametrize("fault", a_part(list(FAULTS)), ids=lambda fault: fault.name)
def test_damage_is_found_by_check(fault: Fault, finished: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "run"))
    fault.damage(max(root.glob(fault.pattern), key=lambda path: path.stat().st_size))
    status, said = told(["check", str(root)])
    assert status == 1, said
    assert "\nfix: climb run" in said


def test_damage_of_an_export_is_found_by_the_next(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    command = ["export", str(finished), "--tokens", EXPORTED, "--out", str(out), "--quiet"]
    assert told(command)[0] == 0
    for fault in EXPORTS:
        shutil.copytree(out, tmp_path / "whole")
        fault.damage(max(out.glob(fault.pattern), key=lambda path: path.stat().st_size))
        status, said = told(command)
        assert status == 1, fault.name
        assert "\nfix: " in said, fault.name
        shutil.rmtree(out)
        (tmp_path / "whole").rename(out)
