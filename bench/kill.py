"""Kill −9 at random moments spread over all stages, run again each time, and compare with an uninterrupted run.

    python bench/kill.py [--kills 20] [--seed 0]

Uses the small real corpus of the tests. Writes bench/results/kill.json.
"""

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _results import write_results
from openclimb.testing.fixtures import make_tiny_tasks, make_tiny_workspace

DATA = Path(__file__).parent.parent / "tests" / "data"
TOKENS = "100K"
STAGES = ("corpus", "clusters", "labels", "domains", "tokens", "mixture", "export")


@dataclass(frozen=True)
class Kill:
    """What one kill met."""

    stage: str
    after_seconds: float
    hit: bool  # False: the stage ended before the moment came


def climb(*arguments: str) -> subprocess.Popen[bytes]:
    """Start the command in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "openclimb.cli.main", *arguments])


def run_and_export(root: Path, out: Path, tokens: str) -> None:
    """Run to the end and export; raise when a command fails."""
    for arguments in (
        ("run", str(root), "--quiet"),
        ("export", str(root), "--tokens", tokens, "--out", str(out), "--quiet"),
    ):
        if climb(*arguments).wait() != 0:
            raise RuntimeError(f"climb {arguments[0]} failed")


def stage_seconds(root: Path) -> dict[str, float]:
    """Return the seconds of each stage of a finished run, from its records."""
    return {stage: json.loads((root / stage / "record.json").read_text())["seconds"] for stage in STAGES[:-1]}


def kill_in(stage: str, delay: float, root: Path, out: Path, tokens: str) -> Kill:
    """Start the work, wait until `stage` is being made and `delay` more seconds, and kill −9."""
    exporting = stage == "export"
    if exporting:
        process = climb("export", str(root), "--tokens", tokens, "--out", str(out), "--quiet")
        began = out.with_name(out.name + ".partial")
    else:
        process = climb("run", str(root), "--quiet")
        began = root / f"{stage}.partial"
    while process.poll() is None and not (began.exists() or (out if exporting else root / stage).exists()):
        time.sleep(0.001)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return Kill(stage, delay, True)
    if process.returncode != 0:
        raise RuntimeError(f"the run that was to be killed in {stage} failed by itself")
    return Kill(stage, delay, False)


def fingerprint_tree(*folders: Path) -> dict[str, str]:
    """Return the checksum of every file below the folders but the records (which hold times)."""
    sums = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != "record.json":
                sums[f"{folder.name}/{path.relative_to(folder)}"] = hashlib.blake2b(path.read_bytes()).hexdigest()
    return sums


def killed_run(
    root: Path, out: Path, tokens: str, seconds: dict[str, float], moments: Sequence[str], rng: random.Random
) -> list[Kill]:
    """Kill once for each stage in `moments`, in order, each followed by another run; then finish."""
    kills = []
    for stage in moments:
        if stage == "export" and not (root / "mixture" / "record.json").exists():
            run_and_export(root, out.with_name("first-export"), tokens)
        kills.append(kill_in(stage, rng.uniform(0, 0.9 * seconds[stage]), root, out, tokens))
    run_and_export(root, out, tokens)
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kills: list[Kill] = []
    same = True
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        tasks = make_tiny_tasks(base / "tasks", DATA / "passages.jsonl")
        whole = make_tiny_workspace(base / "whole" / "run", DATA / "corpus.jsonl", tasks)
        out = whole.parent / "data"
        began = time.monotonic()
        run_and_export(whole, out, TOKENS)
        stages = stage_seconds(whole)
        seconds = stages | {"export": max(1.0, time.monotonic() - began - sum(stages.values()))}
        expected = fingerprint_tree(whole / "mixture", out)
        while sum(kill.hit for kill in kills) < options.kills:  # each round kills once in every stage
            broken = make_tiny_workspace(base / f"broken-{len(kills)}" / "run", DATA / "corpus.jsonl", tasks)
            out = broken.parent / "data"
            kills += killed_run(broken, out, TOKENS, seconds, STAGES, rng)
            same &= fingerprint_tree(broken / "mixture", out) == expected
            shutil.rmtree(broken.parent)
    for kill in kills:
        print(f"{kill.stage:<9} after {kill.after_seconds:6.2f} s  {'killed' if kill.hit else 'had ended'}")
    hits = sum(kill.hit for kill in kills)
    print(f"{hits} kills in {len({kill.stage for kill in kills if kill.hit})} stages; same mixture and export: {same}")
    write_results(
        "kill",
        [
            {
                "bench": "kill",
                "case": "all stages",
                "metric": "kills",
                "value": hits,
                "reference": options.kills,
                "ratio": hits / options.kills,
            },
            {
                "bench": "kill",
                "case": "mixture.json and exported bytes",
                "metric": "same as uninterrupted",
                "value": int(same),
                "reference": 1,
                "ratio": float(same),
            },
        ],
    )
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
