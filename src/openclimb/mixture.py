"""The vocabulary of the search: domains, mixtures and the arithmetic of repetition. Pure numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]  # shape (n_domains,) or (n, n_domains); rows are non-negative and sum to 1


@dataclass(frozen=True)
class Domain:
    """A thing a mixture weighs: a super-cluster, or a source that the user brought."""

    name: str
    n_tokens: int
    cap: float = 1.0  # the largest weight that `max_repetitions` allows at the target budget
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mixture:
    """One weight a domain, non-negative, sum 1."""

    domains: tuple[str, ...]
    weights: tuple[float, ...]

    def as_dict(self) -> dict[str, float]:
        """Return {domain name: weight} in the order of the domains."""
        return dict(zip(self.domains, self.weights, strict=True))


def natural(domains: Sequence[Domain]) -> Weights:
    """Return the natural mixture: weights by token counts, shape (n_domains,)."""
    tokens = np.array([domain.n_tokens for domain in domains], dtype=np.float64)
    return tokens / tokens.sum()


def uniform(domains: Sequence[Domain]) -> Weights:
    """Return equal weights, shape (n_domains,)."""
    return np.full(len(domains), 1.0 / len(domains))


def caps(n_tokens: Sequence[int], token_budget: int, max_repetitions: float) -> Weights:
    """Return the largest weight of each domain: max_repetitions × tokens ÷ budget, at most 1."""
    tokens = np.asarray(n_tokens, dtype=np.float64)
    return np.minimum(1.0, max_repetitions * tokens / token_budget)


def repetitions(weights: Weights, n_tokens: Sequence[int], token_budget: int) -> Weights:
    """Return how often each domain is seen: budget × weight ÷ the domain's tokens."""
    return np.asarray(weights) * token_budget / np.asarray(n_tokens, dtype=np.float64)


def effective_domains(weights: Weights) -> float:
    """Return exp of the mixture's entropy (nats): 1 for one domain, n for the uniform mixture."""
    positive = weights[weights > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))
