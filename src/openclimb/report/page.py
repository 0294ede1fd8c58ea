"""The report: one self-contained page, made from the workspace's files. Nobody calls it but the command line.

Reads the whole workspace (facts.py), writes report/index.html. Works while the search is still running, shows what
there is, and needs no network: the charting library stands in the page. Every text of a document is escaped.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from openclimb import __version__
from openclimb.console import counted
from openclimb.errors import MissingDependency
from openclimb.prior import prior_sentence
from openclimb.report import charts
from openclimb.report.facts import Facts, read_facts, to_script
from openclimb.workspace import write_text

MEASURES = {"bpb": "bits per byte ↓", "accuracy": "accuracy ↑", "accuracy_norm": "accuracy by length ↑"}


def build_report(root: Path) -> Path:
    """Write report/index.html from the files of a workspace and return its path.

    Raises MissingDependency when plotly is not installed.
    """
    facts = read_facts(root)
    figures: dict[str, charts.Figure] = {}
    sections = [section(facts, figures) for section in SECTIONS]
    template = resources.files("openclimb.report").joinpath("page.html").read_text(encoding="utf-8")
    parts = {
        "TITLE": _text(facts.name),
        "BODY": "\n".join(filter(None, sections)),
        "FIGURES": to_script(figures),
        "PLOTLY": _plotly() if figures else "",
        "VERSION": __version__,
    }
    for name, part in parts.items():
        template = template.replace(f"<!--{name}-->", part, 1)
    path = root / "report" / "index.html"
    write_text(path, template)
    return path


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError:
        raise MissingDependency("plotly", "pip install 'openclimb[report]'") from None
    script: str = get_plotlyjs()
    return script


def _headline(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    if facts.answer:
        title = facts.answer["sentence"]
    else:
        done = sum(trial.state == "done" for trial in facts.trials)
        title = f"No answer yet: {len(facts.records)} stages and {done} trials are done."
    read = facts.records.get("labels", {}).get("facts", {})
    corpus = f"{read['documents']:,} documents" if "documents" in read else ""
    where = " · ".join(filter(None, [facts.name, f"scale {facts.config.get('scale', '')}", corpus]))
    return f'<header><p class="eyebrow">{_text(where)}</p><h1>{_text(title)}</h1>{_figures_row(facts)}</header>'


def _figures_row(facts: Facts) -> str:
    cells: list[tuple[str, str]] = []
    if facts.answer:
        for name, margin in facts.answer["margins"].items():
            low, high = margin["interval"]
            cells.append((f"{margin['mean']:+.4f}", f"over {name}, 95 % interval {low:+.4f} to {high:+.4f}"))
        n = len(facts.answer["domains"])
        cells.append((f"{facts.answer['effective_domains']:.1f} of {n}", "effective domains"))
        cells.append((f"{facts.answer['noise_floor']:.4f}", "noise floor: spread over seeds of one mixture"))
    elif facts.domains:
        cells.append((str(len(facts.domains)), "domains"))
    return (
        '<dl class="key">' + "".join(f"<div><dt>{_text(b)}</dt><dd>{_text(a)}</dd></div>" for a, b in cells) + "</dl>"
    )


def _weights(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    if not facts.answer:
        return ""
    figures["weights"] = charts.weights_chart(facts.answer)
    target = facts.answer["target"]
    note = (
        f"For a target of {target['token_budget']:,} tokens, no domain repeated more than "
        f"{target['max_repetitions']:g} times. The tick is the cap that follows."
    )
    rows = sorted(facts.answer["domains"], key=lambda row: -row["weight"])
    table = _table(
        ("domain", "weight", "natural", "cap", "repetitions", "tokens"),
        [
            (
                row["name"],
                f"{row['weight']:.1%}",
                f"{row['natural']:.1%}",
                f"{row['cap']:.0%}",
                f"{row['repetitions']:.2f}",
                f"{row['tokens']:,}",
            )
            for row in rows
        ],
    )
    return _section("The mixture", note, _chart("weights", "weights by domain") + _details("The numbers", table))


def _margins(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    if not facts.answer:
        return ""
    if facts.answer["margins"]:
        figures["margins"] = charts.margins_chart(facts.answer)
    mixtures = facts.answer["mixtures"]
    optimised = facts.answer["objective"]["tasks"]
    rows = [("objective", "higher is better", *(_interval(mixture["report"]) for mixture in mixtures))]
    for task in mixtures[0]["report"]["tasks"]:
        for measure, label in MEASURES.items():
            found = [mixture["report"]["tasks"].get(task, {}).get(measure) for mixture in mixtures]
            if found[0]:
                note = "" if task in optimised else " (report only)"
                rows.append((task + note, label, *(_interval(value) for value in found)))
    table = _table(("task", "measure", *(mixture["name"] for mixture in mixtures)), rows)
    note = (
        "Each mixture was trained again with other seeds and scored on items that the search never saw. "
        "Differences are taken seed by seed and item by item, which makes them far surer than the scores themselves; "
        "intervals are 95 % and cover seeds and items."
    )
    chart = _chart("margins", "gain of the found mixture over the baselines") if facts.answer["margins"] else ""
    return _section("Beside the baselines", note, chart + table)


def _map(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    if not facts.points:
        return ""
    colour = charts.colours([row["name"] for row in facts.domains])
    figures["map"] = charts.map_chart(facts, colour)
    note = "A sample of the documents, placed by likeness, coloured by domain. Point at one to read its beginning."
    return _section("The map", note, _chart("map", "map of the documents"))


def _cards(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    if not facts.domains:
        return ""
    colour = charts.colours([row["name"] for row in facts.domains])
    weight = {row["name"]: row["weight"] for row in facts.answer["domains"]} if facts.answer else {}
    cards = "".join(_card(row, facts, colour[row["name"]], weight.get(row["name"])) for row in facts.domains)
    gone = [row for row in facts.clusters if row["kept"] != "yes"]
    lost = ""
    if gone:
        rows = [(row["cluster"], f"{int(row['tokens']):,}", row["reason"], row["words"]) for row in gone]
        lost = _details(f"{counted(len(gone), 'clusters')} pruned", _table(("cluster", "tokens", "why", "words"), rows))
    return _section("The domains", "", f'<div class="cards">{cards}</div>{lost}')


def _card(row: Mapping[str, str], facts: Facts, colour: str, weight: float | None) -> str:
    fixed = {"name", "n_clusters", "documents", "tokens", "share", "cap", "words"}
    facts_line = [f"{int(row['tokens']):,} tokens ({float(row['share']):.1%})", f"{int(row['documents']):,} documents"]
    if int(row.get("n_clusters") or 0) > 1:
        facts_line.append(f"{row['n_clusters']} clusters")
    facts_line += [f"{name} {float(value):.2f}" for name, value in row.items() if name not in fixed and value]
    words = "".join(f"<li>{_text(word)}</li>" for word in row["words"].split()[:10])
    quotes = "".join(
        f"<blockquote>{_text(_beginning(text))}</blockquote>" for text in facts.examples.get(row["name"], [])
    )
    share = f'<span class="weight">{weight:.1%}</span>' if weight is not None else ""
    return (
        f'<article style="--hue:{colour}"><h3>{_text(row["name"])}{share}</h3>'
        f'<p class="small">{_text(" · ".join(facts_line))}</p><ul class="words">{words}</ul>{quotes}</article>'
    )


def _beginning(text: str, most: int = 260) -> str:
    """Return the first words of a text."""
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"


def _search(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    score = _objective(facts)
    if not score:
        return ""
    figures["search"] = charts.search_chart(facts, score)
    body = _chart("search", "scores over trials")
    if facts.iterations:
        if facts.iterations[-1].get("forecast"):
            figures["predicted"] = charts.predicted_chart(facts.iterations)
            body += "<h3>Predicted against measured</h3>" + _chart("predicted", "predicted against measured scores")
        rows = [
            (
                str(found["iteration"] + 1),
                str(len(found["trials"])),
                _number(found["rank_correlation"].get("objective"), ".2f"),
                _number(found["coverage_80"].get("objective"), ".0%"),
                _number(found["noise_floor"], ".4f"),
                found["warning"],
            )
            for found in facts.iterations
        ]
        heads = ("iteration", "trials", "rank correlation", "80 % intervals hold", "noise floor", "warning")
        body += _table(heads, rows)
    if facts.prior:
        body += f"<p>{_text(prior_sentence(facts.prior))}.</p>"
    failed = [trial for trial in facts.trials if trial.state == "failed"]
    if failed:
        listed = _table(("trial", "message"), [(str(trial.number), trial.failure) for trial in failed])
        body += _details(f"{counted(len(failed), 'trials')} failed", listed)
    note = (
        "Every point is a proxy trained on one mixture. Rank correlation is cross-validated: each trial is predicted "
        "from the others."
    )
    return _section("The search", note, body)


def _cost(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    if not facts.records:
        return ""
    rows = [(stage, f"{record['seconds']:,.1f}") for stage, record in facts.records.items()]
    trained = sum(trial.token_budget for trial in facts.trials if trial.state == "done")
    note = (
        f"{len(facts.trials)} trials, {trained:,} tokens trained, "
        f"{facts.train_seconds:,.0f} process-seconds in proxies. "
        f"Finished {facts.records[next(reversed(facts.records))]['finished']}."
    )
    return _section("What it cost", note, _table(("stage", "seconds"), rows))


def _settings(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    return _section("Settings", "", _details("climb.toml", f"<pre>{_text(facts.settings)}</pre>"))


SECTIONS: tuple[Callable[[Facts, dict[str, charts.Figure]], str], ...] = (
    _headline,
    _weights,
    _margins,
    _map,
    _cards,
    _search,
    _cost,
    _settings,
)


def _objective(facts: Facts) -> dict[int, float]:
    """Return trial → objective: the mean of its tasks under the settings' weights (1 where none is given)."""
    given = facts.config.get("tasks", {}).get("weights", {})
    found = {}
    for trial in facts.trials:
        weights = {task: float(given.get(task, 1.0)) for task in trial.scores}
        total = sum(weights.values())
        if total > 0:
            found[trial.number] = sum(weights[task] * score for task, score in trial.scores.items()) / total
    return found


def _section(title: str, note: str, body: str) -> str:
    lead = f'<p class="lead">{_text(note)}</p>' if note else ""
    return f"<section><h2>{_text(title)}</h2>{lead}{body}</section>"


def _chart(name: str, label: str) -> str:
    return f'<div class="chart" id="{name}" role="img" aria-label="{_text(label)}"></div>'


def _details(title: str, body: str) -> str:
    return f"<details><summary>{_text(title)}</summary>{body}</details>"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _interval(value: Mapping[str, Any] | None) -> str:
    if not value:
        return "–"
    low, high = value["interval"]
    return f"{value['mean']:.3f} ± {(high - low) / 2:.3f}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _text(text: str) -> str:
    return html.escape(text)
