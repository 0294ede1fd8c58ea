"""What old trials are worth when the domains change: a new search with them against one without.

    python bench/reuse.py --tables DIR [--json OUT] [--quick] [--only simulated,tables] [--workers N]

Writes to OUT a list of rows {"bench", "table", "method", "runs", "metric", "mean", "se"} and prints them as Markdown;
a run that is not quick is kept in bench/results/reuse.json, with the parts that it measured and how many of the jobs
were done. Everything is seeded.

simulated  28 old trials, found by a search over the old domains, then a domain is added or removed, one is split in
           two or two are joined, and the level of every task's score moves by about its spread. Regret of the new
           search's answer after 7, 14 and 28 new trials (7 + 7 + 14): `fresh` without the old trials, `free` with
           them, `block` with the untouched domains moving as one
tables     two columns of a published table are joined, or its rows are read as trials over joined columns and the
           search has them apart: held-out Spearman of the mean of the tasks from few new rows, with and without the
           carried rows
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_threads] = "1"  # before numpy is imported, here and in the workers: one process a core
os.environ.setdefault("PYTHONWARNINGS", "ignore")

import numpy as np  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

from _results import FOLDER, machine, markdown, mean_row  # noqa: E402
from _search_tables import Floats, read_tables  # noqa: E402
from openclimb.config.schema import SearchSettings  # noqa: E402
from openclimb.mixture import Domain, Weights, natural  # noqa: E402
from openclimb.search.acquisition.spec import make_spec  # noqa: E402
from openclimb.search.history import read_history  # noqa: E402
from openclimb.search.predictors.objective import fit_objective  # noqa: E402
from openclimb.search.propose import finalists, next_batch  # noqa: E402
from openclimb.search.space.search_space import SearchSpace  # noqa: E402
from openclimb.search.space.simplex import bounds, draw  # noqa: E402
from openclimb.search.transfer.carry import OldTrial, transfer_space  # noqa: E402
from openclimb.search.transfer.domain_map import DomainMap  # noqa: E402
from openclimb.testing.fixtures import make_space  # noqa: E402
from openclimb.testing.problems import Problem, make_problem, polish, simulate  # noqa: E402
from openclimb.workspace.files import versions, write_json  # noqa: E402
from openclimb.workspace.trials import Trial  # noqa: E402

Groups = list[list[int]]
SETTINGS = SearchSettings()
Record = tuple[str, str, str, int, str, float]  # bench, table, method, runs, metric, value of one seed or split
Row = dict[str, Any]

PROBLEMS = {"law": 8, "interactions": 8}
CHANGES = ("add", "remove", "split", "join")
OLD_TRIALS = (16, 8, 4)
NEW_TRIALS = (7, 7, 14)
METHODS = ("fresh", "free", "frozen")
REPETITIONS = 4.0
SEEDS, SPLITS = 10, 10
N_OLD, N_NEW = 40, (8, 16)  # rows of a table


def view(base: Problem, groups: Groups, level: Floats) -> tuple[Problem, Weights]:
    """Return the problem over domains that are groups of the base's, drawn by tokens, and the matrix (n, n_base)."""
    tokens = np.array([domain.n_tokens for domain in base.domains], dtype=np.float64)
    spread = np.zeros((len(groups), len(tokens)))
    for i, members in enumerate(groups):
        spread[i, members] = tokens[members] / tokens[members].sum()
    sizes = [int(tokens[members].sum()) for members in groups]
    domains = tuple(
        Domain("+".join(base.domains[i].name for i in members), size, min(1.0, REPETITIONS * size / sum(sizes)))
        for members, size in zip(groups, sizes, strict=True)
    )

    def score(weights: Weights) -> Floats:
        exact: Floats = base.score(weights @ spread) + level
        return exact

    optimum = polish(lambda weights: score(weights).mean(1), domains, np.random.default_rng(0))
    return Problem(base.name, domains, score, lambda weights: base.noise(weights @ spread), optimum), spread


def changed(base: Problem, change: str, seed: int) -> tuple[Problem, Problem, DomainMap]:
    """Return the old and the new problem and the map between their domains. Which domains change is drawn."""
    rng = np.random.default_rng([seed, CHANGES.index(change), 7])
    tokens = [domain.n_tokens for domain in base.domains]
    large = np.argsort(tokens)[::-1][: max(3, len(tokens) // 2)]
    a, b = rng.choice(large, 2, replace=False).tolist()
    apart = [[i] for i in range(len(tokens))]
    fewer = [[i] for i in range(len(tokens)) if i != a]
    joined = [[i] for i in range(len(tokens)) if i not in (a, b)] + [[a, b]]
    old, new = {
        "add": (fewer, apart),
        "remove": (apart, fewer),
        "split": (joined, apart),
        "join": (apart, joined),
    }[change]
    floors, caps = bounds(base.domains)
    sample = base.score(draw(300, natural(base.domains), floors, caps, rng))
    level = rng.standard_normal(sample.shape[1]) * sample.std(0)
    (first, old_spread), (second, new_spread) = view(base, old, np.zeros(len(level))), view(base, new, level)
    forward, backward = shared(old_spread, new_spread), shared(new_spread, old_spread)
    names = [tuple(domain.name for domain in problem.domains) for problem in (first, second)]
    return first, second, DomainMap(names[0], names[1], forward, backward)


def shared(one: Weights, other: Weights) -> Weights:
    """Return which part of each row's tokens (n, n_base) is in each row of the other."""
    return one @ (other > 0).T.astype(np.float64)


def play(kind: str, change: str, seed: int, methods: tuple[str, ...] = METHODS) -> list[Record]:
    """Search over the old domains, change them, search again."""
    base = make_problem(kind, PROBLEMS[kind], seed)
    first, second, domain_map = changed(base, change, seed)
    answer, measured = simulate(first, SearchSettings(trials=OLD_TRIALS), seed)
    old = [OldTrial("old", int(one.name), one.seed, one.weights, one.scores) for one in measured]
    records = []
    for method in methods:
        if method == "frozen" and change == "remove":
            continue  # every domain that is left is untouched: nothing moves against anything
        space = (
            make_space(second.domains, SETTINGS)
            if method == "fresh"
            else transfer_space(old, domain_map, answer, make_spec(second.domains, SETTINGS), method)
        )
        for n, found in search(second, space, seed):
            records.append(("simulated", f"{base.name}, {change}", method, n, "regret", second.regret(found)))
    return records


def search(problem: Problem, space: SearchSpace, seed: int) -> list[tuple[int, Weights]]:
    """Return the answer after so many trials, for each iteration."""
    names = tuple(domain.name for domain in problem.domains)
    completed: list[Trial] = []
    answers = []
    for iteration, n in enumerate(NEW_TRIALS):
        batch = next_batch(space.observations(completed), space.spec, n, iteration, seed)
        weights = space.expanded(batch)
        rng = np.random.default_rng([seed, iteration, 1])
        for row, scores in zip(weights, problem.observe(weights, rng), strict=True):
            completed.append(_told(len(completed) + 1, names, row, scores))
        known = space.observations(completed)
        found = finalists(known, space.spec, 1, seed)[0][1]
        answers.append((len(completed), space.expanded(np.array(found))))
    return answers


def _told(number: int, names: tuple[str, ...], row: Weights, scores: dict[str, float]) -> Trial:
    return Trial(number, "search", 0, names, tuple(row.tolist()), 0, 1, "new", "climb", str(number), scores)


def tabled(folder: str, name: str, change: str, split: int) -> list[Record]:
    """Rows of a table as old and as new trials, two of its columns joined on one side; the old ones' level is moved."""
    table = read_tables(folder)[name]
    rng = np.random.default_rng([split, 11])
    order = rng.permutation(len(table.weights))
    n_old = min(N_OLD, len(order) // 3)
    n_domains = len(table.domains)
    large = np.argsort(-table.weights.mean(0))[: max(3, n_domains // 2)]
    a, b = rng.choice(large, 2, replace=False).tolist()
    apart = [[i] for i in range(n_domains)]
    joined = [[i] for i in range(n_domains) if i not in (a, b)] + [[a, b]]
    sides = {"split": (joined, apart), "join": (apart, joined)}[change]
    members = [np.array([[i in group for i in range(n_domains)] for group in side], dtype=float) for side in sides]
    drawn = [one * table.natural / np.maximum((one * table.natural).sum(1, keepdims=True), 1e-300) for one in members]
    names = [tuple("+".join(table.domains[i] for i in group) for group in side) for side in sides]
    domain_map = DomainMap(names[0], names[1], shared(drawn[0], members[1]), shared(drawn[1], members[0]))
    tokens = np.maximum(table.natural @ members[1].T, 1e-9) * 1e9
    domains = [Domain(one, int(n)) for one, n in zip(names[1], tokens, strict=True)]
    level = rng.standard_normal(len(table.tasks)) * table.scores.std(0)

    def scores(row: Floats) -> dict[str, float]:
        return dict(zip(table.tasks, row.tolist(), strict=True))

    before, after = (table.weights @ one.T for one in members)
    old = [OldTrial("old", i, 0, tuple(before[i].tolist()), scores(table.scores[i] + level)) for i in order[:n_old]]
    rest, held = order[n_old : n_old + max(N_NEW)], order[n_old + max(N_NEW) :]
    exact = table.scores[held].mean(1)
    even = np.full(len(names[0]), 1.0 / len(names[0]))
    records: list[Record] = []
    for n in N_NEW:
        completed = [_told(k, names[1], after[i], scores(table.scores[i])) for k, i in enumerate(rest[:n], 1)]
        for method in ("fresh", "free"):
            space = (
                make_space(domains, SETTINGS)
                if method == "fresh"
                else transfer_space(old, domain_map, even, make_spec(domains, SETTINGS))
            )
            history = read_history(space.observations(completed), space.spec.domains, {})
            guess = fit_objective(history, "auto").predict(space.reduced(after[held]))[0]
            rho = float(spearmanr(guess, exact).statistic) if np.ptp(guess) else 0.0
            records.append(("tables", f"{name}, {change}", method, n, "spearman, mean of tasks", rho))
    return records


def work(job: tuple[Any, ...]) -> list[Record]:
    """Run one job in a worker process."""
    return (play if job[0] == "simulated" else tabled)(*job[1:])


def make_jobs(folder: str, quick: bool, only: set[str]) -> list[tuple[Any, ...]]:
    """Return the jobs."""
    jobs: list[tuple[Any, ...]] = []
    if "simulated" in only:
        seeds = range(1 if quick else SEEDS)
        jobs += [("simulated", kind, change, seed) for seed in seeds for kind in PROBLEMS for change in CHANGES]
    if "tables" in only:
        splits = range(1 if quick else SPLITS)
        jobs += [
            ("tables", folder, name, change, split)
            for split in splits
            for name in read_tables(folder)
            for change in ("split", "join")
        ]
    return sorted(jobs, key=lambda job: job[-1])  # a run that is cut short has as many seeds of each


def run(jobs: list[tuple[Any, ...]], workers: int, minutes: float) -> tuple[list[Row], int]:
    """Run the jobs in processes, none begun after so many minutes; return a row for each thing measured, with mean

    and standard error, and how many jobs were done.
    """
    values: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    began, done = time.monotonic(), 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for at in range(0, len(jobs), workers):
            if time.monotonic() - began > 60 * minutes:
                break
            for records in pool.map(work, jobs[at : at + workers]):
                done += 1
                for *key, value in records:
                    values[tuple(key)].append(value)
            print(f"{done} of {len(jobs)} jobs, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return [mean_row(key, one) for key, one in values.items()], done


def main() -> None:
    """Measure, print the tables, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed, one split")
    parser.add_argument("--only", default="simulated,tables")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no job after this time")
    options = parser.parse_args()
    only = set(options.only.split(","))
    jobs = make_jobs(str(options.tables.resolve()), options.quick, only)
    rows, done = run(jobs, options.workers, options.minutes)
    print(markdown(rows, "new trials"))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if not options.quick:
        where = {"machine": machine(), "versions": versions(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
        path = FOLDER / "reuse.json"
        before = json.loads(path.read_text()) if path.is_file() else {"jobs": {}, "rows": []}
        rows += [row for row in before["rows"] if row["bench"] not in only]  # parts that were not measured now
        counts = {**before["jobs"], "+".join(sorted(only)): [done, len(jobs)]}
        write_json(path, {"jobs": counts, **where, "rows": rows})


if __name__ == "__main__":
    main()
