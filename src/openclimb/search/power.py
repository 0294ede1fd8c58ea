"""The power law of mixtures: score = level − size / Σ C_i · w_i^γ, a loss that falls with a power of the weights.

Fitted as maximum a posteriori from several starts; the uncertainty and the leave-one-out predictions come from the
linearisation at the fit (Gauss–Newton). Form: E + 1/Σ C·w^γ, as in the laws of data mixing (Ye et al. 2024, Olmix
2602.12237).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights

Floats = NDArray[np.float64]

GAMMAS = (0.5, 0.2)  # the starts
FIRST_VARIANCE = 0.05  # of the noise of standardised scores, until the fit tells it
LEAST_WEIGHT = 1e-5
LEAST_SUM = 1e-3
FACTOR_SD = 1.5  # of log C round its mean
TAIL_MEAN = np.array([np.log(0.5), 0.0, 0.0])  # log γ, level, log size (of standardised scores)
TAIL_SD = np.array([0.7, 5.0, 2.0])
TAIL_LIMITS = ((np.log(0.03), np.log(3.0)), (-10.0, 20.0), (-6.0, 8.0))


@dataclass
class PowerLaw:
    """`fit(weights, scores)`, `predict(weights)` for one task's scores (n,)."""

    steps: int = 150
    start: Floats | None = None  # θ of a like task's fit, to start from

    def fit(self, weights: Weights, scores: Floats) -> "PowerLaw":
        """Fit on weights (n, n_domains) and scores (n,). Returns itself."""
        n, d = weights.shape
        self.mean, spread = float(scores.mean()), float(scores.std())
        self.spread = spread if spread > 1e-9 * (1.0 + abs(self.mean)) else 1.0
        targets = (scores - self.mean) / self.spread
        logs, present = _logs(weights)
        if self.start is not None:
            theta = self.start
        else:
            starts = [np.concatenate([np.zeros(d), [np.log(gamma), 1.0, 0.0]]) for gamma in GAMMAS]
            fits = [_minimise(start, logs, present, targets, FIRST_VARIANCE, self.steps // 4) for start in starts]
            theta = min(fits, key=lambda pair: pair[1])[0]
        theta = _minimise(theta, logs, present, targets, FIRST_VARIANCE, self.steps // 2)[0]
        rest = targets - _value(theta, weights)[0]
        # each fitted number takes a degree of freedom, but never more than half of them: the prior holds the rest
        self.variance = max(float(rest @ rest) / max(n - min(d, n / 2), 1.0), 1e-3)
        self.theta = _minimise(theta, logs, present, targets, self.variance, self.steps)[0]
        self._linearise(weights, targets)
        return self

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the score that a trial of each mixture would get, noise included."""
        value, slopes = _value(self.theta, weights)
        variance = ((slopes @ self.posterior) * slopes).sum(1) + self.variance
        return value * self.spread + self.mean, np.sqrt(variance) * self.spread

    def _linearise(self, weights: Weights, targets: Floats) -> None:
        value, slopes = _value(self.theta, weights)
        d = weights.shape[1]
        prior = np.concatenate([np.full(d, FACTOR_SD**-2), TAIL_SD**-2])
        self.posterior = np.linalg.inv(slopes.T @ slopes / self.variance + np.diag(prior))
        leverage = np.clip(((slopes @ self.posterior) * slopes).sum(1) / self.variance, 0.0, 0.9)
        rest = (targets - value) / (1.0 - leverage)
        self.loo_mean = (targets - rest) * self.spread + self.mean
        self.loo_sd = np.sqrt(self.variance / (1.0 - leverage)) * self.spread
        self.noise = float(np.sqrt(self.variance) * self.spread)


def _value(theta: Floats, weights: Weights) -> tuple[Floats, Floats]:
    """Return the law's standardised scores (n,) and their derivatives by θ, shape (n, n_domains + 3)."""
    d = weights.shape[1]
    gamma, size = np.exp(theta[d]), np.exp(theta[d + 2])
    logs, present = _logs(weights)
    parts = np.exp(theta[:d] + gamma * logs) * present
    total = parts.sum(1) + LEAST_SUM
    fall = (size / total**2)[:, None]
    by_gamma = fall[:, 0] * (parts * logs).sum(1) * gamma
    slopes = np.concatenate(
        [fall * parts, by_gamma[:, None], np.ones((len(weights), 1)), (-size / total)[:, None]], axis=1
    )
    return theta[d + 1] - size / total, slopes


def _logs(weights: Weights) -> tuple[Floats, Floats]:
    """Return log w, and 1 where a domain is present."""
    return np.log(np.maximum(weights, LEAST_WEIGHT)), (weights > 0).astype(np.float64)


def _minimise(
    start: Floats, logs: Floats, present: Floats, targets: Floats, variance: float, steps: int
) -> tuple[Floats, float]:
    from scipy.optimize import minimize

    d = logs.shape[1]
    mean = np.concatenate([np.zeros(d), TAIL_MEAN])
    deviation = np.concatenate([np.full(d, FACTOR_SD), TAIL_SD])

    def loss(theta: Floats) -> tuple[float, Floats]:
        gamma, size, factors = np.exp(theta[d]), np.exp(theta[d + 2]), np.exp(theta[:d])
        powers = np.exp(gamma * logs) * present
        total = powers @ factors + LEAST_SUM
        rest = theta[d + 1] - size / total - targets
        off = (theta - mean) / deviation
        fall = rest * size / total**2
        gradient = np.concatenate(
            [
                factors * (fall @ powers),
                [gamma * float(fall @ ((powers * logs) @ factors)), rest.sum(), -size * float(rest @ (1.0 / total))],
            ]
        )
        return float(0.5 * (rest @ rest) / variance + 0.5 * off @ off), gradient / variance + off / deviation

    limits = [(-6.0, 6.0)] * d + list(TAIL_LIMITS)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": steps})
    return found.x, float(found.fun)
