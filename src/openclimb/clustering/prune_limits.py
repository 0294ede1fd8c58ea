"""What limits on quality scores do, and where they could be set: the clusters at each limit, and quantiles of the rest.

Reads `domains/clusters.csv`, the settings in the record beside it, and excerpts of `clusters/sample.parquet`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openclimb.workspace.files import read_json
from openclimb.workspace.tables import read_rows

FIXED = {"cluster", "documents", "tokens", "bytes", "duplicates", "kept", "reason", "domain", "words"}
QUANTILES = (0.05, 0.1, 0.25, 0.5)  # of the clusters, that could be pruned
NEAREST = 3  # clusters on each side of a limit that are shown
WORDS = 6  # of a cluster
EXAMPLE = 160  # characters of a document


@dataclass(frozen=True)
class Near:
    """A cluster near a limit, with the beginning of the document nearest to its centroid."""

    cluster: str
    pruned: bool  # by this limit
    mean: float
    documents: int
    tokens: int
    words: list[str]
    example: str


@dataclass(frozen=True)
class Limit:
    """What the limits of one score take, whatever others take too. `share`: of all tokens; `near`: highest first."""

    score: str
    set_to: str  # the settings, as "below 0.5" or "the lowest 10%"
    clusters: int
    tokens: int
    share: float
    near: list[Near]


@dataclass(frozen=True)
class Choice:
    """What pruning a share `quantile` of the clusters would do: those with a mean below `limit` go, and `share` of all
    tokens with them.
    """

    quantile: float
    limit: float
    clusters: int
    share: float


@dataclass(frozen=True)
class Unset:
    """A score without a limit: the range of its means over clusters, and what limits would do."""

    score: str
    lowest: float
    highest: float
    choices: list[Choice]


@dataclass(frozen=True)
class PruneLimits:
    """The limits that are set, and the scores that have none; `clusters`: those with documents."""

    clusters: int
    limits: list[Limit]
    unset: list[Unset]


def below(means: NDArray[np.float64], some: NDArray[np.int64], limit: float) -> NDArray[np.int64]:
    """Return which of `some` clusters (the others have no documents) have a lower mean than a limit."""
    return some[means[some] < limit]


def lowest(means: NDArray[np.float64], some: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Return that share of `some` clusters, those with the lowest means."""
    return some[np.argsort(means[some], kind="stable")[: int(share * len(some))]]


def prune_limits(root: Path) -> PruneLimits | None:
    """Return what the limits of a workspace do and could do; None where its domains are not made, or were given."""
    table, record = root / "domains" / "clusters.csv", root / "domains" / "record.json"
    if not (table.is_file() and record.is_file()):
        return None
    rows = read_rows(table)
    settings = read_json(record)["settings"]
    least, share = (settings.get(f"domains.{name}", {}) for name in ("prune_below", "prune_quantile"))
    tokens = np.array([int(row["tokens"]) for row in rows])
    some = np.flatnonzero([int(row["documents"]) for row in rows])
    found: dict[str, tuple[NDArray[np.int64], list[int]]] = {}
    unset: list[Unset] = []
    for score in (name for name in rows[0] if name not in FIXED):
        means = np.array([float(row[score]) for row in rows])
        if score in least or score in share:
            gone = np.union1d(below(means, some, least.get(score, -np.inf)), lowest(means, some, share.get(score, 0)))
            found[score] = gone, _near(means, some, gone)
        elif len(some):
            ends = float(means[some].min()), float(means[some].max())
            unset.append(Unset(score, *ends, _choices(means, some, tokens)))
    shown = {rows[i]["cluster"] for _, near in found.values() for i in near}
    examples = _examples(root / "clusters" / "sample.parquet", shown)
    limits = [
        Limit(
            score,
            _text(least.get(score), share.get(score)),
            len(gone),
            int(tokens[gone].sum()),
            float(tokens[gone].sum() / max(1, tokens.sum())),
            [_shown(rows[i], score, i in gone, examples) for i in near],
        )
        for score, (gone, near) in found.items()
    ]
    return PruneLimits(len(some), limits, unset)


def _near(means: NDArray[np.float64], some: NDArray[np.int64], gone: NDArray[np.int64]) -> list[int]:
    """Return the clusters on both sides of a limit, highest mean first."""
    order = some[np.argsort(-means[some], kind="stable")]
    edge = len(some) - len(gone)
    return [int(i) for i in order[max(0, edge - NEAREST) : edge + NEAREST]]


def _choices(means: NDArray[np.float64], some: NDArray[np.int64], tokens: NDArray[np.int64]) -> list[Choice]:
    """Return what could be pruned, without what would prune nothing."""
    found = []
    for quantile in QUANTILES:
        gone = lowest(means, some, quantile)
        if len(gone):
            limit = np.sort(means[some])[len(gone)]
            found.append(Choice(quantile, float(limit), len(gone), float(tokens[gone].sum() / max(1, tokens.sum()))))
    return found


def _text(least: float | None, share: float | None) -> str:
    parts = [f"below {least:g}"] if least is not None else []
    return " or ".join([*parts, *([f"the lowest {share:.0%}"] if share is not None else [])])


def _shown(row: Mapping[str, str], score: str, pruned: bool, examples: Mapping[str, str]) -> Near:
    name = row["cluster"]
    return Near(
        cluster=name,
        pruned=pruned,
        mean=float(row[score]),
        documents=int(row["documents"]),
        tokens=int(row["tokens"]),
        words=row["words"].split()[:WORDS],
        example=examples.get(name, ""),
    )


def _examples(path: Path, clusters: Collection[str]) -> dict[str, str]:
    """Return for each of these clusters (or sources) the beginning of the sampled document nearest to its centroid."""
    if not clusters or not path.is_file():
        return {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["cluster", "source", "distance"])
    cluster, distance = table["cluster"].to_numpy(), table["distance"].to_numpy()
    names: Sequence[str] = table["source"].to_pylist() if (cluster < 0).any() else cluster.astype(str).tolist()
    nearest: dict[str, int] = {}
    for i, name in enumerate(names):
        if name in clusters and (name not in nearest or distance[i] < distance[nearest[name]]):
            nearest[name] = i
    texts = pq.read_table(path, columns=["excerpt"])["excerpt"].take(pa.array(list(nearest.values()), pa.int64()))
    return {name: " ".join(text.split())[:EXAMPLE] for name, text in zip(nearest, texts.to_pylist(), strict=True)}
