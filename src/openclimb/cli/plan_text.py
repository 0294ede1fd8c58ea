"""What `climb plan` prints: what is read and trained, and in 100 columns what each stage costs."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from openclimb.cli.text import stage_lines, transfer_lines
from openclimb.config.load import format_count
from openclimb.corpus.reading.find import left_out_lines
from openclimb.corpus.reading.parse import HTML
from openclimb.printable import one_line
from openclimb.progress import counted, size_text

WIDTH = 100  # columns
NAMED = 3  # files with large units, and tasks, that are named
NONE = "–"  # a cell of what a stage does not have


def _more(costs: Mapping[str, Any]) -> str:
    """Return the trials that measure the noise, in words."""
    return f" and {costs['replicates']} of the natural mixture for the noise" if costs["replicates"] else ""


def plan_text(facts: Mapping[str, Any]) -> str:
    """Return the plan as people read it."""
    inputs = facts["inputs"]
    lines = [
        f"{facts['workspace']} · scale {facts['scale']}",
        "",
        f"reads     {counted(inputs['files'], 'files')}, {size_text(inputs['bytes'])}; never copied or changed"
        if inputs
        else f"reads     {_unlisted(facts['plan']['corpus'])}",
        *_input_lines(inputs),
        *(
            f"task      {one_line(name)}: {task['search']:,} search items, {task['report']:,} report items"
            for name, task in facts["tasks"].items()
        ),
        *_overlap_lines(facts["overlap"]),
        *_tokenizer_lines(facts["tokenizer"]),
        *_trial_lines(facts),
        *transfer_lines(facts["transfer"]),
        f"free disk {size_text(facts['free_disk_bytes'])}",
        "",
        *cost_lines(facts["plan"], facts["stages"]),
    ]
    return "\n".join(lines)


def _overlap_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return the overlap of the tasks with the documents that were looked at."""
    if not facts:
        return []
    found = facts["tasks"]
    most = ", ".join(f"{one_line(task)} {n:,}" for task, n in list(found.items())[:NAMED])
    what = f"{sum(found.values()):,} of {facts['items']:,} items in {counted(facts['overlap'], 'documents')}: {most}"
    sample = f"overlap   of tasks with the corpus (sample of {counted(facts['documents'], 'documents')}): "
    return textwrap.wrap(sample + (what if found else "no item"), WIDTH, subsequent_indent=" " * 10)


def _tokenizer_lines(facts: Mapping[str, str]) -> list[str]:
    if not facts:
        return []
    return [f"tokens    {facts['path']}: a document begins with {facts['start']} and ends with {facts['end']}"]


def _input_lines(inputs: Mapping[str, Any]) -> list[str]:
    """Return the formats of the files that are read, where they are not all of one, and what is left out."""
    if not inputs:
        return []
    kinds = [f"{n:,} {kind}" for kind, n in sorted(inputs["formats"].items())]
    lines = [f"          {', '.join(kinds)}"] if len(kinds) > 1 else []
    lines += ["          token ids, which tokens.tokenizer decodes"] if inputs["token_ids"] else []
    lines += [f"          no plain text at the beginning of {inputs['pages']}: {HTML}"] if inputs.get("pages") else []
    lines += large_lines(inputs["large_units"])
    left = left_out_lines(inputs["left_out"])
    return lines + [f"{'left out' if i == 0 else '':<9} {line}" for i, line in enumerate(left)]


def large_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is said of files that have units of more than a gigabyte of text, a line each."""
    if not rows:
        return []
    first = sorted(rows, key=lambda row: -int(row["bytes"]))[:NAMED]
    named = ", ".join(f"{row['name']} (about {size_text(row['bytes'])} of text)" for row in first)
    more = f" and {len(rows) - len(first):,} more" if len(rows) > len(first) else ""
    return [
        f"          not cut into units of at most 1 GB of text: {named}{more}",
        "          each such unit is read by one worker and, after an interruption, from its start; to avoid it,",
        "          split the file, or write it as Parquet or seekable zstd",
    ]


def _unlisted(corpus: Mapping[str, Any] | None) -> str:
    """Return what is read where no file is looked at."""
    if not corpus:
        return "nothing: the domains are given by hand"
    return f"{short_count(corpus['documents'])} documents, {size_text(corpus['text_bytes'])}, as given; not looked at"


def _trial_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what is trained, and by whom."""
    costs = facts["trials"]
    size = f"{short_count(costs['parameters'])} parameters × {format_count(costs['token_budget'])} tokens each"
    if facts["by_hand"]:
        return [f"trains    {costs['search']} trials elsewhere, completed by hand, as of {size}"]
    text = (
        f"trains    {costs['search']} search trials in {costs['iterations']} iterations{_more(costs)}, "
        f"at most {costs['selection']} to choose: {counted(costs['finalists'], 'finalists')}, natural and uniform "
        f"in up to {counted(costs['seeds'], 'rounds')}, then the best and natural × {costs['seeds']} fresh seeds, "
        f"uniform × {costs['uniform_seeds']}"
    )
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=" " * 10)
    if facts["objective"] == "proxy":
        return [*lines, f"          {size}, {short_flops(costs['flops'])} FLOPs in all"]
    what = " ".join(facts["command"]) if facts["objective"] == "command" else facts["objective"]
    return [*lines, f"          by {what}, {format_count(costs['token_budget'])} tokens each"]


def cost_lines(costs: Mapping[str, Any], stages: list[dict[str, Any]]) -> list[str]:
    """Return the table of stages with their sums, what it is for, and what it assumes."""
    machine, rows = costs["machine"], costs["rows"]
    real = any(row["real_hours"] is not None for row in rows)
    columns = ["stage", "trials", "documents", "reads", "FLOPs", "time"]
    columns += ["GPU-hours"] * bool(machine["gpus"]) + ["memory", "disk"] + ["real"] * real
    table = [columns, *(_cells(row, columns) for row in rows), _cells(costs["total"], columns)]
    table += [_cells(costs["export"], columns)] if costs["export"] else []
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table]
    rule = "─" * len(lines[0])
    n = len(rows) + 1
    head = [f"on {machine['described']}{'' if machine['this_machine'] else ', not this machine'}", ""]
    lines = [*head, lines[0], rule, *lines[1:n], rule, *lines[n:], ""]
    if machine["gpus"]:
        lines.append(f"GPU-hours  {_amount(costs['gpu_hours_held'])} if all cards are held from start to end")
    if stack := costs["stack"]:
        memory = size_text(max(row["gpu_memory_bytes"] for row in rows))
        proxies = "1 proxy" if stack["models"] == 1 else f"{stack['models']:,} proxies"
        lines.append(f"each card  {proxies} as one program, {memory} of its memory")
    lines += _wrapped("assumes", costs["assumptions"])
    return lines + _state_lines(stages)


def _state_lines(stages: list[dict[str, Any]]) -> list[str]:
    """Return the stages that are done, and those that are not as they should be; nothing for a new workspace."""
    done = [row["stage"] for row in stages if row["state"] == "done"]
    other = [row for row in stages if row["state"] not in ("done", "missing")]
    return ([f"done      {', '.join(done)}"] if done else []) + stage_lines(other)


def _cells(row: Mapping[str, Any], columns: list[str]) -> list[str]:
    """Return the cells of a row of the table."""
    real = row.get("real_hours")
    cells = {
        "stage": row["stage"],
        "trials": str(row["trials"] or NONE),
        "documents": short_count(row["documents"]),
        "reads": size_text(row["bytes"]) if row["bytes"] else NONE,
        "FLOPs": short_flops(row["flops"]),
        "time": time_text(row["hours"]),
        "GPU-hours": _amount(row["gpu_hours"]),
        "memory": size_text(row["memory_bytes"]),
        "disk": size_text(row["disk_bytes"]),
        "real": NONE if real is None else time_text(real),
    }
    return [cells[column] for column in columns]


def _wrapped(word: str, sentences: list[str]) -> list[str]:
    """Return sentences behind a word, each on lines of its own."""
    lines: list[str] = []
    for sentence in sentences:
        first, later = f"{word if not lines else '':<9} · ", " " * 12
        lines += textwrap.wrap(sentence, WIDTH, initial_indent=first, subsequent_indent=later)
    return lines


def short_count(n: float) -> str:
    """Return a count in three digits: 812, 6.3k, 147k, 1.24B; a dash for none."""
    if not n:
        return NONE
    for unit in ("", "k", "M", "B"):
        if n < 999.5:
            return f"{n:.3g}{unit}"
        n /= 1000
    return f"{n:.3g}T"


def short_flops(flops: float) -> str:
    """Return FLOPs in two digits: 4.7e14; a dash for none."""
    if not flops:
        return NONE
    digits, _, power = f"{flops:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def time_text(hours: float) -> str:
    """Return a time in two or three digits: 0.3 s, 38 s, 12 min, 4.6 h, 310 h."""
    seconds = hours * 3600
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.2g} min" if seconds < 570 else f"{seconds / 60:.0f} min"
    return f"{hours:.1f} h" if hours < 9.95 else f"{hours:,.0f} h"


def _amount(hours: float) -> str:
    if not hours:
        return NONE
    return f"{hours:.2g}" if hours < 9.5 else f"{hours:,.0f}"
