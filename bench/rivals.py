"""How well the rivals' fits rank mixtures from few runs, by their authors' rules and as we scale them.

    python bench/rivals.py --tables DIR [--splits N]

DIR holds published tables (`_search_tables.py`). Fits on so many runs of a table, on the mean of its tasks, and ranks
the others (Spearman); the same splits for all. Writes bench/results/rivals.json.

regmix               ours: rows a leaf in proportion to 20 of 512, at least 3; early stopping by cross-validation
regmix, tenth        the same, stopped by a tenth of the runs, which are not fitted
regmix, 20 rows      20 rows a leaf at any number of runs, a tenth held out: a constant below 45
regmix, other runs   20 rows a leaf and, as in RegMix's notebook, other runs for early stopping, half of those left; the
                     other half is ranked
regmix, linear       RegMix's other regression
recipe               NVIDIA's rules; patience min(20, rows held out)
recipe, patience 20  the same with 20 trees at least
olmix                Olmix's log-linear law
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import numpy as np

from _results import write_results
from _search_tables import Floats, Table, read_tables
from openclimb.baselines.fits.exponential_law import log_linear
from openclimb.baselines.fits.trees import HELD_OUT, REGMIX_PATIENCE, recipe_trees, regmix_trees
from openclimb.mixture import Weights

RUNS = (24, 29, 48, 64, 112)
LEAST_LEFT = 20  # runs to rank


class Linear:
    """Least squares on the weights, with a constant."""

    def fit(self, weights: Weights, scores: Floats) -> "Linear":
        self.slopes = np.linalg.lstsq(np.c_[weights, np.ones(len(weights))], scores, rcond=None)[0]
        return self

    def predict(self, weights: Weights) -> tuple[Floats, None]:
        return np.c_[weights, np.ones(len(weights))] @ self.slopes, None


FITS: dict[str, Callable[[], Any]] = {
    "regmix": regmix_trees,
    "regmix, tenth": lambda: replace(regmix_trees(), crossed=False, held_out=HELD_OUT),
    "regmix, 20 rows": lambda: replace(regmix_trees(), rows_for=0, crossed=False, held_out=HELD_OUT),
    "regmix, linear": Linear,
    "recipe": recipe_trees,
    "recipe, patience 20": lambda: replace(recipe_trees(), patience_by_rows=False),
    "olmix": log_linear,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=20)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, table in read_tables(str(options.tables.resolve())).items():
        for runs in RUNS:
            found = [dict(ranks(table, runs, split)) for split in range(options.splits)]
            for method in found[0]:
                value = round(float(np.mean([one[method] for one in found])), 3)
                rows.append({"case": f"{name}/{runs}", "metric": f"spearman, {method}", "value": value})
            print(
                f"{name} {runs}: " + ", ".join(f"{row['metric'][10:]} {row['value']}" for row in rows[-len(found[0]) :])
            )
            write_results("rivals", rows)


def ranks(table: Table, runs: int, split: int) -> Iterator[tuple[str, float]]:
    """Yield (fit, rank correlation on the runs that it has not seen)."""
    scores = table.scores.mean(1)
    order = np.random.default_rng([split, 5]).permutation(len(scores))
    fitted, left = order[:runs], order[runs:]
    for name, make in FITS.items():
        guess = make().fit(table.weights[fitted], scores[fitted]).predict(table.weights[left])[0]
        yield name, rank(guess, scores[left])
    others, ranked = np.array_split(left, 2)
    if len(ranked) >= LEAST_LEFT:
        guess = by_other_runs(table.weights, scores, fitted, others).predict(table.weights[ranked])
        yield "regmix, other runs", rank(np.asarray(guess), scores[ranked])


def by_other_runs(weights: Weights, scores: Floats, fitted: Any, others: Any) -> Any:
    """Return RegMix's LightGBM as in its notebook: LightGBM's defaults, stopped by runs that it was not fitted on."""
    import lightgbm

    settings = {"objective": "regression", "metric": ["l1", "l2"], "learning_rate": 0.01, "verbosity": -1, "seed": 42}
    data = lightgbm.Dataset(weights[fitted], scores[fitted])
    check = lightgbm.Dataset(weights[others], scores[others], reference=data)
    stop = lightgbm.early_stopping(REGMIX_PATIENCE, verbose=False)
    return lightgbm.train({**settings, "num_threads": 1}, data, 1000, valid_sets=[check], callbacks=[stop])


def rank(guess: Floats, scores: Floats) -> float:
    """Return Spearman's correlation; 0 for a constant."""
    from scipy.stats import spearmanr

    return float(spearmanr(guess, scores).statistic) if np.ptp(guess) > 0 else 0.0


if __name__ == "__main__":
    main()
