"""The demo on other engines: bench/engines.py --demo FOLDER. Which bytes differ from those that `local` makes."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _faults_kills import holds_seconds
from openclimb.workspace.files import file_checksum

CLIMB = [sys.executable, "-m", "openclimb.cli.main"]
EXPORTED = "2M"  # tokens


def made_on(demo: Path, root: Path, sections: dict[str, dict[str, Any]]) -> tuple[float, dict[str, str]]:
    """Run the demo's job and its export in a fresh workspace; return the seconds and the checksums of what it made.

    `demo`: the folder of `make demo`, whose corpus, tasks and embedder are read.
    """
    sets = {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
    sets["embed.model"] = demo / "embedder"
    files = sorted(map(str, (demo / "corpus").glob("part-*")))
    line = ["init", root, "--corpus", *files, "--tasks", demo / "tasks" / "*.jsonl", "--scale", "demo"]
    line += [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
    began = time.perf_counter()
    for command in (line, ["run", root, "--quiet"], ["export", root, "--tokens", EXPORTED, "--out", root / "data"]):
        subprocess.run([*CLIMB, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    paths = [root / "mixture" / "mixture.json", *sorted((root / "data").rglob("*"))]
    kept = [path for path in paths if path.is_file() and not holds_seconds(path)]
    return seconds, {str(path.relative_to(root)): file_checksum(path) for path in kept}


def demo_rows(
    name: str,
    sections: dict[str, dict[str, Any]],
    demo: Path,
    root: Path,
    local: tuple[float, dict[str, str]],
) -> list[dict[str, Any]]:
    """Return the seconds of the demo on an engine beside those on `local`, and how many files differ."""
    seconds, made = made_on(demo, root, sections)
    differ = [path for path in {*made, *local[1]} if made.get(path) != local[1].get(path)]
    for path in differ:
        print(f"  {name}: {path} differs", flush=True)
    case = f"{name}: the demo and an export of {EXPORTED} tokens, {len(local[1])} files"
    return [
        {"case": case, "metric": "files that differ from local's", "value": len(differ), "reference": None},
        {"case": case, "metric": "seconds", "value": round(seconds, 1), "reference": round(local[0], 1)},
    ]
