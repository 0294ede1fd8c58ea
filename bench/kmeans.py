"""k-means of a large sample: torch on a GPU, faiss and scikit-learn's MiniBatchKMeans on the CPU.

    python bench/kmeans.py [--n 1000000] [--dim 1024] [--k 1000] [--device cuda] [--methods torch faiss sklearn] \
        [--threads 16] [--limit 100] [--two-levels K] [--out FOLDER]

The vectors have structure: K × 1.5 groups of sizes that differ a hundredfold, each around a direction of its own in a
space of fewer dimensions, with noise. Ours is `fit_kmeans` as `climb run` calls it: six short starts, those of torch
drawn far apart, of which the best goes on; torch with products in fp32, tf32 and bf16. faiss alone is one start of 25
rounds, its default. Inertia: mean squared distance to the nearest unit centroid, taken in fp32 for all. A method begins
only while less than `--limit` seconds of the bench are gone, and is told as left out else. Writes FOLDER/kmeans.json
after each (bench/results without --out).
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from _results import FOLDER, write_results
from openclimb.clustering import kmeans as ours
from openclimb.clustering.kmeans import assign, fit_kmeans
from openclimb.clustering.torch_kmeans import TorchKMeans
from openclimb.engines.local import n_cores

Vectors = NDArray[np.float32]
Fit = Callable[[Vectors, int], Vectors]  # vectors, k → unit centroids

BLOCK = 1 << 16  # vectors drawn at once
FAISS_ROUNDS = 25


def drawn(n: int, dim: int, k: int, seed: int = 0) -> Vectors:
    """Return n unit vectors (n, dim) of 1.5 k groups."""
    rng = np.random.default_rng(seed)
    n_groups, inner = max(2, k * 3 // 2), max(2, dim // 8)
    shares = np.exp(1.2 * rng.standard_normal(n_groups))
    plane = rng.standard_normal((inner, dim), dtype=np.float32) / np.float32(inner**0.5)
    centres = (rng.standard_normal((n_groups, inner), dtype=np.float32) @ plane).astype(np.float32)
    vectors = np.empty((n, dim), dtype=np.float32)
    for begin in range(0, n, BLOCK):
        rows = vectors[begin : begin + BLOCK]
        group = rng.choice(n_groups, len(rows), p=shares / shares.sum())
        rows[:] = centres[group]
        rows += 0.8 * rng.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors


def by_ours(vectors: Vectors, k: int, device: str) -> Vectors:
    """Return the centroids of ours."""
    return fit_kmeans(vectors, k, 0, device=device).centroids


def torch_fit(vectors: Vectors, k: int, device: str, kind: str) -> Vectors:
    """Return the centroids of ours with torch."""
    before = ours.TorchKMeans
    ours.TorchKMeans = partial(TorchKMeans, kind=kind)  # type: ignore[misc]
    try:
        return by_ours(vectors, k, device)
    finally:
        ours.TorchKMeans = before  # type: ignore[misc]


def faiss_alone(vectors: Vectors, k: int) -> Vectors:
    """Return the centroids of faiss with its default rounds, of all vectors."""
    import faiss

    kmeans = faiss.Kmeans(
        vectors.shape[1], k, niter=FAISS_ROUNDS, spherical=True, seed=0, max_points_per_centroid=len(vectors)
    )
    kmeans.train(vectors)
    return np.asarray(kmeans.centroids, dtype=np.float32)


def sklearns(vectors: Vectors, k: int) -> Vectors:
    """Return the unit centroids of scikit-learn's MiniBatchKMeans, with batches of 1,024 a core as it advises."""
    from sklearn.cluster import MiniBatchKMeans

    found = MiniBatchKMeans(k, random_state=0, batch_size=max(1024 * n_cores(), 3 * k), n_init=1).fit(vectors)
    centroids = found.cluster_centers_
    return np.asarray(centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-30), np.float32)


def methods(options: argparse.Namespace) -> dict[str, Fit]:
    """Return what is timed, the quickest first."""
    found: dict[str, Fit] = {}
    if "torch" in options.methods:
        for kind in ("tf32", "fp32", "bf16") if options.device == "cuda" else ("fp32",):
            found[f"torch {kind}, {options.device}"] = partial(torch_fit, device=options.device, kind=kind)
    if "sklearn" in options.methods:
        found["scikit-learn MiniBatchKMeans"] = sklearns
    if "faiss" in options.methods:
        found["faiss alone"] = faiss_alone
        found["ours with faiss"] = partial(by_ours, device="faiss")
    return found


def inertia_of(vectors: Vectors, centroids: Vectors, device: str) -> float:
    """Return the mean squared distance to the nearest centroid, in fp32."""
    if device == "cuda":
        _, products = TorchKMeans(vectors, device, "fp32").assign(centroids)
        return float(np.mean(np.maximum(0.0, 2 - 2 * products.astype(np.float64))))
    _, distance = assign(vectors, centroids)
    return float(np.mean(np.square(distance, dtype=np.float64)))


def timed(fit: Fit, vectors: Vectors, k: int) -> tuple[Vectors, float]:
    """Return the centroids and the seconds, after a short warm-up."""
    fit(vectors[:2000], min(k, 50))
    began = time.perf_counter()
    centroids = fit(vectors, k)
    return centroids, time.perf_counter() - began


def main() -> None:
    """Draw the vectors, time each method, print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--methods", nargs="+", default=["torch", "faiss", "sklearn"])
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--limit", type=float, default=100.0, help="seconds after which no further method begins")
    parser.add_argument("--two-levels", type=int, default=0, help="also time this K with a start in two levels and not")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    began = time.perf_counter()
    vectors = drawn(options.n, options.dim, options.k)
    print(f"{options.n:,} vectors of {options.dim} drawn in {time.perf_counter() - began:.1f} s", flush=True)
    began = time.perf_counter()
    case = f"{options.n} × {options.dim}, K = {options.k}, {options.threads} threads"
    rows: list[dict[str, Any]] = []

    def add(case: str, name: str, fit: Fit, k: int) -> None:
        if time.perf_counter() - began > options.limit:
            print(f"{name:<36} left out: {options.limit:.0f} s are over", flush=True)
            rows.append({"case": case, "metric": f"{name}: seconds", "value": "left out"})
            return
        try:
            centroids, seconds = timed(fit, vectors, k)
        except (RuntimeError, TypeError) as error:  # out of memory; a torch without products of bf16 in fp32
            print(f"{name:<36} failed: {error}", flush=True)
            rows.append({"case": case, "metric": f"{name}: seconds", "value": f"failed: {str(error)[:200]}"})
            return
        found = inertia_of(vectors, centroids, options.device)
        print(f"{name:<36} {seconds:8.2f} s   inertia {found:.5f}   {len(centroids)} clusters", flush=True)
        rows.append({"case": case, "metric": f"{name}: seconds", "value": round(seconds, 3)})
        rows.append({"case": case, "metric": f"{name}: inertia", "value": round(found, 6)})
        write_results("kmeans", rows, options.out)  # now: a later method may not come to its end

    with threadpool_limits(options.threads):
        for name, fit in methods(options).items():
            add(case, name, fit, options.k)
        if options.two_levels:
            device = options.device if "torch" in options.methods else "faiss"
            larger = f"{options.n} × {options.dim}, K = {options.two_levels}, {options.threads} threads"
            limit = ours.HIERARCHICAL
            for name, least in (("two levels", 1), ("six starts", options.two_levels + 1)):
                ours.HIERARCHICAL = least
                add(larger, f"{name}, {device}", partial(by_ours, device=device), options.two_levels)
            ours.HIERARCHICAL = limit
    write_results("kmeans", rows, options.out)


if __name__ == "__main__":
    main()
