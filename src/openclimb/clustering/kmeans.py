"""Spherical k-means, seeded, and assignment to the nearest centroid. Pure arrays.

faiss does it on a CPU, and torch where there is a GPU and the work is large. Each gives the same centroids for the same
vectors and seed; the two differ, as they draw other starts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from openclimb.clustering.torch_kmeans import TorchKMeans
from openclimb.errors import InputError

Vectors = NDArray[np.float32]
Train = Callable[[int, int, int, Vectors | None], Vectors]  # k, rounds, starts, start → centroids (k, dim)

MOST_CLUSTERS = 1000  # the paper's K_init, for 800B tokens
EARLY_STOP = 1e-5  # of the objective, relative
ROUNDS = 50  # most, of assignment and update
STARTS = 6  # of k-means, of which the best goes on
FIRST_ROUNDS = 6  # of each start; then the best one goes on alone
PRODUCTS = 16_000_000  # of vectors and centroids held at once: 64 MB
HIERARCHICAL = 4000  # clusters from which on the start is made in two levels: rounds of all by all are saved
GROUP_ROUNDS = 10  # of each of the two levels
GPU_WORK = 1e11  # vectors × clusters × dim of a round: smaller ones take less time than a GPU takes to start


@dataclass(frozen=True)
class KMeans:
    """A clustering: `centroids` (k, dim) of unit norm, largest cluster first; `sizes` (k,); mean squared distance."""

    centroids: Vectors
    sizes: NDArray[np.int64]
    inertia: float


def choose_k(n_documents: int) -> int:
    """Return how many clusters to fit: 2 · n^(1/3), at most the paper's 1000 (reached at 125M documents)."""
    return int(max(1, min(MOST_CLUSTERS, n_documents, max(4, round(2 * n_documents ** (1 / 3))))))


def fit_kmeans(
    vectors: Vectors, k: int, seed: int, rounds: int = ROUNDS, restarts: int = STARTS, device: str = ""
) -> KMeans:
    """Cluster unit vectors (n, dim) by cosine; the same vectors, seed and device give the same centroids.

    `device`: "faiss", or torch's "cuda" or "cpu"; "": "cuda" where there is one and the work is large, else faiss.
    Clusters that stay empty are left out, so fewer than k come back when there are fewer distinct vectors than k.
    Raises InputError when there are fewer vectors than clusters.
    """
    if len(vectors) < k:
        raise InputError(
            f"{len(vectors)} documents are fewer than {k} clusters",
            f"set clusters.k to at most {len(vectors)} (0: chosen from the corpus), or raise clusters.sample",
        )
    points = np.ascontiguousarray(vectors)
    device = device or _device(points, k)
    if device == "faiss":
        centroids = _unit(_train(_faiss_train(points, seed), points, k, seed, rounds, restarts))
        cluster, distance = assign(points, centroids)
        squared = np.square(distance, dtype=np.float64)
    else:
        trainer = TorchKMeans(points, device)

        def train(k: int, rounds: int, starts: int, start: Vectors | None) -> Vectors:
            return trainer.train(k, seed, rounds, EARLY_STOP, starts, start)[0]

        centroids = _unit(_train(train, points, k, seed, rounds, restarts))
        cluster, products = trainer.assign(centroids)
        squared = np.maximum(0.0, 2 - 2 * products.astype(np.float64))
    sizes = np.bincount(cluster, minlength=k)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    return KMeans(centroids[order], sizes[order], float(squared.mean()))


def _train(train: Train, points: Vectors, k: int, seed: int, rounds: int, restarts: int) -> Vectors:
    """Return the centroids from the best of several short starts, or from a start in two levels where k is large."""
    start = None
    if restarts > 1 and k >= HIERARCHICAL:
        start = hierarchical_start(points, k, seed)
    elif restarts > 1:
        start = train(k, min(rounds, FIRST_ROUNDS), restarts, None)
    return train(k, rounds, 1, start)


def hierarchical_start(points: Vectors, k: int, seed: int) -> Vectors:
    """Return k centroids (k, dim): about √k groups, each cut into its share of the clusters."""
    n_groups = round(k**0.5)
    coarse = fit_kmeans(points, n_groups, seed, GROUP_ROUNDS, 1)
    group, _ = assign(points, coarse.centroids)
    sizes = np.bincount(group, minlength=len(coarse.centroids))
    exact = sizes * (k / len(points))
    counts = np.minimum(np.maximum(np.floor(exact).astype(int), (sizes > 0).astype(int)), sizes)
    while counts.sum() != k:  # the rest goes where it is missed most, and comes from where it is missed least
        more = counts.sum() < k
        lack = np.where(counts < sizes if more else counts > 1, exact - counts, -np.inf if more else np.inf)
        counts[int(lack.argmax() if more else lack.argmin())] += 1 if more else -1
    return np.concatenate(
        [_split(points[group == number], int(n), seed) for number, n in enumerate(counts.tolist()) if n]
    )


def _split(points: Vectors, n: int, seed: int) -> Vectors:
    """Return exactly n centroids of some vectors; where fewer are distinct, some stand twice."""
    found = fit_kmeans(points, n, seed, GROUP_ROUNDS, 1).centroids
    return found[np.arange(n) % len(found)]


def _faiss_train(points: Vectors, seed: int) -> Train:
    import faiss

    def train(k: int, rounds: int, starts: int, start: Vectors | None) -> Vectors:
        kmeans = faiss.Kmeans(
            points.shape[1],
            k,
            niter=rounds,
            nredo=starts,
            seed=seed,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=len(points),  # the sample was drawn by us; faiss shall not draw another
            early_stop_threshold=EARLY_STOP if starts == 1 else 0.0,  # short starts run to their end
        )
        kmeans.train(points, init_centroids=start)
        return np.asarray(kmeans.centroids, dtype=np.float32)

    return train


def _device(points: Vectors, k: int) -> str:
    if len(points) * k * points.shape[1] < GPU_WORK or find_spec("torch") is None:
        return "faiss"
    import torch

    return "cuda" if torch.cuda.is_available() else "faiss"


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
