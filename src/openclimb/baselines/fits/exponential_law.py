"""The exponential law of mixtures: score = level − exp(size + Σ t_i · w_i), and the same formula as Olmix fits it.

Form: L = c + k·exp(Σ t·w), the law of data mixing (Ye et al. 2403.16952); weights sum to 1, so log k is part of every t
and `size` only holds their mean. Olmix (2602.12237) calls it log-linear: log(L − c) is linear in the weights. How both
are fitted: `law.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights
from openclimb.search.predictors.mixing_law import Evaluate, Law, fit_law, standardise

Floats = NDArray[np.float64]

LEVELS = (0.5, 1.5, 4.0)  # the starts: how far the best possible score lies above the mean, in deviations
SLOPE_SD = 3.0  # of t round 0
TAIL_MEAN = np.array([0.0, 1.0])  # size, level (of standardised scores)
TAIL_SD = np.array([2.0, 3.0])
TAIL_LIMITS = ((-8.0, 8.0), (-10.0, 30.0))
LOOSE = 100.0  # Olmix draws t to nothing: so many times wider
HUBER = 0.02  # Olmix: bits per byte
USUAL_SPREAD = 0.2  # of a task's bits per byte over the mixtures of Olmix's swarms
MOST = 30.0  # of the exponent: beyond, a search for the fit has left all sense


@dataclass
class ExponentialLaw:
    """`fit(weights, scores)`, `predict(weights)` for one task's scores (n,)."""

    steps: int = 150
    as_olmix: bool = False  # Huber's loss, slopes hardly held, and a best possible loss that is not negative

    def fit(self, weights: Weights, scores: Floats) -> "ExponentialLaw":
        """Fit on weights (n, n_domains) and scores (n,). Returns itself."""
        d = weights.shape[1]
        least, most = TAIL_LIMITS[1]
        _, mean, spread = standardise(scores)
        if self.as_olmix and are_losses(scores):  # their best possible is 0
            most = float(np.clip(-mean / spread, least + 1.0, most))
        wide = LOOSE if self.as_olmix else 1.0
        law = Law(
            _prepare,
            _slopes,
            np.concatenate([np.zeros(d), TAIL_MEAN]),
            np.concatenate([np.full(d, wide * SLOPE_SD), wide * TAIL_SD]),
            ((-60.0, 60.0),) * d + (TAIL_LIMITS[0], (least, most)),
            HUBER * olmix_unit(scores) / spread if self.as_olmix else np.inf,
        )
        starts = [np.concatenate([np.zeros(d), [np.log(level), min(level, most)]]) for level in LEVELS]
        self.fitted = fit_law(law, weights, scores, starts, self.steps)
        self.theta, self.noise = self.fitted.theta, self.fitted.noise
        self.loo_mean, self.loo_sd = self.fitted.loo_mean, self.fitted.loo_sd
        return self

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the score that a trial of each mixture would get, noise included."""
        return self.fitted.predict(weights)


def are_losses(scores: Floats) -> bool:
    """Return whether scores are losses with their sign changed: none is above 0."""
    return bool((scores <= 0).all())


def olmix_unit(scores: Floats) -> float:
    """Return what stands for a bit per byte in scores (n,): 1 for losses, else what makes their spread the usual one.

    Olmix's two numbers, Huber's threshold and the weight of the divergence, are in bits per byte.
    """
    return 1.0 if are_losses(scores) else standardise(scores)[2] / USUAL_SPREAD


def log_linear() -> ExponentialLaw:
    """Return the law as Olmix fits it: errors by Huber's loss, c ≥ 0 for losses, several starts, a weak prior only."""
    return ExponentialLaw(as_olmix=True)


def _slopes(theta: Floats, weights: Weights) -> tuple[Floats, Floats]:
    """Return the law's standardised scores (n,) and their derivatives by θ, shape (n, n_domains + 2)."""
    d = weights.shape[1]
    loss = np.exp(np.minimum(weights @ theta[:d] + theta[d], MOST))[:, None]
    return theta[d + 1] - loss[:, 0], np.concatenate([-loss * weights, -loss, np.ones((len(weights), 1))], axis=1)


def _prepare(weights: Weights) -> Evaluate:
    d = weights.shape[1]

    def evaluate(theta: Floats) -> tuple[Floats, Callable[[Floats], Floats]]:
        loss = np.exp(np.minimum(weights @ theta[:d] + theta[d], MOST))

        def back(pull: Floats) -> Floats:
            fall = -pull * loss
            return np.concatenate([fall @ weights, [fall.sum(), pull.sum()]])

        return theta[d + 1] - loss, back

    return evaluate
