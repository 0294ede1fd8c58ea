"""What is no longer as it was made: files of finished folders against the sizes and checksums of their records, and
trials whose files cannot be read, which are set aside to be run again.
"""

import math
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclimb.errors import WorkspaceError
from openclimb.workspace.files import file_checksum, read_json
from openclimb.workspace.trials import is_as_written, read_trial

SHOWN = 5  # files that a message names
UNREADABLE = (WorkspaceError, OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was made."""

    file: str  # within the workspace
    what: str
    fix: str  # the command that makes it again


def find_damage(root: Path, stage: str, content: bool) -> list[Damage]:
    """Return the damaged files of a finished folder: gone, of another size or, with `content`, of another checksum.

    A folder without a record is not finished, and has none. A record that cannot be read is itself the damage.
    """
    folder, found = root / stage, []
    if not (folder / "record.json").is_file():
        return []
    own = {"validation": "validate", "annotations": "annotate"}  # made by commands of their own
    fix = f"climb {own[stage]} {root} --redo" if stage in own else f"climb run {root} --redo {stage}"
    try:
        files = read_json(folder / "record.json")["files"]
    except (WorkspaceError, KeyError, TypeError):
        return [Damage(f"{stage}/record.json", "cannot be read", fix)]
    for name, kept in files.items():
        path = folder / name
        if not path.is_file():
            found.append(Damage(f"{stage}/{name}", "is gone", fix))
        elif path.stat().st_size != kept["bytes"]:
            what = f"has {path.stat().st_size:,} bytes, not {kept['bytes']:,}"
            found.append(Damage(f"{stage}/{name}", what, fix))
        elif content and file_checksum(path) != kept["checksum"]:
            found.append(Damage(f"{stage}/{name}", "has other content", fix))
    return found


def stop_if_damaged(root: Path, stages: Iterable[str], content: bool = True) -> None:
    """Raise WorkspaceError for the first of these stages of which a file is not as it was made."""
    for stage in stages:
        if found := find_damage(root, stage, content):
            listed = "; ".join(f"{one.file} {one.what}" for one in found[:SHOWN])
            more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
            raise WorkspaceError(
                f"{listed}{more}: not as it was made",
                f"restore it; or `{found[0].fix}` makes it again (the old folder is moved aside)",
            )


def set_damaged_aside(trials: Path) -> list[str]:
    """Rename files of trials that cannot be read; return a sentence for each. To be called by who alone writes there.

    A trial without its scores, or without one number an item, waits to be run again. One that does not say what was
    asked for is moved to `trials.damaged/`, and the same mixture is asked for anew.
    """
    said = []
    for asked in sorted(trials.glob("*/trial.json")):
        folder = asked.parent
        told = [name for name in TOLD if (folder / name).is_file() and not _is_whole(folder / name)]
        if "items.npz" in told and (folder / "scores.json").is_file():
            told = sorted({*told, "scores.json"})  # it is run again for its items
        for name in told:
            os.rename(folder / name, _free(folder / f"{name}.damaged"))
        if _is_whole(asked):
            if told:
                again = "; it is run again" if read_trial(folder).state == "waiting" else ""
                said.append(f"trial {folder.name}: {' and '.join(told)} cannot be read, set aside{again}")
        else:
            away = _free(trials.with_name("trials.damaged") / folder.name)
            away.parent.mkdir(exist_ok=True)
            os.rename(folder, away)
            said.append(f"trial {folder.name} does not say what was asked for: moved to {away.parent.name}/{away.name}")
    return said


def _is_whole(path: Path) -> bool:
    try:
        return CHECKS[path.name](path)
    except UNREADABLE:
        return False


def find_damaged_trials(root: Path) -> list[Damage]:
    """Return the files of trials that cannot be read or are not as they were written."""
    fix, found = f"climb run {root}", []
    for asked in sorted((root / "trials").glob("*/trial.json")):
        names = [name for name in CHECKS if (asked.parent / name).is_file() and not _is_whole(asked.parent / name)]
        found += [Damage(f"trials/{asked.parent.name}/{name}", "is not as it was written", fix) for name in names]
    return found


def _scores(path: Path) -> bool:
    found = read_json(path)
    values: Any = found["scores"].values()
    numbers = all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    return bool(values) and numbers and is_as_written(found)


def _asked(path: Path) -> bool:
    found = read_json(path)
    weights: Any = found["mixture"].values()
    return is_as_written(found) and sum(weights) > 0 and isinstance(found["number"] + found["seed"], int)


def _failure(path: Path) -> bool:
    failure = read_json(path)
    return isinstance(failure["message"], str) and isinstance(failure["attempts"], int)


def _items(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None


TOLD: dict[str, Callable[[Path], bool]] = {"scores.json": _scores, "failure.json": _failure, "items.npz": _items}
CHECKS = {"trial.json": _asked, **TOLD}


def _free(path: Path) -> Path:
    """Return this path, or the first with a number behind it that is free."""
    found, n = path, 1
    while found.exists():
        n += 1
        found = path.with_name(f"{path.name}-{n}")
    return found
