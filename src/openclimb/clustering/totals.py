"""Sums over the labels: each cluster's documents, tokens, bytes, duplicates and mean scores, in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.corpus.labels import read_empty_sources, read_labels
from openclimb.corpus.left_out import is_left_out

FIXED = ("position", "cluster", "source", "distance", "bytes", "tokens", "hash")  # the other columns are scores
MOST_HASHES = 8_000_000  # held at once (64 MB); of a larger corpus a share of the hashes is watched for duplicates


@dataclass(frozen=True)
class Totals:
    """Arrays over the clusters (or sources), shape (k,); `scores`: name → token-weighted means, NaN-free.

    `duplicates` counts documents whose exact text stands earlier in the corpus. `cosine`: the mean cosine of a
    cluster's documents and its centroid, which is the length of the mean of their unit vectors; 1 for sources.
    """

    names: list[str]
    documents: NDArray[np.int64]
    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64]
    duplicates: NDArray[np.int64]
    scores: dict[str, NDArray[np.float64]]
    cosine: NDArray[np.float64]


def add_up(folder: Path, k: int | None, left_out: Sequence[Path] = ()) -> Totals:
    """Return the sums for clusters 0…k−1 or, when k is None, for every source, in order of its name.

    `left_out`: the folders that say which documents are left out and not counted.
    Sources that have documents, but none with text, are among them.
    """
    names = [str(cluster) for cluster in range(k)] if k is not None else _sources(folder)
    n_rows = _n_rows(folder)
    share = max(1, -(-n_rows // MOST_HASHES))  # every share-th hash value is watched
    sums, cosines = np.zeros((4, len(names))), np.zeros(len(names))
    score_sums: dict[str, NDArray[np.float64]] = {}
    hashes: list[NDArray[np.uint64]] = []
    owners: list[NDArray[np.int32]] = []
    for number, every in read_labels(folder):
        labels = every.filter(~is_left_out(left_out, number, every)) if left_out else every
        owner = _owner(labels, names, k is not None)
        tokens = labels.column("tokens").to_numpy().astype(np.float64)
        sums[0] += np.bincount(owner, minlength=len(names))
        sums[1] += np.bincount(owner, weights=tokens, minlength=len(names))
        sums[2] += np.bincount(owner, weights=labels.column("bytes").to_numpy(), minlength=len(names))
        squares = np.square(labels.column("distance").to_numpy().astype(np.float64))
        cosines += np.bincount(owner, weights=1 - squares / 2, minlength=len(names))  # |a − b|² = 2 − 2 a·b
        found = labels.column("hash").to_numpy()
        watched = found % np.uint64(share) == 0
        hashes.append(found[watched])
        owners.append(owner[watched].astype(np.int32))
        for score in (name for name in labels.column_names if name not in FIXED):
            values = labels.column(score).to_numpy().astype(np.float64)
            before = score_sums.get(score, np.zeros(len(names)))
            score_sums[score] = before + np.bincount(owner, weights=values * tokens, minlength=len(names))
    sums[3] = share * _duplicates(hashes, owners, len(names))
    documents, n_tokens, n_bytes, duplicates = np.rint(sums).astype(np.int64)
    means = {score: total / np.maximum(sums[1], 1) for score, total in score_sums.items()}
    return Totals(names, documents, n_tokens, n_bytes, duplicates, means, cosines / np.maximum(sums[0], 1))


def _n_rows(folder: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in folder.glob("unit-*.parquet"))


def _sources(folder: Path) -> list[str]:
    found = set(read_empty_sources(folder))
    for _, labels in read_labels(folder, ["source"]):
        found.update(labels.column("source").unique().to_pylist())
    return sorted(found)


def _owner(labels: Any, names: Sequence[str], clustered: bool) -> NDArray[np.int64]:
    if clustered:
        return np.asarray(labels.column("cluster").to_numpy(), dtype=np.int64)
    place = {name: index for index, name in enumerate(names)}
    column = labels.column("source").combine_chunks()
    numbers = np.array([place[name] for name in column.dictionary.to_pylist()], dtype=np.int64)
    return numbers[column.indices.to_numpy()] if len(numbers) else np.empty(0, dtype=np.int64)


def _duplicates(hashes: list[NDArray[np.uint64]], owners: list[NDArray[np.int32]], n: int) -> NDArray[np.int64]:
    """Return for each cluster how many of the hashes occurred before, in the order of the corpus."""
    if not hashes:
        return np.zeros(n, dtype=np.int64)
    together = np.concatenate(hashes)
    order = np.argsort(together, kind="stable")
    again = order[1:][together[order[1:]] == together[order[:-1]]]
    return np.bincount(np.concatenate(owners)[again], minlength=n)
