"""Charts as plotly figures: plain dictionaries of data and layout. The page's theme sets colours of text and grid."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from openclimb.report.facts import Facts

Figure = dict[str, Any]

OURS, NATURAL, MUTED = "#2f6fde", "#8a8f98", "#b9bec7"
# Tableau 20 in its order of contrast: neighbours in the legend are told apart in light and dark
PALETTE = (
    "#4e79a7 #f28e2b #59a14f #e15759 #b07aa1 #76b7b2 #edc948 #ff9da7 #9c755f #86bcb6 "
    "#a0cbe8 #ffbe7d #8cd17d #d37295 #d4a6c8 #499894 #f1ce63 #fabfd2 #d7b5a6 #79706e"
).split()


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each domain."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


def weights_chart(answer: Mapping[str, Any]) -> Figure:
    """The answer's weights against natural, domain by domain, with the cap as a tick."""
    rows = sorted(answer["domains"], key=lambda row: row["weight"])
    names = [_short(row["name"]) for row in rows]
    lines: dict[str, list[Any]] = {"x": [], "y": []}
    for name, row in zip(names, rows, strict=True):
        lines["x"] += [row["natural"], row["weight"], None]
        lines["y"] += [name, name, None]
    hover = [f"{row['weight']:.1%} of the tokens, {row['repetitions']:.2f} repetitions" for row in rows]
    data = [
        {**lines, "mode": "lines", "line": {"color": MUTED, "width": 3}, "hoverinfo": "skip", "showlegend": False},
        _marks(names, [row["cap"] for row in rows], "cap", {"symbol": "line-ns-open", "size": 12, "color": MUTED}),
        _marks(names, [row["natural"] for row in rows], "natural", {"size": 10, "color": NATURAL}),
        {**_marks(names, [row["weight"] for row in rows], "found", {"size": 13, "color": OURS}), "text": hover,
         "hovertemplate": "%{y}<br>%{text}<extra>found</extra>"},
    ]  # fmt: skip
    top = max(max(row["weight"], row["natural"]) for row in rows)
    axis = {
        "tickformat": ".0%",
        "range": [-0.01, min(1.02, top * 1.25)],
        "title": {"text": "share of tokens"},
    }
    return _figure(data, 60 + 30 * len(rows), xaxis=axis, yaxis={"automargin": True, "ticksuffix": "  "})


def losses_chart(answer: Mapping[str, Any]) -> Figure:
    """What the expected score loses when some of each weight goes to the other domains: which weights matter."""
    rows = sorted((row for row in answer["domains"] if row["moved"] > 0), key=lambda row: row["loss"])
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [row["loss"] for row in rows],
            "y": [_short(row["name"]) for row in rows],
            "marker": {"color": [OURS if row["loss"] > 0 else MUTED for row in rows]},
            "text": [f"{row['moved']:.1%} of the tokens moved" for row in rows],
            "textposition": "none",
            "hovertemplate": "%{y}: %{x:+.4f}<br>%{text}<extra></extra>",
            "showlegend": False,
        }
    ]
    axis = {"title": {"text": "loss in the objective"}, "tickformat": "+.3f", "zeroline": True}
    return _figure(data, 70 + 26 * len(rows), xaxis=axis, yaxis={"automargin": True, "ticksuffix": "  "})


def margins_chart(answer: Mapping[str, Any]) -> Figure:
    """By how much the found mixture beats each baseline on report items: paired differences with their intervals."""
    return interval_chart(answer["margins"], "gain in the objective")


def validation_chart(table: Mapping[str, Any]) -> Figure:
    """By how much the found mixture beats each other one as a target, with intervals."""
    margins = {row["name"]: row["margin"] for row in table["rows"] if row["margin"]}
    return interval_chart(margins, "gain in the objective on targets")


def interval_chart(given: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """Differences with their intervals, one line each, and a line at zero."""
    margins = dict(reversed(list(given.items())))
    means = [margin["mean"] for margin in margins.values()]
    data = [
        {
            "x": means,
            "y": [f"over {name}" for name in margins],
            "mode": "markers",
            "marker": {"size": 13, "color": OURS},
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [margin["interval"][1] - margin["mean"] for margin in margins.values()],
                "arrayminus": [margin["mean"] - margin["interval"][0] for margin in margins.values()],
                "color": OURS,
                "thickness": 2,
            },
            "hovertemplate": "%{y}: %{x:+.4f}<extra></extra>",
            "showlegend": False,
        }
    ]
    axis = {"title": {"text": title}, "tickformat": "+.3f", "zeroline": True, "zerolinewidth": 3}
    figure = _figure(data, 110 + 44 * len(margins), xaxis=axis, yaxis={"automargin": True, "ticksuffix": "  "})
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    figure["layout"]["shapes"] = [{**zero, "line": {"color": MUTED, "width": 2, "dash": "dot"}}]
    return figure


def map_chart(facts: Facts, colour: Mapping[str, str]) -> Figure:
    """Sampled documents by place, one colour a domain; pruned ones are grey. Hover shows a document's beginning."""
    domains = [row["name"] for row in facts.domains]
    data = []
    for name in [*domains, ""]:
        mine = [point for point in facts.points if point["domain"] == name]
        if mine:
            data.append(
                {
                    "x": [round(point["x"], 3) for point in mine],
                    "y": [round(point["y"], 3) for point in mine],
                    "mode": "markers",
                    "name": _short(name) if name else "pruned",
                    "marker": {"size": 6, "opacity": 0.8, "color": colour.get(name, MUTED)},
                    "text": [_hover(point) for point in mine],
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )
    bare = {"visible": False}
    figure = _figure(data, 560, xaxis=bare, yaxis={**bare, "scaleanchor": "x"})
    figure["layout"]["legend"] = {"orientation": "h", "y": -0.02, "font": {"size": 12}}
    return figure


def search_chart(facts: Facts, score: Mapping[int, float]) -> Figure:
    """Each search trial's objective in order, one colour an iteration, and the best so far."""
    trials = [trial for trial in facts.trials if trial.role == "search" and trial.number in score]
    data = []
    for iteration in sorted({trial.iteration for trial in trials}):
        mine = [trial for trial in trials if trial.iteration == iteration]
        data.append(
            {
                "x": [trial.number for trial in mine],
                "y": [score[trial.number] for trial in mine],
                "mode": "markers",
                "name": f"iteration {iteration + 1}",
                "marker": {"size": 10, "color": PALETTE[iteration % len(PALETTE)]},
                "hovertemplate": "trial %{x}: %{y:.4f}<extra></extra>",
            }
        )
    by_hand = [trial for trial in facts.trials if trial.role == "outside" and trial.number in score]
    if by_hand:
        data.append(
            {
                "x": [trial.number for trial in by_hand],
                "y": [score[trial.number] for trial in by_hand],
                "mode": "markers",
                "name": "told or imported by hand",
                "marker": {"size": 10, "color": MUTED, "symbol": "diamond"},
                "hovertemplate": "trial %{x}: %{y:.4f}<extra></extra>",
            }
        )
    best, line = float("-inf"), []
    for trial in trials:
        best = max(best, score[trial.number])
        line.append(best)
    numbers = [trial.number for trial in trials]
    rising = {"x": numbers, "y": line, "mode": "lines", "name": "best so far", "hoverinfo": "skip"}
    data.insert(0, {**rising, "line": {"color": MUTED, "shape": "hv", "width": 2}})
    return _figure(
        data, 360, xaxis={"title": {"text": "trial"}}, yaxis={"title": {"text": "objective on search items"}}
    )


def predicted_chart(iterations: Sequence[Mapping[str, Any]]) -> Figure:
    """What the predictor said of each trial from the others, against what was measured, after the last iteration."""
    rows = iterations[-1].get("forecast", [])
    measured = [row["measured"] for row in rows]
    data = [
        {
            "x": [row["predicted"] for row in rows],
            "y": measured,
            "mode": "markers",
            "marker": {"size": 10, "color": OURS},
            "error_x": {"type": "data", "array": [row["deviation"] for row in rows], "color": MUTED, "thickness": 1},
            "text": [f"trial {row['trial']}" for row in rows],
            "hovertemplate": "%{text}: predicted %{x:.4f}, measured %{y:.4f}<extra></extra>",
            "showlegend": False,
        },
        {
            "x": [min(measured, default=0), max(measured, default=1)],
            "y": [min(measured, default=0), max(measured, default=1)],
            "mode": "lines",
            "line": {"color": MUTED, "dash": "dot"},
            "hoverinfo": "skip",
            "showlegend": False,
        },
    ]
    return _figure(
        data,
        360,
        xaxis={"title": {"text": "predicted from the other trials (± 1 deviation)"}},
        yaxis={"title": {"text": "measured"}},
    )


def _figure(data: list[dict[str, Any]], height: int, **axes: dict[str, Any]) -> Figure:
    layout = {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 28, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hoverlabel": {"align": "left"},
        **{name: {"zeroline": False, "automargin": True, **axis} for name, axis in axes.items()},
    }
    return {"data": [{"type": "scatter", **trace} for trace in data], "layout": layout}


def _marks(names: list[str], values: list[float], name: str, marker: dict[str, Any]) -> dict[str, Any]:
    hover = "%{y}: %{x:.1%}<extra>" + name + "</extra>"
    return {"x": values, "y": names, "mode": "markers", "name": name, "marker": marker, "hovertemplate": hover}


def _hover(point: Mapping[str, Any]) -> str:
    """Return a document's beginning in short lines; plotly reads a little HTML, so it is escaped."""
    words = " ".join(point["excerpt"].split())[:220]
    lines = [html.escape(words[i : i + 55]) for i in range(0, len(words), 55)]
    where = f"cluster {point['cluster']} · " if point["cluster"] >= 0 else ""
    return f"<b>{where}{html.escape(_short(point['domain']) or 'pruned')}</b><br>" + "<br>".join(lines)


def _short(name: str) -> str:
    return html.escape(name if len(name) <= 32 else name[:30] + "…")
