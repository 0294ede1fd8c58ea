"""Spherical k-means finds groups that are there, gives the same each time, and counts what it made."""

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from openclimb.clustering import kmeans, torch_kmeans
from openclimb.clustering.kmeans import assign, choose_k, fit_kmeans
from openclimb.clustering.torch_kmeans import KINDS, TorchKMeans
from openclimb.errors import InputError


def cones(n_each: int, n_groups: int, dim: int = 12) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors near n_groups axes."""
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(n_groups), n_each)
    vectors = np.eye(dim)[truth] + rng.normal(scale=0.05, size=(len(truth), dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), truth


def test_groups_are_found_and_counted() -> None:
    vectors, truth = cones(50, 6)
    found = fit_kmeans(vectors, 6, seed=0, rounds=50, restarts=8)
    cluster, distance = assign(vectors, found.centroids)
    assert len({(a, b) for a, b in zip(truth.tolist(), cluster.tolist(), strict=True)}) == 6
    assert found.sizes.tolist() == [50] * 6
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-6)
    expected = np.linalg.norm(vectors - found.centroids[cluster], axis=1)
    np.testing.assert_allclose(distance, expected, atol=1e-3)
    assert found.inertia == pytest.approx(float(np.mean(expected**2)), abs=1e-3)


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_ones() -> None:
    vectors = cones(60, 12)[0]
    first, again, other = (fit_kmeans(vectors, 5, seed, 20, 1) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.centroids, again.centroids)
    assert not np.array_equal(first.centroids, other.centroids)


def test_the_largest_cluster_comes_first() -> None:
    vectors = np.concatenate([cones(10, 1)[0], np.roll(cones(40, 1)[0], 1, axis=1)])
    assert fit_kmeans(vectors, 2, 0, 20, 4).sizes.tolist() == [40, 10]


def test_clusters_that_stay_empty_are_left_out() -> None:
    two = np.repeat(np.eye(4, dtype=np.float32)[:2], 10, axis=0)
    found = fit_kmeans(two, 5, 0, 20, 1)
    assert len(found.centroids) <= 5
    assert found.sizes.min() > 0
    assert found.sizes.sum() == 20


def test_fewer_documents_than_clusters_is_told() -> None:
    with pytest.raises(InputError, match="3 documents are fewer than 8 clusters") as caught:
        fit_kmeans(cones(3, 1)[0], 8, 0, 10, 1)
    assert "at most 3" in caught.value.fix


def mixed(n: int, n_groups: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors of overlapping groups, of sizes that differ tenfold."""
    rng = np.random.default_rng(seed)
    shares = np.exp(rng.normal(size=n_groups))
    group = rng.choice(n_groups, n, p=shares / shares.sum())
    vectors = rng.normal(size=(n_groups, dim))[group] + rng.normal(scale=0.7, size=(n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_torch_clusters_as_well_as_faiss(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = mixed(3000, 40, 24)
    monkeypatch.setattr(torch_kmeans, "PRODUCTS", 7000)  # many blocks, the last one smaller
    monkeypatch.setattr(kmeans, "TorchKMeans", partial(TorchKMeans, kind=kind))
    other, found, again = (fit_kmeans(vectors, 40, 0, device=device) for device in ("faiss", "cpu", "cpu"))
    assert found.inertia < other.inertia  # its starts are drawn far apart
    assert found.sizes.sum() == 3000
    np.testing.assert_array_equal(found.centroids, again.centroids)
    cluster, distance = assign(vectors, found.centroids)
    assert found.inertia == pytest.approx(float(np.mean(distance**2)), abs=2e-3)
    assert (np.bincount(cluster) == found.sizes).mean() > (0.5 if kind == "bf16" else 0.95)


def test_torch_fills_clusters_that_come_out_empty() -> None:
    vectors = mixed(600, 5, 8)
    start = np.repeat(vectors[:1], 6, axis=0)  # all alike: five of them are nobody's nearest
    centroids, _ = TorchKMeans(vectors, "cpu").train(6, 0, 30, 1e-6, start=start)
    sizes = np.bincount(assign(vectors, centroids)[0], minlength=6)
    assert sizes.min() > 0
    two = np.repeat(np.eye(4, dtype=np.float32)[:2], 10, axis=0)
    assert fit_kmeans(two, 5, 0, 20, 1, device="cpu").sizes.sum() == 20


@pytest.mark.parametrize("device", ["faiss", "cpu"])
def test_a_start_in_two_levels_is_as_good(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = mixed(4000, 120, 24)
    flat = fit_kmeans(vectors, 120, 0, device=device)
    monkeypatch.setattr(kmeans, "HIERARCHICAL", 100)
    assert len(kmeans.hierarchical_start(vectors, 120, 0)) == 120
    found = fit_kmeans(vectors, 120, 0, device=device)
    assert not np.array_equal(found.centroids, flat.centroids)
    assert found.inertia < 1.02 * flat.inertia
    assert len(found.sizes) == 120


def test_two_levels_give_every_cluster_though_vectors_repeat() -> None:
    repeated = np.repeat(mixed(30, 5, 8), 20, axis=0)
    assert len(kmeans.hierarchical_start(repeated, 150, 0)) == 150


def test_the_number_of_clusters_grows_with_the_corpus_up_to_the_papers() -> None:
    assert [choose_k(n) for n in (1, 3, 100, 6000, 147_015, 10**12)] == [1, 3, 9, 36, 106, 1000]
