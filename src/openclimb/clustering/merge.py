"""Merging clusters whose centroids are near: Ward linkage, and small domains joined to their nearest."""

import numpy as np
from numpy.typing import NDArray


def ward(centroids: NDArray[np.float32], merge_to: int, merge_distance: float) -> NDArray[np.int32]:
    """Return a group number for each centroid, shape (k,): Ward linkage (as the recipe has it), cut.

    It is cut where `merge_to` groups are left or, when that is 0, at the height `merge_distance`. The height of two
    single centroids is their Euclidean distance: 0 to 2 on unit vectors, 1.41 for unrelated ones. That of groups of
    sizes a and b is √(2ab/(a+b)) times the distance of their means, so it grows with the groups: 1.5 leaves apart what
    is hardly related.
    """
    from scipy.cluster.hierarchy import linkage

    n = len(centroids)
    groups = list(range(n))
    if n > 1:
        joins = linkage(centroids.astype(np.float64), method="ward")
        n_joins = n - min(merge_to, n) if merge_to else int(np.count_nonzero(joins[:, 2] <= merge_distance))
        members = {i: [i] for i in range(n)}
        for step, (a, b) in enumerate(joins[:n_joins, :2].astype(int).tolist()):
            members[n + step] = members.pop(a) + members.pop(b)
        for number, group in enumerate(sorted(members.values(), key=min)):
            for centroid in group:
                groups[centroid] = number
    return np.array(groups, dtype=np.int32)


def absorb_small(
    groups: NDArray[np.int32], centroids: NDArray[np.float32], tokens: NDArray[np.int64], min_share: float
) -> NDArray[np.int32]:
    """Return the groups after every one with under `min_share` of the tokens has joined the nearest, smallest first.

    Nearest is by the angle between token-weighted mean directions.
    """
    groups = groups.copy()
    weights = np.maximum(tokens, 1).astype(np.float64)
    while True:
        names, inverse = np.unique(groups, return_inverse=True)
        shares = np.bincount(inverse, weights=tokens) / max(1, int(tokens.sum()))
        smallest = int(shares.argmin())
        if len(names) < 2 or shares[smallest] >= min_share:
            return groups
        means = np.zeros((len(names), centroids.shape[1]))
        np.add.at(means, inverse, centroids * weights[:, None])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-30)
        near = means @ means[smallest]
        near[smallest] = -np.inf
        groups[groups == names[smallest]] = names[int(near.argmax())]
