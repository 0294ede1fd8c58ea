"""What a validation says: a plain sentence, a table to read, a table for other programs. From validation.json."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from openclimb.config import format_count
from openclimb.console import counted

FOUND = "found"  # the name of the workspace's answer among the compared mixtures


def sentence(table: Mapping[str, Any]) -> str:
    """Return what a validation says, in plain words, where ours does not win too."""
    said: dict[str, list[str]] = {"beaten": [], "not told apart": [], "better": []}
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
        (said["beaten"], "beats "),
        (said["better"], "loses to "),
        (said["not told apart"], "cannot be told apart from "),
        (same, "is the same mixture as "),
    ]
    parts.append(
        "; it ".join(text + ", ".join(names) for names, text in verdicts if names) or "has nothing to stand beside"
    )
    ending = f" No target of {', '.join(lost)} has scores." if lost else ""
    return "".join(parts) + "." + ending


def validation_text(table: Mapping[str, Any]) -> str:
    """Return a validation as people read it."""
    lines = [table["sentence"], ""]
    lines.append(f"{'mixture':<10} search tokens    score  found − it  95% interval        bootstrap           verdict")
    for row in table["rows"]:
        score = "–" if row["score"] is None else f"{row['score']:+.4f}"
        line = f"{row['name']:<10} {format_count(row['search_tokens']):>13} {score:>8}"
        if row["margin"]:
            found = row["margin"]
            (a, b), (c, d) = found["interval"], found["bootstrap"]
            line += f"     {found['mean']:+.4f}  [{a:+.4f}, {b:+.4f}]  [{c:+.4f}, {d:+.4f}]  {found['verdict']}"
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
    writer.writerow(("mixture", "search_trials", "search_tokens", "score", "found_minus_it", "low", "high", *names))
    for row in table["rows"]:
        margin = row["margin"] or {"mean": "", "interval": ["", ""]}
        numbers = (row["search_trials"], row["search_tokens"], row["score"], margin["mean"], *margin["interval"])
        writer.writerow((row["name"], *numbers, *row["weights"].values()))
    return out.getvalue()
