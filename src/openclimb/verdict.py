"""What a validation says: how the mixtures stand beside one another, in a sentence, a table to read and a CSV file."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openclimb.config import format_count
from openclimb.console import counted
from openclimb.search.compare import compare, rank_correlation, read_scored
from openclimb.search.measures import Items
from openclimb.stats.intervals import Estimate, estimate
from openclimb.stats.multiple import HOLM
from openclimb.stats.paired import draw_means, score_table
from openclimb.trials import Trial, weights_key

MARGIN = ("found_minus_it", "low", "high", "p", "p_holm")  # columns of validation.csv
FOUND = "found"  # the name of the workspace's answer among the compared mixtures


@dataclass(frozen=True)
class Mixture:
    """A mixture to compare, and what its search cost."""

    name: str
    weights: tuple[float, ...]
    search_trials: int = 0
    search_tokens: int = 0


def judge(
    mixtures: Sequence[Mixture],
    domains: Sequence[str],
    targets: Mapping[str, Sequence[Trial]],
    proxies: Mapping[str, Sequence[Trial]] | None,
    items: Items,
    share: Mapping[str, float],
    metric: str,
    seed: int,
) -> dict[str, Any]:
    """Return what the trials of targets and of proxies (None: the same) say of the mixtures, for validation.json."""
    # One mixture under two names is one: twice in the table, its trials would count twice.
    first = {weights_key(one.weights): one.name for one in reversed(mixtures)}
    twin = {one.name: first[weights_key(one.weights)] for one in mixtures}
    distinct = {name: targets[name] for name in dict.fromkeys(twin.values())}
    scored = read_scored(distinct, items, share, metric, "report")
    margins, best = compare(scored, FOUND, share, seed)
    objective = {one.name: one.by_seed(share) for one in scored}
    scores = _scores(objective, seed)
    proxy_means = {
        name: float(np.mean([sum(share[task] * trial.scores[task] for task in share) for trial in some]))
        for name, some in (proxies or {}).items()
        if some
    }
    rows = []
    for one in mixtures:
        score = scores.get(twin[one.name])
        rows.append(
            {
                "name": one.name,
                "weights": dict(zip(domains, one.weights, strict=True)),
                "search_trials": one.search_trials,
                "search_tokens": one.search_tokens,
                "score": score.mean if score else None,
                "interval": score.interval if score else None,
                "by_seed": list(objective.get(twin[one.name], {}).values()),
                "proxy_score": proxy_means.get(one.name),
                "probability_best": best.get(twin[one.name], 0.0),
                "margin": margins.get(twin[one.name]),
                "same_mixture": one.name != FOUND and twin[one.name] == FOUND,
            }
        )
    means = {name: float(np.mean(list(values.values()))) for name, values in objective.items()}
    return {
        "seeds": len(scored[0].seeds),
        "rank_correlation": rank_correlation(proxy_means, means),
        "rows": rows,
    }


def _scores(objective: Mapping[str, Mapping[int, float]], seed: int) -> dict[str, Estimate]:
    """Return each mixture's objective over seeds, by the noise that all of them show."""
    table = score_table(list(objective.values()))
    draws = draw_means(table, np.random.default_rng([seed, 1]), paired=False)
    drawn = table.mean(1)[None] if draws is None else draws
    return {name: estimate(drawn[:, i]) for i, name in enumerate(objective)}


def sentence(table: Mapping[str, Any]) -> str:
    """Return what a validation says, in plain words, where ours does not win too."""
    said: dict[str, list[str]] = {"beaten": [], "not significant": [], "better": []}
    lost, same = [], []
    for row in table["rows"]:
        if row["name"] == FOUND:
            continue
        if row["same_mixture"]:
            same.append(row["name"])
        elif not row["margin"]:
            lost.append(row["name"])
        else:
            low, high = row["margin"]["interval"]
            said[row["margin"]["verdict"]].append(
                f"{row['name']} ({row['margin']['mean']:+.4f}, {low:+.4f} to {high:+.4f})"
            )
    size = f"{table['target']['parameters'] / 1e6:.3g}M parameters, " if table["target"]["parameters"] else ""
    where = " and judged on report items" if table["has_items"] else ""
    parts = [
        f"Trained as a target ({size}{format_count(table['target']['token_budget'])} tokens, {table['seeds']} seeds)"
        f"{where}, the found mixture "
    ]
    verdicts = [
        (said["beaten"], "beats ", f": {HOLM}"),
        (said["better"], "loses to ", f": {HOLM}"),
        (said["not significant"], "differs from ", ": not significant"),
        (same, "is the same mixture as ", ""),
    ]
    parts.append(
        "; it ".join(text + ", ".join(names) + more for names, text, more in verdicts if names)
        or "has nothing to stand beside"
    )
    ending = f" No target of {', '.join(lost)} has scores." if lost else ""
    return "".join(parts) + "." + ending


def validation_text(table: Mapping[str, Any]) -> str:
    """Return a validation as people read it."""
    lines = [table["sentence"], ""]
    lines.append(f"{'mixture':<10} search tokens    score  found − it  95% interval        p, Holm  verdict")
    for row in table["rows"]:
        score = "–" if row["score"] is None else f"{row['score']:+.4f}"
        line = f"{row['name']:<10} {format_count(row['search_tokens']):>13} {score:>8}"
        if row["margin"]:
            found = row["margin"]
            low, high = found["interval"]
            line += f"     {found['mean']:+.4f}  [{low:+.4f}, {high:+.4f}]  {found['p_holm']:7.4f}  {found['verdict']}"
        lines.append(line)
    rho = table["rank_correlation"]
    if rho is not None:
        lines += [
            "",
            f"rank correlation of proxies and targets over the {counted(len(table['rows']), 'mixtures')}: {rho:.2f}",
        ]
    return "\n".join(lines)


def table_csv(table: Mapping[str, Any]) -> str:
    """Return validation.csv: one line a mixture."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(table["rows"][0]["weights"])
    writer.writerow(("mixture", "search_trials", "search_tokens", "score", *MARGIN, *names))
    for row in table["rows"]:
        margin = row["margin"] or {"mean": "", "interval": ["", ""], "p": "", "p_holm": ""}
        found = (margin["mean"], *margin["interval"], margin["p"], margin["p_holm"])
        numbers = (row["search_trials"], row["search_tokens"], row["score"], *found)
        writer.writerow((row["name"], *numbers, *row["weights"].values()))
    return out.getvalue()
