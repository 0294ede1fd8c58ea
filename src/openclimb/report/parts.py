"""The pieces of the page: sections, tables, charts' places, numbers. Every text is escaped."""

import html
from collections.abc import Mapping, Sequence
from typing import Any


def section(title: str, note: str, body: str) -> str:
    lead = f'<p class="lead">{text(note)}</p>' if note else ""
    return f"<section><h2>{text(title)}</h2>{lead}{body}</section>"


def chart(name: str, label: str) -> str:
    return f'<div class="chart" id="{name}" role="img" aria-label="{text(label)}"></div>'


def details(title: str, body: str) -> str:
    return f"<details><summary>{text(title)}</summary>{body}</details>"


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def interval(value: Mapping[str, Any] | None) -> str:
    if not value:
        return "–"
    low, high = value["interval"]
    return f"{value['mean']:.3f} ± {(high - low) / 2:.3f}"


def number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def text(value: str) -> str:
    return html.escape(value)
