"""Trials whose files were damaged: what cannot be read is set aside, so that they are run again."""

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openclimb.errors import WorkspaceError
from openclimb.workspace.files import read_json
from openclimb.workspace.trials import read_trial

UNREADABLE = (WorkspaceError, OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError)


def set_damaged_aside(trials: Path) -> list[str]:
    """Rename files of trials that cannot be read; return a sentence for each. To be called by who alone writes there.

    A trial without its scores, or without one number an item, waits to be run again. One that does not say what was
    asked for is moved to `trials.damaged/`, and the same mixture is asked for anew.
    """
    said = []
    for asked in sorted(trials.glob("*/trial.json")):
        folder = asked.parent
        told = [name for name in CHECKS if (folder / name).is_file() and not _is_whole(folder / name)]
        if "items.npz" in told and (folder / "scores.json").is_file():
            told = sorted({*told, "scores.json"})  # it is run again for its items
        for name in told:
            os.rename(folder / name, _free(folder / f"{name}.damaged"))
        try:
            trial = read_trial(folder)
            if told:
                again = "; it is run again" if trial.state == "waiting" else ""
                said.append(f"trial {folder.name}: {' and '.join(told)} cannot be read, set aside{again}")
        except UNREADABLE:
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


def _scores(path: Path) -> bool:
    values: Any = read_json(path)["scores"].values()
    return bool(values) and all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)


def _failure(path: Path) -> bool:
    failure = read_json(path)
    return isinstance(failure["message"], str) and isinstance(failure["attempts"], int)


def _items(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None


CHECKS: dict[str, Callable[[Path], bool]] = {"scores.json": _scores, "failure.json": _failure, "items.npz": _items}


def _free(path: Path) -> Path:
    """Return this path, or the first with a number behind it that is free."""
    found, n = path, 1
    while found.exists():
        n += 1
        found = path.with_name(f"{path.name}-{n}")
    return found
