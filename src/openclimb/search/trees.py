"""LightGBM predictors: the recipe's, kept as the preset `paper`, RegMix's, and a small one for few trials.

Boosted trees rank mixtures poorly from few trials (bench/search); they stand here for comparison.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import MissingDependency
from openclimb.mixture import Weights
from openclimb.search.statistics import folds_of

Floats = NDArray[np.float64]

FOLDS = 5


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
    patience: int = 0  # trees without gain on the held-out rows; 0: as many as these rows, at least 20
    fixed_spread: bool = False  # spare the cross-validation: the deviation is the scores' own

    def fit(self, weights: Weights, scores: Floats) -> "Trees":
        """Fit on weights (n, n_domains) and scores (n,). Returns itself. Raises MissingDependency without LightGBM."""
        self.mean, spread = float(scores.mean()), float(scores.std())
        self.spread = (
            spread if spread > 1e-9 * (1.0 + abs(self.mean)) else 1.0
        )  # the penalties mean something in this unit
        scores = np.asarray((scores - self.mean) / self.spread, dtype=np.float64)
        self.model = self._train(weights, scores)
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

    def _value(self, model: Any, weights: Weights) -> Floats:
        if not hasattr(model, "predict"):
            return np.full(len(weights), float(model))
        return np.asarray(model.predict(weights, num_threads=1), dtype=np.float64)

    def _train(self, weights: Weights, scores: Floats) -> Any:
        try:
            import lightgbm
        except ImportError:
            raise MissingDependency("lightgbm", 'pip install "openclimb[lightgbm]"') from None
        n = len(scores)
        if n < 2 * self.rows_a_leaf or np.ptp(scores) == 0:
            return float(scores.mean())
        settings = {
            "objective": "regression",
            "learning_rate": self.learning_rate,
            "max_depth": self.depth,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.rows_a_leaf,
            "lambda_l1": self.penalty,
            "lambda_l2": self.penalty,
            "verbosity": -1,
            "num_threads": 1,
            "seed": 42,
            "deterministic": True,
            "force_row_wise": True,
        }
        order = np.random.default_rng(42).permutation(n)
        n_held = int(np.ceil(self.held_out * n)) if self.held_out else 0
        data = lightgbm.Dataset(weights[order[n_held:]], scores[order[n_held:]])
        if not n_held:
            return lightgbm.train(settings, data, num_boost_round=self.trees)
        check = lightgbm.Dataset(weights[order[:n_held]], scores[order[:n_held]], reference=data)
        stop = lightgbm.early_stopping(self.patience or max(20, n_held), verbose=False)
        return lightgbm.train(settings, data, num_boost_round=self.trees, valid_sets=[check], callbacks=[stop])


def paper_trees() -> Trees:
    """Return the recipe's LightGBM: rate 0.01, at most 1000 trees of depth 4, 5 rows a leaf, L1 = L2 = 1, 90/10 split.

    Stops when the held-out rows have not improved for max(20, number of them) trees.
    """
    return Trees(
        trees=1000, learning_rate=0.01, depth=4, leaves=16, rows_a_leaf=5, penalty=1.0, held_out=0.1, fixed_spread=True
    )


def regmix_trees() -> Trees:
    """Return RegMix's LightGBM (2407.01492): rate 0.01, LightGBM's own defaults else, stops when 3 trees bring nothing.

    RegMix validates on other runs; here a tenth of the given ones is held out for it.
    """
    return Trees(
        trees=1000,
        learning_rate=0.01,
        depth=-1,
        leaves=31,
        rows_a_leaf=20,
        penalty=0.0,
        held_out=0.1,
        patience=3,
        fixed_spread=True,
    )
