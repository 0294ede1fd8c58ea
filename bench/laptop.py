"""The whole job on the full test bed at scale `laptop`: seconds by stage, peak memory, and the answer.

    python bench/laptop.py --corpus corpus.jsonl --tasks 'tasks/*.jsonl' --root RUN [--set section.key=value …]

Writes bench/results/laptop.json. RUN is kept; the bench goes on from it when it was stopped.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

from _results import write_results
from openclimb.workspace.results import read_answer


def climb(*arguments: str) -> None:
    """Run the command; stop the bench when it fails."""
    subprocess.run([sys.executable, "-m", "openclimb.cli.main", *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", required=True)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    root = Path(options.root)
    if not (root / "climb.toml").exists():
        changes = [word for change in options.set for word in ("--set", change)]
        climb("init", str(root), "--corpus", *options.corpus, "--tasks", *options.tasks, "--scale", "laptop", *changes)
    climb("run", str(root))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    rows = []
    for stage in ("corpus", "clusters", "labels", "domains", "tokens", "mixture"):
        seconds = json.loads((root / stage / "record.json").read_text())["seconds"]
        rows.append((stage, "seconds", seconds))
    rows.append(("largest process", "peak resident bytes", peak))
    for name, margin in read_answer(root).margins.items():
        rows.append((f"found minus {name}", "report score", margin.mean))
    print("\n".join(f"{case:<24} {metric:<22} {value:>16,.3f}" for case, metric, value in rows))
    write_results(
        "laptop",
        [
            {"bench": "laptop", "case": case, "metric": metric, "value": value, "reference": None, "ratio": None}
            for case, metric, value in rows
        ],
    )


if __name__ == "__main__":
    main()
