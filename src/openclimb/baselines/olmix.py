"""Olmix (arXiv 2602.12237): one swarm, a log-linear law for each task, the mixture of the least loss near the natural.

The mean of the laws' losses plus a multiple of the Kullback–Leibler divergence to the natural mixture is convex in the
weights, and so are caps, floors and groups: one minimum, found by sequential quadratic programming. At most so many
domains is not convex: the largest weights of the free solution are kept, and the problem is solved again on them.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.baselines.baseline import Baseline, dirichlet, fresh, measured
from openclimb.baselines.fits.exponential_law import log_linear, olmix_unit
from openclimb.mixture import Weights
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.history import History, read_history
from openclimb.search.space.region import Region, bend, rounded
from openclimb.workspace.observations import Observation

Floats = NDArray[np.float64]
Convex = Callable[[Weights], tuple[float, Weights]]  # weights (n_domains,) → value and slope

PULL = 0.05  # to natural, bits per byte a nat: `kl_reg` of Olmix's production configs (its code's default is 0.1)
LEAST = 1e-9  # weight, where the divergence still has a slope
SLACK = 1e-9  # of groups' limits
SMALLEST = 2e-3  # smaller weights of a draw become 0


def propose(spec: SearchSpec, observations: Sequence[Observation], n: int, rng: Generator) -> Weights:
    """Return n mixtures as Olmix (2602.12237) draws its swarm: Dirichlet round the natural mixture, of 15 strengths
    from 0.1 to 5, weights below 2e-3 set to 0. It learns only at the end.
    """
    region = spec.region
    drawn = dirichlet(2 * n, region.share, rng, SMALLEST)
    return fresh(rounded(bend(drawn, region), region), spec, observations, n, rng)


def answer(spec: SearchSpec, observations: Sequence[Observation], _rng: Generator) -> Weights:
    """Return the mixture of the least loss by a log-linear law of each task, drawn to natural."""
    measured(spec, observations)
    region = spec.region
    return rounded(olmix_mixture(read_history(observations, spec.domains, spec.task_weights), region), region)


def olmix_mixture(history: History, region: Region) -> Weights:
    """Return the allowed mixture (n_domains,) of the least loss plus PULL × KL(mixture ‖ natural), not rounded."""
    return least(olmix_loss(history, region.share), region)


def olmix_loss(history: History, share: Weights) -> Convex:
    """Return the convex function that Olmix minimises, from a log-linear law of each task that counts.

    A task's law is fitted on the trials that have a score in it. PULL is in the unit of losses (bits per byte, where
    our proxies score); other scores are first brought to the usual spread of bits per byte. All of it is divided by the
    spread of the objective.
    """
    used = np.flatnonzero((history.importance > 0) & np.isfinite(history.scores).any(0))
    known = history.objective[np.isfinite(history.objective)]
    spread = max(float(known.std()) if len(known) else 0.0, 1e-12)
    pull = PULL * (olmix_unit(known) if len(known) else 1.0) / spread
    slopes, sizes = [], []
    for j in used:
        rows = np.isfinite(history.scores[:, j])
        fitted = log_linear().fit(history.weights[rows], history.scores[rows, j]).fitted
        slopes.append(fitted.theta[:-2])
        sizes.append(fitted.theta[-2] + np.log(history.importance[j] * fitted.spread / spread))
    table, offset = np.array(slopes), np.array(sizes)
    prior = np.maximum(share, 1e-12)

    def loss(weights: Weights) -> tuple[float, Weights]:
        parts = np.exp(np.minimum(table @ weights + offset, 50.0))
        inside = np.maximum(weights, LEAST)
        ratio = np.log(inside / prior)
        return float(parts.sum() + pull * (inside @ ratio)), parts @ table + pull * (ratio + 1.0)

    return loss


def least(loss: Convex, region: Region) -> Weights:
    """Return the allowed mixture (n_domains,) at which a convex function is least."""
    found = bend(_solve(loss, region), region)
    if region.most < len(found):
        kept = dataclasses.replace(region, caps=np.where(found > 0, region.caps, 0.0))
        found = bend(_solve(loss, kept, start=found), kept)
    return found


def _solve(loss: Convex, region: Region, start: Weights | None = None) -> Weights:
    from scipy.optimize import minimize

    start = bend(region.share, region) if start is None else start
    bottom = np.maximum(region.floors, np.minimum(LEAST, region.caps))
    top = np.maximum(bottom, region.caps)
    limits = [{"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like}]
    if len(region.members):  # those that fix a sum too: as an equality it could repeat another one
        rows = np.concatenate([region.members, -1.0 * region.members])
        ends = np.concatenate([region.low, -region.high]) - SLACK
        limits.append({"type": "ineq", "fun": lambda w: rows @ w - ends, "jac": lambda _: rows})
    found = minimize(
        loss,
        np.clip(start, bottom, top),
        jac=True,
        method="SLSQP",
        bounds=list(zip(bottom, top, strict=True)),
        constraints=limits,
        options={"maxiter": 500, "ftol": 1e-12},
    )
    better = np.isfinite(found.x).all() and found.fun <= loss(start)[0] + 1e-9
    return np.maximum(found.x, 0.0) if better else start


BASELINE = Baseline(propose, answer)
