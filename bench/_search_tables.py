"""Published tables of trials for bench/search.py, and an emulator of each: a problem whose every mixture has a score.

Reads DIR/tables.json ({"X": "higher" or "lower"}), X_ratios.csv (run, one weight a domain), X_metrics.csv (run, one
column a task) and, where there are any, X_priors.json (natural shares and token counts), X_runs.csv (run, seed, one
column a task: the trials whose means X_metrics.csv has) and X_bigram.csv (run, a bigram model's score of each task,
higher is better).
"""

import csv
import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.mixture import Domain, Weights, natural
from openclimb.search.history import History
from openclimb.search.space.simplex import bounds, draw
from openclimb.testing.problems import PROBLEMS, Problem, make_problem, polish
from openclimb.workspace.observations import LOW_FIDELITY, OWN, Observation

Floats = NDArray[np.float64]

TOKENS = 10**9  # of all domains together where a table names no token counts
EMULATED_TASKS = 24  # a problem of more tasks is emulated on so many evenly chosen ones
WIDE = 64  # domains of the tables that are made wide
WIDE_ROWS = 400  # of a simulated table
EMULATORS = {"smooth": 0.0, "rough": 0.5}  # share of boosted trees in the emulator; the rest is a Gaussian process


@dataclass(frozen=True)
class Table:
    """Trials that others ran: higher scores are better, also where the table holds losses."""

    name: str
    domains: tuple[str, ...]
    tasks: tuple[str, ...]
    weights: Weights  # (n, n_domains)
    scores: Floats  # (n, n_tasks)
    natural: Weights  # (n_domains,); the mean of the rows where the table has no priors

    def history(self, rows: NDArray[np.intp]) -> History:
        """Return the chosen rows as completed trials; the objective is the mean of the tasks."""
        share = np.full(len(self.tasks), 1.0 / len(self.tasks))
        return History(
            self.weights[rows], self.scores[rows], self.tasks, share, tuple(rows.tolist()), (OWN,) * len(rows)
        )


@functools.lru_cache
def read_tables(folder: str) -> dict[str, Table]:
    """Return the tables of a folder by name. Rows without a finite score in every task are left out."""
    sense = json.loads((Path(folder) / "tables.json").read_text())
    names = [path.name.removesuffix("_ratios.csv") for path in sorted(Path(folder).glob("*_ratios.csv"))]
    return {name: _read_table(Path(folder), name, _sense(sense, name)) for name in names}


def _sense(sense: dict[str, Any], name: str) -> float:
    found = sense.get(name, sense.get(name.rpartition("_")[0], "higher"))
    return -1.0 if "lower" in str(found) else 1.0


def _read_table(folder: Path, name: str, sign: float) -> Table:
    domains, ratios = _read_csv(folder / f"{name}_ratios.csv")
    tasks, metrics = _read_csv(folder / f"{name}_metrics.csv")
    runs = [run for run in ratios if run in metrics]
    weights = np.array([ratios[run] for run in runs])
    scores = sign * np.array([metrics[run] for run in runs])
    whole = np.isfinite(scores).all(1) & np.isfinite(weights).all(1) & (weights.sum(1) > 0)
    weights, scores = weights[whole], scores[whole]
    weights = weights / weights.sum(1, keepdims=True)
    path = folder / f"{name}_priors.json"
    natural = weights.mean(0)
    if path.is_file():
        sizes = json.loads(path.read_text())["relative_sizes"]
        natural = np.array([float(sizes.get(domain, 0.0)) for domain in domains])
    return Table(name, domains, tasks, weights, scores, natural / natural.sum())


def _read_csv(path: Path) -> tuple[tuple[str, ...], dict[str, list[float]]]:
    with open(path, newline="") as file:
        header, *rows = list(csv.reader(file))
    at = header.index("run") if "run" in header else 0
    names = tuple(name for i, name in enumerate(header) if i != at)
    return names, {
        row[at]: [float(value or "nan") for i, value in enumerate(row) if i != at] for row in rows if len(row) > 1
    }


def wide_table(folder: str, name: str, seed: int) -> Table:
    """Return a table of WIDE domains: noisy trials of a simulated problem (a new one for each seed), or a published
    table whose domains are cut into parts of any size, different in each run. The parts of a domain are worth the same.
    """
    rng = np.random.default_rng([seed, WIDE])
    if name in PROBLEMS:
        problem = make_problem(name, WIDE, seed)
        weights = rng.permutation(draw(WIDE_ROWS, natural(problem.domains), *bounds(problem.domains), rng))
        rows = problem.observe(weights, rng)
        scores = np.array([list(row.values()) for row in rows])
        domains = tuple(domain.name for domain in problem.domains)
        return Table(problem.name, domains, tuple(rows[0]), weights, scores, natural(problem.domains))
    table = read_tables(folder)[name]
    n, d = table.weights.shape
    parts = np.bincount(rng.permutation(WIDE) % d, minlength=d)
    cut = [table.weights[:, [j]] * rng.dirichlet(np.ones(part), n) for j, part in enumerate(parts)]
    weights = np.concatenate(cut, axis=1)
    domains = tuple(
        f"{domain}, part {i}" for domain, part in zip(table.domains, parts, strict=True) for i in range(part)
    )
    return Table(f"{name}, {WIDE} domains", domains, table.tasks, weights, table.scores, weights.mean(0))


@dataclass(frozen=True)
class Emulated(Problem):
    """A problem whose noise has the spread and the correlation between tasks that `emulate` found."""

    root: Floats | None = None  # (n_tasks, n_tasks): noise is a standard normal row times its transpose
    low_fidelity: tuple[Observation, ...] = ()

    def observe(self, weights: Weights, rng: Generator) -> list[dict[str, float]]:
        """Return the noisy scores by task of a trial of each mixture."""
        assert self.root is not None
        exact = self.score(weights)
        seen = exact + rng.standard_normal(exact.shape) @ self.root.T
        return [{f"task-{j:03d}": float(value) for j, value in enumerate(row)} for row in seen]


@functools.lru_cache
def emulate(folder: str, name: str, kind: str) -> Emulated:
    """Return a table as a problem whose scores are predictions by a fit to all its rows.

    `smooth`: scikit-learn's Gaussian process, one length scale a domain, on √w. `rough`: the mean of that and of
    LightGBM, home ground of the recipe and of RegMix. Caps: the largest weight that a row has. Noise: what the seeds of
    a mixture differ by, where the table has several; else the cross-validated errors.
    """
    table = read_tables(folder)[name]
    columns = np.unique(np.linspace(0, len(table.tasks) - 1, min(len(table.tasks), EMULATED_TASKS)).round().astype(int))
    scores = table.scores[:, columns]
    share, kernel = EMULATORS[kind], _fit_kernel(table.weights, scores)
    score = _fit_emulator(table.weights, scores, share, kernel)
    covariance = _of_seeds(Path(folder), table, columns)
    if covariance is None:
        covariance = _of_errors(table.weights, scores, share, kernel)
    root = np.linalg.cholesky(covariance + 1e-9 * np.trace(covariance) * np.eye(len(columns)))
    floor = 1.0 / TOKENS
    tokens = np.maximum(table.natural, floor) * TOKENS
    caps = np.maximum(table.weights.max(0), table.natural)
    domains = tuple(
        Domain(domain, int(n), float(cap)) for domain, n, cap in zip(table.domains, tokens, caps, strict=True)
    )
    deviation = np.sqrt(np.diag(covariance))[None]
    optimum = polish(lambda weights: score(weights).mean(1), domains, np.random.default_rng(0))
    low_fidelity = _hints(Path(folder), table, columns, domains)
    return Emulated(f"{name}, {kind}", domains, score, lambda _: deviation, optimum, root, low_fidelity)


def _of_errors(weights: Weights, scores: Floats, share: float, kernel: Any) -> Floats:
    """Return the covariance (n_tasks, n_tasks) of an emulator's cross-validated errors."""
    errors = np.zeros_like(scores)
    fold = np.random.default_rng(0).permutation(len(scores)) % 5
    for one in range(5):
        part = _fit_emulator(weights[fold != one], scores[fold != one], share, kernel)
        errors[fold == one] = scores[fold == one] - part(weights[fold == one])
    covariance: Floats = errors.T @ errors / len(errors)
    return covariance


def _of_seeds(folder: Path, table: Table, columns: NDArray[np.int64]) -> Floats | None:
    """Return the covariance (n_tasks, n_tasks) of trials of one mixture, or None where each has one trial.

    What a seed adds to all mixtures is no noise: trials of a search share their seed.
    """
    path = folder / f"{table.name}_runs.csv"
    if not path.is_file():
        return None
    with open(path, newline="") as file:
        header, *rows = list(csv.reader(file))
    at = [header.index(table.tasks[column]) for column in columns]
    runs, seeds = (sorted({row[header.index(name)] for row in rows}) for name in ("run", "seed"))
    cube = np.full((len(runs), len(seeds), len(at)), np.nan)
    for row in rows:
        place = runs.index(row[header.index("run")]), seeds.index(row[header.index("seed")])
        cube[place] = [float(row[k]) for k in at]
    cube = cube[np.isfinite(cube).all((1, 2))]
    cube -= cube.mean(0)
    off = (cube - cube.mean(1, keepdims=True)).reshape(-1, len(at))
    covariance: Floats = off.T @ off / ((len(cube) - 1) * (len(seeds) - 1))
    return covariance


def has_low_fidelity(folder: str, name: str) -> bool:
    """Whether a table has a bigram model's scores."""
    return (Path(folder) / f"{name}_bigram.csv").is_file()


def _hints(
    folder: Path, table: Table, columns: NDArray[np.int64], domains: tuple[Domain, ...]
) -> tuple[Observation, ...]:
    """Return a table's bigram scores as low-fidelity scores, under the names that observed scores have."""
    if not has_low_fidelity(str(folder), table.name):
        return ()
    tasks, rows = _read_csv(folder / f"{table.name}_bigram.csv")
    _, ratios = _read_csv(folder / f"{table.name}_ratios.csv")
    at = [tasks.index(table.tasks[column]) for column in columns]
    names = tuple(domain.name for domain in domains)
    found = []
    for i, (run, values) in enumerate(rows.items()):
        weights = np.array(ratios[run])
        scores = {f"task-{j:03d}": values[column] for j, column in enumerate(at)}
        share = tuple((weights / weights.sum()).tolist())
        found.append(Observation(LOW_FIDELITY, names, share, scores, name=i))
    return tuple(found)


def _fit_kernel(weights: Weights, scores: Floats) -> Any:
    """Return one kernel for all tasks and folds, fitted on the main directions of the scores."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    lengths = np.full(weights.shape[1], 1.0)
    kernel = ConstantKernel(4.0) * Matern(lengths, (0.05, 50.0), nu=2.5) + WhiteKernel(0.1, (1e-4, 1.0))
    left, values, _ = np.linalg.svd((scores - scores.mean(0)) / np.maximum(scores.std(0), 1e-12), full_matrices=False)
    main = (left * values)[:, (values > 1e-6 * values[0]) & (np.arange(len(values)) < 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length at the end of its range is no harm
        return GaussianProcessRegressor(kernel, normalize_y=True).fit(np.sqrt(weights), main / main.std(0)).kernel_


def _fit_emulator(weights: Weights, scores: Floats, share: float, kernel: Any) -> Callable[[Weights], Floats]:
    import lightgbm
    from sklearn.gaussian_process import GaussianProcessRegressor

    mean, spread = scores.mean(0), np.maximum(scores.std(0), 1e-12)
    targets = (scores - mean) / spread
    process = GaussianProcessRegressor(kernel, optimizer=None).fit(np.sqrt(weights), targets)
    settings = {
        "learning_rate": 0.05,
        "num_leaves": 7,
        "min_data_in_leaf": 5,
        "lambda_l2": 1.0,
        "verbosity": -1,
        "num_threads": 1,
        "seed": 0,
        "deterministic": True,
        "force_row_wise": True,
    }
    trees = [lightgbm.train(settings, lightgbm.Dataset(weights, column), 200) for column in targets.T if share]

    def score(rows: Weights) -> Floats:
        smooth = np.asarray(process.predict(np.sqrt(np.maximum(rows, 0.0)))).reshape(len(rows), -1)
        if trees:
            rough = np.stack([tree.predict(rows, num_threads=1) for tree in trees], axis=1)
            smooth = (1.0 - share) * smooth + share * rough
        return smooth * spread + mean

    return score
