"""What a validation says: how the mixtures stand beside one another, in a sentence, a table to read and a CSV file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from openclimb.config.load import format_count
from openclimb.progress import counted
from openclimb.stats.compare import Comparison, Margin, rank_correlation, read_scored
from openclimb.stats.multiple import HOLM, significant
from openclimb.stats.objective import objective
from openclimb.tasks.measures import Items
from openclimb.workspace.results import TargetModel, Validation, ValidationRow
from openclimb.workspace.tables import csv_text
from openclimb.workspace.trials import Trial, weights_key

MARGIN = ("found_minus_it", "low", "high", "p", "p_holm")  # columns of validation.csv
FOUND = "found"  # the name of the workspace's answer among the compared mixtures


@dataclass(frozen=True)
class Mixture:
    """A mixture to compare, and what its search cost."""

    name: str
    weights: tuple[float, ...]
    search_trials: int = 0
    search_tokens: int = 0


@dataclass(frozen=True)
class Judgement:
    """What the trials say of the mixtures."""

    seeds: int
    rank_correlation: float | None
    rows: list[ValidationRow]


@dataclass(frozen=True)
class Difference:
    """A mixture minus the one that it is compared with: higher is better."""

    mean: float
    interval: list[float]
    p: float
    p_holm: float
    comparison: str  # better, worse or not significant


def difference(margin: Margin) -> Difference:
    """Return a mixture minus the one that it is compared with, from the margin of the latter over it."""
    low, high = margin.estimate.interval
    said = "not significant"
    if significant(margin.adjusted):
        said = "worse" if margin.estimate.mean > 0 else "better"
    return Difference(-margin.estimate.mean, [-high, -low], margin.estimate.p, margin.adjusted, said)


def judge(
    mixtures: Sequence[Mixture],
    domains: Sequence[str],
    targets: Mapping[str, Sequence[Trial]],
    proxies: Mapping[str, Sequence[Trial]] | None,
    items: Items,
    share: Mapping[str, float],
    metric: str,
    seed: int,
) -> Judgement:
    """Return what the trials of targets and of proxies (None: the same) say of the mixtures."""
    # One mixture under two names is one: twice in the table, its trials would count twice.
    first = {weights_key(one.weights): one.name for one in reversed(mixtures)}
    twin = {one.name: first[weights_key(one.weights)] for one in mixtures}
    scored = [
        read_scored(name, targets[name], items, share, metric, "report")
        for name in dict.fromkeys(twin.values())
        if targets[name]
    ]
    compared = Comparison(scored, share, seed)
    margins, best = compared.margins(FOUND), compared.best()
    by_seed = {one.name: one.by_seed(share) for one in scored}
    scores = {one.name: compared.score(i) for i, one in enumerate(scored)}
    proxy_means = {
        name: float(np.mean([objective(trial.scores, share) for trial in some]))
        for name, some in (proxies or {}).items()
        if some
    }
    rows = []
    for one in mixtures:
        score = scores.get(twin[one.name])
        rows.append(
            ValidationRow(
                name=one.name,
                weights=dict(zip(domains, one.weights, strict=True)),
                search_trials=one.search_trials,
                search_tokens=one.search_tokens,
                score=score.mean if score else None,
                interval=score.interval if score else None,
                by_seed=list(by_seed.get(twin[one.name], {}).values()),
                proxy_score=proxy_means.get(one.name),
                probability_best=best.get(twin[one.name], 0.0),
                margin=margins[twin[one.name]].row() if twin[one.name] in margins else None,
                same_mixture=one.name != FOUND and twin[one.name] == FOUND,
            )
        )
    means = {name: float(np.mean(list(values.values()))) for name, values in by_seed.items()}
    return Judgement(min(len(one.seeds) for one in scored), rank_correlation(proxy_means, means), rows)


def sentence(found: Judgement, target: TargetModel, has_items: bool) -> str:
    """Return what a validation says, in plain words, where ours does not win too."""
    said: dict[str, list[str]] = {"beaten": [], "not significant": [], "better": []}
    lost, same = [], []
    for row in found.rows:
        if row.name == FOUND:
            continue
        if row.same_mixture:
            same.append(row.name)
        elif not row.margin:
            lost.append(row.name)
        else:
            low, high = row.margin.interval
            said[row.margin.comparison].append(f"{row.name} ({row.margin.mean:+.4f}, {low:+.4f} to {high:+.4f})")
    size = f"{target.parameters / 1e6:.3g}M parameters, " if target.parameters else ""
    where = " and judged on report items" if has_items else ""
    parts = [
        f"Trained as a target ({size}{format_count(target.token_budget)} tokens, {found.seeds} seeds){where}, "
        "the found mixture "
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


def validation_text(table: Validation) -> str:
    """Return a validation as people read it."""
    lines = [table.sentence, ""]
    lines.append(f"{'mixture':<10} search tokens    score  found − it  95% interval        p, Holm  comparison")
    for row in table.rows:
        score = "–" if row.score is None else f"{row.score:+.4f}"
        line = f"{row.name:<10} {format_count(row.search_tokens):>13} {score:>8}"
        if found := row.margin:
            low, high = found.interval
            line += f"     {found.mean:+.4f}  [{low:+.4f}, {high:+.4f}]  {found.p_holm:7.4f}  {found.comparison}"
        lines.append(line)
    rho = table.rank_correlation
    if rho is not None:
        n = counted(len(table.rows), "mixtures")
        lines += ["", f"rank correlation of proxies and targets over the {n}: {rho:.2f}"]
    return "\n".join(lines)


def table_csv(table: Validation) -> str:
    """Return validation.csv: one line a mixture."""
    rows = []
    for row in table.rows:
        one = row.margin
        found = (one.mean, *one.interval, one.p, one.p_holm) if one else ("",) * len(MARGIN)
        rows.append((row.name, row.search_trials, row.search_tokens, row.score, *found, *row.weights.values()))
    names = list(table.rows[0].weights)
    return csv_text(("mixture", "search_trials", "search_tokens", "score", *MARGIN, *names), rows)
