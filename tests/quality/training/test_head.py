"""Heads from sums over documents are those that scikit-learn's ridge regression finds on the documents themselves."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from openclimb.quality.training.head import PENALTIES, Heads, Moments, Solver, best_penalties
from openclimb.quality.training.labels import Labels


def some_labels(n: int = 600, dim: int = 12) -> tuple[Labels, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n, dim)).astype(np.float32) + 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.stack([3 + vectors @ rng.normal(size=dim), rng.normal(size=n), vectors[:, 0]], axis=1)
    scores[:50, 2] = np.nan
    hashes = rng.integers(0, 2**63, n).astype(np.uint64)
    return Labels(Path("none"), ("a", "b", "c"), scores.astype(np.float32), hashes, np.arange(n)), vectors


def test_sums_give_the_ridge_regression_and_its_squared_error() -> None:
    labels, x = some_labels()
    y = labels.scores[:, :2]
    train, rest = slice(0, 400), slice(400, 600)
    total = Moments.of(x, y)
    fold = Moments.of(x[rest], y[rest])
    solver = Solver(total.without(fold))
    for penalty in (1e-6, 1e-2):
        weights, intercepts = solver.heads(penalty)
        expected = Ridge(alpha=400 * penalty).fit(x[train].astype(np.float64), y[train])
        assert np.allclose(weights.T, expected.coef_, rtol=1e-4, atol=1e-6)
        assert intercepts == pytest.approx(expected.intercept_, rel=1e-4)
        error = ((y[rest] - expected.predict(x[rest].astype(np.float64))) ** 2).sum(0)
        assert fold.squared_error(weights, intercepts) == pytest.approx(error, rel=1e-4, abs=1e-9)


def test_noise_is_shrunk_and_a_law_is_not() -> None:
    labels, x = some_labels()
    folds = [Moments.of(x[i::5], labels.scores[i::5, :2]) for i in range(5)]
    total = Moments.empty(12, 2)
    for fold in folds:
        total.add(fold)
    law, noise = best_penalties(folds, [Solver(total.without(fold)) for fold in folds])
    assert law == PENALTIES[0]
    assert noise > 0.01


def test_every_text_is_predicted_by_a_head_that_did_not_see_it(tmp_path: Path) -> None:
    labels, x = some_labels()
    blocks = []
    for i, begin in enumerate(range(0, 600, 256)):
        blocks.append(tmp_path / f"{i}.npy")
        np.save(blocks[-1], x[begin : begin + 256])
    heads = Heads.fitted(labels, blocks)
    found = heads.predictions(labels, blocks)
    assert found[:, 0] == pytest.approx(labels.scores[:, 0], abs=1e-3)
    assert abs(np.corrcoef(found[:, 1], labels.scores[:, 1])[0, 1]) < 0.15  # an own prediction would remember noise
    assert found[:, 2] == pytest.approx(x[:, 0].clip(*np.nanquantile(labels.scores[:, 2], [0, 1])), abs=1e-3)
    least, most = np.nanmin(labels.scores, axis=0), np.nanmax(labels.scores, axis=0)
    assert ((found >= least) & (found <= most)).all()
    heads.write(tmp_path / "heads.npz", [2, 0])
    with np.load(tmp_path / "heads.npz", allow_pickle=False) as arrays:
        assert x @ arrays["weights"].T + arrays["intercepts"] == pytest.approx(
            np.stack([x[:, 0], labels.scores[:, 0]], axis=1), abs=1e-3
        )
