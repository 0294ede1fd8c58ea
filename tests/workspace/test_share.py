"""Stages that workspaces have in common."""

import shutil
from pathlib import Path

from openclimb.recipes import current_recipes
from openclimb.workspace.damage import find_damage
from openclimb.workspace.files import write_text
from openclimb.workspace.records import Workspace
from openclimb.workspace.share import fingerprint_of, link_folder, share_stages


def test_stages_of_the_same_recipe_are_links_and_others_stay_away(finished: Path, tmp_path: Path) -> None:
    mine = Workspace(tmp_path / "mine")
    mine.root.mkdir()
    shutil.copyfile(finished / "climb.toml", mine.config_path)
    recipes = current_recipes(Workspace(finished), mine.config())
    assert share_stages(mine, [recipes["corpus"]], [tmp_path / "none", finished]) == ["corpus"]
    assert mine.state(recipes["corpus"]).state == "done"
    assert share_stages(mine, [recipes["corpus"]], [finished]) == []  # there already
    other = current_recipes(mine, mine.config())
    text = mine.config_path.read_text().replace("vocab_size = 512", "vocab_size = 300")
    mine.config_path.write_text(text)
    changed = current_recipes(mine, mine.config())["clusters"]
    assert changed != other["clusters"]
    assert share_stages(mine, [changed], [finished]) == []
    assert not mine.folder("clusters").exists()


def test_a_link_stays_when_the_other_is_made_anew(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "inner" / "file.txt", "before")
    (tmp_path / ".b.linked").mkdir()  # of a run that was killed
    link_folder(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/inner/file.txt").stat().st_ino == (tmp_path / "b/inner/file.txt").stat().st_ino
    write_text(tmp_path / "a" / "inner" / "file.txt", "after")
    assert (tmp_path / "b" / "inner" / "file.txt").read_text() == "before"
    assert not (tmp_path / ".b.linked").exists()


def test_links_are_whole_to_who_checks_them(finished: Path, tmp_path: Path) -> None:
    link_folder(finished / "tokens", tmp_path / "tokens")
    assert find_damage(tmp_path, "tokens", True) == []
    assert fingerprint_of(tmp_path, "tokens") == fingerprint_of(finished, "tokens") != ""
    assert fingerprint_of(tmp_path, "labels") == ""
