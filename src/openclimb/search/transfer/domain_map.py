"""How old domains stand to new ones: by shared documents, by centroids, or by names and a table. Pure numpy.

Reads and writes tables of old,new,share: which share of an old domain's tokens is in a new domain.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import InputError, nearest
from openclimb.mixture import Domain, Weights
from openclimb.workspace.tables import csv_text, read_csv, read_rows

WHOLE = 0.98  # a domain that shares so much of its tokens with an old one, and the reverse, is untouched
SLACK = 1e-6  # by which the shares of an old domain may sum to more than 1
COLUMNS = ("old", "new", "share")


@dataclass(frozen=True)
class DomainMap:
    """Which part of each old domain's tokens is in each new domain, and the reverse."""

    old: tuple[str, ...]
    new: tuple[str, ...]
    forward: Weights  # (n_old, n_new): rows sum to at most 1; the rest is in no new domain
    backward: Weights  # (n_new, n_old): rows sum to at most 1; the rest was in no old domain

    @property
    def gone(self) -> Weights:
        """The part of each old domain that is in no new one (n_old,)."""
        return np.maximum(1.0 - self.forward.sum(1), 0.0)

    @property
    def untouched(self) -> dict[int, int]:
        """New domain → old domain, for those that share nearly all their tokens."""
        both = (self.forward.T >= WHOLE) & (self.backward >= WHOLE)
        return {int(new): int(old) for new, old in np.argwhere(both)}


@dataclass(frozen=True)
class Documents:
    """Documents of a workspace, or a sample by the hash of their text: one row each, all (n,)."""

    hashes: NDArray[np.uint64]
    domains: NDArray[np.int32]  # −1: in none
    tokens: NDArray[np.int64]

    def distinct(self) -> "Documents":
        """The documents by hash, those of equal text once: the first."""
        _, first = np.unique(self.hashes, return_index=True)
        return Documents(self.hashes[first], self.domains[first], self.tokens[first])


@dataclass(frozen=True)
class Clusters:
    """Centroids (k, dim) of unit norm, the domain of each (−1: none) and its tokens, both (k,)."""

    centroids: NDArray[np.float32]
    domains: NDArray[np.int32]
    tokens: NDArray[np.int64]


def by_documents(
    old: Documents, new: Documents, old_names: Sequence[str], new_names: Sequence[str]
) -> tuple[DomainMap, float]:
    """Return the map by shared documents, and the share of the old domains' tokens that the new domains hold.

    Documents are the same when their texts are. Both samples must be drawn by the same rule on the hash.
    """
    old, new = old.distinct(), new.distinct()
    _, mine, theirs = np.intersect1d(old.hashes, new.hashes, assume_unique=True, return_indices=True)
    shape = (len(old_names), len(new_names))
    known = (old.domains[mine] >= 0) & (new.domains[theirs] >= 0)
    rows, columns = old.domains[mine][known], new.domains[theirs][known]
    forward = _sums(rows, columns, old.tokens[mine][known], shape)
    backward = _sums(rows, columns, new.tokens[theirs][known], shape).T
    old_tokens, new_tokens = _totals(old, shape[0]), _totals(new, shape[1])
    made = DomainMap(tuple(old_names), tuple(new_names), _parts(forward, old_tokens), _parts(backward, new_tokens))
    return made, float(forward.sum() / max(old_tokens.sum(), 1.0))


def by_centroids(
    old: Clusters, new: Clusters, radius: float, old_names: Sequence[str], new_names: Sequence[str]
) -> DomainMap:
    """Return the map by nearest centroids: a cluster counts for the domain of the nearest one on the other side.

    A cluster that is farther from all others than `radius` (Euclidean; how far documents lie from their own centroid)
    has no counterpart. Both sides must come from one embedder.
    """
    shape = (len(old_names), len(new_names))
    forward = _nearest(old, new, radius, shape)
    backward = _nearest(new, old, radius, shape[::-1])
    return DomainMap(tuple(old_names), tuple(new_names), forward, backward)


def by_names(
    old: Sequence[Domain], new: Sequence[Domain], given: Mapping[str, Mapping[str, float]] | None = None
) -> DomainMap:
    """Return the map by equal names; an old domain in `given` (old → new → share of its tokens) is mapped by that."""
    forward = np.zeros((len(old), len(new)))
    place = {domain.name: j for j, domain in enumerate(new)}
    for i, domain in enumerate(old):
        for name, share in (given or {}).get(domain.name, {domain.name: 1.0}).items():
            if name in place:
                forward[i, place[name]] = share
    tokens = forward * np.array([[domain.n_tokens] for domain in old], dtype=np.float64)
    backward = tokens.T / np.maximum(tokens.sum(0)[:, None], 1e-300)
    return DomainMap(tuple(domain.name for domain in old), tuple(domain.name for domain in new), forward, backward)


def read_map(path: Path, old: Sequence[str], new: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return old → new → share from a table with the columns old,new,share. An empty `new` says that a part is gone.

    Raises InputError for unknown domains, shares that are no numbers between 0 and 1 or sum to more than 1.
    """
    found: dict[str, dict[str, float]] = {}
    for line, row in enumerate(read_csv(path, COLUMNS), 2):
        first, second = (row[side] or "" for side in ("old", "new"))
        _check_name(path, line, "old", first, old)
        if second:
            _check_name(path, line, "new", second, new)
        parts = found.setdefault(first, {})
        if second in parts:
            raise InputError(f"{path} line {line}: '{first}' to '{second}' stands there twice", "give it once")
        parts[second] = _share(path, line, row["share"])
    for name, parts in found.items():
        if sum(parts.values()) > 1.0 + SLACK:
            raise InputError(
                f"{path}: the shares of '{name}' sum to {sum(parts.values()):.6g}, more than 1",
                "they are the parts of the old domain's tokens; what is missing to 1 is gone",
            )
    return {name: {new: share for new, share in parts.items() if new} for name, parts in found.items()}


def map_table(domain_map: DomainMap) -> str:
    """Return the map as CSV: old, new, the share of the old domain, the share of the new one."""
    there = np.argwhere((domain_map.forward > 0) | (domain_map.backward.T > 0)).tolist()
    rows = [
        (domain_map.old[i], domain_map.new[j], float(domain_map.forward[i, j]), float(domain_map.backward[j, i]))
        for i, j in there
    ]
    return csv_text((*COLUMNS, "share_of_new"), rows)


def read_table(path: Path, old: Sequence[str], new: Sequence[str]) -> DomainMap:
    """Return the map that `map_table` wrote."""
    forward, backward = np.zeros((len(old), len(new))), np.zeros((len(new), len(old)))
    for row in read_rows(path):
        i, j = old.index(row["old"]), new.index(row["new"])
        forward[i, j], backward[j, i] = float(row["share"]), float(row["share_of_new"])
    return DomainMap(tuple(old), tuple(new), forward, backward)


def _check_name(path: Path, line: int, side: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise InputError(
            f"{path} line {line}: '{name}' is no {side} domain{nearest(name, known)}",
            f"{side} domains are: {', '.join(known)}",
        )


def _share(path: Path, line: int, cell: str | None) -> float:
    try:
        value = float(cell or "")
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{path} line {line}: the share '{cell}' is no number from 0 to 1", "correct that line")
    return value


def _sums(
    rows: NDArray[np.int32], columns: NDArray[np.int32], tokens: NDArray[np.int64], shape: tuple[int, int]
) -> Weights:
    flat = np.bincount(rows.astype(np.int64) * shape[1] + columns, weights=tokens, minlength=shape[0] * shape[1])
    return np.asarray(flat, dtype=np.float64).reshape(shape)


def _totals(documents: Documents, n: int) -> Weights:
    inside = documents.domains >= 0
    counts = np.bincount(documents.domains[inside], weights=documents.tokens[inside], minlength=n)
    return np.asarray(counts, dtype=np.float64)


def _parts(sums: Weights, totals: Weights) -> Weights:
    return sums / np.maximum(totals, 1e-300)[:, None]


def _nearest(one: Clusters, other: Clusters, radius: float, shape: tuple[int, int]) -> Weights:
    mine, theirs = one.domains >= 0, other.domains >= 0
    near = one.centroids[mine].astype(np.float64) @ other.centroids[theirs].astype(np.float64).T
    found = near.argmax(1)
    close = np.sqrt(np.maximum(2.0 - 2.0 * near.max(1), 0.0)) <= radius
    tokens = one.tokens[mine]
    sums = _sums(one.domains[mine][close], other.domains[theirs][found][close], tokens[close], shape)
    totals = np.bincount(one.domains[mine], weights=tokens, minlength=shape[0]).astype(np.float64)
    return _parts(sums, totals)
