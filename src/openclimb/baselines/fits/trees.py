"""LightGBM predictors: the recipe's, RegMix's, and a small one for few trials.

Boosted trees rank mixtures poorly from few trials (bench/search); they stand here for comparison. The rules are those
of the authors' code: `8_predict.py` of NVIDIA NeMo Curator's Nemotron-CLIMB tutorial, and RegMix's `regression.ipynb`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import MissingDependency, SearchError
from openclimb.mixture import Weights
from openclimb.stats.noise import folds_of

Floats = NDArray[np.float64]

FOLDS = 5
HELD_OUT = 0.1  # share of the rows for early stopping: the recipe's
RECIPE_ROWS = 5  # a leaf
RECIPE_PATIENCE = 20  # trees without gain, or the rows held out where these are fewer
REGMIX_ROWS, REGMIX_RUNS = 20, 512  # a leaf (LightGBM's default), and the runs that RegMix fits on
REGMIX_LEAST_ROWS = 3
REGMIX_PATIENCE = 3
BIN_ROWS = 3  # LightGBM's least rows of a bin: between bins alone can it split


@dataclass
class Trees:
    """`fit(weights, scores)`, `predict(weights)`; the deviation is the cross-validated error, everywhere the same."""

    trees: int = 200
    learning_rate: float = 0.05
    depth: int = 3
    leaves: int = 7
    rows_a_leaf: int = 3
    penalty: float = 0.1  # L1 and L2
    held_out: float = 0.0  # share of the rows for early stopping; 0: none
    crossed: bool = False  # early stopping by cross-validation instead, and a fit to all rows with so many trees
    patience: int = RECIPE_PATIENCE  # trees without gain on the held-out rows, by L1 or by L2
    patience_by_rows: bool = False  # at most as many trees as rows are held out
    rows_for: int = (
        0  # `rows_a_leaf` is meant for so many runs: of fewer, a leaf takes the same share; 0: of any number
    )
    fixed_spread: bool = False  # spare the cross-validation: the deviation is the scores' own

    def fit(self, weights: Weights, scores: Floats) -> "Trees":
        """Fit on weights (n, n_domains) and scores (n,). Returns itself. Raises MissingDependency without LightGBM.

        Too few rows for one split, or equal scores, are fitted by a constant: `constant` says so.
        """
        self.mean, spread = float(scores.mean()), float(scores.std())
        self.differ = spread > 1e-9 * (1.0 + abs(self.mean))
        self.spread = spread if self.differ else 1.0  # the penalties mean something in this unit
        scores = np.asarray((scores - self.mean) / self.spread, dtype=np.float64)
        self.model = self._train(weights, scores)
        self.constant = isinstance(self.model, float) or not self.model.feature_importance("split").any()
        n = len(scores)
        loo = np.zeros(n)
        folds, n_mixtures = folds_of(weights, FOLDS)
        if n_mixtures >= 2 * FOLDS and not self.fixed_spread:
            for fold in range(FOLDS):
                held = folds == fold
                loo[held] = self._value(self._train(weights[~held], scores[~held]), weights[held])
        self.noise = max(float(np.sqrt(np.mean((scores - loo) ** 2))), 1e-6) * self.spread
        self.loo_mean = loo * self.spread + self.mean
        self.loo_sd = np.full(n, self.noise)
        return self

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the score that a trial of each mixture would get."""
        return self._value(self.model, weights) * self.spread + self.mean, np.full(len(weights), self.noise)

    def leaf_rows(self, n: int) -> int:
        """Return the least rows of a leaf when n runs are fitted."""
        if not self.rows_for:
            return self.rows_a_leaf
        return min(self.rows_a_leaf, max(REGMIX_LEAST_ROWS, round(self.rows_a_leaf * n / self.rows_for)))

    def splits(self, n: int) -> bool:
        """Return whether n runs are enough for a tree with two leaves, one of them of whole bins."""
        rows = self.leaf_rows(n)
        n_held = -(-n // FOLDS) if self.crossed else n_held_out(n, self.held_out)
        return n - n_held >= -(-rows // BIN_ROWS) * BIN_ROWS + rows

    def least_runs(self) -> int:
        """Return how many runs are needed for a tree with two leaves."""
        return next(n for n in range(1, 1000) if self.splits(n))

    def _value(self, model: Any, weights: Weights) -> Floats:
        if isinstance(model, float):
            return np.full(len(weights), model)
        return np.asarray(model.predict(weights, num_threads=1), dtype=np.float64)

    def _train(self, weights: Weights, scores: Floats) -> Any:
        try:
            import lightgbm
        except ImportError:
            raise MissingDependency("lightgbm", 'pip install "openclimb[lightgbm]"') from None
        n = len(scores)
        if not self.splits(n) or np.ptp(scores) == 0:
            return float(scores.mean())
        settings = {
            "objective": "regression",
            "metric": ["l1", "l2"],  # early stopping ends at the first of the two that does not gain
            "learning_rate": self.learning_rate,
            "max_depth": self.depth,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.leaf_rows(n),
            "lambda_l1": self.penalty,
            "lambda_l2": self.penalty,
            "verbosity": -1,
            "num_threads": 1,
            "seed": 42,
            "deterministic": True,
            "force_row_wise": True,
        }
        if self.crossed:
            data, rows = lightgbm.Dataset(weights, scores), lightgbm.Dataset(weights, scores)
            return lightgbm.train(settings, data, num_boost_round=self._crossed_trees(settings, rows, weights))
        order, n_held = np.random.default_rng(42).permutation(n), n_held_out(n, self.held_out)
        data = lightgbm.Dataset(weights[order[n_held:]], scores[order[n_held:]])
        if not n_held:
            return lightgbm.train(settings, data, num_boost_round=self.trees)
        check = lightgbm.Dataset(weights[order[:n_held]], scores[order[:n_held]], reference=data)
        patience = min(self.patience, n_held) if self.patience_by_rows else self.patience
        stop = lightgbm.early_stopping(patience, verbose=False)
        return lightgbm.train(settings, data, num_boost_round=self.trees, valid_sets=[check], callbacks=[stop])

    def _crossed_trees(self, settings: dict[str, Any], data: Any, weights: Weights) -> int:
        """Return after how many trees the mean error over folds has not gained for `patience` trees."""
        import lightgbm

        of, _ = folds_of(weights, FOLDS)
        folds = [(np.flatnonzero(of != fold), np.flatnonzero(of == fold)) for fold in np.unique(of)]
        if len(folds) < 2:  # one mixture
            return 1
        stop = lightgbm.early_stopping(self.patience, verbose=False)
        found: Any = lightgbm.cv(settings, data, self.trees, folds=folds, callbacks=[stop])
        return len(found["valid l2-mean"])


def n_held_out(n: int, share: float) -> int:
    """Return how many of n rows are held out for early stopping: those beyond the whole part of (1 − share) n."""
    return n - int((1.0 - share) * n)


def recipe_trees() -> Trees:
    """Return the recipe's LightGBM: rate 0.01, at most 1000 trees of depth 4, 5 rows a leaf, L1 = L2 = 1, 90/10 split.

    Stops when the held-out rows have not improved for min(20, number of them) trees. Unlike the recipe, which fits
    accuracies in percent as they are, scores are standardised first: on losses its penalties leave a constant.
    """
    return Trees(
        trees=1000,
        learning_rate=0.01,
        depth=4,
        leaves=31,
        rows_a_leaf=RECIPE_ROWS,
        penalty=1.0,
        held_out=HELD_OUT,
        patience_by_rows=True,
        fixed_spread=True,
    )


def regmix_trees() -> Trees:
    """Return RegMix's LightGBM (2407.01492): rate 0.01, LightGBM's own defaults else, stops when 3 trees bring nothing.

    RegMix fits 512 runs with 20 rows a leaf, and other runs (128 or 256) stop it. Two things are scaled to fewer runs,
    where 20 rows a leaf leave a constant or a single split: a leaf takes the same share of the rows, at least 3; and
    for the other runs, which would be more compute than others get, stands each fifth of the given ones in turn. As
    RegMix's, the fit has all rows; with 512 runs, the rows a leaf are RegMix's.
    """
    return Trees(
        trees=1000,
        learning_rate=0.01,
        depth=-1,
        leaves=31,
        rows_a_leaf=REGMIX_ROWS,
        penalty=0.0,
        crossed=True,
        patience=REGMIX_PATIENCE,
        rows_for=REGMIX_RUNS,
        fixed_spread=True,
    )


def stop_if_constant(trees: Trees, n: int, name: str) -> None:
    """Raise SearchError where n runs, not all of one score, left fitted trees without a split: no answer is in them."""
    if trees.constant and trees.differ:
        raise SearchError(
            f"{name} cannot learn from {n} trials: its trees have no split, and every mixture is as good as any",
            f"run more trials, at least {trees.least_runs()}, or use another baseline",
        )
