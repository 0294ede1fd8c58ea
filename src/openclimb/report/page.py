"""The report: one self-contained page, made from the workspace's files. Nobody calls it but the command line.

Reads the whole workspace (facts.py), writes report/index.html. Works while the search is still running, shows what
there is, and needs no network: the charting library stands in the page. Every text of a document is escaped.
"""

from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

from openclimb import __version__
from openclimb.console import counted
from openclimb.errors import MissingDependency
from openclimb.report import charts
from openclimb.report.facts import Facts, read_facts, to_script
from openclimb.report.learning import contest_section, search_section, signal_section
from openclimb.report.parts import chart, details, interval, number, section, table, text
from openclimb.stats.multiple import HOLM, significant
from openclimb.workspace import write_text

MEASURES = {
    "bpb": "bits per byte ↓",
    "accuracy": "accuracy ↑",
    "accuracy_norm": "accuracy by length ↑",
    "margin": "margin, bits per byte ↑",
    "score": "score ↑",
}
LOSSES = (
    '<p class="small">What the expected score loses when five points of weight (or all there is) go from a domain to '
    "the others in proportion. Long bars are the weights that carry the answer; where a bar points left, the "
    "predictor would take some away, but not surely enough.</p>"
)


def build_report(root: Path) -> Path:
    """Write report/index.html from the files of a workspace and return its path.

    Raises MissingDependency when plotly is not installed.
    """
    facts = read_facts(root)
    figures: dict[str, charts.Figure] = {}
    sections = [make(facts, figures) for make in SECTIONS]
    template = resources.files("openclimb.report").joinpath("page.html").read_text(encoding="utf-8")
    parts = {
        "TITLE": text(facts.name),
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
    return f'<header><p class="eyebrow">{text(where)}</p><h1>{text(title)}</h1>{_figures_row(facts)}</header>'


def _figures_row(facts: Facts) -> str:
    cells: list[tuple[str, str]] = []
    if facts.answer:
        for name, margin in facts.answer["margins"].items():
            low, high = margin["interval"]
            said = HOLM if significant(margin["p_holm"]) else "not significant"
            cells.append((f"{margin['mean']:+.4f}", f"over {name}, 95 % interval {low:+.4f} to {high:+.4f}; {said}"))
        n = len(facts.answer["domains"])
        cells.append((f"{facts.answer['effective_domains']:.1f} of {n}", "effective domains"))
        cells.append((f"{facts.answer['noise_floor']:.4f}", "noise floor: spread over seeds of one mixture"))
        low, high = facts.answer["interval_80"]
        cells.append(
            (f"{facts.answer['expected']:+.4f}", f"expected on search items, 80 % interval {low:+.4f} to {high:+.4f}")
        )
        cells.append((f"{facts.answer['probability_best']:.0%}", "probability of being the best of those compared"))
        cells.append((f"{facts.answer['distance']:.0%}", "of the weight away from the nearest measured mixture"))
    elif facts.domains:
        cells.append((str(len(facts.domains)), "domains"))
    return '<dl class="key">' + "".join(f"<div><dt>{text(b)}</dt><dd>{text(a)}</dd></div>" for a, b in cells) + "</dl>"


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
    numbers = table(
        ("domain", "weight", "natural", "cap", "repetitions", "loss of moving 5 points", "tokens"),
        [
            (
                row["name"],
                f"{row['weight']:.1%}",
                f"{row['natural']:.1%}",
                f"{row['cap']:.0%}",
                f"{row['repetitions']:.2f}",
                f"{row['loss']:+.4f}" if row["moved"] else "–",
                f"{row['tokens']:,}",
            )
            for row in rows
        ],
    )
    figures["losses"] = charts.losses_chart(facts.answer)
    body = chart("weights", "weights by domain") + details("The numbers", numbers)
    body += f"<h3>Which weights matter</h3>{LOSSES}" + chart("losses", "loss of moving each weight")
    return section("The mixture", note, body)


def _margins(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    if not facts.answer:
        return ""
    if facts.answer["margins"]:
        figures["margins"] = charts.margins_chart(facts.answer)
    mixtures = facts.answer["mixtures"]
    optimised = facts.answer["objective"]["tasks"]
    rows = [("objective", "higher is better", *(interval(mixture["report"]) for mixture in mixtures))]
    for task in mixtures[0]["report"]["tasks"]:
        for measure, label in MEASURES.items():
            found = [mixture["report"]["tasks"].get(task, {}).get(measure) for mixture in mixtures]
            if found[0]:
                note = "" if task in optimised else " (report only)"
                rows.append((task + note, label, *(interval(value) for value in found)))
    scores = table(("task", "measure", *(mixture["name"] for mixture in mixtures)), rows)
    has_items = facts.answer.get("has_items", True)
    unseen = ", and scored on items that the search never saw" if has_items else ""
    paired, covered = ("seed by seed and item by item", "seeds and items") if has_items else ("seed by seed", "seeds")
    note = (
        f"Each mixture was trained again, with seeds that had no part in the choice{unseen}. "
        f"Differences are taken {paired}, which makes them far surer than the scores themselves; "
        f"intervals are 95 % and cover {covered}. Which differences are significant is said after Holm's correction "
        "for the comparisons with both baselines."
    )
    gain = chart("margins", "gain of the found mixture over the baselines") if facts.answer["margins"] else ""
    return section("Beside the baselines", note, gain + scores)


def _validation(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    found_table = facts.validation
    if not found_table:
        return ""
    if any(row["margin"] for row in found_table["rows"]):
        figures["validation"] = charts.validation_chart(found_table)
    rows = []
    for row in found_table["rows"]:
        found = row["margin"]
        margin = ("–", "–", "–", "–")
        if found:
            low, high = found["interval"]
            p = f"{found['p_holm']:.4f}"
            margin = (f"{found['mean']:+.4f}", f"{low:+.4f} to {high:+.4f}", p, found["verdict"])
        scores = (number(row["score"], ".4f"), number(row["proxy_score"], ".4f"), f"{row['probability_best']:.0%}")
        rows.append((row["name"], margin[-1], *scores, *margin[:-1], f"{row['search_tokens']:,}"))
    heads = ("mixture", "verdict", "target", "proxy", "is the best", "found − it", "95 % interval", "p after Holm")
    body = (
        chart("validation", "gain of the found mixture over the others as targets") if "validation" in figures else ""
    )
    body += table((*heads, "search tokens"), rows)
    if found_table["rank_correlation"] is not None:
        rho = found_table["rank_correlation"]
        body += f"<p>Rank correlation of proxies and targets over these mixtures: {rho:.2f}.</p>"
    now = facts.records.get("mixture", {}).get("fingerprint")
    old = " It is of an earlier mixture: run climb validate again." if now != found_table["mixture"] else ""
    note = (
        found_table["sentence"]
        + old
        + " Every search had as many proxy trials as ours, its finalists included; DoReMi has a "
        "reference and a proxy run instead. Intervals cover seeds and items, one comparison at a time; p-values are "
        "corrected by Holm for all comparisons of the table."
    )
    return section("As targets", note, body)


def _map(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    if not facts.points:
        return ""
    colour = charts.colours([row["name"] for row in facts.domains])
    figures["map"] = charts.map_chart(facts, colour)
    note = "A sample of the documents, placed by likeness, coloured by domain. Point at one to read its beginning."
    return section("The map", note, chart("map", "map of the documents"))


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
        lost = details(f"{counted(len(gone), 'clusters')} pruned", table(("cluster", "tokens", "why", "words"), rows))
    return section("The domains", "", f'<div class="cards">{cards}</div>{lost}')


def _card(row: Mapping[str, str], facts: Facts, colour: str, weight: float | None) -> str:
    fixed = {"name", "n_clusters", "documents", "tokens", "share", "cap", "words"}
    facts_line = [f"{int(row['tokens']):,} tokens ({float(row['share']):.1%})", f"{int(row['documents']):,} documents"]
    if int(row.get("n_clusters") or 0) > 1:
        facts_line.append(f"{row['n_clusters']} clusters")
    facts_line += [f"{name} {float(value):.2f}" for name, value in row.items() if name not in fixed and value]
    words = "".join(f"<li>{text(word)}</li>" for word in row["words"].split()[:10])
    quotes = "".join(f"<blockquote>{text(_beginning(one))}</blockquote>" for one in facts.examples.get(row["name"], []))
    share = f'<span class="weight">{weight:.1%}</span>' if weight is not None else ""
    return (
        f'<article style="--hue:{colour}"><h3>{text(row["name"])}{share}</h3>'
        f'<p class="small">{text(" · ".join(facts_line))}</p><ul class="words">{words}</ul>{quotes}</article>'
    )


def _beginning(text: str, most: int = 260) -> str:
    """Return the first words of a text."""
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"


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
    return section("What it cost", note, table(("stage", "seconds"), rows))


def _settings(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    return section("Settings", "", details("climb.toml", f"<pre>{text(facts.settings)}</pre>"))


SECTIONS: tuple[Callable[[Facts, dict[str, charts.Figure]], str], ...] = (
    _headline,
    _weights,
    _margins,
    _validation,
    contest_section,
    _map,
    _cards,
    search_section,
    signal_section,
    _cost,
    _settings,
)
