"""Fitting a law of mixtures: a formula whose parameters θ give a score for any weights, with an honest uncertainty.

A law is fitted to standardised scores as maximum a posteriori from several starts: a rough fit of each start, the best
one refined, the noise estimated from what it leaves, and refined once more under that noise. The uncertainty and the
leave-one-out predictions come from the linearisation at the fit (Gauss–Newton). `power.py` and `exponential.py` are the
laws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights

Floats = NDArray[np.float64]
# θ → the law's scores (n,), and what turns the loss's derivative by these scores (n,) into that by θ
Evaluate = Callable[[Floats], tuple[Floats, Callable[[Floats], Floats]]]

FIRST_VARIANCE = 0.05  # of the noise of standardised scores, until the fit tells it
LEAST_VARIANCE = 1e-3
MOST_FOR_START = 500  # trials that the rough fits read
MOST_BY_TRIALS = 500  # matrices have a row a trial up to so many, of more a row a parameter


@dataclass(frozen=True)
class Law:
    """A formula for standardised scores, and what is thought of its parameters before any trial (normal, in limits)."""

    prepare: Callable[[Weights], Evaluate]  # weights (n, n_domains) → evaluation at any θ
    slopes: Callable[[Floats, Weights], tuple[Floats, Floats]]  # θ, weights → scores (n,), derivatives by θ (n, …)
    mean: Floats  # (n_parameters,)
    deviation: Floats
    limits: tuple[tuple[float, float], ...]
    huber: float = np.inf  # errors beyond this many deviations of the scores count by their size, not its square


@dataclass(frozen=True)
class FittedLaw:
    """A law at its fit: predictions for new mixtures, and for each trial from the others."""

    law: Law
    theta: Floats
    covariance: Floats  # of θ
    variance: float  # of the noise of standardised scores
    mean: float  # of the scores
    spread: float
    loo_mean: Floats  # (n,)
    loo_sd: Floats
    noise: float  # standard deviation of a trial's score over seeds of the same mixture

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the score that a trial of each mixture would get, noise included."""
        value, slopes = self.law.slopes(self.theta, weights)
        variance = ((slopes @ self.covariance) * slopes).sum(1) + self.variance
        return value * self.spread + self.mean, np.sqrt(variance) * self.spread


def standardise(scores: Floats) -> tuple[Floats, float, float]:
    """Return (scores − mean) / spread (n,), the mean and the spread; constant scores have the spread 1."""
    mean, spread = float(scores.mean()), float(scores.std())
    spread = spread if spread > 1e-9 * (1.0 + abs(mean)) else 1.0
    return (scores - mean) / spread, mean, spread


def fit_law(
    law: Law, weights: Weights, scores: Floats, starts: Sequence[Floats], steps: int, refined: bool = False
) -> FittedLaw:
    """Fit a law on weights (n, n_domains) and scores (n,) with at most `steps` L-BFGS steps at the end.

    `refined`: the only start is a like task's fit, so that no rough fit is needed.
    """
    targets, mean, spread = standardise(scores)
    evaluate = law.prepare(weights)
    theta = starts[0]
    rows = np.linspace(0, len(targets) - 1, min(len(targets), MOST_FOR_START)).astype(int)
    some, few = (evaluate, targets) if len(rows) == len(targets) else (law.prepare(weights[rows]), targets[rows])
    if not refined:
        fits = [_minimise(law, start, some, few, FIRST_VARIANCE, steps // 4) for start in starts]
        theta = min(fits, key=lambda pair: pair[1])[0]
    theta = _minimise(law, theta, some, few, FIRST_VARIANCE, steps // 2)[0]
    variance = _noise_variance(law, theta, weights, targets)
    theta = _minimise(law, theta, evaluate, targets, variance, steps)[0]
    return _linearise(law, theta, weights, targets, variance, mean, spread)


def _noise_variance(law: Law, theta: Floats, weights: Weights, targets: Floats) -> float:
    """Return what the fit at θ leaves, for each trial that its parameters have not used up (MacKay 1992, equation 4.8).

    Used up are the sums of the trials' leverages, not the number of parameters: the prior holds most of them where
    trials are few.
    """
    value, slopes = law.slopes(theta, weights)
    scaled = slopes * law.deviation
    prior = scaled @ scaled.T if len(targets) <= MOST_BY_TRIALS else scaled.T @ scaled  # the same eigenvalues but zeros
    used = float(np.trace(np.linalg.solve(prior + FIRST_VARIANCE * np.eye(len(prior)), prior)))
    rest = targets - value
    return max(float(rest @ rest) / max(len(targets) - used, 1.0), LEAST_VARIANCE)


def _linearise(
    law: Law, theta: Floats, weights: Weights, targets: Floats, variance: float, mean: float, spread: float
) -> FittedLaw:
    """Return the law with the posterior of θ, and leave-one-out predictions, as if it were linear near θ.

    Seen as a Gaussian process with that linear kernel (Rasmussen and Williams, equation 5.12): the form by leverages,
    which many trials take, divides nothing by nothing where parameters are as many as trials.
    """
    value, slopes = law.slopes(theta, weights)
    precision = slopes.T @ slopes / variance + np.diag(law.deviation**-2)
    covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
    before = value + slopes @ (law.mean - theta)
    if len(targets) <= MOST_BY_TRIALS:
        inverse = np.linalg.inv((slopes * law.deviation**2) @ slopes.T + variance * np.eye(len(targets)))
        alone, pulled = np.diag(inverse), inverse @ (targets - before)
    else:  # the same inverse by Woodbury's identity
        rest, solved = targets - before, slopes @ covariance
        alone = (1.0 - (solved * slopes).sum(1) / variance) / variance
        pulled = (rest - solved @ (slopes.T @ rest) / variance) / variance
    loo_mean = (targets - pulled / alone) * spread + mean
    loo_sd = np.sqrt(1.0 / alone) * spread
    noise = float(np.sqrt(variance) * spread)
    return FittedLaw(law, theta, covariance, variance, mean, spread, loo_mean, loo_sd, noise)


def _minimise(
    law: Law, start: Floats, evaluate: Evaluate, targets: Floats, variance: float, steps: int
) -> tuple[Floats, float]:
    """Return θ of the least minus log posterior near `start`, and that value."""
    from scipy.optimize import minimize

    def loss(theta: Floats) -> tuple[float, Floats]:
        value, back = evaluate(theta)
        rest = value - targets
        pull = np.clip(rest, -law.huber, law.huber)  # the derivative of Huber's loss
        off = (theta - law.mean) / law.deviation
        errors = 0.5 * (pull @ (2.0 * rest - pull))
        return float(errors / variance + 0.5 * off @ off), back(pull) / variance + off / law.deviation

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=law.limits, options={"maxiter": steps})
    return found.x, float(found.fun)
