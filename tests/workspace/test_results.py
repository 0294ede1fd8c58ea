"""What a workspace found, as typed values: what is written is read again, and a file of another version is refused."""

from dataclasses import asdict
from pathlib import Path

import pytest

from openclimb.errors import WorkspaceError
from openclimb.workspace.files import read_json, write_json
from openclimb.workspace.results import (
    MIXTURE,
    Diagnostics,
    Objective,
    SignalRow,
    TargetModel,
    Validation,
    ValidationRow,
    read_answer,
    read_diagnostics,
    read_validation,
    write_answer,
    write_diagnostics,
    write_validation,
)


def test_an_answer_and_diagnostics_of_a_run_come_back_as_they_were(finished: Path, tmp_path: Path) -> None:
    answer = read_answer(finished)
    (tmp_path / "mixture").mkdir()
    write_answer(tmp_path / "mixture", answer)
    assert read_json(tmp_path / MIXTURE) == read_json(finished / MIXTURE)
    assert read_answer(tmp_path) == answer
    assert answer.weights == pytest.approx({row.name: row.weight for row in answer.domains})
    assert all(isinstance(row, SignalRow) for row in answer.signal)
    found = read_diagnostics(finished)
    assert [one.iteration for one in found] == list(range(len(found)))
    assert all(isinstance(one, Diagnostics) for one in found)
    (tmp_path / "iterations" / "00").mkdir(parents=True)
    write_diagnostics(tmp_path / "iterations" / "00", found[0])
    assert read_diagnostics(tmp_path) == found[:1]


def test_a_validation_comes_back_as_it_was(tmp_path: Path) -> None:
    row = ValidationRow("found", {"a": 1.0}, 3, 300, -1.0, [-1.1, -0.9], [-1.0], None, 1.0, None, same_mixture=False)
    table = Validation(2, "abc", TargetModel(None, 100), False, Objective("bpb", {"t": 1.0}), 3, None, [row], "One.")
    (tmp_path / "validation").mkdir()
    write_validation(tmp_path / "validation", table)
    assert read_validation(tmp_path) == table


def test_a_file_without_a_field_is_refused_by_name(finished: Path, tmp_path: Path) -> None:
    raw = asdict(read_answer(finished))
    del raw["mixtures"][0]["report"]["interval"]
    (tmp_path / "mixture").mkdir()
    write_json(tmp_path / MIXTURE, raw)
    with pytest.raises(WorkspaceError, match=r"mixture\.json has no 'interval'") as caught:
        read_answer(tmp_path)
    assert "--redo" in caught.value.fix
