"""Spherical k-means with faiss, seeded, and assignment to the nearest centroid. Pure arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import InputError

Vectors = NDArray[np.float32]
MOST_CLUSTERS = 1000  # the paper's K_init, for 800B tokens
EARLY_STOP = 1e-5  # of the objective, relative
ROUNDS = 50  # most, of assignment and update
STARTS = 6  # of k-means, of which the best goes on
PRODUCTS = 16_000_000  # of vectors and centroids held at once: 64 MB
FIRST_ROUNDS = 6  # of each start; then the best one goes on alone


@dataclass(frozen=True)
class KMeans:
    """A clustering: `centroids` (k, dim) of unit norm, largest cluster first; `sizes` (k,); mean squared distance."""

    centroids: Vectors
    sizes: NDArray[np.int64]
    inertia: float


def choose_k(n_documents: int) -> int:
    """Return how many clusters to fit: 2 · n^(1/3), at most the paper's 1000 (reached at 125M documents)."""
    return int(max(1, min(MOST_CLUSTERS, n_documents, max(4, round(2 * n_documents ** (1 / 3))))))


def fit_kmeans(vectors: Vectors, k: int, seed: int, rounds: int = ROUNDS, restarts: int = STARTS) -> KMeans:
    """Cluster unit vectors (n, dim) by cosine; the same vectors and seed give the same centroids.

    Clusters that stay empty are left out, so fewer than k come back when there are fewer distinct vectors than k.
    Raises InputError when there are fewer vectors than clusters.
    """
    import faiss

    if len(vectors) < k:
        raise InputError(
            f"{len(vectors)} documents are fewer than {k} clusters",
            f"set clusters.k to at most {len(vectors)} (0: chosen from the corpus), or raise clusters.sample",
        )
    fixed = {
        "seed": seed,
        "spherical": True,
        "min_points_per_centroid": 1,
        "max_points_per_centroid": len(vectors),  # the sample was drawn by us; faiss shall not draw another
    }
    points = np.ascontiguousarray(vectors)
    start = None
    if restarts > 1:
        starts = faiss.Kmeans(points.shape[1], k, niter=min(rounds, FIRST_ROUNDS), nredo=restarts, **fixed)
        starts.train(points)
        start = np.asarray(starts.centroids)
    kmeans = faiss.Kmeans(points.shape[1], k, niter=rounds, early_stop_threshold=EARLY_STOP, **fixed)
    kmeans.train(points, init_centroids=start)
    centroids = _unit(np.asarray(kmeans.centroids, dtype=np.float32))
    cluster, distance = assign(vectors, centroids)
    sizes = np.bincount(cluster, minlength=k)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    return KMeans(centroids[order], sizes[order], float(np.mean(np.square(distance, dtype=np.float64))))


def assign(vectors: Vectors, centroids: Vectors) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return each unit vector's nearest centroid and its Euclidean distance to it (0 to 2), both of shape (n,)."""
    cluster, nearest = np.empty(len(vectors), np.int32), np.empty(len(vectors), np.float32)
    step = max(1, PRODUCTS // max(1, len(centroids)))
    for begin in range(0, len(vectors), step):
        products = vectors[begin : begin + step] @ centroids.T
        best = products.argmax(axis=1)
        cluster[begin : begin + step] = best
        nearest[begin : begin + step] = np.take_along_axis(products, best[:, None], axis=1)[:, 0]
    # |a − b|² = 2 − 2 a·b for unit vectors; rounding can make it a little negative.
    return cluster, np.sqrt(np.maximum(0, 2 - 2 * nearest))


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30), dtype=np.float32)
