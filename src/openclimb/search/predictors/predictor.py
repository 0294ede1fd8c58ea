"""The seam "predictor": mixture → expected score of one task, with its uncertainty.

A predictor has `fit(weights, scores)` and `predict(weights)` → mean and standard deviation of the score that a trial
would get. Ours also carry `loo_mean` and `loo_sd` (each trial predicted from the others) and `noise`; others need not.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from openclimb.config.registry import load
from openclimb.errors import SearchError
from openclimb.mixture import Weights

Floats = NDArray[np.float64]


class Predictor(Protocol):
    """Weights (n, n_domains) → scores of one task (n,), higher is better."""

    def fit(self, weights: Weights, scores: Floats) -> Any:
        """Learn from trials: weights (n, n_domains), scores (n,), all finite, n ≥ 1. What it returns is not used."""

    def predict(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return mean (n,) and standard deviation (n,) of the score that a trial of each mixture would get."""


def make_predictor(name: str) -> Predictor:
    """Return a new predictor: a built-in by name, or what `package.module:function` returns."""
    made: Predictor = load("predictor", name)()
    return made


def near(predictor: Any, weights: Weights) -> Any:
    """Return what predicts mixtures round these (n, n_domains) in less time where trials are many, or the predictor."""
    return predictor.near(weights) if hasattr(predictor, "near") else predictor


def fit_predictor(weights: Weights, scores: Floats, name: str = "auto") -> Predictor:
    """Return the predictor `name` fitted on weights (n, n_domains) and one task's scores (n,); trials without a finite
    score are left out.

    Raises SearchError when no trial has a score, ConfigError when the predictor is not known.
    """
    weights, scores = np.atleast_2d(np.asarray(weights, dtype=np.float64)), np.asarray(scores, dtype=np.float64)
    known = np.isfinite(scores)
    if not known.any():
        raise SearchError("no trial has a score to fit a predictor on", "tell at least one trial")
    predictor = make_predictor(name)
    predictor.fit(weights[known], scores[known])
    return predictor
