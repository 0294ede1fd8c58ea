"""The weighted objective of a trial: the one place that adds tasks up."""

from collections.abc import Mapping


def objective(scores: Mapping[str, float], share: Mapping[str, float]) -> float:
    """Return the sum of a trial's scores times their weights; a task of weight 0 needs no score."""
    return sum(weight * scores[task] for task, weight in share.items() if weight > 0)
