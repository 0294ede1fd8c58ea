"""How far the clusters of a sample can be trusted, measured on part of it: see `result.Trust`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb import seeds
from openclimb.clustering.kmeans import KMeans, Vectors, assign, fit_kmeans
from openclimb.clustering.trust.result import Intruder, Spread, Trust
from openclimb.clustering.trust.vocabulary import known_share, script_of

HALVES = 20_000  # documents of which two halves are clustered: the time is that of clustering so many
HALVES_EACH = 40  # for each cluster at least, where there are so many
LOOKED_AT = 20_000  # documents of which triples are drawn
READ = 3000  # texts that are read for words and scripts: a share of 2 % is right to half a point
TRIPLES = 5000
TRIPLES_EACH = 100  # for each cluster on average at least, up to MOST_TRIPLES
MOST_TRIPLES = 100_000
BLOCK = 10_000  # triples at once
ENOUGH = 50  # triples of a cluster that tell something of it
SOME = 20  # documents of a script, of the texts that are read, that do
HARDLY = 0.3  # of a text's letters or fewer stand in words that the embedder knows: English has .9, German .2


def measure_trust(
    vectors: Vectors,
    kmeans: KMeans,
    cluster: NDArray[np.int32],
    texts: Sequence[str],
    vocabulary: Path | None,
    seed: int,
) -> Trust:
    """Return how far clusters can be trusted. Vectors (n, dim) of documents in random order; `kmeans` of all of them.

    `cluster` and `texts`: those of the first documents. `vocabulary`: the tokenizer.json of the embedder, None where it
    has none that can be read.
    """
    shares = kmeans.sizes / max(1, kmeans.sizes.sum())
    n = min(LOOKED_AT, len(cluster))
    agreement, halves = agreement_of_halves(vectors, len(kmeans.centroids), seed)
    some, place = texts[:READ], cluster[:READ]
    return Trust(
        clusters=len(kmeans.centroids),
        smallest=float(shares.min()),
        largest=float(shares.max()),
        agreement=agreement,
        halves=halves,
        looked_at=n,
        intruder=intruder_test(np.asarray(vectors[:n]), cluster[:n], seeds.stream(seed, "trust")),
        unknown=_unknown(some, place, vocabulary) if vocabulary else None,
        scripts=_scripts(some, place),
    )


def agreement_of_halves(vectors: Vectors, k: int, seed: int) -> tuple[float | None, int]:
    """Return how far k-means of two halves agree on all their documents, and how many these are.

    Adjusted mutual information is 1 for the same clusters and 0 for chance; clusters are of unequal size, for which it
    is meant (Romano et al. 2016, JMLR 17). None where a half has too few documents for k clusters.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    half = n_halves(len(vectors), k) // 2
    if half < 2 * k:
        return None, 2 * half
    both = vectors[: 2 * half]
    first, second = (assign(both, fit_kmeans(part, k, seed).centroids)[0] for part in (both[:half], both[half:]))
    return float(adjusted_mutual_info_score(first, second)), 2 * half


def n_halves(n: int, k: int) -> int:
    """Return how many of n documents are clustered again, in two halves."""
    return min(n, max(HALVES, HALVES_EACH * k))


def intruder_test(vectors: Vectors, cluster: NDArray[np.int32], rng: Generator) -> Intruder | None:
    """Return how often the odd one of three documents is the least similar to the others; None of one cluster.

    A triple is a document drawn from all, another one of its cluster, and one of any other cluster. Odd is the document
    that the most similar pair leaves out (after Chang et al. 2009, "Reading Tea Leaves", who ask people).
    """
    from scipy.stats import binomtest

    k = int(cluster.max()) + 1
    triples = _triples(cluster, rng, min(MOST_TRIPLES, max(TRIPLES, TRIPLES_EACH * k)))
    if not len(triples):
        return None
    found = np.concatenate([_odd(vectors, triples[i : i + BLOCK]) for i in range(0, len(triples), BLOCK)]) == 2
    hits, n = int(found.sum()), len(found)
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    drawn = np.bincount(cluster[triples[:, 0]], minlength=k)
    rates = np.bincount(cluster[triples[:, 0]], weights=found, minlength=k) / np.maximum(drawn, 1)
    told = np.flatnonzero(drawn >= ENOUGH)
    loosest = int(told[rates[told].argmin()]) if len(told) else None
    rate = None if loosest is None else float(rates[loosest])
    return Intruder(hits / n, float(interval.low), float(interval.high), n, loosest, rate)


def _triples(cluster: NDArray[np.int32], rng: Generator, n: int) -> NDArray[np.int64]:
    """Return rows of three documents, (≤ n, 3): two of one cluster, and one of another."""
    order = np.argsort(cluster, kind="stable")  # the documents of a cluster stand together
    sizes = np.bincount(cluster)
    starts = np.cumsum(sizes) - sizes
    first = rng.integers(len(cluster), size=n)
    first = first[(sizes[cluster[first]] > 1) & (sizes[cluster[first]] < len(cluster))]
    mine = cluster[first]
    rank = np.empty(len(cluster), dtype=np.int64)
    rank[order] = np.arange(len(cluster))
    step = rng.integers(1, sizes[mine])  # to another one of the cluster, around it
    second = order[starts[mine] + (rank[first] - starts[mine] + step) % sizes[mine]]
    beyond = rng.integers(sizes[mine], len(cluster))  # to one of the others, around all
    third = order[(starts[mine] + beyond) % len(cluster)]
    return np.stack([first, second, third], axis=1)


def _odd(vectors: Vectors, triples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which of each three documents the most similar pair leaves out: 0, 1 or 2."""
    a, b, c = (vectors[triples[:, i]] for i in range(3))
    pairs = np.stack([(b * c).sum(axis=1), (a * c).sum(axis=1), (a * b).sum(axis=1)])
    return np.asarray(pairs.argmax(axis=0))


def _unknown(texts: Sequence[str], cluster: NDArray[np.int32], vocabulary: Path) -> Spread:
    return _spread("", known_share(texts, vocabulary) < HARDLY, cluster)


def _scripts(texts: Sequence[str], cluster: NDArray[np.int32]) -> list[Spread]:
    """Return how the documents of each script with `SOME` of them lie, the most frequent script first."""
    scripts = np.array([script_of(text) for text in texts])
    names, counts = np.unique(scripts[scripts != ""], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [_spread(str(names[i]), scripts == names[i], cluster) for i in order.tolist() if counts[i] >= SOME]


def _spread(name: str, mine: NDArray[np.bool_], cluster: NDArray[np.int32]) -> Spread:
    everything = np.bincount(cluster)
    counts = np.bincount(cluster[mine], minlength=len(everything))
    n = int(counts.sum())
    shares = counts[counts > 0] / max(1, n)
    home = int(counts.argmax())
    return Spread(
        name=name,
        documents=n,
        share=n / max(1, len(cluster)),
        clusters=float(np.exp(-(shares * np.log(shares)).sum())) if n else 0.0,
        home=home,
        in_home=float(counts[home] / max(1, n)),
        of_home=float(counts[home] / max(1, everything[home])),
    )
