"""Records, staleness, the lock and atomic writes: done is a record written last, and it knows its recipe."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openclimb.config.schema import Config
from openclimb.engines.local import LocalEngine
from openclimb.errors import ConfigError, HeldError, StaleError, WorkspaceError
from openclimb.progress import Progress
from openclimb.workspace import records as workspace_module
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import (
    ABANDONED,
    JOBS,
    atomic,
    file_checksum,
    file_names,
    fingerprint,
    folder_fingerprint,
    read_json,
    sweep,
    write_json,
    write_text,
    writer,
)
from openclimb.workspace.records import Recipe, Workspace

RECIPE = Recipe("clusters", 1, {"clusters.k": 8}, {"corpus/": "abc"})
CONTEXT = StageContext(Path(), LocalEngine(1), Progress())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "run")
    made.create(Config())
    return made


def make(workspace: Workspace, recipe: Recipe = RECIPE, text: str = "1") -> Path:
    def work(context: StageContext) -> dict[str, int]:
        write_text(context.folder / "a.txt", text)
        return {"n": 1}

    return workspace.make(recipe, CONTEXT, work)


def test_the_record_says_what_was_made_from_what(workspace: Workspace) -> None:
    folder = make(workspace)
    record = read_json(folder / "record.json")
    assert record["settings"] == {"clusters.k": 8}
    assert record["facts"] == {"n": 1}
    assert record["files"]["a.txt"] == {"bytes": 1, "checksum": file_checksum(folder / "a.txt")}
    assert workspace.state(RECIPE).state == "done"


def test_a_done_stage_is_not_made_again(workspace: Workspace) -> None:
    make(workspace, text="first")
    assert (make(workspace, text="second") / "a.txt").read_text() == "first"


def test_a_failed_stage_keeps_its_pieces_and_has_no_record(workspace: Workspace) -> None:
    def work(context: StageContext) -> dict[str, int]:
        write_text(context.folder / "piece", "kept")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        workspace.make(RECIPE, CONTEXT, work)
    assert workspace.state(RECIPE).state == "partial"
    assert (workspace.begin(RECIPE) / "piece").read_text() == "kept"


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (replace(RECIPE, settings={"clusters.k": 9}), "clusters.k: 8 then, 9 now"),
        (replace(RECIPE, inputs={"corpus/": "other"}), "its input: corpus/"),
        (replace(RECIPE, version=2), "the stage's code: version 1 then, 2 now"),
        (replace(RECIPE, settings={}), "clusters.k: 8 then, null now"),
    ],
)
def test_a_stale_stage_stops_and_names_what_differs(workspace: Workspace, changed: Recipe, line: str) -> None:
    make(workspace)
    with pytest.raises(StaleError) as caught:
        make(workspace, changed)
    assert line in caught.value.message
    assert "--redo clusters" in caught.value.fix
    assert workspace.state(RECIPE).state == "done"


def test_an_unfinished_stage_of_another_recipe_is_stale_too(workspace: Workspace) -> None:
    workspace.begin(RECIPE)
    assert workspace.state(replace(RECIPE, settings={"clusters.k": 9})).state == "stale"


def test_set_aside_moves_and_never_deletes(workspace: Workspace) -> None:
    make(workspace, text="one")
    assert [path.name for path in workspace.set_aside("clusters")] == ["clusters.old-1"]
    make(workspace, text="two")
    assert [path.name for path in workspace.set_aside("clusters")] == ["clusters.old-2"]
    assert (workspace.root / "clusters.old-1" / "a.txt").read_text() == "one"
    assert (workspace.root / "clusters.old-2" / "a.txt").read_text() == "two"


def test_a_kill_between_record_and_rename_is_recovered(workspace: Workspace) -> None:
    folder = make(workspace)
    folder.rename(workspace.root / "clusters.partial")
    assert workspace.state(RECIPE).state == "partial"  # who only reads changes nothing
    with workspace.hold():
        pass
    assert workspace.state(RECIPE).state == "done"


@pytest.mark.parametrize("step", ["checksum", "record", "recipe", "rename"])
def test_a_kill_at_any_step_of_the_end_keeps_what_made_the_pieces(
    workspace: Workspace, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, write = Path.unlink, write_json

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def killed_at_the_recipe(path: Path, missing_ok: bool = False) -> None:
        if path.name == "recipe.json":
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    def killed_at_the_record(path: Path, value: object) -> None:
        if path.name == "record.json":
            raise KeyboardInterrupt
        write(path, value)

    target, name, replacement = {
        "checksum": (workspace_module, "file_checksum", killed),
        "record": (workspace_module, "write_json", killed_at_the_record),
        "recipe": (Path, "unlink", killed_at_the_recipe),
        "rename": (os, "rename", killed),
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(target, name, replacement)
        with pytest.raises(KeyboardInterrupt):
            make(workspace)
    other = replace(RECIPE, settings={"clusters.k": 9})
    workspace.recover("clusters")
    assert workspace.state(other).state == "stale"
    assert workspace.state(RECIPE).state == ("partial" if step in ("checksum", "record") else "done")
    folder = make(workspace)
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "record.json"]
    assert list(read_json(folder / "record.json")["files"]) == ["a.txt"]


def test_pieces_of_unknown_origin_are_stale(workspace: Workspace) -> None:
    partial = workspace.begin(RECIPE)
    (partial / "recipe.json").rename(partial / f".recipe.json.{writer()}.tmp")  # killed while the recipe was written
    assert workspace.state(RECIPE).state == "missing"
    write_text(partial / "piece", "of whom?")
    with pytest.raises(StaleError) as caught:
        make(workspace)
    assert "clusters.partial/ does not say what made it" in caught.value.message
    assert workspace.set_aside("clusters")
    assert make(workspace).is_dir()


def test_a_second_process_is_told_who_holds_the_workspace(workspace: Workspace) -> None:
    code = f"""
from pathlib import Path
from openclimb.workspace.records import Workspace
with Workspace(Path({str(workspace.root)!r})).hold():
    print("held", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(HeldError) as caught, workspace.hold(0.0):
            pass
        assert f"process {other.pid}" in caught.value.message
        assert f"process {other.pid}" in workspace.holder()
        other.communicate("\n")
    with workspace.hold():
        pass
    assert workspace.holder() == ""


def test_a_workspace_of_a_newer_version_is_left_alone(workspace: Workspace) -> None:
    text = workspace.config_path.read_text()
    workspace.config_path.write_text(text.replace("format = 2", "format = 99"))
    with pytest.raises(WorkspaceError, match="newer version"):
        workspace.config()


def test_a_workspace_of_an_earlier_version_is_refused(workspace: Workspace) -> None:
    text = workspace.config_path.read_text()
    workspace.config_path.write_text(text.replace("format = 2", "format = 1") + "\n[pick]\nseeds = 3\n")
    with pytest.raises(WorkspaceError, match="earlier version") as caught:
        workspace.config()
    assert "climb init" in caught.value.fix


def test_a_record_of_a_newer_version_is_left_alone(workspace: Workspace) -> None:
    record = make(workspace) / "record.json"
    write_json(record, {**read_json(record), "format": 99})
    with pytest.raises(WorkspaceError, match="newer version"):
        workspace.state(RECIPE)


def test_no_workspace_no_toml_and_a_second_init(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="not a workspace"):
        Workspace(tmp_path).config()
    with pytest.raises(WorkspaceError, match="already"):
        workspace.create(Config())
    workspace.config_path.write_text("scale = [")
    with pytest.raises(ConfigError, match="not valid TOML"):
        workspace.config()


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.write_text(str(1 / 0))
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_fingerprints_follow_content_not_order(tmp_path: Path) -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    (tmp_path / "model.bin").write_bytes(b"one")
    before = folder_fingerprint(str(tmp_path))
    (tmp_path / "model.bin").write_bytes(b"two")
    assert folder_fingerprint(str(tmp_path)) != before
    assert folder_fingerprint("a-hub/name") == ""
    assert folder_fingerprint("") == ""


def test_large_files_are_told_apart_wherever_they_differ(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    data = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8)
    found = set()
    for place in (None, 0, 1_100_000, 1_500_000, 2_000_000, 2_999_000):  # None: as it is
        changed = data.copy()
        if place is not None:
            changed[place : place + 100_000] += 1
        path.write_bytes(changed.tobytes())
        found.add(folder_fingerprint(str(path)))
    changed = data.copy()
    changed[-1] += 1
    path.write_bytes(changed.tobytes())
    found.add(folder_fingerprint(str(path)))
    assert len(found) == 7


@given(
    st.lists(st.text(max_size=8) | st.sampled_from(["C", "c", "C++", "heldout", "a b", "..", "/", "nul"]), unique=True)
)
@example(["C", f"C-{fingerprint('C++')}", "C++", "c"])
def test_every_name_has_a_file_of_its_own_in_the_folder(names: list[str]) -> None:
    found = file_names(names, ("heldout",))
    assert len({word.lower() for word in found} | {"heldout"}) == len(names) + 1
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,80}", word) for word in found)


def test_files_of_dead_writers_are_swept_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "trials" / "0001").mkdir(parents=True)
    dead = tmp_path / "trials" / "0001" / f".scores.json.{writer().partition('-')[0]}-{ended.pid}.tmp"
    alive = tmp_path / f".a.txt.{writer()}.tmp"
    mine = tmp_path / ".mine.tmp"
    elsewhere, abandoned = (tmp_path / f".{name}.txt.abcdef-{ended.pid}.tmp" for name in "bc")
    for path in (dead, alive, mine, elsewhere, abandoned):
        path.write_text("")
    then = time.time() - ABANDONED - 60
    os.utime(abandoned, (then, then))
    sweep(tmp_path)
    found = [path.exists() for path in (dead, alive, mine, elsewhere, abandoned)]
    assert found == [False, True, True, True, False], "a process of another machine may be alive"


def test_work_that_nobody_came_back_for_is_swept_and_that_of_today_is_kept(tmp_path: Path) -> None:
    old, new = (tmp_path / "trials" / JOBS / f"map-{name}" for name in ("old", "new"))
    for folder in (old, new):
        (folder / "results").mkdir(parents=True)
        (folder / "results" / "1-a").write_text("")
    for path in (*old.rglob("*"), old):
        os.utime(path, (0, time.time() - 8 * ABANDONED))
    os.utime(new, (0, time.time() - 8 * ABANDONED))
    sweep(tmp_path)
    assert not old.exists()
    assert new.exists()
