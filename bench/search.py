"""How good the search is, on published tables and on simulated objectives, against the recipe, RegMix and others.

    python bench/search.py --tables DIR … --json OUT [--quick] [--only held-out,search,time] [--seeds N] [--rivals N]

A DIR holds any X_ratios.csv / X_metrics.csv pairs and tables.json (`_search_tables.py`): published tables, and
bench/results/tables, our own real trials (`real.py`). Writes to OUT a list of rows
{"bench", "table", "method", "runs", "metric", "mean", "se"} and prints them as Markdown; OUT is written again and again
as results come. With --cache FOLDER each job's records are kept there, and a run that was cut goes on; a change of code
wants another folder. The last runs that were not quick are kept in bench/results/search.json, each part with its own
date and number of seeds. Everything is seeded: the same command gives the same numbers, but for seconds. The whole
takes hours on two cores, most of them BoTorch's.

held-out  fit on so many runs of a table, rank the others (Spearman); the same splits for all methods; coverage of the
          intervals of `auto`, also on tables cut into 64 domains and on simulated ones of 64
search    regret of the answer (best possible minus found, in spreads of random mixtures) on emulated tables and
          simulated objectives: all with 28 and with 112 trials, `climb` with 16 too; one set of seeds for all
time      seconds to propose a batch
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_threads] = "1"  # before numpy is imported, here and in the workers: one process a core
os.environ.setdefault("PYTHONWARNINGS", "ignore")

import numpy as np  # noqa: E402

from _results import FOLDER, machine, markdown, mean_row  # noqa: E402
from _search_rivals import LOW_FIDELITY, SEARCHES, SIMPLE, Play, installed_searches  # noqa: E402
from _search_tables import (  # noqa: E402
    EMULATORS,
    WIDE_ROWS,
    Floats,
    Table,
    emulate,
    has_low_fidelity,
    read_tables,
    wide_table,
)
from openclimb.config.schema import SearchSettings  # noqa: E402
from openclimb.engines.local import n_cores  # noqa: E402
from openclimb.search.acquisition.spec import make_spec  # noqa: E402
from openclimb.search.predictors.objective import fit_objective  # noqa: E402
from openclimb.search.propose import next_batch  # noqa: E402
from openclimb.testing.problems import PROBLEMS, Problem, make_problem  # noqa: E402
from openclimb.workspace.files import fingerprint, versions, write_json  # noqa: E402

Row = dict[str, Any]
Job = tuple[Any, ...]
Record = tuple[str, str, str, int, str, float]  # bench, table, method, runs, metric, value of one split or seed

SLOW = {"botorch"}  # searches of a minute each
SIZES = (32, 64, 112, 224)
LARGEST_SHARE = 0.8  # of a table's rows, to fit on
FOLDS = 5
ALONE = 16  # with more tasks than this, only the quick simple predictors are fitted to each task
NORMAL_80 = 1.2816
FEW, MANY = (16, 28), 112
SIMULATED = {"law": 8, "interactions": 12, "sparse": 20, "plateau": 8, "conflict": 12, "uneven": 20}
WIDE_PROBLEMS = ("law", "interactions", "sparse")  # also with 64 domains, held-out
TIMED = ((64, 500, 100), (20, 112, 6))  # domains, trials, tasks
MEAN_OF_TASKS = "spearman, mean of tasks"
PART_OF = {"5-fold": "held-out"}  # the part that measures a bench, where it is named otherwise


def work(job: Job, cache: Path | None = None) -> list[Record]:
    """Run one job in a worker process, or take what an earlier run kept of it."""
    path = cache / f"{fingerprint(list(job))}.json" if cache else None
    if path and path.is_file():
        return [cast(Record, tuple(record)) for record in json.loads(path.read_text())]
    records: list[Record] = {"held-out": held_out, "wide": wide, "search": play}[job[0]](*job[1:])
    if path:
        write_json(path, records)
    return records


def held_out(folder: str, name: str, runs: int, split: int) -> list[Record]:
    """Fit all predictors on one split; `runs` 0: all folds but one, in turn, of permutation split // FOLDS."""
    table = read_tables(folder)[name]
    n = len(table.weights)
    order = np.random.default_rng([split if runs else split // FOLDS, 5]).permutation(n)
    fitted = order[:runs] if runs else order[np.arange(n) % FOLDS != split % FOLDS]
    left = np.setdiff1d(order, fitted)
    label, records = runs or n - n // FOLDS, []
    bench = "held-out" if runs else "5-fold"
    for method, guess, tasks in _guesses(table, fitted, left):
        exact = table.scores[left]
        records.append((bench, name, method, label, MEAN_OF_TASKS, _rank(guess, exact.mean(1))))
        if tasks is not None:
            each = [_rank(tasks[:, j], exact[:, j]) for j in range(len(table.tasks))]
            records.append((bench, name, method, label, "spearman, average over tasks", float(np.mean(each))))
            records += [
                (bench, name, method, label, f"spearman, {task}", rho)
                for task, rho in zip(table.tasks, each, strict=True)
            ]
    records += [(bench, name, *rest) for rest in _coverage(table, fitted, left, label)]
    return records


def wide(folder: str, name: str, runs: int, split: int) -> list[Record]:
    """Fit `auto` on one split of a table of 64 domains."""
    table = wide_table(folder, name, split)
    order = np.random.default_rng([split, 5]).permutation(len(table.weights))
    fitted, left = order[:runs], order[runs:]
    guess = fit_objective(table.history(fitted), "auto").predict(table.weights[left])[0]
    rank = _rank(guess, table.scores[left].mean(1))
    records: list[Record] = [("held-out", table.name, "auto", runs, MEAN_OF_TASKS, rank)]
    return records + [("held-out", table.name, *rest) for rest in _coverage(table, fitted, left, runs)]


def _guesses(table: Table, fitted: Any, left: Any) -> Iterator[tuple[str, Floats, Floats | None]]:
    """Yield (method, guess of the mean of tasks (n,), guess of each task (n, n_tasks) or None)."""
    predictor = fit_objective(table.history(fitted), "auto")
    yield "auto", predictor.predict(table.weights[left])[0], predictor.predict_tasks(table.weights[left])[0]
    x, y, new = table.weights[fitted], table.scores[fitted], table.weights[left]
    for name, make in SIMPLE.items():
        guess = make().fit(x, y.mean(1)).predict(new)
        if len(table.tasks) == 1:
            tasks = guess[:, None]
        elif len(table.tasks) <= ALONE or name == "ridge":
            tasks = np.stack([make().fit(x, column).predict(new) for column in y.T], axis=1)
        elif name == "plain gp":  # one fit of the hyperparameters for all tasks
            mean, spread = y.mean(0), np.maximum(y.std(0), 1e-12)
            tasks = make().fit(x, (y - mean) / spread).predict(new) * spread + mean
        else:
            tasks = None
        yield name, guess, tasks


def _coverage(table: Table, fitted: Any, left: Any, label: int) -> Iterator[tuple[str, int, str, float]]:
    """Yield the share of held-out scores inside 80 % intervals."""
    predictor = fit_objective(table.history(fitted), "auto")
    exact, new = table.scores[left], table.weights[left]
    mean, deviation = predictor.predict(new)
    inside = np.abs(mean - exact.mean(1)) <= NORMAL_80 * deviation
    yield "auto", label, "coverage of 80 % intervals, mean of tasks", float(inside.mean())
    means, deviations = predictor.predict_tasks(new)
    each = (np.abs(means - exact) <= NORMAL_80 * deviations).mean(0)
    yield "auto", label, "coverage of 80 % intervals, average over tasks", float(each.mean())
    process = SIMPLE["plain gp"]().fit(table.weights[fitted], table.scores[fitted].mean(1))
    inside = np.abs(process.predict(new) - exact.mean(1)) <= NORMAL_80 * process.deviation(new)
    yield "plain gp", label, "coverage of 80 % intervals, mean of tasks", float(inside.mean())


def _rank(guess: Floats, scores: Floats) -> float:
    from scipy.stats import spearmanr

    if np.ptp(guess) == 0 or np.ptp(scores) == 0:
        return 0.0  # a constant ranks nothing
    return float(spearmanr(guess, scores).statistic)


def play(folder: str, name: str, kind: str, seed: int, methods: tuple[tuple[str, int], ...]) -> list[Record]:
    """Play searches on one problem with one seed. Simulated objectives are new ones for each seed."""
    problem = _problem(folder, name, kind, seed)
    found = {(method, n): problem.regret(SEARCHES[method](problem, n, seed)) for method, n in methods}
    records: list[Record] = [
        ("search", problem.name, method, n, "regret", value) for (method, n), value in found.items()
    ]
    for method, n in found:
        if n in FEW and ("recipe", MANY) in found:
            better = float(found[method, n] <= found["recipe", MANY])
            records.append(("search", problem.name, method, n, f"at least as good as the recipe with {MANY}", better))
    if ("climb", MANY) in found:
        records += [
            ("search", problem.name, method, n, f"regret minus climb's with {MANY}", value - found["climb", MANY])
            for (method, n), value in found.items()
            if n == MANY and method != "climb"
        ]
    return records


def _problem(folder: str, name: str, kind: str, seed: int) -> Problem:
    return make_problem(name, SIMULATED[name], seed) if kind == "simulated" else emulate(folder, name, kind)


def seconds_to_propose() -> list[Row]:
    """Time a later batch of 16 on simulated trials, the second of two runs."""
    rows = []
    for n_domains, n_trials, n_tasks in TIMED:
        problem = make_problem("law", n_domains, 1)
        rng = np.random.default_rng(0)
        share = rng.dirichlet(np.full(6, 0.5), n_tasks)
        many = Problem(
            problem.name,
            problem.domains,
            lambda weights, share=share, score=problem.score: score(weights) @ share.T,
            problem.noise,
            problem.optimum,
        )
        started = Play(many, 0)
        from openclimb.baselines.best_of_n import propose
        from openclimb.search.acquisition.spec import SearchSpec

        started.measure(propose(SearchSpec(tuple(problem.domains)), [], n_trials, rng))
        taken = []
        for seed in range(3):
            began = time.perf_counter()
            next_batch(started.trials, make_spec(problem.domains, SearchSettings()), 16, 1, seed)
            taken.append(time.perf_counter() - began)
        what = f"{n_domains} domains, {n_tasks} tasks"
        rows.append(mean_row(("time", what, "climb", n_trials, "seconds to propose 16"), taken))
    return rows


def make_jobs(folders: list[str], quick: bool, only: set[str], most_seeds: int, rivals: int, slow: int) -> list[Job]:
    """Return the jobs, long ones first; searches by seed, so that a cut run has all problems."""
    tables = {(folder, name): table for folder in folders for name, table in read_tables(folder).items()}
    jobs: list[Job] = []
    if "search" in only:
        seeds, rivals_seeds = (2, 1) if quick else (most_seeds, min(rivals, most_seeds))
        ours = ("climb", LOW_FIDELITY, "recipe")  # with their own numbers of trials, or on every seed
        installed = ["climb", *(one for one in installed_searches() if one not in ours and not (quick and one in SLOW))]
        problems = [(folder, name, kind) for kind in EMULATORS for folder, name in tables]
        problems += [("", name, "simulated") for name in PROBLEMS]
        for seed in range(seeds):
            methods = [*(("climb", n) for n in FEW), ("recipe", MANY)]
            if seed < rivals_seeds:
                methods += [(one, MANY) for one in installed if one not in SLOW or seed < slow]
            for folder, name, kind in problems:
                more = (
                    [(LOW_FIDELITY, n) for n in FEW] if kind != "simulated" and has_low_fidelity(folder, name) else []
                )
                jobs.append(("search", folder, name, kind, seed, (*methods, *more)))
                if seed < rivals_seeds:
                    few = [one for one in (*installed[1:], "recipe") if one not in SLOW or seed < slow]
                    jobs.append(("search", folder, name, kind, seed, tuple((one, FEW[1]) for one in few)))
    if "held-out" in only:
        for (folder, name), table in tables.items():
            sizes = [n for n in (SIZES[::2] if quick else SIZES) if n <= LARGEST_SHARE * len(table.weights)]
            for runs in sizes or [max(2, len(table.weights) // 2)]:
                jobs += [("held-out", folder, name, runs, split) for split in range(2 if quick else 20)]
            jobs += [("held-out", folder, name, 0, split) for split in range(2 if quick else 4 * FOLDS)]
        n_rows = {key: len(table.weights) for key, table in tables.items()}
        n_rows |= {("", name): WIDE_ROWS for name in WIDE_PROBLEMS}
        for (folder, name), n in n_rows.items():
            sizes = [runs for runs in SIZES[: 1 if quick else 3] if runs <= LARGEST_SHARE * n]
            jobs += [("wide", folder, name, runs, split) for runs in sizes for split in range(2 if quick else 20)]
    return jobs


def run(jobs: list[Job], workers: int, out: Path, cache: Path | None) -> list[Row]:
    """Run the jobs in processes, and return a row for each thing measured, with mean and standard error.

    The rows so far are written to `out` as they come, and each job's records to `cache`.
    """
    values: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    began = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, records in enumerate(pool.map(partial(work, cache=cache), jobs), 1):
            for *key, value in records:
                values[tuple(key)].append(value)
            if sys.stderr.isatty() or done % 10 == 0:
                print(f"{done} of {len(jobs)} jobs, {time.monotonic() - began:.0f} s", file=sys.stderr)
            if done % 10 == 0:
                out.write_text(json.dumps([mean_row(key, one) for key, one in values.items()], indent=1) + "\n")
    return [mean_row(key, one) for key, one in values.items()]


def with_single_tasks(rows: list[Row]) -> list[Row]:
    """Add, for each table and number of runs, in how many tasks `auto` ranks at least as well as every simple fit."""
    each: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    whole = {MEAN_OF_TASKS, "spearman, average over tasks"}
    for row in rows:
        if row["metric"].startswith("spearman, ") and row["metric"] not in whole:
            each[row["bench"], row["table"], row["runs"], row["metric"]][row["method"]] = row["mean"]
    wins: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    behind: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for (bench, table, runs, _), by_method in each.items():
        best = max(value for method, value in by_method.items() if method != "auto")
        wins[bench, table, runs].append(float(by_method["auto"] >= best))
        behind[bench, table, runs].append(by_method["auto"] - best)
    added = [
        mean_row((b, t, "auto", n, "tasks where auto ≥ the best simple fit of that task"), v)
        for (b, t, n), v in wins.items()
    ]
    added += [
        {**mean_row((b, t, "auto", n, "least lead over the best simple fit of a task"), [min(v)])}
        for (b, t, n), v in behind.items()
    ]
    return rows + added


def _single_task(metric: str) -> bool:
    return metric.startswith("spearman, ") and metric not in (MEAN_OF_TASKS, "spearman, average over tasks")


def main() -> None:
    """Measure, print the tables, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, nargs="+", required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="few splits and seeds, without the slow searches")
    parser.add_argument("--only", default="held-out,search,time")
    parser.add_argument("--seeds", type=int, default=50, help="seeds of our search and of the recipe's")
    parser.add_argument("--rivals", type=int, default=20, help="seeds of the other searches")
    parser.add_argument("--slow", type=int, default=20, help="seeds of those that take a minute a search")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one a core")
    options = parser.parse_args()
    only = set(options.only.split(","))
    folders = [str(folder.resolve()) for folder in options.tables]
    jobs = make_jobs(folders, options.quick, only, options.seeds, options.rivals, options.slow)
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
    rows = with_single_tasks(run(jobs, options.workers or n_cores(), options.json, options.cache)) if jobs else []
    if "time" in only:
        rows += seconds_to_propose()
    print(markdown([row for row in rows if not _single_task(row["metric"])]))  # single tasks stay in the JSON
    options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if not options.quick:
        played = {"seeds": options.seeds, "rivals": options.rivals, "slow rivals": options.slow}
        seeds = {"held-out": {"seeds": 20}, "search": played}
        keep(rows, {part: seeds.get(part, {"seeds": 3}) for part in only})


def keep(rows: list[Row], seeds: dict[str, dict[str, int]]) -> None:
    """Put the rows in bench/results/search.json in place of those of the same parts; the other parts stay."""
    path = FOLDER / "search.json"
    kept = json.loads(path.read_text()) if path.is_file() else {"parts": {}, "rows": []}
    where = {"machine": machine(), "versions": versions(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
    parts = kept["parts"] | {part: {**n, **where} for part, n in seeds.items()}
    others = [row for row in kept["rows"] if PART_OF.get(row["bench"], row["bench"]) not in seeds]
    write_json(path, {"parts": parts, "rows": others + rows})


if __name__ == "__main__":
    main()
