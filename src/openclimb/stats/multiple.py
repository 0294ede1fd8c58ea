"""Several comparisons at once: Holm's correction, and the words that say what is left."""

from collections.abc import Sequence

LEVEL = 0.05  # of the family: the probability of one false claim or more
HOLM = "significant at 5 % after Holm"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values in the order given.

    Adjusted: max over the ranks up to its own of (n − rank + 1) · p, at most 1. A comparison is significant when its
    adjusted value is at most LEVEL. Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6. Raises ValueError for a p-value outside [0, 1].
    """
    if any(not 0.0 <= p <= 1.0 for p in p_values):
        raise ValueError("p-values lie between 0 and 1")
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def significant(adjusted: float) -> bool:
    """Whether a comparison with this adjusted p-value is significant at LEVEL."""
    return adjusted <= LEVEL


def comparison(mean: float, adjusted: float) -> str:
    """Return "beaten", "better" or "not significant": of the other mixture, where `mean` is ours minus the other's."""
    if not significant(adjusted):
        return "not significant"
    return "beaten" if mean > 0 else "better"
