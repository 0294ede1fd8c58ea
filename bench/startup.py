"""How long the command takes to answer, beside the interpreter alone.

    python bench/startup.py

Writes bench/results/startup.json.
"""

import subprocess
import sys
import time
from statistics import median

from _results import write_results

TURNS = 15
COMMANDS = {
    "climb --help": [sys.executable, "-m", "openclimb.cli.main", "--help"],
    "import openclimb": [sys.executable, "-c", "import openclimb"],
}
REFERENCE = [sys.executable, "-c", "pass"]


def seconds(command: list[str]) -> float:
    """Return how long a command runs."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Time the commands turn about, print medians, write the rows."""
    times: dict[str, list[float]] = {name: [] for name in ("python -c pass", *COMMANDS)}
    for _ in range(TURNS):
        times["python -c pass"].append(seconds(REFERENCE))
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    reference = median(times["python -c pass"])
    rows = [
        {"case": name, "metric": "seconds", "value": round(median(times[name]), 4), "reference": round(reference, 4)}
        for name in COMMANDS
    ]
    for row in rows:
        print(f"{row['case']:<18} {row['value']:.3f} s, the interpreter alone {row['reference']:.3f} s")
    write_results("startup", rows)


if __name__ == "__main__":
    main()
