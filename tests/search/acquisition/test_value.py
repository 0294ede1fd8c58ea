"""Climbing a prediction from many trials: those near screen, all decide."""

import numpy as np
import pytest

from openclimb.mixture import Domain
from openclimb.search.acquisition.value import Value, climb
from openclimb.search.history import read_history
from openclimb.search.predictors.gp import MANY, NEAREST, SPREAD
from openclimb.search.predictors.objective import ObjectivePredictor, fit_objective
from openclimb.search.space.local_search import KEPT, local_search
from openclimb.workspace.observations import Observation

NAMES = tuple("abcdef")
DOMAINS = [Domain(name, 1000) for name in NAMES]


def fitted(n: int) -> tuple[ObjectivePredictor, np.ndarray]:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(len(NAMES)), n)
    scores = -((weights - np.array([0.3, 0.3, 0.2, 0.1, 0.1, 0.0])) ** 2).sum(1) + 0.01 * rng.standard_normal(n)
    seen = [
        Observation(str(i), NAMES, tuple(row), {"task": float(score)})
        for i, (row, score) in enumerate(zip(weights, scores, strict=True))
    ]
    return fit_objective(read_history(seen, DOMAINS, {}), "gp"), weights


def on_simplex(rows: np.ndarray) -> np.ndarray:
    return np.maximum(rows, 0) / np.maximum(rows, 0).sum(1, keepdims=True)


def expected(predictors: list[ObjectivePredictor], rows: np.ndarray) -> np.ndarray:
    return predictors[0].true_score(rows)[0]


@pytest.fixture(scope="module")
def many() -> tuple[ObjectivePredictor, np.ndarray]:
    return fitted(MANY + 50)


def test_few_trials_are_all_near():
    predictor, weights = fitted(40)
    value = Value((predictor,), expected)
    assert value.near(weights[:3]) is value


def test_near_mixtures_are_predicted_alike_from_fewer_trials(many):
    predictor, weights = many
    best = weights[np.argsort(-predictor.predict(weights)[0])[:5]]
    small = predictor.near(best)
    assert NEAREST <= len(small.groups[0][1].targets) <= NEAREST + SPREAD < len(weights)
    mean, deviation = predictor.true_score(best)
    near, _ = small.true_score(best)
    assert np.abs(near - mean).max() < 1.5 * deviation.max()


def test_the_climb_ends_as_high_as_one_with_all_trials(many):
    predictor, weights = many
    value = Value((predictor,), expected)
    rows = climb(value, weights[:KEPT], on_simplex, np.random.default_rng(1))
    exact = local_search(value, weights[:KEPT], on_simplex, np.random.default_rng(1))
    assert value(rows)[0] == value(rows).max()
    assert value(rows)[0] > value(exact)[0] - 0.1 * float(value(weights).std())
    assert value(rows)[0] > value(weights).max() - 1e-3


def test_promising_trials_hold_the_best(many):
    predictor, weights = many
    chosen = predictor.promising()
    assert len(chosen) < len(weights)
    assert len(set(chosen.tolist())) == len(chosen)
    assert predictor.loo_mean[:, 0].argmax() in chosen
