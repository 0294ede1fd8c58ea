"""Small told trials for the search's tests."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Domain
from openclimb.trials import Trial


def make_domains(n: int, cap: float = 1.0, seed: int = 0) -> list[Domain]:
    """Return n domains of very different sizes; caps leave room for a mixture."""
    rng = np.random.default_rng(seed)
    tokens = np.round(1e6 * np.exp(rng.standard_normal(n))).astype(int)
    return [
        Domain(f"domain-{i:02d}", int(tokens[i]), max(cap, 1.2 / n, float(tokens[i] / tokens.sum()))) for i in range(n)
    ]


def make_trial(
    number: int,
    domains: Sequence[Domain],
    weights: Sequence[float],
    scores: dict[str, float],
    *,
    role: str = "search",
    seed: int = 0,
) -> Trial:
    """Return a told trial."""
    return Trial(
        number=number,
        role=role,
        iteration=0,
        domains=tuple(domain.name for domain in domains),
        weights=tuple(float(weight) for weight in weights),
        seed=seed,
        token_budget=1000,
        data="data",
        proposer="climb",
        identity=f"identity-{number}",
        scores=scores,
    )


def smooth_trials(domains: Sequence[Domain], n: int, seed: int = 0, noise: float = 0.01) -> list[Trial]:
    """Return n trials at random mixtures, with two tasks that are smooth in the weights."""
    rng = np.random.default_rng(seed)
    weights: NDArray[np.float64] = rng.dirichlet(np.ones(len(domains)), n)
    likes = rng.random((len(domains), 2))
    scores = np.sqrt(weights) @ likes + noise * rng.standard_normal((n, 2))
    return [
        make_trial(i + 1, domains, weights[i], {"first": float(scores[i, 0]), "second": float(scores[i, 1])})
        for i in range(n)
    ]
