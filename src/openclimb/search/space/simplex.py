"""The one simplex sampler: every mixture that anyone proposes is drawn, bent under the caps and rounded here.

A mixture is feasible when floor ≤ weight ≤ cap for each domain and the weights sum to 1. Draws come broad (whole
region), sparse (few domains) and local (round given mixtures); `fill` bends a draw into the region, `project` finds the
nearest feasible mixture, `round_weights` puts it on a grid so that it has one identity.
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from openclimb.errors import DomainError
from openclimb.mixture import Domain, Weights

GRID = 10_000  # weights are multiples of 1/GRID: finer than any trial can tell apart, and they hash stably
SLACK = 1e-9


def bounds(domains: Sequence[Domain], floors: Weights | None = None) -> tuple[Weights, Weights]:
    """Return (floors, caps), each of shape (n_domains,). Raises DomainError when no mixture lies between them."""
    caps = np.array([min(1.0, domain.cap) for domain in domains], dtype=np.float64)
    low = np.zeros(len(domains)) if floors is None else np.asarray(floors, dtype=np.float64)
    if caps.sum() < 1.0 - SLACK:
        raise DomainError(
            f"the caps of the {len(domains)} domains sum to {caps.sum():.3f}: no mixture meets them",
            "raise target.max_repetitions, or lower target.token_budget",
        )
    wrong = [domain.name for domain, floor, cap in zip(domains, low, caps, strict=True) if floor > cap + SLACK]
    if wrong or low.sum() > 1.0 + SLACK:
        raise DomainError(f"floors above caps or above 1 in sum: {', '.join(wrong) or 'all'}", "lower the floors")
    return low, caps


def fill(raw: Weights, floors: Weights, caps: Weights) -> Weights:
    """Return rows min(cap, max(floor, λ · raw)) with λ such that each sums to 1; keeps zeros and proportions.

    Where a row's own domains cannot carry the whole weight under their caps, the rest is spread over the other
    domains in proportion to the room that their caps leave. Shape (n, n_domains) or (n_domains,).
    """
    rows = np.atleast_2d(np.maximum(raw, 0.0))
    low, high = np.zeros((len(rows), 1)), np.full((len(rows), 1), 2.0)
    rows = rows / np.maximum(rows.sum(1, keepdims=True), 1e-300)
    at_most = np.where(rows > 0, caps, floors).sum(1, keepdims=True)
    while (
        short := (np.clip(high * rows, floors, caps).sum(1, keepdims=True) < np.minimum(1.0, at_most) - 1e-12)
    ).any():
        high = np.where(short, high * 8.0, high)
        if high.max() > 1e15:
            break
    for _ in range(64):
        middle = (low + high) / 2
        over = np.clip(middle * rows, floors, caps).sum(1, keepdims=True) > 1.0
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    filled = np.clip(low * rows, floors, caps)
    room = caps - filled
    missing = 1.0 - filled.sum(1, keepdims=True)
    filled = filled + room * np.clip(missing / np.maximum(room.sum(1, keepdims=True), 1e-300), 0.0, 1.0)
    return filled.reshape(np.shape(raw))


def project(weights: Weights, floors: Weights, caps: Weights) -> Weights:
    """Return the feasible mixtures nearest (Euclidean) to the rows of `weights`: clip(w − τ, floor, cap), sum 1."""
    rows = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    low = rows.min(1, keepdims=True) - 1.0
    high = rows.max(1, keepdims=True) + 1.0
    for _ in range(80):
        middle = (low + high) / 2
        over = np.clip(rows - middle, floors, caps).sum(1, keepdims=True) > 1.0
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return np.clip(rows - high, floors, caps).reshape(np.shape(weights))


def round_weights(weights: Weights, floors: Weights, caps: Weights, grid: int = GRID) -> Weights:
    """Return rows whose weights are multiples of 1/grid and sum to 1, by largest remainder, caps and floors kept.

    Where the caps leave less room than the grid needs, the grid is made ten times finer until they do.
    """
    rows = np.atleast_2d(weights)
    while True:
        least, most = np.ceil(floors * grid - 1e-6) + 0.0, np.floor(caps * grid + 1e-6)  # + 0.0: no minus zero
        if least.sum() <= grid <= most.sum() and (least <= most).all():
            break
        if grid >= 10**9:
            return np.asarray(weights, dtype=np.float64)  # the region is one point, wide as a rounding error
        grid *= 10
    return np.array([_round_row(row, least, most, grid) for row in rows]).reshape(np.shape(weights))


def _round_row(row: Weights, least: Weights, most: Weights, grid: int) -> Weights:
    counts = np.clip(np.floor(row * grid + 1e-6), least, most)
    remainder = row * grid - counts
    while (missing := int(grid - counts.sum())) != 0:
        step = 1 if missing > 0 else -1
        may = counts < most if step > 0 else counts > least
        order = np.argsort(-step * np.where(may, remainder, -step * np.inf), kind="stable")[
            : min(abs(missing), int(may.sum()))
        ]
        counts[order] += step
        remainder[order] -= step
    return counts / grid


def draw(
    n: int,
    center: Weights,
    floors: Weights,
    caps: Weights,
    rng: Generator,
    *,
    near: Weights | None = None,
) -> Weights:
    """Return n feasible mixtures, shape (n, n_domains): broad and sparse ones, and local ones where `near` is given.

    `center` is the mixture that broad draws lie around (the natural one). Not rounded.
    """
    return fill(draw_raw(n, center, rng, near), floors, caps)


def draw_raw(n: int, center: Weights, rng: Generator, near: Weights | None = None) -> Weights:
    """Return the same draws before they are bent: on the simplex, whatever the floors and caps."""
    if near is None or not len(near):
        n_sparse = n // 3
        parts = [broad(n - n_sparse, center, rng), sparse(n_sparse, center, rng)]
    else:
        n_local, n_sparse = n // 2, n // 6
        parts = [broad(n - n_local - n_sparse, center, rng), sparse(n_sparse, center, rng), local(n_local, near, rng)]
    return np.concatenate(parts)


def broad(n: int, center: Weights, rng: Generator) -> Weights:
    """Return n Dirichlet draws whose means lie between `center` and uniform, from nearly sparse to nearly the mean."""
    d = len(center)
    share = rng.uniform(0.0, 1.0, (n, 1))
    mean = share * center + (1.0 - share) / d
    strength = d * np.exp(rng.uniform(np.log(0.2), np.log(4.0), (n, 1)))
    gammas = rng.standard_gamma(np.maximum(mean * strength, 1e-3)) + 1e-12
    return gammas / gammas.sum(1, keepdims=True)


def sparse(n: int, center: Weights, rng: Generator) -> Weights:
    """Return n mixtures of 1 to d/2 domains each; larger domains are chosen more often (by the root of their share)."""
    d = len(center)
    keys = rng.gumbel(size=(n, d)) + 0.5 * np.log(np.maximum(center, 1e-12))
    rank = np.argsort(np.argsort(-keys, axis=1), axis=1)
    kept = rank < rng.integers(1, max(2, d // 2 + 1), (n, 1))
    gammas = np.where(kept, rng.standard_gamma(1.0, (n, d)) + 1e-9, 0.0)
    return gammas / gammas.sum(1, keepdims=True)


def local(n: int, near: Weights, rng: Generator) -> Weights:
    """Return n mixtures near the rows of `near`: all weights scaled a little, or weight moved between few domains."""
    d = near.shape[1]
    base = near[rng.integers(0, len(near), n)]
    size = np.exp(rng.uniform(np.log(0.02), np.log(0.8), (n, 1)))
    scaled = base * np.exp(size * rng.standard_normal((n, d)))
    toward = np.where(rng.random((n, d)) < 2.0 / d, rng.standard_gamma(1.0, (n, d)), 0.0)
    toward[np.arange(n), rng.integers(0, d, n)] += 1e-6
    moved = (1.0 - size * 0.5) * base + 0.5 * size * toward / toward.sum(1, keepdims=True)
    emptied = np.where(rng.random((n, d)) < 1.0 / d, 0.0, base)
    kind = rng.integers(0, 3, (n, 1))
    chosen = np.where(kind == 0, scaled, np.where(kind == 1, moved, emptied))
    return np.where(chosen.sum(1, keepdims=True) > 0, chosen, base)
