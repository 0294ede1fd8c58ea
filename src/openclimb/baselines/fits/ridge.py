"""Ridge regression on (w, √w, log w): linear in the features, so quick and steady with many domains."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights

Floats = NDArray[np.float64]

PENALTIES = np.logspace(-3, 3, 25)
LOG_FLOOR = 0.01  # log(w + 0.01): absent domains stay finite


@dataclass
class Ridge:
    """`fit(weights, scores)`, `predict(weights)`; the penalty is the one with the least leave-one-out error."""

    def fit(self, weights: Weights, scores: Floats) -> "Ridge":
        """Fit on weights (n, n_domains) and scores (n,). Returns itself."""
        raw = _raw_features(weights)
        self.centers, scales = raw.mean(0), raw.std(0)
        self.scales = np.where(scales > 1e-9, scales, 1.0)
        self.mean = float(scores.mean())
        x, targets = self._features(weights), scores - self.mean
        left, values, right = np.linalg.svd(x, full_matrices=False)
        inside = left.T @ targets
        best: tuple[float, float, Floats, Floats] | None = None
        for penalty in PENALTIES:
            shrunk = values**2 / (values**2 + penalty)
            leverage = np.minimum((left**2 * shrunk).sum(1) + 1.0 / len(scores), 0.95)
            rest = (targets - left @ (shrunk * inside)) / (1.0 - leverage)
            error = float(np.mean(rest**2))
            if best is None or error < best[0]:
                best = (error, float(penalty), rest, leverage)
        assert best is not None
        error, penalty, rest, leverage = best
        keep = values > 1e-9
        self.right, shrink = right[keep], values[keep] / (values[keep] ** 2 + penalty)
        self.coefficients = self.right.T @ (shrink * inside[keep])
        self.inverse = 1.0 / (values[keep] ** 2 + penalty)
        self.noise = float(np.sqrt(max(float(np.mean(rest**2 * (1.0 - leverage))), 1e-18)))
        self.loo_mean = scores - rest
        self.loo_sd = self.noise / np.sqrt(1.0 - leverage)
        return self

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the score that a trial of each mixture would get, noise included."""
        x = self._features(weights)
        spread = ((x @ self.right.T) ** 2 * self.inverse).sum(1)
        return x @ self.coefficients + self.mean, self.noise * np.sqrt(1.0 + spread)

    def _features(self, weights: Weights) -> Floats:
        return (_raw_features(weights) - self.centers) / self.scales


def _raw_features(weights: Weights) -> Floats:
    return np.concatenate([weights, np.sqrt(weights), np.log(weights + LOG_FLOOR)], axis=1)
