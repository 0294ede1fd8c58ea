"""What `climb status` says of clusters: how far they can be trusted, and what limits on quality scores do."""

from collections.abc import Mapping, Sequence
from typing import Any

from openclimb.printable import one_line
from openclimb.progress import counted

SIDE = 2  # clusters shown on each side of a limit
EXAMPLE = 70  # characters of a document


def cluster_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return the lines of a status; none where there are no clusters yet."""
    trust, pruning = facts["trust"], facts["pruning"]
    lines = [f"clusters  {trust['sentence']}"] if trust else []
    lines += [f"          take care: {warning}" for warning in trust.get("warnings", ())]
    for limit in pruning.get("limits", ()):
        lines += _limit_lines(limit, pruning["clusters"])
    return lines + _unset_lines(pruning.get("unset", ()))


def _limit_lines(limit: Mapping[str, Any], n_clusters: int) -> list[str]:
    """Return what a limit takes, and the clusters on both sides of it, the highest mean first."""
    kept, pruned = ([row for row in limit["near"] if row["pruned"] is gone] for gone in (False, True))
    lines = [
        f"prune     {one_line(limit['score'])} {limit['set_to']}: {limit['clusters']} of {n_clusters} clusters go, "
        f"{limit['tokens']:,} tokens ({limit['share']:.1%}); nearest to it:"
    ]
    for row in [*kept[-SIDE:], *pruned[:SIDE]]:
        says = f': "{one_line(row["example"][:EXAMPLE])}"' if row["example"] else ""
        lines.append(
            f"          {'goes ' if row['pruned'] else 'stays'} {row['mean']:.4g}  {one_line(row['cluster'])}  "
            f"{counted(row['documents'], 'documents')}, {row['tokens']:,} tokens  "
            f"{one_line(' '.join(row['words']))}{says}"
        )
    return lines


def _unset_lines(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each score without a limit the range of the clusters' means, and what pruning some would take."""
    return [
        f"scores    {one_line(row['score'])} of clusters {row['lowest']:.4g} to {row['highest']:.4g}"
        + "".join(
            f"; below {choice['limit']:.4g} {choice['quantile']:.0%} ({choice['share']:.1%} of the tokens)"
            for choice in row["choices"]
        )
        for row in scores
    ]
