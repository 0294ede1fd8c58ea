"""Figures of comparisons as SVG, which opens in any browser: points with intervals, and curves over token budgets."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from openclimb.config.load import format_count

COLOURS = ("#2f6fde", "#8a8f98", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f")
STYLE = "font-family:system-ui,sans-serif;font-size:12px"
WIDTH, LEFT, RIGHT, TOP, LINE = 760, 250, 24, 28, 22
HEIGHT, MARGIN = 360, 64  # of a panel of curves

Interval = tuple[float, float, float]  # value, low, high


def difference_figure(rows: Sequence[tuple[str, float, float, float]], title: str) -> str:
    """Return points with intervals, a row each of (name, value, low, high), beside a line at zero."""
    low, high = min(0.0, *(row[2] for row in rows)), max(0.0, *(row[3] for row in rows))
    room = 0.05 * ((high - low) or 1.0)
    low, high = low - room, high + room
    bottom = TOP + LINE * len(rows)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    parts = [_text(LEFT, 16, title)]
    for tick in ticks(low, high):
        colour = "#555" if tick == 0 else "#ddd"
        parts += [_line(x(tick), TOP, x(tick), bottom, colour), _text(x(tick), bottom + 16, f"{tick:+.3g}", "middle")]
    for i, (name, value, least, most) in enumerate(rows):
        y = TOP + LINE * (i + 0.5)
        parts += [_text(LEFT - 8, y + 4, name, "end"), _line(x(least), y, x(most), y, COLOURS[0], 2)]
        parts.append(_dot(x(value), y, COLOURS[0]))
    return _svg(parts, bottom + 28)


def curve_figure(panels: Mapping[str, Mapping[str, Mapping[int, Interval]]], title: str) -> str:
    """Return a panel for each size: a curve for each mixture of its values with intervals by token budget (log)."""
    parts, top = [_text(MARGIN, 16, title)], TOP
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    for i, name in enumerate(names):
        parts.append(_text(MARGIN + 130 * i, top + 12, f"● {name}", colour=COLOURS[i % len(COLOURS)]))
    top += 24
    for panel, curves in panels.items():
        parts += _panel(panel, curves, names, top)
        top += HEIGHT
    return _svg(parts, top)


def _panel(title: str, curves: Mapping[str, Mapping[int, Interval]], names: Sequence[str], top: float) -> list[str]:
    budgets = sorted({budget for points in curves.values() for budget in points})
    ends = [end for points in curves.values() for point in points.values() for end in point[1:]]
    low, high = min(ends), max(ends)
    span = math.log(budgets[-1] / budgets[0]) or 1.0
    bottom = top + HEIGHT - MARGIN

    def x(budget: int) -> float:
        return MARGIN + 12 + (WIDTH - 2 * MARGIN) * math.log(budget / budgets[0]) / span

    def y(value: float) -> float:
        return bottom - (bottom - top - 28) * (value - low) / ((high - low) or 1.0)

    parts = [_text(MARGIN, top + 14, title)]
    for tick in ticks(low, high):
        parts += [
            _line(MARGIN, y(tick), WIDTH - RIGHT, y(tick), "#ddd"),
            _text(MARGIN - 6, y(tick) + 4, f"{tick:.3g}", "end"),
        ]
    parts += [_text(x(budget), bottom + 18, f"{format_count(budget)} tokens", "middle") for budget in budgets]
    for name, points in curves.items():
        colour = COLOURS[names.index(name) % len(COLOURS)]
        known = sorted(points.items())
        for (one, (first, *_)), (other, (second, *_)) in zip(known, known[1:], strict=False):
            parts.append(_line(x(one), y(first), x(other), y(second), colour, 1.5))
        for budget, (value, least, most) in known:
            parts += [_line(x(budget), y(least), x(budget), y(most), colour, 1.5), _dot(x(budget), y(value), colour)]
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Return four to ten round numbers from low to high."""
    step = 10.0 ** math.floor(math.log10((high - low) or 1.0))
    step *= next(part for part in (0.1, 0.2, 0.5, 1.0) if (high - low) / (part * step) <= 10)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _line(x: float, y: float, to_x: float, to_y: float, colour: str, width: float = 1) -> str:
    return f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(parts: Sequence[str], height: float) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" style="{STYLE}">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>', *parts, "</svg>"]) + "\n"
