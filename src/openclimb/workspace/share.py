"""Finished stages that workspaces have in common: hard links to the same files, with their record.

Files of a finished stage are never written again (they are replaced whole), so that a link stays what it was when one
of the workspaces is made anew.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from openclimb.workspace.files import read_json
from openclimb.workspace.records import Recipe, Workspace


def share_stages(workspace: Workspace, recipes: Iterable[Recipe], others: Iterable[Path]) -> list[str]:
    """Link the stages of these recipes that the workspace lacks and another one has, finished; return their names."""
    shared, roots = [], list(others)
    for recipe in recipes:
        if workspace.state(recipe).state != "missing":
            continue
        for root in roots:
            if fingerprint_of(root, recipe.stage) == recipe.fingerprint:
                link_folder(root / recipe.stage, workspace.folder(recipe.stage))
                shared.append(recipe.stage)
                break
    return shared


def fingerprint_of(root: Path, stage: str) -> str:
    """Return the fingerprint of the recipe that a finished stage was made by; empty where it is not finished."""
    record = root / stage / "record.json"
    return str(read_json(record)["fingerprint"]) if record.is_file() else ""


def link_folder(source: Path, out: Path) -> None:
    """Make a folder whose files are those of another one, whole or not at all; copies where the disk has no links."""
    partial = out.with_name(f".{out.name}.linked")  # what a killed run left goes first
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=_link)
    os.rename(partial, out)


def _link(source: str, out: str) -> str:
    try:
        os.link(source, out)
    except OSError:
        shutil.copy2(source, out)
    return out
