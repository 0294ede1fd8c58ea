"""The power law of mixtures: score = level − size / Σ C_i · w_i^γ, a loss that falls with a power of the weights.

Form: E + 1/Σ C·w^γ, as in the laws of data mixing (Ye et al. 2024, Olmix 2602.12237). How it is fitted: `law.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.search.predictors.mixing_law import Evaluate, Law, fit_law

Floats = NDArray[np.float64]

GAMMAS = (0.5, 0.2)  # the starts
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
        d = weights.shape[1]
        law = Law(
            _prepare,
            _slopes,
            np.concatenate([np.zeros(d), TAIL_MEAN]),
            np.concatenate([np.full(d, FACTOR_SD), TAIL_SD]),
            ((-6.0, 6.0),) * d + TAIL_LIMITS,
        )
        starts = [np.concatenate([np.zeros(d), [np.log(gamma), 1.0, 0.0]]) for gamma in GAMMAS]
        if self.start is not None:
            starts = [self.start]
        self.fitted = fit_law(law, weights, scores, starts, self.steps, refined=self.start is not None)
        self.theta, self.noise = self.fitted.theta, self.fitted.noise
        self.loo_mean, self.loo_sd = self.fitted.loo_mean, self.fitted.loo_sd
        return self

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the score that a trial of each mixture would get, noise included."""
        return self.fitted.predict(weights)


def _slopes(theta: Floats, weights: Weights) -> tuple[Floats, Floats]:
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


def _prepare(weights: Weights) -> Evaluate:
    """Return the law on these weights without the table of derivatives, which fitting can do without."""
    logs, present = _logs(weights)
    d = weights.shape[1]

    def evaluate(theta: Floats) -> tuple[Floats, Callable[[Floats], Floats]]:
        gamma, size, factors = np.exp(theta[d]), np.exp(theta[d + 2]), np.exp(theta[:d])
        powers = np.exp(gamma * logs) * present
        total = powers @ factors + LEAST_SUM

        def back(pull: Floats) -> Floats:
            fall = pull * size / total**2
            by_gamma = gamma * float(fall @ ((powers * logs) @ factors))
            return np.concatenate(
                [factors * (fall @ powers), [by_gamma, pull.sum(), -size * float(pull @ (1.0 / total))]]
            )

        return theta[d + 1] - size / total, back

    return evaluate


def _logs(weights: Weights) -> tuple[Floats, Floats]:
    """Return log w, and 1 where a domain is present."""
    return np.log(np.maximum(weights, LEAST_WEIGHT)), (weights > 0).astype(np.float64)
