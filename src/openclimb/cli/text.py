"""What the commands print: the status, the answer, an export, as people read them."""

from collections.abc import Mapping
from typing import Any

from openclimb.cli.cluster_text import cluster_lines
from openclimb.config.load import format_count
from openclimb.printable import one_line, short_names
from openclimb.progress import counted, size_text
from openclimb.search.transfer.store import transfer_sentence
from openclimb.workspace.results import Answer, Best, Outlook

LISTED = 5  # domains and sources with duplicates


def status_text(facts: Mapping[str, Any]) -> str:
    """Return the status as people read it."""
    trials = facts["trials"]
    given = facts["domains_given"]
    lines = [f"domains   {given} given by hand; no corpus"] if given else []
    if facts["stages"]:
        lines += [*stage_lines(facts["stages"]), ""]
    lines.append("trials    " + ", ".join(f"{n} {state}" for state, n in trials.items() if n or state == "done"))
    if facts["by_hand"] and facts["waiting"]:  # completed one by one, so that it matters which are missing
        lines.append(f"waiting   for the scores of {', '.join(map(str, facts['waiting']))}")
    lines += cluster_lines(facts)
    lines += _duplicate_lines(facts)
    lines += _overlap_lines(facts)
    lines += transfer_lines(facts["transfer"])
    lines += [f"          trial {row['trial']} failed: {row['message']}" for row in facts["failures"]]
    if facts["held_by"]:
        lines.append(f"running   held by {facts['held_by']}")
    return "\n".join([*lines, f"next      {facts['next']}"])


def _duplicate_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return how many documents repeat an earlier one: a sentence, and the domains and sources that have most."""
    lines = [f"repeated  {facts['duplicates_sentence']}"] if facts["duplicates"] else []
    for what, rows in facts["duplicates"].items():
        some = [row for row in rows if row["duplicates"]]
        listed = [f"{one_line(row['name'])} {row['duplicates']:,} ({row['share']:.1%})" for row in some[:LISTED]]
        more = f", {len(some) - LISTED} more" if len(some) > LISTED else ""
        lines += [f"          by {what}: {', '.join(listed)}{more}"] if some else []
    return lines


def _overlap_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what the corpus has of the tasks: a sentence, and a line for each task of which it has something."""
    lines = [f"overlap   {facts['contamination']}"] if facts["contamination"] else []
    for row in facts["overlap"]:
        if row["overlap"]:
            (domain, n), *_ = row["domains"].items()
            lines.append(
                f"          {one_line(row['task'])}: {row['overlap']:,} of {row['items']:,} items, {row['share']:.2%} "
                f"of their runs, in {counted(row['documents'], 'documents')}, most in {one_line(domain)} ({n:,})"
            )
    return lines


def answer_text(answer: Answer) -> str:
    """Return the answer as people read it: the sentence, what is believed, the weights, the report items beside the
    baselines, the rounds.
    """
    what = "on report items" if answer.has_items else "scores"
    names = [*short_names([row.name for row in answer.domains]), *(row.name for row in answer.mixtures)]
    width = max(map(len, [what, *names, *(f"found − {name}" for name in answer.margins)]))
    chance = f", the best of those compared with {answer.probability_best:.0%}"
    lines = [answer.sentence, *_outlook_lines(answer, answer.has_items, chance), "", *_weight_lines(answer, width)]
    lines += ["", f"{what:<{width}}     mean  95% interval"]
    for mixture in answer.mixtures:
        low, high = mixture.report.interval
        lines.append(f"{mixture.name:<{width}}  {mixture.report.mean:+.4f}  [{low:+.4f}, {high:+.4f}]")
    for name, margin in answer.margins.items():
        low, high = margin.interval
        lines.append(f"{'found − ' + name:<{width}}  {margin.mean:+.4f}  [{low:+.4f}, {high:+.4f}]")
    for i, one in enumerate(answer.rounds, 1):
        ahead = one.left[0]
        out = f"; out: {', '.join(one.dropped)}" if one.dropped else ""
        lines.append(f"round {i}: {ahead} is the best with {one.probability_best[ahead]:.0%}{out}")
    return "\n".join(lines)


def export_text(facts: Mapping[str, Any], out: str) -> str:
    """Return what an export wrote as people read it: the shares asked for and realised, or each domain's weight and
    epochs, and where it is.
    """
    rows = sorted(facts["domains"], key=lambda row: -row["weight"])
    names = short_names([row["name"] for row in rows])
    width = max(map(len, names))
    head = "   weight     share       epochs" if facts["by_cluster"] else "asked for  realised  repetitions"
    lines = [f"{'domain':<{width}}  {head}"]
    lines += [
        f"{name:<{width}}  {row['weight']:9.2%}  {row['realised']:8.2%}  {row['repetitions']:11.2f}"
        for name, row in zip(names, rows, strict=True)
    ]
    about = "" if facts["counted"] else "about "
    lines += [
        "",
        f"{counted(facts['documents'], 'documents')}, {about}{facts['tokens']:,} tokens, "
        f"{size_text(facts['text_bytes'])} of text in {counted(len(facts['shards']), 'shards')}: {out}",
        f"each document once; epochs at {format_count(facts['token_budget'])} tokens"
        if facts["by_cluster"]
        else f"largest difference between a realised share and the one asked for: {facts['largest_difference']:.3%}"
        + ("" if facts["within_tolerance"] else ", more than 0.1%: documents are too long for so small a token budget"),
    ]
    return "\n".join(lines)


def annotate_text(facts: Mapping[str, Any], root: str) -> str:
    """Return what came of annotations as people read it: labels, failures, cost, and how the scores are spread."""
    failed = ", ".join(f"{kind} {n:,}" for kind, n in facts["failed"].items())
    lines = [f"{counted(facts['labels'], 'labels')}: {root}/annotations/labels.jsonl"]
    lines += [f"no label: {failed} (annotations/answers.jsonl)"] if failed else []
    if "endpoint" in facts:
        cost = f", ${facts['usd']:,.2f}" if "usd" in facts else ""
        guessed = f"; the server did not count {counted(facts['estimated'], 'answers')}" if facts["estimated"] else ""
        lines.append(f"spent: {facts['tokens_in']:,} tokens in, {facts['tokens_out']:,} out{cost}{guessed}")
    if facts["left"]:
        lines.append(f"{counted(facts['left'], 'documents')} are left: the budget is spent; with more, run again")
    width = max(map(len, facts["means"]))
    lines += ["", f"{'scale':<{width}}  mean  " + "".join(f"{score:>8}" for score in range(6))]
    for name, mean in facts["means"].items():
        lines.append(f"{name:<{width}}  {mean:4.2f}  " + "".join(f"{n:>8,}" for n in facts["counts"][name]))
    return "\n".join(lines)


def best_text(answer: Best) -> str:
    """Return the best expected mixture as people read it: what it promises, its weights, and which of them matter."""
    width = max(6, *map(len, short_names([row.name for row in answer.domains])))
    lines = [
        *_outlook_lines(answer, answer.has_items),
        f"from {counted(answer.trials, 'trials')}{_old(answer.transferred)}; the natural mixture is expected at "
        f"{answer.expected_natural:+.4f}",
        *(["a prediction from all trials; what the selection chose is in mixture/"] if answer.tested else []),
        *(
            f"{one_line(row['task'])} is expected at {row['expected']:+.4f}, and at least {row['least']:+.4f} "
            f"with probability {row['probability']:.0%}"
            for row in answer.thresholds
        ),
        "",
        *_weight_lines(answer, width),
    ]
    return "\n".join(lines)


def front_text(facts: Mapping[str, Any], shown: int = 4) -> str:
    """Return the front of two goals as people read it: expected scores ± half an 80 % interval, the largest weights."""
    goals = list(facts["goals"])
    rows = [("", *goals, "effective domains", "largest weights")]
    for i, point in enumerate(facts["points"], 1):
        cells = []
        for goal in goals:
            low, high = point["interval_80"][goal]
            cells.append(f"{point['expected'][goal]:+.4f} ± {(high - low) / 2:.4f}")
        largest = sorted(point["weights"].items(), key=lambda item: -item[1])[:shown]
        weights = ", ".join(
            f"{name} {weight:.0%}"
            for name, (_, weight) in zip(short_names([n for n, _ in largest]), largest, strict=True)
            if weight > 0
        )
        rows.append((str(i), *cells, f"{point['effective_domains']:.1f}", weights))
    rows.append(("", *(f"{facts['natural'][goal]:+.4f}" for goal in goals), "", "the natural mixture"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    n = len(facts["points"])
    what = (
        f"{counted(n, 'mixtures')} that no mixture is expected to beat in both goals"
        if n > 1
        else "one mixture is best"
    )
    tail = "" if n > 1 else " in both goals: they do not conflict"
    return "\n".join([f"{what}{tail}, by {counted(facts['trials'], 'trials')}{_old(facts['transferred'])}", "", *lines])


def _outlook_lines(answer: Outlook, has_items: bool, chance: str = "") -> list[str]:
    low, high = answer.interval_80
    where = " on search items" if has_items else ""
    return [
        f"expected score {answer.expected:+.4f}{where} (80% interval {low:+.4f} to {high:+.4f}){chance}",
        f"{answer.distance:.1%} of the weight away from the nearest trial ({answer.nearest_trial}); "
        f"{answer.effective_domains:.1f} effective domains",
    ]


def _weight_lines(answer: Outlook, width: int) -> list[str]:
    """Return a line a domain: weight, natural share, repetitions, and what the expected score loses without some."""
    lines = [f"{'domain':<{width}}  weight  natural  repetitions  loss of moving 5 points to the others"]
    rows = sorted(answer.domains, key=lambda row: -row.weight)
    lines += [
        f"{name:<{width}}  {row.weight:6.1%}  {row.natural:7.1%}  {row.repetitions:11.2f}  "
        + (f"{row.loss:+.4f}" if row.moved else "–")
        for name, row in zip(short_names([row.name for row in rows]), rows, strict=True)
    ]
    return lines


def _old(transferred: int) -> str:
    return f" and {transferred} old ones" if transferred else ""


def transfer_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what was taken from another workspace, a line; nothing where nothing was."""
    return [f"          {transfer_sentence(facts)}"] if facts else []


def stage_lines(stages: list[dict[str, Any]]) -> list[str]:
    """Return the states of the stages, a line each, and what differs where one is stale."""
    lines = []
    for row in stages:
        spent = f"  {row['seconds']:,.0f} s" if row["state"] == "done" else ""
        lines.append(f"{row['stage']:<13} {row['state']}{spent}")
        lines += [f"            {line}" for line in row["differs"]]
    return lines
