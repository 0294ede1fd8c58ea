"""Charts as plotly figures: plain dictionaries of data and layout. The page's theme sets colours of text and grid."""

import html
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from openclimb.printable import short_names
from openclimb.report.analysis import Weights, weights_by_iteration
from openclimb.report.facts import Facts
from openclimb.workspace.results import Answer, MarginRow, Prediction, ValidationRow
from openclimb.workspace.trials import Trial

Figure = dict[str, Any]
Trace = dict[str, Any]

OURS, NATURAL, MUTED, PALE = "#2f6fde", "#8a8f98", "#b9bec7", "#eef3fc"
LABEL = 32  # characters of a name in a chart
NAMES = {"ticksuffix": "  "}  # an axis of names
# Tableau 20 in its order of contrast: neighbours in the legend are told apart in light and dark
PALETTE = (
    "#4e79a7 #f28e2b #59a14f #e15759 #b07aa1 #76b7b2 #edc948 #ff9da7 #9c755f #86bcb6 "
    "#a0cbe8 #ffbe7d #8cd17d #d37295 #d4a6c8 #499894 #f1ce63 #fabfd2 #d7b5a6 #79706e"
).split()


def draw(facts: Facts, score: Mapping[int, float]) -> dict[str, Figure]:
    """Return the figures by the id of their place on the page; those whose files are not there yet are left out.

    `score` is the objective by trial.
    """
    figures: dict[str, Figure] = {}
    if facts.answer:
        figures |= {"weights": weights_chart(facts.answer), "losses": losses_chart(facts.answer)}
    if facts.answer and facts.answer.margins:
        figures["margins"] = interval_chart(facts.answer.margins, "gain in the objective")
    targets = {row.name: row.margin for row in (facts.validation.rows if facts.validation else ()) if row.margin}
    if targets:
        figures["validation"] = interval_chart(targets, "gain in the objective on targets")
    if weights := weights_by_iteration(facts):
        figures["by_iteration"] = iterations_chart(weights)
    if facts.validation and any(row.proxy_score is not None for row in facts.validation.rows):
        figures["sizes"] = sizes_chart(facts.validation.rows)
    if facts.points:
        figures["map"] = map_chart(facts)
    if score:
        figures["search"] = search_chart(facts, score)
    if score and facts.iterations and facts.iterations[-1].predictions:
        figures["predicted"] = predicted_chart(facts.iterations[-1].predictions)
    return figures


def colours(domains: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the colour of each domain by its name."""
    return {row["name"]: PALETTE[i % len(PALETTE)] for i, row in enumerate(domains)}


def weights_chart(answer: Answer) -> Figure:
    """The answer's weights against natural, domain by domain, with the cap as a tick."""
    rows = sorted(answer.domains, key=lambda row: row.weight)
    names = _labels([row.name for row in rows])
    between: dict[str, list[Any]] = {"x": [], "y": []}
    for name, row in zip(names, rows, strict=True):
        between["x"] += [row.natural, row.weight, None]
        between["y"] += [name, name, None]

    def shares(column: str, name: str, **marker: Any) -> Trace:
        hover = "%{y}: %{x:.1%}<extra>" + name + "</extra>"
        return _points([getattr(row, column) for row in rows], names, hover, marker, name=name)

    found = {
        "text": [f"{row.weight:.1%} of the tokens, {row.repetitions:.2f} repetitions" for row in rows],
        "hovertemplate": "%{y}<br>%{text}<extra>found</extra>",
    }
    data = [
        _line(**between, line={"color": MUTED, "width": 3}, showlegend=False),
        shares("cap", "cap", symbol="line-ns-open", size=12, color=MUTED),
        shares("natural", "natural", size=10, color=NATURAL),
        shares("weight", "found", size=13, color=OURS) | found,
    ]
    top = max(max(row.weight, row.natural) for row in rows)
    axis = {"tickformat": ".0%", "range": [-0.01, min(1.02, top * 1.25)], "title": {"text": "share of tokens"}}
    return _figure(data, 60 + 30 * len(rows), axis, NAMES)


def losses_chart(answer: Answer) -> Figure:
    """What the expected score loses when some of each weight goes to the other domains: which weights matter."""
    rows = sorted((row for row in answer.domains if row.moved > 0), key=lambda row: row.loss)
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [row.loss for row in rows],
        "y": _labels([row.name for row in rows]),
        "marker": {"color": [OURS if row.loss > 0 else MUTED for row in rows]},
        "text": [f"{row.moved:.1%} of the tokens moved" for row in rows],
        "textposition": "none",
        "hovertemplate": "%{y}: %{x:+.4f}<br>%{text}<extra></extra>",
        "showlegend": False,
    }
    axis = {"title": {"text": "loss in the objective"}, "tickformat": "+~g", "zeroline": True}
    return _figure([bars], 70 + 26 * len(rows), axis, NAMES)


def iterations_chart(weights: Weights) -> Figure:
    """Mean weights of each iteration's mixtures between natural and found, a cell each."""
    names = _labels(weights.domains)
    rows = [list(row) for row in zip(*weights.columns.values(), strict=True)]
    heat = {
        "type": "heatmap",
        "x": list(weights.columns),
        "y": names,
        "z": [[round(value, 4) for value in row] for row in rows],
        "text": [[f"{value:.1%}" for value in row] for row in rows],
        "texttemplate": "%{text}",
        "hovertemplate": "%{y}, %{x}: %{text}<extra></extra>",
        "colorscale": [[0, PALE], [1, OURS]],
        "zmin": 0,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    return _figure([heat], 70 + 28 * len(names), {"side": "top", "type": "category"}, {**NAMES, "type": "category"})


def sizes_chart(rows: Sequence[ValidationRow]) -> Figure:
    """Each mixture's score as a proxy and as a target, which is of another size."""
    names = _labels([row.name for row in rows])
    more = {"mode": "markers+text", "text": names, "textposition": "top center", "showlegend": False}
    points = _points(
        [row.proxy_score for row in rows],
        [row.score for row in rows],
        "%{text}: %{x:.4f} as a proxy, %{y:.4f} as a target<extra></extra>",
        {"size": 11, "color": [NATURAL if row.margin else OURS for row in rows]},
        **more,
    )
    return _figure([points], 360, {"title": {"text": "score as a proxy"}}, {"title": {"text": "score as a target"}})


def interval_chart(margins: Mapping[str, MarginRow], title: str) -> Figure:
    """By how much the found mixture beats each other one: paired differences with intervals, and a line at zero."""
    rows = list(margins.items())[::-1]
    errors = {
        "type": "data",
        "symmetric": False,
        "array": [margin.interval[1] - margin.mean for _, margin in rows],
        "arrayminus": [margin.mean - margin.interval[0] for _, margin in rows],
        "color": OURS,
        "thickness": 2,
    }
    means, names = [margin.mean for _, margin in rows], [f"over {name}" for name, _ in rows]
    marker = {"size": 13, "color": OURS}
    data = [_points(means, names, "%{y}: %{x:+.4f}<extra></extra>", marker, error_x=errors, showlegend=False)]
    axis = {"title": {"text": title}, "tickformat": "+~g", "zeroline": True, "zerolinewidth": 3}
    figure = _figure(data, 110 + 44 * len(rows), axis, NAMES)
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    figure["layout"]["shapes"] = [{**zero, "line": {"color": MUTED, "width": 2, "dash": "dot"}}]
    return figure


def map_chart(facts: Facts) -> Figure:
    """Sampled documents by place, one colour a domain; pruned ones are grey. Hover shows a document's beginning."""
    data = []
    for name, colour in {**colours(facts.domains), "": MUTED}.items():
        mine = [point for point in facts.points if point["domain"] == name]
        if mine:
            x, y = ([round(point[axis], 3) for point in mine] for axis in "xy")
            marker = {"size": 6, "opacity": 0.8, "color": colour}
            more = {"name": _short(name) if name else "pruned", "text": [_hover(point) for point in mine]}
            data.append(_points(x, y, "%{text}<extra></extra>", marker, **more))
    figure = _figure(data, 560, {"visible": False}, {"visible": False, "scaleanchor": "x"})
    figure["layout"]["legend"] = {"orientation": "h", "y": -0.02, "font": {"size": 12}}
    return figure


def search_chart(facts: Facts, score: Mapping[int, float]) -> Figure:
    """Each search trial's objective in order, one colour an iteration, and the best so far."""

    def scored(trials: Sequence[Trial], name: str, **marker: Any) -> Trace:
        numbers = [trial.number for trial in trials]
        hover = "trial %{x}: %{y:.4f}<extra></extra>"
        return _points(numbers, [score[n] for n in numbers], hover, {"size": 10, **marker}, name=name)

    trials = [trial for trial in facts.trials if trial.role == "search" and trial.number in score]
    by_hand = [trial for trial in facts.trials if trial.role == "external" and trial.number in score]
    numbers = [trial.number for trial in trials]
    best = list(accumulate((score[n] for n in numbers), max))
    rising = {"color": MUTED, "shape": "hv", "width": 2}
    data = [_line(numbers, best, rising, name="best so far")]
    for iteration in sorted({trial.iteration for trial in trials}):
        mine = [trial for trial in trials if trial.iteration == iteration]
        data.append(scored(mine, f"iteration {iteration + 1}", color=PALETTE[iteration % len(PALETTE)]))
    if by_hand:
        data.append(scored(by_hand, "completed or imported by hand", color=MUTED, symbol="diamond"))
    return _figure(data, 360, {"title": {"text": "trial"}}, {"title": {"text": "objective on search items"}})


def predicted_chart(rows: Sequence[Prediction]) -> Figure:
    """What the predictor said of each trial from the others, against what was measured, after the last iteration."""
    predicted, measured = [row.predicted for row in rows], [row.measured for row in rows]
    more = {
        "error_x": {"type": "data", "array": [row.deviation for row in rows], "color": MUTED, "thickness": 1},
        "text": [f"trial {row.trial}" for row in rows],
        "showlegend": False,
    }
    hover = "%{text}: predicted %{x:.4f}, measured %{y:.4f}<extra></extra>"
    ends = [min(measured), max(measured)]
    data = [
        _points(predicted, measured, hover, {"size": 10, "color": OURS}, **more),
        _line(ends, ends, {"color": MUTED, "dash": "dot"}, showlegend=False),
    ]
    across = {"title": {"text": "predicted from the other trials (± 1 deviation)"}}
    return _figure(data, 360, across, {"title": {"text": "measured"}})


def _figure(data: list[Trace], height: int, xaxis: Mapping[str, Any], yaxis: Mapping[str, Any]) -> Figure:
    layout = {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 28, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hoverlabel": {"align": "left"},
        "xaxis": {"zeroline": False, "automargin": True, **xaxis},
        "yaxis": {"zeroline": False, "automargin": True, **yaxis},
    }
    return {"data": [{"type": "scatter", **trace} for trace in data], "layout": layout}


def _points(x: Sequence[Any], y: Sequence[Any], hover: str, marker: Mapping[str, Any], **more: Any) -> Trace:
    return {"x": x, "y": y, "mode": "markers", "marker": marker, "hovertemplate": hover, **more}


def _line(x: Sequence[Any], y: Sequence[Any], line: Mapping[str, Any], **more: Any) -> Trace:
    return {"x": x, "y": y, "mode": "lines", "line": line, "hoverinfo": "skip", **more}


def _hover(point: Mapping[str, Any]) -> str:
    """Return a document's beginning in short lines; plotly reads a little HTML, so it is escaped."""
    words = " ".join(point["excerpt"].split())[:220]
    lines = [html.escape(words[i : i + 55]) for i in range(0, len(words), 55)]
    where = f"cluster {point['cluster']} · " if point["cluster"] >= 0 else ""
    return f"<b>{where}{html.escape(_short(point['domain']) or 'pruned')}</b><br>" + "<br>".join(lines)


def _short(name: str) -> str:
    return _labels([name])[0]


def _labels(names: Sequence[str]) -> list[str]:
    """Return short names; an axis puts what has one name in one place, so different ones stay different."""
    return [html.escape(name) for name in short_names(names, LABEL)]
