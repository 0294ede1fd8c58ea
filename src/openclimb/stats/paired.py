"""Means of mixtures over seeds when some trials go astray: a two-way model with Student-t noise.

    score of mixture i with seed s = μ_i + β_s + σ_i · e_is,   e_is ~ Student t with TAIL degrees of freedom,
    1 / σ_i² ~ Gamma(SHRINK / 2, rate SHRINK · σ² / 2),   flat priors on μ, β and log σ

The t distribution lets one bad trial count little (Lange, Little and Taylor 1989, "Robust statistical modeling using
the t distribution", JASA 84, who fix 4 degrees of freedom where data are few). Each mixture has its own scale, shrunk
to the common one (Smyth 2004, "Linear models and empirical Bayes methods", SAGMB 3), so a noisy mixture widens its own
intervals and hardly those of others. The priors are right-invariant, so that posterior intervals hold the truth exactly
as often as they say when the model holds (Severini, Mukerjee and Ghosh 2002, "On an exact probability matching property
of right-invariant priors", Biometrika 89); `bench/coverage.py` shows how often when it does not. With infinitely many
degrees of freedom and one scale they are the textbook's pooled Student intervals.

The posterior is drawn by Gibbs sampling in parallel chains. The step that sets the common scale takes μ and β out of
the way (a group move, Liu and Sabatti 2000, "Generalised Gibbs sampler and multigrid Monte Carlo", Biometrika 87), so
chains forget their start in some tens of steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

TAIL = 4.0  # degrees of freedom of a trial's noise
SHRINK = 4.0  # degrees of freedom that the common scale is worth beside a mixture's own
BURN = 40  # steps that a chain forgets its start in
KEEP = 100  # steps of a chain that are kept
CHAINS = 100
SMALLEST = 1e-12  # of a variance, in units of the residuals': ties must not let a scale fall to zero


def score_table(tables: Sequence[Mapping[int, float]]) -> Floats:
    """Return scores by mixture and seed, (n_mixtures, n_seeds), NaN where a mixture lacks a seed."""
    seeds = sorted({seed for table in tables for seed in table})
    rows = [[table.get(seed, np.nan) for seed in seeds] for table in tables]
    return np.array(rows, dtype=np.float64).reshape(len(tables), len(seeds))


def connected(there: NDArray[np.bool_]) -> Ints:
    """Return the component (n_mixtures,) of each mixture; those of one component are linked by shared seeds.

    `there` (n_mixtures, n_seeds) marks the trials that have scores.
    """
    links = (there.astype(np.intp) @ there.T.astype(np.intp)) > 0
    label = np.arange(len(there))
    for _ in range(len(there)):  # the smallest number spreads along links
        label = np.where(links, label[None, :], len(there)).min(1, initial=len(there)).clip(max=label)
    return label.astype(np.intp)


def draw_means(
    scores: Floats, rng: Generator, *, paired: bool, chains: int = CHAINS, keep: int = KEEP
) -> Floats | None:
    """Return draws (…, chains · keep, n_mixtures) of the mixtures' means; None when no noise can be estimated.

    `scores` (…, n_mixtures, n_seeds), NaN where there is no trial; tables before the last two axes have the same trials
    and are drawn side by side. `paired`: a seed's luck is taken out, and only differences between mixtures of one
    component mean something; otherwise β = 0. Where the residuals of a table are all zero, its draws are its means.
    Raises ValueError when tables lack different trials, or a mixture has none.
    """
    tables = scores.reshape(-1, *scores.shape[-2:])
    there = np.isfinite(tables)
    if not (there == there[0]).all() or not there[0].any(1).all():
        raise ValueError("every mixture needs a score, and tables drawn together have the same trials")
    layout = _layout(there[0], paired)
    if layout.freedom < 1:
        return None
    centre = np.nanmean(tables, axis=(1, 2))
    values = np.where(there, tables - centre[:, None, None], 0.0)
    start = _fit(values, np.broadcast_to(layout.there, values.shape), layout, np.zeros_like(values))
    scale = np.sqrt(start.rss / layout.freedom)
    flat = scale <= 1e-12 * np.maximum(np.abs(values).max((1, 2)), 1e-300)
    scaled = (values / np.where(flat, 1.0, scale)[:, None, None]).repeat(chains, axis=0)
    drawn = _chains(scaled, layout, rng, keep).reshape(keep, len(tables), chains, -1)
    drawn = np.moveaxis(drawn, 0, 2).reshape(len(tables), chains * keep, -1) * scale[:, None, None]
    drawn = np.where(flat[:, None, None], start.means[:, None, :], drawn) + centre[:, None, None]
    return drawn.reshape(*scores.shape[:-2], chains * keep, scores.shape[-2])


@dataclass(frozen=True)
class _Layout:
    """Which trials there are, and how many degrees of freedom they leave to the noise."""

    there: Floats  # (n_mixtures, n_seeds), 1 where a trial counts
    level: Floats  # (n_mixtures, n_mixtures): 1 where two mixtures are of one component, whose level is not known
    paired: bool
    freedom: int


@dataclass(frozen=True)
class _Fit:
    """Weighted least squares of many tables."""

    means: Floats  # (n, n_mixtures)
    wander: Floats  # (n, n_mixtures): a draw of the means' error under these weights
    luck: Floats  # (n, n_seeds), of the seeds under these means
    weight: Floats  # (n, n_seeds), precision of the luck under given means
    rss: Floats  # (n,)


def _layout(there: NDArray[np.bool_], paired: bool) -> _Layout:
    counted = there.astype(np.float64)
    m = len(counted)
    if not paired:
        return _Layout(counted, np.zeros((m, m)), False, int(counted.sum()) - m)
    label = connected(there)
    lone = counted.sum(0) == 1  # such a seed's luck takes up all that its one trial says
    kept = np.where(lone, 0.0, counted)
    level = (label[:, None] == label[None, :]).astype(np.float64)
    # A mixture with lone seeds only is a component of its own: it costs no degree of freedom.
    n_means = m - len(set(label.tolist()))
    return _Layout(kept, level, True, int(kept.sum()) - n_means - int((kept.sum(0) > 0).sum()))


def _fit(values: Floats, weights: Floats, layout: _Layout, normal: Floats) -> _Fit:
    """Return the fit of values (n, n_mixtures, n_seeds) with weights of the same shape, 0 where there is no trial.

    `normal` are standard normal numbers of that shape, from which the means' error is made: least squares of noise
    with the weights' precision has the fit's own covariance (Papandreou and Yuille 2010, "Gaussian sampling by local
    perturbations", NIPS 23).
    """
    sums = weights.sum(1)
    safe = np.where(sums > 0, sums, 1.0)
    pulls = np.stack([weights * values, np.sqrt(weights) * normal], axis=3)  # (n, n_mixtures, n_seeds, 2)
    diagonal = weights.sum(2)
    if layout.paired:
        share = weights / safe[:, None, :]
        precision = -share @ weights.transpose(0, 2, 1)
        np.einsum("bii->bi", precision)[:] += diagonal
        pulls -= share[..., None] * pulls.sum(1, keepdims=True)
        # Pins each component's level, which contrasts do not depend on.
        size = np.maximum(np.einsum("bii->b", precision) / len(layout.level), 1e-300)
        precision += layout.level * size[:, None, None]
        solved = np.linalg.solve(precision, pulls.sum(2))
    else:
        solved = pulls.sum(2) / diagonal[..., None]
    means, wander = solved[..., 0], solved[..., 1]
    luck = _luck(values, weights, means, safe) if layout.paired else np.zeros_like(sums)
    rss = (weights * (values - means[:, :, None] - luck[:, None, :]) ** 2).sum((1, 2))
    return _Fit(means, wander, luck, safe, rss)


def _luck(values: Floats, weights: Floats, means: Floats, sums: Floats) -> Floats:
    luck: Floats = (weights * (values - means[:, :, None])).sum(1) / sums
    return luck


def _chains(values: Floats, layout: _Layout, rng: Generator, keep: int) -> Floats:
    """Return draws (keep, n, n_mixtures) of the means; each of the n tables (n, n_mixtures, n_seeds) is a chain."""
    n, m, _ = values.shape
    there = np.broadcast_to(layout.there, values.shape)
    trials = layout.there.sum(1)
    local, own, common = np.ones_like(values), np.ones((n, m)), np.ones(n)
    kept = np.empty((keep, n, m))
    for step in range(BURN + keep):
        weights = there * local / own[:, :, None]
        fit = _fit(values, weights, layout, rng.standard_normal(values.shape))
        moved = np.maximum(fit.rss / 2.0 / rng.standard_gamma(layout.freedom / 2.0, n), SMALLEST)
        own, common = own * moved[:, None], common * moved
        means = fit.means + np.sqrt(moved)[:, None] * fit.wander
        luck = fit.luck
        if layout.paired:
            sums = fit.weight / moved[:, None]
            luck = _luck(values, weights, means, fit.weight) + rng.standard_normal(sums.shape) / np.sqrt(sums)
        squares = there * (values - means[:, :, None] - luck[:, None, :]) ** 2
        local = rng.standard_gamma((TAIL + 1.0) / 2.0, values.shape) * 2.0 / (TAIL + squares / own[:, :, None])
        spread = SHRINK * common[:, None] + (local * squares).sum(2)
        own = np.maximum(spread / 2.0 / rng.standard_gamma((SHRINK + trials) / 2.0, (n, m)), SMALLEST)
        common = rng.standard_gamma(m * SHRINK / 2.0, n) * 2.0 / (SHRINK * (1.0 / own).sum(1))
        common = np.maximum(common, SMALLEST)
        if step >= BURN:
            kept[step - BURN] = means
    return kept


def draw_items(scores: Floats, n: int, rng: Generator) -> Floats:
    """Return n draws (n, n_mixtures) of what the choice of items adds to each mixture's mean score.

    `scores` (n_mixtures, n_items) are means over seeds. Student's t of several variables with n_items − 1 degrees of
    freedom and the items' covariance over their number: the posterior of a normal mean under a flat prior (Gelman et
    al. 2013, "Bayesian Data Analysis", section 3.6, with the degrees of freedom of one mixture). One item adds nothing.
    """
    m, n_items = scores.shape
    if n_items < 2:
        return np.zeros((n, m))
    covariance = np.atleast_2d(np.cov(scores)) / n_items
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    freedom = n_items - 1
    drawn: Floats = rng.standard_normal((n, m)) @ root.T
    return drawn * np.sqrt(freedom / rng.chisquare(freedom, (n, 1)))
