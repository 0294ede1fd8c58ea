"""What an ablation says: a table to read, a CSV file, JSON and a figure, with a sentence."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openclimb.config.load import format_count
from openclimb.validation.figures import difference_figure
from openclimb.validation.judge import Difference
from openclimb.workspace.files import read_json, write_json, write_text
from openclimb.workspace.results import Objective, TargetModel
from openclimb.workspace.tables import csv_text

BASE = "base"  # the name of the workspace's own answer
FILE = "ablations"
LIMIT = "Each answer is that of one search: intervals do not say how far the answer of another search would differ."


@dataclass(frozen=True)
class Row:
    """A variant's answer under the judge."""

    name: str
    factor: str
    value: Any
    domains: int
    effective_domains: float
    search_trials: int
    search_tokens: int
    score: float
    interval: list[float]
    by_seed: list[float]
    difference: Difference | None  # from the base; None for the base, and for a mixture that stands above
    same_as: str  # the first row with the same mixture, empty where there is none
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AblationTable:
    """What an ablation found: ablations/ablations.json."""

    version: int
    asked: dict[str, Any]
    judge: TargetModel
    has_items: bool
    objective: Objective
    seeds: int
    rows: list[Row]
    sentence: str


def sentence(rows: Sequence[Row], judge: TargetModel, n_seeds: int, has_items: bool) -> str:
    """Return what an ablation says, in plain words."""
    said: dict[str, list[str]] = {"better": [], "worse": [], "not significant": []}
    for row in rows:
        if row.difference:
            said[row.difference.comparison].append(f"{row.name} ({row.difference.mean:+.4f})")
    size = f"{judge.parameters / 1e6:.3g}M parameters, " if judge.parameters else ""
    where = " on report items" if has_items else ""
    head = f"Judged{where} by fresh trials ({size}{format_count(judge.token_budget)} tokens, {n_seeds} seeds)"
    parts = [
        f"{'significantly ' if what != 'not significant' else ''}{what}: {', '.join(names)}"
        for what, names in said.items()
        if names
    ]
    same = [row.name for row in rows if row.same_as == BASE]
    parts += [f"the same mixture: {', '.join(same)}"] if same else []
    return f"{head}, beside the workspace's own answer (5 % after Holm) are {'; '.join(parts)}. {LIMIT}"


def write_ablation(out: Path, table: AblationTable) -> None:
    """Write ablations.json, .csv and .svg; a table of another question is kept beside them."""
    path = out / f"{FILE}.json"
    if path.is_file():
        before = read_json(path)
        if (before["asked"], before["judge"]) != (_plain(table.asked), asdict(table.judge)):
            n = 1 + sum(1 for _ in out.glob(f"{FILE}.old-*.json"))
            path.rename(out / f"{FILE}.old-{n}.json")
    write_text(out / f"{FILE}.csv", table_csv(table))
    found = [(row.name, row.difference) for row in table.rows if row.difference]
    rows = [(name, one.mean, one.interval[0], one.interval[1]) for name, one in found]
    write_text(out / f"{FILE}.svg", difference_figure(rows, "score minus the workspace's own answer, 95 % intervals"))
    write_json(path, asdict(table))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def table_csv(table: AblationTable) -> str:
    """Return ablations.csv: one line a mixture."""
    head = ("name", "factor", "value", "domains", "search_trials", "search_tokens", "score", "low", "high")
    more = ("minus_base", "minus_base_low", "minus_base_high", "p", "p_holm", "comparison", "same_as")
    rows = []
    for row in table.rows:
        one = row.difference
        cells = (one.mean, *one.interval, one.p, one.p_holm, one.comparison) if one else ("",) * 6
        value = row.value if isinstance(row.value, str) else str(_plain(row.value))
        found = (row.name, row.factor, value, row.domains, row.search_trials, row.search_tokens, row.score)
        rows.append((*found, *row.interval, *cells, row.same_as))
    return csv_text((*head, *more), rows)


def ablation_text(table: AblationTable) -> str:
    """Return an ablation as people read it."""
    width = max(len(row.name) for row in table.rows)
    lines = [table.sentence, ""]
    lines.append(f"{'setting':<{width}}  domains  trials    score  minus base  95% interval        p, Holm  comparison")
    for row in table.rows:
        line = f"{row.name:<{width}}  {row.domains:>7}  {row.search_trials:>6}  {row.score:+.4f}"
        if one := row.difference:
            low, high = one.interval
            line += f"     {one.mean:+.4f}  [{low:+.4f}, {high:+.4f}]  {one.p_holm:7.4f}  {one.comparison}"
        elif row.same_as:
            line += f"  the same mixture as {row.same_as}"
        lines.append(line)
    return "\n".join(lines)
