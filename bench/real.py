"""Real trials to judge searches on: spread mixtures of the full test bed's domains, each trained with two seeds.

    python bench/real.py --corpus corpus.jsonl --bed DIR --root RUN [--mixtures 300] [--seeds 2] [--workers 2]

The corpus has a column `domain`; DIR holds the evaluation suite (as `climb tasks` reads it). Proxies are those of scale
`demo`. RUN is kept, and the bench goes on from it when it was stopped. Writes bench/results/tables/real_ratios.csv,
real_metrics.csv (means over seeds), real_runs.csv (every trial), real_priors.json and tables.json, in the form that
bench/search.py --tables reads; real_bigram.csv, a bigram model's scores of each mixture; and bench/results/real.json:
the noise and the spread of each task, and how a bigram model ranks the mixtures.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import openclimb
from _cheap_tables import ranks
from _results import FOLDER, write_results
from openclimb.corpus.domains import read_domains
from openclimb.engines.local import LocalEngine
from openclimb.mixture import natural, uniform
from openclimb.objectives.run import TrialRunner
from openclimb.progress import choose_progress
from openclimb.recipes import current_recipes
from openclimb.search.acquisition.design import unseen
from openclimb.search.predictors.low_fidelity_store import bigram
from openclimb.search.space.region import bend, draw_in, region_of, rounded
from openclimb.tasks.olmes import VARIANTS, convert
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import write_json
from openclimb.workspace.trials import Proposal, Trial

TABLES = FOLDER / "tables"
TASKS = tuple(task for task in VARIANTS if task not in ("winogrande", "boolq"))  # the gold text is scored alone there
SETTINGS: dict[str, dict[str, Any]] = {
    "target": {"token_budget": 20_000_000},
    "tasks": {"max_items": 250},
    "search": {"trials": [1], "low_fidelity": ""},
    "selection": {"finalists": 1, "seeds": 2},
}
SPARE = 8
CHUNK = 20  # mixtures that are asked for at once


def prepare(root: Path, corpus: Path, bed: Path, workers: int) -> None:
    """Make the workspace up to its tokens; its own search is one trial."""
    tasks = root.with_name(f"{root.name}-tasks")
    if not tasks.exists():
        convert(bed, tasks, TASKS)
    if not (root / "climb.toml").exists():
        settings = {**SETTINGS, "run": {"workers": workers}}
        settings["corpus"] = {"paths": [str(corpus.absolute())], "domains": "column:domain"}
        settings["tasks"] = {**SETTINGS["tasks"], "paths": [f"{tasks.absolute()}/*.jsonl"]}
        openclimb.init(root, "demo", **settings)
    openclimb.open(root).run(choose_progress(quiet=False, as_json=False))


def train(root: Path, n: int, seeds: Sequence[int], workers: int) -> list[Trial]:
    """Train n spread mixtures with each seed; natural and uniform are among them."""
    opened = openclimb.open(root)
    config, domains = opened.config, read_domains(root / "domains")
    region = region_of(domains, config.constraints)
    fixed = bend(np.stack([natural(domains), uniform(domains)]), region)
    spread = draw_in(n - len(fixed), region, np.random.default_rng([config.seed, 1]))
    spare = draw_in(SPARE, region, np.random.default_rng([config.seed, 2]))  # in place of mixtures that come twice
    drawn = unseen(rounded(np.concatenate([fixed, spread, spare]), region), fixed[:0])[:n]
    data = current_recipes(opened.workspace, config)["tokens"].fingerprint
    engine, done = LocalEngine(workers), list[Trial]()
    context = StageContext(root, engine, choose_progress(quiet=False, as_json=False), config.seed)
    runner = TrialRunner(root / "trials", root, config, domains, root / "tokens", data, context)
    try:
        for begin in range(0, n, CHUNK):
            rows = [tuple(row) for row in drawn[begin : begin + CHUNK].tolist()]
            proposals = [Proposal("search", 0, row, 100 + seed, "best-of-n") for row in rows for seed in seeds]
            done += runner.run(proposals, f"mixtures {begin + 1} to {begin + len(rows)} of {n}")
            write_tables(root, done)
    finally:
        engine.release()
    return done


def by_mixture(done: Sequence[Trial]) -> dict[tuple[float, ...], list[Trial]]:
    """Return the trials of each mixture that has scores of all seeds, in the order of the seeds."""
    found: dict[tuple[float, ...], dict[int, Trial]] = {}
    for trial in done:
        found.setdefault(trial.weights, {})[trial.seed] = trial
    most = max(map(len, found.values()))
    return {weights: [some[seed] for seed in sorted(some)] for weights, some in found.items() if len(some) == most}


def write_tables(root: Path, done: Sequence[Trial]) -> None:
    """Write the trials as tables; a mixture counts when all of its seeds have scores."""
    domains, tasks, whole = done[0].domains, sorted(done[0].scores), by_mixture(done)
    TABLES.mkdir(parents=True, exist_ok=True)
    means = [[float(np.mean([t.scores[task] for t in trials])) for task in tasks] for trials in whole.values()]
    write_csv("real_ratios.csv", ("run", *domains), [(i, *weights) for i, weights in enumerate(whole)])
    write_csv("real_metrics.csv", ("run", *tasks), [(i, *(f"{v:.5f}" for v in row)) for i, row in enumerate(means)])
    both = [(i, trial) for i, some in enumerate(whole.values()) for trial in some]
    runs = [(i, t.seed, *(f"{t.scores[task]:.5f}" for task in tasks)) for i, t in both]
    write_csv("real_runs.csv", ("run", "seed", *tasks), runs)
    share = natural(read_domains(root / "domains"))
    write_json(TABLES / "real_priors.json", {"relative_sizes": dict(zip(domains, share.tolist(), strict=True))})
    write_json(TABLES / "tables.json", {"real": "higher"})


def cheap(root: Path, done: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return how well cheaper scores rank the mixtures: rank correlations with full trials of another seed.

    A bigram model's scores are compared with the means over seeds.
    """
    tasks, whole = sorted(done[0].scores), list(by_mixture(done).values())
    full = np.array([[[trial.scores[task] for task in tasks] for trial in some] for some in whole])
    bigrams = write_bigrams(root, [trial for some in whole for trial in some])
    columns = np.stack([bigrams[task] for task in tasks], axis=1)
    rows = ranks(full[:, 0], full[:, 1], tasks, "full trial, another seed")
    return rows + ranks(columns, full.mean(1), tasks, "bigram")


def write_bigrams(root: Path, done: Sequence[Trial]) -> dict[str, NDArray[np.float64]]:
    """Write a bigram model's score of every mixture; return them by task."""
    domains, tasks = done[0].domains, sorted(done[0].scores)
    weights = np.array(list(dict.fromkeys(trial.weights for trial in done)))
    scores = bigram(root / "tokens", domains, weights, done[0].token_budget)
    rows = [(i, *(f"{scores[task][i]:.5f}" for task in tasks)) for i in range(len(weights))]
    write_csv("real_bigram.csv", ("run", *tasks), rows)
    return scores


def write_csv(name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with open(TABLES / name, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def figures(done: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return spread over mixtures, sd of a trial over seeds, and their ratio, for each task and their mean."""
    groups = [some for some in by_mixture(done).values() if len(some) > 1]
    rows: list[dict[str, Any]] = [{"case": "mixtures", "metric": "count", "value": len(groups)}]
    for task in [*sorted(done[0].scores), "mean of all"]:
        table = np.array(
            [[np.mean(list(t.scores.values())) if task == "mean of all" else t.scores[task] for t in g] for g in groups]
        )
        centred = table - table.mean(0)  # a seed's luck that all mixtures share is no noise between them
        noise = float(np.sqrt((centred - centred.mean(1, keepdims=True)).var(1, ddof=1).mean()))
        spread = float(np.sqrt(max(0.0, table.mean(1).var(ddof=1) - noise**2 / table.shape[1])))
        values = {"spread over mixtures": spread, "sd over seeds": noise, "sd of a paired difference": noise * 2**0.5}
        rows += [{"case": task, "metric": key, "value": round(value, 5)} for key, value in values.items()]
        rows.append({"case": task, "metric": "signal to noise (paired)", "value": round(spread / noise / 2**0.5, 2)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--bed", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--mixtures", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    prepare(options.root, options.corpus, options.bed, options.workers)
    done = train(options.root, options.mixtures, range(options.seeds), options.workers)
    rows = figures(done) + cheap(options.root, done)
    for row in rows:
        print(f"{row['case']:<20} {row['metric']:<28} {row['value']:>10.4f}")
    write_results("real", rows)


if __name__ == "__main__":
    main()
