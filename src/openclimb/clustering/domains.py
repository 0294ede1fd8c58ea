"""The domains stage: clusters → the domains that a mixture weighs. Prunes, merges, names, and sets caps.

Reads `clusters/` and `labels/`. Writes `domains/clusters.csv` (every cluster: sizes, mean scores, kept or why not, its
domain), `domains.csv` (every domain: tokens, share, cap, words), `assignment.npy` (cluster → domain, −1: none) and
`centroids.npy` of the domains. Nothing is deleted. Where domains are ready-made each source is one, `sources.json`
(source → domain) stands for the assignment, nothing is merged, and a source too small for a trial is left out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.clustering.describe import domain_names, top_words
from openclimb.clustering.merge import absorb_small, ward
from openclimb.clustering.prune_limits import below, lowest
from openclimb.clustering.totals import Totals, add_up
from openclimb.config.load import format_count
from openclimb.config.schema import DomainsSettings, TargetSettings
from openclimb.corpus.labels import read_empty_sources
from openclimb.errors import ConfigError, DomainError, nearest
from openclimb.mixture import caps
from openclimb.progress import counted
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic, read_json, write_json
from openclimb.workspace.tables import write_csv

PRUNED = -1
NAMED = 8  # sources that a message lists
NO_TEXT = "domains whose documents have no text"


def make_domains(
    context: StageContext,
    clusters: Path,
    labels: Path,
    settings: DomainsSettings,
    target: TargetSettings,
    least: int = 0,
    left_out: Sequence[Path] = (),
) -> dict[str, Any]:
    """Make the domains and write their tables; return the facts of the record.

    `least`: tokens that a domain needs for a trial to read of it. A cluster with fewer joins its nearest, as one with
    less than `min_share` does; a ready-made source is left out, and named. `left_out`: the folders that say which
    documents are left out and do not count.
    Raises DomainError when every cluster is pruned, one domain is left, or the caps leave no mixture.
    """
    out, progress = context.folder, context.progress
    progress.start("make domains")
    path = clusters / "centroids.npy"
    centroids = np.load(path, allow_pickle=False) if path.is_file() else None
    totals = add_up(labels, None if centroids is None else len(centroids), left_out)
    if target.max_repetitions * int(totals.tokens.sum()) < target.token_budget:
        least = 0  # no mixture meets the caps, which `check_caps` says
    reasons = prune(totals, settings)
    bare = _name_bare(totals, reasons, read_empty_sources(labels), left_out) if centroids is None else []
    small = _name_small(totals, reasons, least) if centroids is None else []
    kept = np.array([not reason for reason in reasons])
    if not kept.any():
        raise _none_kept(reasons, small)
    assignment = _assigned(totals, kept, centroids, settings, least)
    n_domains = int(assignment.max()) + 1
    if n_domains < 2:
        raise _one_domain(small, bare)
    words = _words(clusters, totals.names, assignment, n_domains, centroids is None)
    names = [totals.names[i] for i in np.argsort(assignment)[-n_domains:]] if centroids is None else domain_names(words)
    tokens = _per_domain(totals.tokens, assignment, n_domains)
    limits = caps(tokens.tolist(), target.token_budget, target.max_repetitions)
    check_caps(names, tokens, limits, target)
    for what, some in (("too small for a trial of proxy.token_budget tokens", small), (NO_TEXT, bare)):
        if some:
            progress.note(f"{what}{_left_out(some)}")
    _write_clusters(out, clusters, totals, reasons, assignment, names)
    _write_domains(out, totals, assignment, names, words, tokens, limits)
    if centroids is None:
        write_json(out / "sources.json", dict(zip(totals.names, assignment.tolist(), strict=True)))
    else:
        _save(out / "assignment.npy", assignment)
        _save(out / "centroids.npy", _domain_centroids(centroids, totals.tokens, assignment, n_domains))
    progress.finish(f"{n_domains} domains of {np.count_nonzero(kept)} kept clusters")
    return {
        "clusters": len(kept),
        "kept": int(np.count_nonzero(kept)),
        "domains": n_domains,
        "tokens": int(tokens.sum()),
        "tokens_pruned": int(totals.tokens[~kept].sum()),
        "duplicates": int(totals.duplicates.sum()),
        "names": names,
        **({"too_small": small} if small else {}),
        **({"without_text": bare} if bare else {}),
    }


def _none_kept(reasons: list[str], small: list[str]) -> DomainError:
    """Return the error for clusters that are all pruned, or sources that are all too small."""
    return DomainError(
        f"every one of the {len(reasons)} clusters is pruned: {_most_common(reasons)}",
        "raise proxy.token_budget" if small else "lower the limits in domains.prune_below or domains.prune_quantile",
    )


def _one_domain(small: list[str], bare: list[str]) -> DomainError:
    """Return the error for domains of which one is left, beside those too small and those without text."""
    return DomainError(
        f"one domain is left, and a mixture needs two{_left_out(small)}{_left_out(bare, ', without text')}",
        "set domains.merge_to higher, lower domains.min_share, or prune less"
        + (", or raise proxy.token_budget" if small else "")
        + (", or name another corpus.text" if bare else ""),
    )


def _assigned(
    totals: Totals,
    kept: NDArray[np.bool_],
    centroids: NDArray[np.float32] | None,
    settings: DomainsSettings,
    least: int,
) -> NDArray[np.int32]:
    """Return the domain of each cluster, PRUNED where it is not kept; the domain with most tokens is the first."""
    assignment = np.full(len(kept), PRUNED, dtype=np.int32)
    if centroids is None:
        assignment[kept] = np.arange(np.count_nonzero(kept))
    else:
        lengths = totals.cosine.astype(np.float32)[:, None] if settings.centroids == "raw" else np.float32(1)
        groups = ward((centroids * lengths)[kept], settings.merge_to, settings.merge_distance)
        share = max(settings.min_share, least / max(1, int(totals.tokens[kept].sum())))
        assignment[kept] = absorb_small(groups, centroids[kept], totals.tokens[kept], share)
    return _largest_first(assignment, totals.tokens)


def _name_small(totals: Totals, reasons: list[str], least: int) -> list[str]:
    """Give a reason to the sources with fewer than `least` tokens that have none yet; return their names."""
    small = []
    for i, name in enumerate(totals.names):
        if not reasons[i] and totals.tokens[i] < least:
            reasons[i] = f"{totals.tokens[i]:,} tokens, of which a trial reads less than a sequence: {least:,} needed"
            small.append(name)
    return small


def _name_bare(totals: Totals, reasons: list[str], n_empty: Mapping[str, int], left_out: Sequence[Path]) -> list[str]:
    """Give a reason to the sources of which no document has text, by their number of documents; return their names."""
    none = "no documents that are not left out" if left_out else "no documents"
    bare = []
    for i, name in enumerate(totals.names):
        if not totals.documents[i]:
            n = n_empty.get(name, 0)
            reasons[i] = f"no text in its {counted(n, 'documents')}" if n else none
            bare.append(name)
    return bare


def _left_out(names: Sequence[str], why: str = "") -> str:
    return f"; left out{why}: {', '.join(names[:NAMED])}{' …' if len(names) > NAMED else ''}" if names else ""


def prune(totals: Totals, settings: DomainsSettings) -> list[str]:
    """Return for each cluster why it is not kept, or "". Limits hold on token-weighted means.

    `prune_below` {score: limit}: a lower mean goes. `prune_quantile` {score: share}: that share of the clusters goes,
    those with the lowest means first. Raises ConfigError for a score that no scorer gave.
    """
    reasons = ["" if n else "no documents" for n in totals.documents]
    for setting in ("prune_below", "prune_quantile"):
        for score, limit in getattr(settings, setting).items():
            if score not in totals.scores:
                raise ConfigError(
                    f"domains.{setting}: no scorer gave '{score}'{nearest(score, totals.scores)}",
                    f"scores are: {', '.join(totals.scores) or 'none'}; see quality.scorers",
                )
            means = totals.scores[score]
            some = np.flatnonzero(totals.documents)
            if setting == "prune_below":
                gone = below(means, some, limit)
                why = f"mean {score} {{:.3f}} is below {limit:g}"
            else:
                gone = lowest(means, some, limit)
                why = f"mean {score} {{:.3f}} is in the lowest {limit:.0%}"
            for cluster in gone.tolist():
                reasons[cluster] = "; ".join(filter(None, [reasons[cluster], why.format(means[cluster])]))
    return reasons


def check_caps(
    names: Sequence[str], tokens: NDArray[np.int64], limits: NDArray[np.float64], target: TargetSettings
) -> None:
    """Raise DomainError when the caps sum to less than 1, saying which they are and what would do."""
    if limits.sum() >= 1 - 1e-9:
        return
    listed = ", ".join(f"{name} {limit:.1%}" for name, limit in zip(names, limits, strict=True))
    most = int(target.max_repetitions * tokens.sum())
    least = target.token_budget / tokens.sum()
    raise DomainError(
        f"no mixture meets the caps, which sum to {limits.sum():.1%}: {listed}. {format_count(target.token_budget)} "
        f"tokens from {int(tokens.sum()):,} need {least:.3g} repetitions of everything",
        f"set target.token_budget to at most {most:,}, or target.max_repetitions to at least {least:.3g}",
    )


def _largest_first(assignment: NDArray[np.int32], tokens: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number the domains anew, the one with most tokens first."""
    found, inverse = np.unique(assignment[assignment >= 0], return_inverse=True)
    sums = np.bincount(inverse, weights=tokens[assignment >= 0], minlength=len(found))
    rank = np.empty(len(found), dtype=np.int32)
    rank[np.argsort(-sums, kind="stable")] = np.arange(len(found))
    renumbered = np.full(len(assignment), PRUNED, dtype=np.int32)
    renumbered[assignment >= 0] = rank[inverse]
    return renumbered


def _per_domain(values: NDArray[Any], assignment: NDArray[np.int32], n_domains: int) -> NDArray[np.int64]:
    kept = assignment >= 0
    return np.rint(np.bincount(assignment[kept], weights=values[kept], minlength=n_domains)).astype(np.int64)


def _words(
    clusters: Path, names: Sequence[str], assignment: NDArray[np.int32], n_domains: int, ready_made: bool
) -> list[list[str]]:
    """Return the top words of each domain, from the excerpts of the sampled documents."""
    import pyarrow.parquet as pq

    column = "source" if ready_made else "cluster"
    sample = pq.read_table(clusters / "sample.parquet", columns=[column, "excerpt"])
    place = {name: index for index, name in enumerate(names)}
    pairs = [
        (text, int(assignment[cluster]))
        for text, found in zip(sample["excerpt"].to_pylist(), sample[column].to_pylist(), strict=True)
        if (cluster := place.get(str(found), PRUNED)) >= 0 and assignment[cluster] >= 0
    ]
    return top_words((text for text, _ in pairs), (domain for _, domain in pairs), n_domains)


def _domain_centroids(
    centroids: NDArray[np.float32], tokens: NDArray[np.int64], assignment: NDArray[np.int32], n_domains: int
) -> NDArray[np.float32]:
    """Return the token-weighted mean direction of each domain's clusters, shape (n_domains, dim), unit norm."""
    sums = np.zeros((n_domains, centroids.shape[1]))
    kept = assignment >= 0
    np.add.at(sums, assignment[kept], centroids[kept] * np.maximum(tokens[kept], 1)[:, None])
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-30), dtype=np.float32)


def _write_clusters(
    out: Path,
    clusters: Path,
    totals: Totals,
    reasons: Sequence[str],
    assignment: NDArray[np.int32],
    names: Sequence[str],
) -> None:
    words = read_json(clusters / "words.json")
    rows = [
        {
            "cluster": name,
            "documents": int(totals.documents[i]),
            "tokens": int(totals.tokens[i]),
            "bytes": int(totals.bytes[i]),
            "duplicates": int(totals.duplicates[i]),
            **{score: float(f"{means[i]:.6g}") for score, means in totals.scores.items()},
            "kept": "no" if reasons[i] else "yes",
            "reason": reasons[i],
            "domain": names[assignment[i]] if assignment[i] >= 0 else "",
            "words": " ".join(words.get(name, [])),
        }
        for i, name in enumerate(totals.names)
    ]
    write_csv(out / "clusters.csv", list(rows[0]), [list(row.values()) for row in rows])


def _write_domains(
    out: Path,
    totals: Totals,
    assignment: NDArray[np.int32],
    names: Sequence[str],
    words: Sequence[Sequence[str]],
    tokens: NDArray[np.int64],
    limits: NDArray[np.float64],
) -> None:
    n = len(names)
    documents = _per_domain(totals.documents, assignment, n)
    kept = assignment >= 0
    n_clusters = np.bincount(assignment[kept], minlength=n)
    means = {
        score: np.bincount(assignment[kept], weights=(values * totals.tokens)[kept], minlength=n)
        / np.maximum(tokens, 1)
        for score, values in totals.scores.items()
    }
    rows = [
        {
            "name": name,
            "n_clusters": int(n_clusters[i]),
            "documents": int(documents[i]),
            "tokens": int(tokens[i]),
            "share": round(float(tokens[i] / tokens.sum()), 6),
            "cap": float(limits[i]),
            "words": " ".join(words[i]),
            **{score: round(float(mean[i]), 4) for score, mean in means.items()},
        }
        for i, name in enumerate(names)
    ]
    write_csv(out / "domains.csv", list(rows[0]), [list(row.values()) for row in rows])


def _save(path: Path, array: NDArray[Any]) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def _most_common(reasons: Sequence[str]) -> str:
    return max(set(reasons), key=reasons.count)
