"""Gaussian process on mixture weights: Matérn 5/2 on w^power with one length scale a domain, plus a linear part.

The hyperparameters are the maximum a posteriori. Each domain's length scale is the common one times a factor that is
drawn to 1 by a prior, so that a few trials give one length scale and many give one a domain, with no switch between
them. Formulas: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), sections 2.2, 4.2, 5.4
(leave-one-out: 5.12).
"""

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights

Floats = NDArray[np.float64]

# θ = log of: common length scale, sds of the Matérn part, the linear part and the noise; then one factor a domain
PRIOR_MEAN = np.array([0.0, 0.0, 0.0, -1.5])
PRIOR_SD = np.ones(4)
LIMITS = ((-3.0, 4.0), (-5.0, 4.0), (-5.0, 4.0), (-5.0, 1.0))
FACTOR_SD = 0.5
FACTOR_LIMIT = (-3.0, 3.0)
JITTER = 1e-8
# where restarts begin, as steps from the prior's mean: rough and exact, smooth and noisy, almost linear, hardly so
RESTARTS = np.array([[-1.0, 0.5, -1.5, -1.5], [1.5, 0.5, -1.5, 1.0], [1.0, -2.0, 1.0, 0.0], [-0.5, 1.0, -3.0, -2.5]])
MOST_ROWS = 220  # hyperparameters are fitted on at most so many trials; the posterior uses all
MANY = 500  # of more trials, `near` takes those that matter
NEAREST, SPREAD = 200, 100  # trials that `near` keeps: the nearest, and some of all


@dataclass
class GaussianProcess:
    """`fit(weights, scores)`, `predict(weights)`. Scores (n,), or (n, n_tasks) for tasks that share hyperparameters."""

    power: float = 0.5  # features are w ** power: 0.5 makes Euclidean distance the Hellinger distance
    steps: int = 60  # L-BFGS steps
    restarts: int = 0  # further starts of the hyperparameters' fit, at most len(RESTARTS): the likeliest fit is kept

    def fit(self, weights: Weights, scores: Floats) -> "GaussianProcess":
        """Fit on weights (n, n_domains) and scores; standardises both. Returns itself."""
        self.one = scores.ndim == 1
        table = scores.reshape(len(scores), -1)
        self._scale_weights(weights)
        self.mean = table.mean(0)
        spread = table.std(0)
        self.spread = np.where(spread > 1e-9 * (1.0 + np.abs(self.mean)), spread, 1.0)
        features = self._features(weights)
        targets = (table - self.mean) / self.spread
        rows = np.linspace(0, len(weights) - 1, min(len(weights), MOST_ROWS)).astype(int)
        self.theta = _maximise(features[0][rows], features[1][rows], targets[rows], self.steps, self.restarts)
        self._condition(features, targets)
        return self

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the score that a trial of each mixture would get, noise included."""
        from scipy.linalg import solve_triangular

        nonlinear, linear = self._features(weights)
        cross = _kernel(self.theta, nonlinear, linear, *self.features)
        mean = cross @ self.alpha * self.spread + self.mean
        solved = solve_triangular(self.root, cross.T, lower=True, check_finite=False)
        prior = np.exp(2 * self.theta[1]) + np.exp(2 * self.theta[2]) * (linear**2).sum(1)
        variance = np.maximum(prior - (solved**2).sum(0), 0.0) + np.exp(2 * self.theta[3])
        deviation = np.sqrt(variance)[:, None] * self.spread
        return (mean[:, 0], deviation[:, 0]) if self.one else (mean, deviation)

    def covariance(self, weights: Weights) -> Floats:
        """Return the posterior covariance (n, n) of the noise-free score, in units of the standardised score."""
        from scipy.linalg import solve_triangular

        nonlinear, linear = self._features(weights)
        cross = _kernel(self.theta, nonlinear, linear, *self.features)
        solved = solve_triangular(self.root, cross.T, lower=True, check_finite=False)
        return _kernel(self.theta, nonlinear, linear, nonlinear, linear) - solved.T @ solved

    def near(self, weights: Weights) -> "GaussianProcess":
        """Return a process for mixtures near these (n, n_domains): of many trials it knows the nearest and some more.

        Its hyperparameters are the same. It costs a hundredth, so that many mixtures can be screened.
        """
        if len(self.targets) <= MANY:
            return self
        lengths = _lengths(self.theta, weights.shape[1])
        distance = _squared(self._features(weights)[0] / lengths, self.features[0] / lengths).min(0)
        kept = np.zeros(len(distance), dtype=bool)
        kept[np.argsort(distance, kind="stable")[:NEAREST]] = True
        kept[np.linspace(0, len(kept) - 1, SPREAD).astype(int)] = True
        small = copy(self)
        small._learn((self.features[0][kept], self.features[1][kept]), self.targets[kept])
        return small

    def _scale_weights(self, weights: Weights) -> None:
        raw, roots = weights**self.power, np.sqrt(weights)
        self.feature_scale = max(float(raw.std(0).mean()), 0.02)
        self.centers = weights.mean(0), roots.mean(0)
        self.scales = max(float(weights.std(0).mean()), 0.01), max(float(roots.std(0).mean()), 0.02)

    def _features(self, weights: Weights) -> tuple[Floats, Floats]:
        nonlinear = weights**self.power / self.feature_scale
        linear = np.concatenate(
            [(weights - self.centers[0]) / self.scales[0], (np.sqrt(weights) - self.centers[1]) / self.scales[1]],
            axis=1,
        )
        return nonlinear, linear / np.sqrt(weights.shape[1])

    def _learn(self, features: tuple[Floats, Floats], targets: Floats) -> None:
        """Take these trials for all that is known, under the hyperparameters that are there."""
        from scipy.linalg import cho_solve

        self.features, self.targets = features, targets
        matrix = _kernel(self.theta, *features, *features)
        matrix[np.diag_indices_from(matrix)] += np.exp(2 * self.theta[3]) + JITTER
        self.root = np.linalg.cholesky(matrix)
        self.alpha = cho_solve((self.root, True), targets, check_finite=False)

    def _condition(self, features: tuple[Floats, Floats], targets: Floats) -> None:
        self._learn(features, targets)
        precision = _precision(self.root)[:, None]
        loo = (targets - self.alpha / precision) * self.spread + self.mean
        loo_sd = np.sqrt(1.0 / precision) * self.spread
        noise_sd = np.sqrt(np.exp(2 * self.theta[3])) * self.spread
        self.loo_mean: Floats = loo[:, 0] if self.one else loo  # each trial predicted from all others
        self.loo_sd: Floats = loo_sd[:, 0] if self.one else loo_sd
        self.noise: Any = noise_sd[0] if self.one else noise_sd


def _precision(root: NDArray[Any]) -> NDArray[Any]:
    """Return the diagonal (n,) of a matrix's inverse from its Cholesky root."""
    from scipy.linalg import cho_solve, lapack

    if len(root) <= MANY:
        return np.diag(cho_solve((root, True), np.eye(len(root)), check_finite=False))
    inverse, failed = lapack.dtrtri(root.T, lower=0)  # of the transpose, which needs no copy: a third of the work
    assert not failed
    return np.asarray((inverse**2).sum(1))


def _lengths(theta: Floats, n_domains: int) -> Floats:
    return np.exp(theta[0] + theta[4:]) * np.sqrt(n_domains)


def _kernel(theta: Floats, x: Floats, linear: Floats, x2: Floats, linear2: Floats) -> Floats:
    lengths = _lengths(theta, x.shape[1])
    matern, _ = _matern(x / lengths, x2 / lengths)
    return np.exp(2 * theta[1]) * matern + np.exp(2 * theta[2]) * (linear @ linear2.T)


def _squared(a: Floats, b: Floats) -> Floats:
    """Return the squared distances of rows."""
    squared: Floats = (a**2).sum(1)[:, None] + (b**2).sum(1)[None]
    squared -= 2.0 * a @ b.T
    return np.maximum(squared, 0.0, out=squared)


def _matern(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return the Matérn 5/2 kernel and minus its derivative by the squared distance."""
    squared = _squared(a, b)
    if a is b:
        np.fill_diagonal(squared, 0.0)
    slope = np.sqrt(5.0 * squared)
    decay = np.exp(-slope)
    slope += 1.0
    slope *= decay
    squared *= 5.0 / 3.0
    squared *= decay
    squared += slope
    slope *= 5.0 / 6.0
    return squared, slope


def _maximise(x: Floats, linear: Floats, targets: Floats, steps: int, restarts: int) -> Floats:
    from scipy.optimize import minimize

    gram = linear @ linear.T
    best: tuple[float, Floats] | None = None
    for move in [np.zeros(len(PRIOR_MEAN)), *RESTARTS[:restarts]]:
        found = minimize(
            _loss,
            np.concatenate([PRIOR_MEAN + move, np.zeros(x.shape[1])]),
            args=(x, gram, targets),
            jac=True,
            method="L-BFGS-B",
            bounds=[*LIMITS, *[FACTOR_LIMIT] * x.shape[1]],
            options={"maxiter": steps},
        )
        if best is None or found.fun < best[0]:
            best = float(found.fun), found.x
    assert best is not None
    return best[1]


def _loss(theta: Floats, x: Floats, gram: Floats, targets: Floats) -> tuple[float, Floats]:
    """Return minus the log posterior of θ and its gradient (Rasmussen and Williams, equation 5.9)."""
    from scipy.linalg import cho_solve

    n, n_tasks = targets.shape
    scaled = x / _lengths(theta, x.shape[1])
    matern, slope = _matern(scaled, scaled)
    amplitude, line, noise = np.exp(2 * theta[1:4])
    matrix = amplitude * matern + line * gram
    matrix[np.diag_indices(n)] += noise + JITTER
    try:
        root = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return 1e12, np.zeros_like(theta)
    inverse = cho_solve((root, True), np.eye(n), check_finite=False)
    alpha = inverse @ targets
    loss = 0.5 * (targets * alpha).sum() + n_tasks * np.log(np.diag(root)).sum()
    inner = 0.5 * (n_tasks * inverse - alpha @ alpha.T)
    by_distance = -amplitude * inner * slope
    # Σ_jk M_jk (x_j − x_k)² for each domain at once, M symmetric; the distance falls with the square of the length
    spreads = 2.0 * ((by_distance.sum(1)[:, None] * scaled**2).sum(0) - (scaled * (by_distance @ scaled)).sum(0))
    by_length = -2.0 * spreads
    ends = [
        by_length.sum(),
        2 * amplitude * (inner * matern).sum(),
        2 * line * (inner * gram).sum(),
        2 * noise * np.trace(inner),
    ]
    gradient = np.concatenate([ends, by_length])
    off = (theta[:4] - PRIOR_MEAN) / PRIOR_SD
    loss += 0.5 * (off**2).sum() + 0.5 * (theta[4:] ** 2).sum() / FACTOR_SD**2
    gradient[:4] += off / PRIOR_SD
    gradient[4:] += theta[4:] / FACTOR_SD**2
    return float(loss), gradient
