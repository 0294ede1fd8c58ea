"""How often the demo convinces: whole demos with many seeds, and what each of them says.

    python bench/demo_power.py --demo FOLDER --root RUNS [--seeds 20] [--only-read]

FOLDER is what `make demo` made (.demo): its corpus, tasks and embedder are used again, so that no download counts.
For each seed RUNS/seed-03 gets what the demo does after its downloads and its embedder: climb init, climb run. RUNS is
kept and gone on with. The table gives for each seed the seconds of `climb run` and the gain of the found mixture over
natural and uniform on report items with its 95 % interval; then the distribution, and what a trial tells: the sd over
seeds of a paired difference between mixtures of the claim, pooled over demos, the spread of the objective over the
mixtures of the first iteration, their ratio, and how far two mixtures share the luck of a seed. Writes
bench/results/demo_power.json.
"""

import argparse
import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from _results import write_results
from openclimb.workspace.files import read_json, write_json
from openclimb.workspace.results import MIXTURE, read_answer
from openclimb.workspace.trials import Trial, read_trials

BASELINES = ("natural", "uniform")
BAR_WON, BAR_SECONDS = 0.95, 240.0
BAR_NOISE, BAR_RATIO = 0.007, 12.0


def run(demo: Path, root: Path, seed: int) -> None:
    """Run one demo where it has no answer yet; keep the seconds that it took in all."""
    climb = [sys.executable, "-W", "ignore", "-m", "openclimb.cli.main"]
    if not (root / "climb.toml").exists():
        inputs = [str(demo / "corpus" / "part-*"), "--tasks", str(demo / "tasks" / "*.jsonl"), "--scale", "demo"]
        changes = ["--set", f"embed.model={demo / 'embedder'}", "--set", f"seed={seed}"]
        subprocess.run(
            [*climb, "init", str(root), "--corpus", *inputs, *changes], check=True, stdout=subprocess.DEVNULL
        )
    before = read_json(root / "seconds.json")["seconds"] if (root / "seconds.json").is_file() else 0.0
    began = time.monotonic()
    subprocess.run([*climb, "run", str(root), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    if not (root / "seconds.json").is_file():
        write_json(root / "seconds.json", {"seconds": before + time.monotonic() - began})


def said(root: Path) -> dict[str, Any]:
    """Return what one demo came to."""
    margins = read_answer(root).margins
    found: dict[str, Any] = {"seconds": read_json(root / "seconds.json")["seconds"]}
    for name in BASELINES:
        margin = margins.get(name)
        found[name] = margin.mean if margin else 0.0
        found[f"{name} low"], found[f"{name} high"] = margin.interval if margin else (0.0, 0.0)
    found["won"] = all(found[f"{name} low"] > 0 for name in BASELINES)
    return found


def by_seed(root: Path) -> dict[str, dict[int, float]]:
    """Return the objective on search items, the mean of the tasks, of each mixture of the claim by seed."""
    found: dict[str, dict[int, float]] = {}
    for trial in read_trials(root / "trials"):
        if trial.role != "search" and trial.scores:
            found.setdefault(trial.role, {})[trial.seed] = objective(trial)
    return found


def differences(root: Path) -> list[tuple[float, int]]:
    """Return (variance over seeds, degrees of freedom) of the paired differences from natural and from uniform."""
    found = by_seed(root)
    pairs = []
    for name in BASELINES:
        both = [value - found[name][seed] for seed, value in found["finalist"].items() if seed in found[name]]
        pairs.append((float(np.var(both, ddof=1)), len(both) - 1))
    return pairs


def shared(roots: list[Path]) -> float:
    """Return the correlation over seeds of two mixtures of the claim, pooled over demos and pairs."""
    both: list[tuple[float, float]] = []
    for root in roots:
        for one, other in itertools.combinations(by_seed(root).values(), 2):
            seeds = sorted(set(one) & set(other))
            pair = np.array([[one[seed], other[seed]] for seed in seeds])
            both += (pair - pair.mean(0)).tolist()
    first, second = np.array(both).T
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))


def spread(root: Path) -> float:
    """Return the standard deviation of the objective over the mixtures of the first iteration, noise included."""
    first = [one for one in read_trials(root / "trials") if (one.role, one.iteration) == ("search", 0)]
    return float(np.std([objective(trial) for trial in first], ddof=1))


def objective(trial: Trial) -> float:
    """Return the mean of a trial's scores, which the demo weighs alike."""
    return float(np.mean(list(trial.scores.values())))


def what_a_trial_tells(roots: list[Path]) -> list[dict[str, Any]]:
    """Return the rows of noise, spread and their ratio."""
    pairs = [pair for root in roots for pair in differences(root)]
    freedom = sum(n for _, n in pairs)
    noise = float(np.sqrt(sum(variance * n for variance, n in pairs) / freedom))
    of_mixtures = float(np.sqrt(max(0.0, np.median([spread(root) for root in roots]) ** 2 - noise**2 / 2)))
    values = {
        "sd of a paired difference": (noise, BAR_NOISE),
        "degrees of freedom": (float(freedom), None),
        "spread over mixtures, median": (of_mixtures, None),
        "signal to noise": (of_mixtures / noise, BAR_RATIO),
        "correlation of two mixtures over seeds": (shared(roots), None),
    }
    return [
        {"case": "a trial", "metric": metric, "value": round(value, 4), "reference": bar}
        for metric, (value, bar) in values.items()
    ]


def rows_of(seeds: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the results: each seed's, then the distribution."""
    rows = [
        {"case": f"seed {seed}", "metric": key, "value": round(float(value), 4)}
        for seed, found in seeds.items()
        for key, value in found.items()
    ]
    each = list(seeds.values())
    won = float(np.mean([found["won"] for found in each]))
    rows.append({"case": "all", "metric": "beats both beyond noise, share", "value": won, "reference": BAR_WON})
    for name in BASELINES:
        share = float(np.mean([found[f"{name} low"] > 0 for found in each]))
        rows.append({"case": "all", "metric": f"beats {name} beyond noise, share", "value": share})
        for label, q in (("least", 0), ("lower quartile", 25), ("median", 50), ("upper quartile", 75), ("most", 100)):
            value = float(np.percentile([found[name] for found in each], q))
            rows.append({"case": "all", "metric": f"gain over {name}, {label}", "value": round(value, 4)})
    seconds = [found["seconds"] for found in each]
    for label, q in (("median", 50), ("most", 100)):
        value = round(float(np.percentile(seconds, q)), 1)
        rows.append({"case": "all", "metric": f"seconds, {label}", "value": value, "reference": BAR_SECONDS})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only-read", action="store_true", help="take the demos that are there")
    options = parser.parse_args()
    demo, found = options.demo.absolute(), {}
    print(f"{'seed':>4} {'s':>6}  found − natural               found − uniform")
    for seed in range(options.first, options.first + options.seeds):
        root = options.root / f"seed-{seed:02d}"
        if not options.only_read:
            run(demo, root, seed)
        if not (root / MIXTURE).is_file():
            continue
        one = found[seed] = said(root)
        cells = [f"{one[b]:+.4f} [{one[f'{b} low']:+.4f}, {one[f'{b} high']:+.4f}]" for b in BASELINES]
        print(f"{seed:>4} {one['seconds']:>6.0f}  {cells[0]:<30}{cells[1]:<30}{'' if one['won'] else 'no'}", flush=True)
    rows = rows_of(found) + what_a_trial_tells([options.root / f"seed-{seed:02d}" for seed in found])
    for row in rows:
        if row["case"] in ("all", "a trial"):
            print(f"{row['metric']:<44} {row['value']:>9.4f}")
    write_results("demo_power", rows)


if __name__ == "__main__":
    main()
