"""What `climb scaling` says: a table to read, a CSV file, JSON and a figure, with a sentence."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openclimb.config.load import format_count
from openclimb.validation.figures import curve_figure
from openclimb.validation.judge import FOUND, Difference
from openclimb.validation.scaling.curves import Curve, Multiplier
from openclimb.workspace.files import read_json, write_json, write_text
from openclimb.workspace.results import Objective
from openclimb.workspace.tables import csv_text

FILE = "scaling"
NATURAL = "natural"


@dataclass(frozen=True)
class Point:
    """A mixture trained at one size on one token budget."""

    size: str
    parameters: int | None
    tokens: int
    mixture: str
    score: float
    interval: list[float]
    by_seed: list[float]
    gain: Difference | None  # over natural at equal compute; None for natural and for the same mixture


@dataclass(frozen=True)
class Scaling:
    """What a scaling run found: scaling/scaling.json."""

    version: int
    mixture: str  # fingerprint of the answer
    asked: dict[str, Any]
    has_items: bool
    objective: Objective
    seeds: int
    weights: dict[str, dict[str, float]]
    points: list[Point]
    curves: list[Curve]
    sentence: str


def sentence(points: Sequence[Point], curves: Sequence[Curve]) -> str:
    """Return what the largest budget of each size says of the found mixture, and which laws are not identified."""
    parts = []
    for size in dict.fromkeys(point.size for point in points):
        last = max((point for point in points if (point.size, point.mixture) == (size, FOUND)), key=lambda p: p.tokens)
        curve = next(curve for curve in curves if (curve.size, curve.mixture) == (size, FOUND))
        if not last.gain:
            parts.append(f"{size}: the found mixture is the natural one")
            continue
        low, high = last.gain.interval
        times = [one for one in curve.multipliers if one.value]
        saved = f"; {multiplier_text(times[-1])}" if times else ""
        parts.append(
            f"{size}, {format_count(last.tokens)} tokens: found minus natural {last.gain.mean:+.4f} "
            f"({low:+.4f} to {high:+.4f}, {last.gain.comparison}){saved}"
        )
    unknown = sorted({curve.problem for curve in curves if curve.problem})
    tail = f" Not identified by these data: {'; '.join(unknown)}." if unknown else ""
    return f"{'. '.join(parts)}.{tail}"


def multiplier_text(one: Multiplier) -> str:
    """Return a compute multiplier in words."""

    def times(value: float | None) -> str:
        return f"more than {one.most:.2f}" if value is None else f"{value:.2f}" if value else "less than measured"

    interval = f"95 % interval {times(one.low)} to {times(one.high)}"
    return f"natural needs {times(one.value)} times the {format_count(one.tokens)} tokens for its score ({interval})"


def scaling_text(table: Scaling) -> str:
    """Return a scaling run as people read it."""
    lines = [
        table.sentence,
        "",
        f"{'size':<6} {'tokens':>8}  {'mixture':<12}    score  − natural  95% interval      p, Holm",
    ]
    for point in table.points:
        line = f"{point.size:<6} {format_count(point.tokens):>8}  {point.mixture:<12}  {point.score:+.4f}"
        if one := point.gain:
            low, high = one.interval
            line += f"    {one.mean:+.4f}  [{low:+.4f}, {high:+.4f}]  {one.p_holm:7.4f}  {one.comparison}"
        lines.append(line)
    for curve in table.curves:
        lines += ["", f"{curve.mixture}, {curve.size or 'all sizes'}: {_law_text(curve)}"]
        lines += [f"  at {format_count(one.tokens)} tokens {multiplier_text(one)}" for one in curve.multipliers]
    return "\n".join(lines)


def _law_text(curve: Curve) -> str:
    if not curve.law:
        return curve.problem
    form = "L = E + A/N^a + B/D^b" if "a" in curve.law.parameters else "L = E + B/D^b"
    found = ", ".join(
        f"{name} = {value:.4g} ({low:.3g} to {high:.3g})" for name, (value, low, high) in curve.law.parameters.items()
    )
    return f"{form}: {found}; error {curve.law.error:.2g}" + (
        f"; not identified: {curve.problem}" if curve.problem else ""
    )


def table_csv(table: Scaling) -> str:
    """Return scaling.csv: one line a mixture, size and token budget."""
    head = ("size", "parameters", "tokens", "mixture", "score", "low", "high", "minus_natural", "gain_low", "gain_high")
    saved = {(curve.size, curve.mixture, one.tokens): one for curve in table.curves for one in curve.multipliers}
    rows = []
    for point in table.points:
        gain = (point.gain.mean, *point.gain.interval) if point.gain else ("",) * 3
        holm = (point.gain.p, point.gain.p_holm) if point.gain else ("", "")
        times = saved.get((point.size, point.mixture, point.tokens))
        more = ("" if one is None else one for one in ((times.value, times.low, times.high) if times else ("",) * 3))
        known = (point.size, point.parameters or "", point.tokens, point.mixture, point.score, *point.interval)
        rows.append((*known, *gain, *holm, *more))
    return csv_text((*head, "p", "p_holm", "times_the_tokens", "times_low", "times_high"), rows)


def write_scaling(out: Path, table: Scaling) -> None:
    """Write scaling.json, .csv and .svg; a table of another question is kept beside them."""
    path = out / f"{FILE}.json"
    if path.is_file():
        before = read_json(path)
        if (before["asked"], before["mixture"]) != (table.asked, table.mixture):
            n = 1 + sum(1 for _ in out.glob(f"{FILE}.old-*.json"))
            path.rename(out / f"{FILE}.old-{n}.json")
    panels: dict[str, dict[str, dict[int, tuple[float, float, float]]]] = {}
    for point in table.points:
        title = f"{point.parameters / 1e6:.3g}M parameters" if point.parameters else point.size
        low, high = point.interval
        panels.setdefault(title, {}).setdefault(point.mixture, {})[point.tokens] = (point.score, low, high)
    write_text(out / f"{FILE}.csv", table_csv(table))
    write_text(out / f"{FILE}.svg", curve_figure(panels, "score over tokens, higher is better, 95 % intervals"))
    write_json(path, asdict(table))
