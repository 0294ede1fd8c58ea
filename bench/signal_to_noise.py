"""Signal to noise of tasks at the demo's scale: spread over mixtures against spread over seeds, by metric and items.

    python bench/signal_to_noise.py --corpus FILES --tasks FILES --root RUN [--quick] [--only-read]

Makes a workspace of scale `demo` in RUN and runs it: random mixtures under the caps with one seed, then natural,
uniform and one found mixture with several. All options are scored, so that every metric can be told from the same
trials. RUN is kept and gone on with; --only-read takes the trials that are there. Writes
bench/results/signal_to_noise.json (not with --quick).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import openclimb
from _results import write_results
from openclimb.objectives.run import read_items
from openclimb.stats.signal_to_noise import FLOOR, OBJECTIVE, Signal, signals
from openclimb.tasks.measures import MEASURES
from openclimb.workspace.trials import Trial, read_trials

BAR = 5.0
SHARES = (0.25, 0.5, 1.0)  # of the items
RUN = {"search": {"trials": [12], "proposer": "best-of-n", "replicates": 3}, "selection": {"finalists": 1, "seeds": 2}}
QUICK = {"search": {"trials": [4], "proposer": "best-of-n", "replicates": 2}, "proxy": {"token_budget": 100_000}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", default=[])
    parser.add_argument("--tasks", nargs="+", default=[])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only-read", action="store_true")
    options = parser.parse_args()
    if not (options.root / "climb.toml").exists():
        settings: dict[str, Any] = {**RUN, **(QUICK if options.quick else {})}
        openclimb.init(
            options.root,
            scale="demo",
            corpus={"paths": options.corpus},
            tasks={"paths": options.tasks, "metric": "margin"},
            embed={"embedder": "hashing"},
            run={"workers": 1},
            **settings,
        )
    if not options.only_read:
        openclimb.open(options.root).run()
    rows = table(options.root)
    for row in rows:
        print(f"{row['case']:<28} {row['metric']:<58} {row['value']:>8.2f}")
    if not options.quick:
        write_results("signal_to_noise", rows)


def table(root: Path) -> list[dict[str, Any]]:
    """Return the rows of a workspace's trials: one for each task, metric and share of the items."""
    done = [trial for trial in read_trials(root / "trials") if trial.state == "done"]
    items = read_items(root / "trials", done)
    n_tokens = done[0].token_budget
    rows = []
    for metric in MEASURES:
        for share in SHARES:
            scored = [replace(trial, scores=scores_of(items[trial.number], metric, share)) for trial in done]
            searched = [trial for trial in scored if trial.role == "search"]
            repeated = [trial for trial in scored if trial.role != "search"]
            label = f"{metric}, {share:.0%} of the items, {n_tokens:,} tokens"
            found = signals(searched, repeated, {})
            rows += [row for one in found for row in rows_of(one.task, label, one)]
            ratios = {one.task: one.ratio for one in found if one.task != OBJECTIVE}
            for name, weights in objectives(ratios).items():
                weighed = next(one for one in signals(searched, repeated, weights) if one.task == OBJECTIVE)
                rows += rows_of(name, label, weighed)
    base = {"bench": "signal_to_noise", "metric": "items (all of them)", "reference": None}
    sizes = {name: len(values) for name, values in items[done[0].number].items() if name.endswith("/search/bpb")}
    rows += [{**base, "case": name.split("/")[0], "value": n} for name, n in sizes.items()]
    return rows + counts(done)


def rows_of(case: str, label: str, one: Signal) -> list[dict[str, Any]]:
    """Return the rows of one signal to noise: the ratio and its interval."""
    values = (("signal to noise", one.ratio), ("least, 95 %", one.low), ("most, 95 %", one.high))
    base = {"bench": "signal_to_noise", "case": case, "reference": BAR}
    return [{**base, "metric": f"{name}: {label}", "value": value} for name, value in values]


def objectives(ratios: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return objectives that the tasks' ratios suggest: weighed by them, and of those alone that reach the bar."""
    top = max(ratios.values(), default=0.0)
    chosen = {task: float(ratio >= BAR) for task, ratio in ratios.items()}
    weighed = {task: max(FLOOR * top, ratio) for task, ratio in ratios.items()}
    found = {"objective, weighed by signal": weighed} if top > 0 else {}
    return found | ({"objective, chosen tasks": chosen} if any(chosen.values()) else {})


def scores_of(arrays: Any, metric: str, share: float) -> dict[str, float]:
    """Return a trial's score by task on a share of the search items, the same for every trial; higher is better."""
    found = {}
    for name, values in arrays.items():
        task, part, measure = name.rsplit("/", 2)
        if part == "search" and measure == MEASURES[metric]:
            chosen = np.random.default_rng(0).permutation(len(values))[: max(1, round(share * len(values)))]
            found[task] = float(values[chosen].mean(dtype=np.float64)) * (-1.0 if metric == "bpb" else 1.0)
    return found


def counts(done: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return how many trials the numbers rest on."""
    searched = sum(trial.role == "search" for trial in done)
    base = {"bench": "signal_to_noise", "case": "trials", "reference": None}
    return [
        {**base, "metric": "mixtures with one seed", "value": searched},
        {**base, "metric": "trials of mixtures with several seeds", "value": len(done) - searched},
    ]


if __name__ == "__main__":
    main()
