"""Files of a finished workspace and of an export, each damaged in one way; whether that is found, and by what."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclimb.cli.main import main as climb

EXPORTED = "100K"  # tokens


def flip(path: Path) -> None:
    """Change one bit in the middle; the size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def digit(path: Path) -> None:
    """Make the last digit of a text file another one: a good number, and a wrong one."""
    text = path.read_text(encoding="utf-8")
    at = max(i for i, letter in enumerate(text) if letter.isdigit() and letter != "0")
    path.write_text(text[:at] + str(1 + int(text[at]) % 9) + text[at + 1 :], encoding="utf-8")


def number(path: Path) -> None:
    """Make the first score or weight of a JSON file another good number."""
    found = json.loads(path.read_text(encoding="utf-8"))
    part = found.get("scores") or found["mixture"]
    name = next(iter(part))
    part[name] = part[name] * 0.75
    path.write_text(json.dumps(found), encoding="utf-8")


@dataclass(frozen=True)
class Fault:
    """A glob within the workspace (or the export), and what is done to the largest file that it matches."""

    pattern: str
    damage: Callable[[Path], None]

    @property
    def name(self) -> str:
        return f"{self.pattern} · {self.damage.__name__}"


STAGE_FILES = (
    "corpus/*.parquet",
    "clusters/centroids.npy",
    "clusters/sample.parquet",
    "clusters/tokenizer.json",
    "labels/unit-*.parquet",
    "domains/domains.csv",
    "domains/assignment.npy",
    "tokens/*.bin",
    "tokens/domains.json",
    "tokens/tasks/*.npz",
    "mixture/mixture.json",
    "mixture/mixture.csv",
)
FAULTS = (
    *(Fault(pattern, damage) for pattern in STAGE_FILES for damage in (flip, cut, Path.unlink)),
    *(Fault("tokens/*.bin", damage) for damage in (zero, grow, empty)),
    *(Fault("domains/domains.csv", damage) for damage in (digit, empty)),
    *(Fault(f"{stage}/record.json", damage) for stage in ("corpus", "labels", "mixture") for damage in (cut, empty)),
    *(Fault("trials/*/scores.json", damage) for damage in (cut, empty, zero, number)),
    *(Fault("trials/*/trial.json", damage) for damage in (cut, number)),
    *(Fault("trials/*/items.npz", damage) for damage in (flip, cut, empty)),
)
EXPORTS = (
    *(Fault("data/*", damage) for damage in (flip, cut, empty, Path.unlink)),
    *(Fault("mixture.json", damage) for damage in (flip, Path.unlink)),
    Fault("mixture.csv", digit),
    *(Fault("record.json", damage) for damage in (cut, empty)),
)


def damaged(base: Path, finished: Path) -> list[dict[str, Any]]:
    """Damage one file at a time; return how many were found, and how many were told without a traceback."""
    out = base / "data"
    told(["export", str(finished), "--tokens", EXPORTED, "--out", str(out), "--quiet"])
    found = silent = broken = 0
    for fault, again, command in _tries(base, finished, out):
        status, said = told(command)
        if status is None:
            broken += 1
            print(f"  {fault.name}: traceback: {said[-300:]}", flush=True)
        elif status == 0 or "\nfix: " not in said:
            silent += 1
            print(f"  {fault.name}: not found by climb {command[0]}", flush=True)
        else:
            found += 1
        shutil.rmtree(again)
    n = len(FAULTS) + len(EXPORTS)
    return [
        {"case": "damaged files", "metric": "found, with the fix", "value": found, "reference": n},
        {"case": "damaged files", "metric": "not found", "value": silent},
        {"case": "damaged files", "metric": "tracebacks", "value": broken},
    ]


def _tries(base: Path, finished: Path, out: Path) -> Iterator[tuple[Fault, Path, list[str]]]:
    for fault in FAULTS:
        root = Path(shutil.copytree(finished, base / "again"))
        fault.damage(max(root.glob(fault.pattern), key=lambda path: path.stat().st_size))
        yield fault, root, ["check", str(root)]
    for fault in EXPORTS:
        folder = base / "exported"
        folder.mkdir()
        copy = Path(shutil.copytree(out, folder / "data"))
        fault.damage(max(copy.glob(fault.pattern), key=lambda path: path.stat().st_size))
        yield fault, folder, ["export", str(finished), "--tokens", EXPORTED, "--out", str(copy), "--quiet"]


def told(command: list[str]) -> tuple[int | None, str]:
    """Return the exit status of a command and what it wrote to stderr; None and the error where it left a traceback."""
    err = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            return climb(command), err.getvalue()
    except Exception as error:  # what a person would see as a traceback
        return None, f"{type(error).__name__}: {error}"
