"""Spherical k-means with torch, for a GPU: what faiss does on a CPU, in blocks of bounded memory.

The same vectors, seed and device give the same centroids: starts are drawn on the CPU, and sums over a cluster are
matrix products, which add in one order, not atomic additions.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

PRODUCTS = 1 << 26  # of vectors and centroids held at once: 256 MB
RESIDENT = 0.6  # share of the device's free memory that vectors may take; more of them are sent in blocks each round
SEEDED = 32  # vectors a cluster among which a start is drawn
CANDIDATES = 8  # that are drawn for each vector of a start
SPLIT = 1 / 1024  # by which the two halves of a split cluster differ, as in faiss
KINDS = ("fp32", "tf32", "bf16")  # of products of vectors and centroids; their sums are fp32


class TorchKMeans:
    """k-means on unit vectors (n, dim), on a device ("cuda", "cpu"). `kind`: how products are taken (KINDS)."""

    def __init__(self, vectors: Vectors, device: str, kind: str = "tf32") -> None:
        import torch

        self.torch, self.device, self.kind = torch, torch.device(device), kind
        self.vectors: Any = torch.from_numpy(np.ascontiguousarray(vectors))
        if self.device.type == "cuda" and vectors.nbytes < RESIDENT * torch.cuda.mem_get_info()[0]:
            self.vectors = self.vectors.to(self.device)

    def train(
        self, k: int, seed: int, rounds: int, early_stop: float, starts: int = 1, start: Vectors | None = None
    ) -> tuple[Vectors, float]:
        """Return the centroids (k, dim) and the mean product of a vector with its own: the best of several starts.

        From `start`, or from k vectors that are drawn far apart for each start; ends early when the mean rises by a
        smaller share.
        """
        found = [self._climb(self._start(k, seed, i, start), rounds, early_stop) for i in range(starts)]
        centroids, mean = max(found, key=lambda pair: pair[1])
        return centroids.cpu().numpy(), mean

    def assign(self, centroids: Vectors) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return each vector's nearest centroid and its product with it, both of shape (n,)."""
        table = self.torch.from_numpy(centroids).to(self.device)
        parts = [tuple(one.cpu().numpy() for one in self._nearest(block, table)) for block in self._blocks(len(table))]
        products, clusters = (np.concatenate(column) for column in zip(*parts, strict=True))
        return clusters.astype(np.int32), products

    def _start(self, k: int, seed: int, number: int, start: Vectors | None) -> Any:
        if start is not None:
            return self.torch.from_numpy(start).to(self.device)
        rng = np.random.default_rng([seed, number])
        rows = np.sort(rng.choice(len(self.vectors), min(len(self.vectors), SEEDED * k), replace=False))
        some = self.vectors[self.torch.from_numpy(rows).to(self.vectors.device)].to(self.device)
        return some[self.torch.from_numpy(self._spread(some, k, rng)).to(self.device)]

    def _spread(self, some: Any, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the rows of k vectors that are far from one another: greedy k-means++ (Arthur and Vassilvitskii 2007;
        each time the best of CANDIDATES draws).
        """
        chosen = np.empty(k, dtype=np.int64)
        chosen[0] = rng.integers(len(some))
        with self._precision("fp32"):
            nearest = (2 - 2 * (some @ some[chosen[0]])).clamp_min(0)  # squared distance to the nearest chosen vector
            for i in range(1, k):
                edges = np.cumsum(nearest.cpu().numpy(), dtype=np.float64)
                drawn = np.searchsorted(edges, rng.random(CANDIDATES) * edges[-1], side="right")
                rows = np.minimum(drawn, len(some) - 1)
                table = some[self.torch.from_numpy(rows).to(self.device)]
                left = self.torch.minimum(nearest[:, None], (2 - 2 * (some @ table.T)).clamp_min(0))
                best = int(left.sum(0).argmin())
                chosen[i], nearest = rows[best], left[:, best].contiguous()
        return chosen

    def _climb(self, centroids: Any, rounds: int, early_stop: float) -> tuple[Any, float]:
        mean = -1.0
        for number in range(rounds):
            sums, sizes, total = self._round(centroids)
            before, mean = mean, total / len(self.vectors)
            norms = sums.norm(dim=1, keepdim=True)
            centroids = self.torch.where(norms > 0, sums / norms.clamp_min(1e-30), centroids)
            centroids = self._split_largest(centroids, sizes)
            if number and mean - before < early_stop * (1.0 - mean) and bool((sizes > 0).all()):
                break
        return centroids, mean

    def _round(self, centroids: Any) -> tuple[Any, Any, float]:
        """Return sums (k, dim) and sizes (k,) of the clusters, and the sum of all products."""
        torch, k = self.torch, len(centroids)
        sums, sizes = torch.zeros_like(centroids), torch.zeros(k, device=self.device)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        numbers = torch.arange(k, device=self.device)
        for block in self._blocks(k):
            products, cluster = self._nearest(block, centroids)
            own = (cluster[None] == numbers[:, None]).to(block.dtype)  # (k, block)
            with self._precision("fp32"):
                sums += own @ block
            sizes += own.sum(1)
            total += products.sum(dtype=torch.float64)
        return sums, sizes, float(total)

    def _nearest(self, block: Any, centroids: Any) -> tuple[Any, Any]:
        """Return the largest product of each vector of a block with a centroid, and that centroid's number."""
        if self.kind == "bf16":
            rough = self.torch.bfloat16
            products = self._mixed(block.to(rough), centroids.to(rough).T)
        else:
            with self._precision(self.kind):
                products = block @ centroids.T
        best = products.max(dim=1)
        return best.values, best.indices

    def _mixed(self, a: Any, b: Any) -> Any:
        """Return a product of bf16 matrices, summed in fp32."""
        if self.device.type == "cuda":
            return self.torch.mm(a, b, out_dtype=self.torch.float32)
        return a.float() @ b.float()

    def _split_largest(self, centroids: Any, sizes: Any) -> Any:
        """Give each empty cluster half of the largest one that is left."""
        empty = self.torch.nonzero(sizes == 0).flatten().tolist()
        if not empty:
            return centroids
        left = sizes.cpu().numpy().copy()
        sign = 1 - 2 * (self.torch.arange(centroids.shape[1], device=self.device) % 2)
        for cluster in empty:
            largest = int(left.argmax())
            if left[largest] < 2:
                break
            left[largest] /= 2
            left[cluster] = left[largest]
            centroids[cluster] = centroids[largest] * (1 + SPLIT * sign)
            centroids[largest] = centroids[largest] * (1 - SPLIT * sign)
        return centroids / centroids.norm(dim=1, keepdim=True)

    def _blocks(self, k: int) -> Iterator[Any]:
        step = max(1, PRODUCTS // k)
        for begin in range(0, len(self.vectors), step):
            yield self.vectors[begin : begin + step].to(self.device)

    @contextlib.contextmanager
    def _precision(self, kind: str) -> Iterator[None]:
        """Take products of fp32 matrices in tf32 or not, on a GPU, while the block runs."""
        matmul = self.torch.backends.cuda.matmul
        before = matmul.allow_tf32
        matmul.allow_tf32 = kind == "tf32"
        try:
            yield
        finally:
            matmul.allow_tf32 = before
