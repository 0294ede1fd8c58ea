"""What old trials are worth when the domains change: a new search with them against one without.

    python bench/reuse.py --tables DIR [--json OUT] [--quick] [--only simulated,tables] [--workers N]

Writes to OUT a list of rows {"bench", "table", "method", "runs", "metric", "mean", "se"} and prints them as Markdown;
a run that is not quick is kept in bench/results/reuse.json. Everything is seeded.

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

from _results import FOLDER, machine  # noqa: E402
from _search_tables import Floats, Table, read_tables  # noqa: E402
from openclimb.config import PickSettings, SearchSettings  # noqa: E402
from openclimb.mixture import Domain, Weights, natural  # noqa: E402
from openclimb.search.forecast import fit_forecast  # noqa: E402
from openclimb.search.history import read_history  # noqa: E402
from openclimb.search.loop import finalists, next_batch  # noqa: E402
from openclimb.search.required import Required  # noqa: E402
from openclimb.search.domain_map import DomainMap  # noqa: E402
from openclimb.search.reuse import OldTrial, Reuse, reuse_old, without_old  # noqa: E402
from openclimb.search.sample import bounds, draw  # noqa: E402
from openclimb.search.simulate import Problem, make_problem, polish, simulate  # noqa: E402
from openclimb.trials import Trial  # noqa: E402
from openclimb.workspace import versions, write_json  # noqa: E402

Groups = list[list[int]]
Record = tuple[str, str, str, int, str, float]  # bench, table, method, runs, metric, value of one seed or split
Row = dict[str, Any]

PROBLEMS = {"law": 8, "interactions": 8}
CHANGES = ("add", "remove", "split", "join")
OLD_TRIALS = (16, 8, 4)
NEW_TRIALS = (7, 7, 14)
METHODS = ("fresh", "free", "block")
REPETITIONS = 4.0
N_OLD, N_NEW = 64, (8, 16, 32)  # rows of a table


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
    answer, trials = simulate(first, SearchSettings(trials=OLD_TRIALS), seed)
    old = [OldTrial("old", trial.number, trial.seed, trial.weights, trial.scores) for trial in trials]
    records = []
    for method in methods:
        reuse = (
            without_old(second.domains, Required())
            if method == "fresh"
            else reuse_old(old, domain_map, answer, second.domains, Required(), method)
        )
        for n, found in search(second, reuse, seed):
            records.append(("simulated", f"{base.name}, {change}", method, n, "regret", second.regret(found)))
    return records


def search(problem: Problem, reuse: Reuse, seed: int) -> list[tuple[int, Weights]]:
    """Return the answer after so many trials, for each iteration."""
    settings = SearchSettings()
    told: list[Trial] = []
    answers = []
    for iteration, n in enumerate(NEW_TRIALS):
        batch = next_batch(reuse.informed(told), reuse.searched, n, iteration, settings, {}, seed, reuse.required)
        weights = reuse.expanded(batch)
        rng = np.random.default_rng([seed, iteration, 1])
        for row, scores in zip(weights, problem.observe(weights, rng), strict=True):
            told.append(_trial(len(told) + 1, problem, row, scores))
        known = reuse.informed(told)
        found = finalists(known, reuse.searched, settings, PickSettings(finalists=1), {}, seed, reuse.required)[0][1]
        answers.append((len(told), reuse.expanded(np.array(found))))
    return answers


def _trial(number: int, problem: Problem, row: Weights, scores: dict[str, float]) -> Trial:
    names = tuple(domain.name for domain in problem.domains)
    return Trial(number, "search", 0, names, tuple(row.tolist()), 0, 1, "new", "climb", str(number), scores)


def tabled(folder: str, name: str, change: str, split: int) -> list[Record]:
    """Rows of a table as old and as new trials, two of its columns joined on one side."""
    table = read_tables(folder)[name]
    rng = np.random.default_rng([split, 11])
    order = rng.permutation(len(table.weights))
    n_old = min(N_OLD, len(order) // 3)
    rows, rest = order[:n_old], order[n_old:]
    held = rest[max(N_NEW) :] if len(rest) > max(N_NEW) + 20 else rest[-20:]
    a, b = rng.choice(np.argsort(-table.weights.mean(0))[: max(3, len(table.domains) // 2)], 2, replace=False).tolist()
    kept = [i for i in range(len(table.domains)) if i not in (a, b)]
    joined = [[i] for i in kept] + [[a, b]]
    apart = [[i] for i in range(len(table.domains))]
    groups = {"split": (joined, apart), "join": (apart, joined)}[change]
    (before, old_names), (after, new_names) = (summed(table, one) for one in groups)
    spreads = [by_tokens(table, one) for one in groups]
    domain_map = DomainMap(old_names, new_names, shared(*spreads), shared(*spreads[::-1]))
    domains = [Domain(one, int(1e9 * share) + 1) for one, share in zip(new_names, table.natural @ membership(groups[1], len(table.domains)).T, strict=True)]
    scores = [dict(zip(table.tasks, row.tolist(), strict=True)) for row in table.scores]
    spread = table.scores.std(0) * rng.standard_normal(len(table.tasks))
    old = [OldTrial("old", int(i), 0, tuple(before[i].tolist()), {t: s + float(d) for (t, s), d in zip(scores[i].items(), spread, strict=True)}) for i in rows]
    exact = table.scores[held].mean(1)
    records: list[Record] = []
    for n in N_NEW:
        told = [Trial(k, "search", 0, new_names, tuple(after[i].tolist()), 0, 1, "new", "climb", str(k), scores[i]) for k, i in enumerate(rest[:n], 1)]
        for method in ("fresh", "free"):
            reuse = without_old(domains, Required()) if method == "fresh" else reuse_old(old, domain_map, np.ones(len(old_names)) / len(old_names), domains, Required())
            history = read_history(reuse.informed(told), reuse.searched, {})
            guess = fit_forecast(history, "auto").predict(after[held] @ reuse.reduce)[0]
            records.append(("tables", f"{name}, {change}", method, n, "spearman, mean of tasks", _rank(guess, exact)))
    return records
