"""How long the command takes to answer, beside the interpreter alone; and with 2,000 trials of 64 domains.

    python bench/startup.py [--out FOLDER]

The trials are made up: four power laws with noise. Writes FOLDER/startup.json (bench/results without --out).
"""

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from _results import FOLDER, write_results

TURNS = 15
COMMANDS = {
    "climb --help": [sys.executable, "-m", "openclimb.cli.main", "--help"],
    "import openclimb": [sys.executable, "-c", "import openclimb"],
}
REFERENCE = [sys.executable, "-c", "pass"]
CLIMB = [sys.executable, "-m", "openclimb.cli.main"]
TRIALS, DOMAINS, TASKS = 2000, 64, 4
MANY = {  # with so many trials; the bar in seconds
    "status": (["status"], 3),
    "best": (["best"], 3),
    "report": (["report"], 3),
    "ask": (["ask"], 3),
    "ask -n 3000": (["ask", "-n", "3000"], 20),
}


def seconds(command: list[str]) -> float:
    """Return how long a command runs."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def make_trials(root: Path) -> Path:
    """Return a workspace with domains by hand and completed trials."""
    rng = np.random.default_rng(0)
    tokens = np.exp(rng.normal(20, 1, DOMAINS))
    weights = rng.dirichlet(40 * tokens / tokens.sum(), TRIALS).round(6)
    factors, powers = np.exp(rng.normal(0, 1, (DOMAINS, TASKS))), rng.uniform(0.1, 0.5, TASKS)
    losses = [2 + 1 / (np.maximum(weights, 1e-5) ** power @ factors[:, j]) for j, power in enumerate(powers)]
    scores = rng.normal(0, 0.003, (TRIALS, TASKS)) - np.stack(losses, 1)
    names = [f"d{i:02d}" for i in range(DOMAINS)]
    tables = {
        "domains": [["name", "tokens"], *zip(names, tokens.astype(int).tolist(), strict=True)],
        "ratios": [["run", *names], *([i, *row] for i, row in enumerate(weights.tolist()))],
        "metrics": [["run", *"abcd"], *([i, *row] for i, row in enumerate(scores.tolist()))],
    }
    for name, rows in tables.items():
        with (root / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    run = root / "run"
    made = ["init", run, "--domains-file", root / "domains.csv", "--target-tokens", "100B"]
    for line in (made, ["import", run, root / "ratios.csv", root / "metrics.csv"]):
        subprocess.run([*CLIMB, *map(str, line)], check=True, stdout=subprocess.DEVNULL)
    return run


def many_trials() -> list[dict[str, Any]]:
    """Time the commands once each, every one on a copy of the workspace."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        run = make_trials(Path(folder))
        for name, (line, bar) in MANY.items():
            copy = Path(folder) / "copy"
            shutil.copytree(run, copy)
            took = seconds([*CLIMB, line[0], str(copy), *line[1:]])
            shutil.rmtree(copy)
            print(f"{name:<18} {took:.1f} s with {TRIALS:,} trials of {DOMAINS} domains; the bar is {bar}", flush=True)
            rows.append({"case": f"climb {name}, {TRIALS} trials", "metric": "seconds", "value": round(took, 2)})
    return rows


def main() -> None:
    """Time the commands turn about, print medians, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in ("python -c pass", *COMMANDS)}
    for _ in range(TURNS):
        times["python -c pass"].append(seconds(REFERENCE))
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    reference = median(times["python -c pass"])
    rows: list[dict[str, Any]] = [
        {"case": name, "metric": "seconds", "value": round(median(times[name]), 4), "reference": round(reference, 4)}
        for name in COMMANDS
    ]
    for row in rows:
        print(f"{row['case']:<18} {row['value']:.3f} s, the interpreter alone {row['reference']:.3f} s")
    write_results("startup", rows + many_trials(), options.out)


if __name__ == "__main__":
    main()
