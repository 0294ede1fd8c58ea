"""The folder of an export: begun beside its name, complete when its record is there, and never written over.

Reads and writes `OUT.partial/` (recipe.json: what was asked for) and `OUT/` (record.json: that, and every file).
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openclimb.errors import WorkspaceError
from openclimb.workspace.damage import SHOWN, find_damage
from openclimb.workspace.files import JOBS, file_checksum, read_json, versions, write_json


def begin(out: Path, asked: dict[str, Any]) -> Path:
    """Return the folder to work in, with what was asked in it; what a killed export finished is still there.

    Raises WorkspaceError where it holds another export, or something that is none.
    """
    partial_out = out.with_name(out.name + ".partial")
    recipe = partial_out / "recipe.json"
    if recipe.is_file():
        if read_json(recipe) != asked:
            _refuse(partial_out, read_json(recipe), asked)
    elif partial_out.exists() and any(partial_out.glob("[!.]*")):
        _refuse(partial_out, {}, asked)
    if out.exists():
        out.rmdir()  # empty: `done_before` saw to it
    write_json(recipe, asked)
    return partial_out


def done_before(out: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Return the facts of a finished export with the same settings; None when there is nothing at `out` yet.

    Raises WorkspaceError where `out` holds something else, or was damaged.
    """
    partial_out = out.with_name(out.name + ".partial")
    if (partial_out / "record.json").is_file() and not out.exists():
        (partial_out / "recipe.json").unlink(missing_ok=True)
        os.rename(partial_out, out)  # killed just before its last step
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    record = read_json(out / "record.json") if (out / "record.json").is_file() else {}
    if record.get("asked") != asked:
        _refuse(out, record.get("asked", {}), asked)
    if damage := find_damage(out.parent, out.name, True):
        listed = "; ".join(f"{one.file} {one.what}" for one in damage[:SHOWN])
        raise WorkspaceError(f"{listed}: not as it was written", f"move {out} away, and export again")
    facts: dict[str, Any] = record["facts"]
    return facts


def complete(
    partial_out: Path, out: Path, asked: dict[str, Any], facts: dict[str, Any], written: Sequence[dict[str, Any]]
) -> None:
    """Write the record of all that lies in the folder, and give the export its name."""
    shutil.rmtree(partial_out / JOBS, ignore_errors=True)
    paths = sorted(path for path in partial_out.rglob("*") if path.is_file() and path.name != "recipe.json")
    files = {
        str(path.relative_to(partial_out)): {"bytes": path.stat().st_size, "checksum": file_checksum(path)}
        for path in paths
    }
    record = {"asked": asked, "facts": facts, "shards": written, "files": files, "versions": versions()}
    write_json(partial_out / "record.json", record)
    (partial_out / "recipe.json").unlink()
    os.rename(partial_out, out)


def _refuse(folder: Path, then: dict[str, Any], asked: dict[str, Any]) -> None:
    differs = [name for name in asked if then and then.get(name) != asked[name]]
    what = f"holds an export with another {', '.join(differs)}" if differs else "holds something that is no export"
    raise WorkspaceError(f"{folder} {what}", "choose another --out, or move that folder away")
