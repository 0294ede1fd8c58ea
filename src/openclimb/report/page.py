"""The report: one self-contained page, made from the workspace's files. Nobody calls it but the command line.

Reads the whole workspace (facts.py), writes report/index.html from templates/. Works while the search is still running,
shows what there is, and needs no network: the charting library stands in the page. Templates escape every text.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from openclimb import __version__
from openclimb.corpus.contamination import overlap_sentence
from openclimb.corpus.duplicates import duplicates_sentence
from openclimb.errors import MissingDependency
from openclimb.printable import printable
from openclimb.progress import counted
from openclimb.report.analysis import similarity_table
from openclimb.report.charts import colours, draw
from openclimb.report.facts import Facts, read_facts
from openclimb.report.learning import finalists, objective_by_trial, signal, tasks
from openclimb.search.transfer.store import transfer_sentence
from openclimb.stats.multiple import HOLM, significant
from openclimb.workspace.files import write_text

COLUMNS = {"name", "n_clusters", "documents", "tokens", "share", "cap", "words"}  # the others are quality scores
WORDS = 10  # shown for each domain


def build_report(root: Path) -> Path:
    """Write report/index.html from the files of a workspace and return its path.

    Raises MissingDependency when plotly is not installed.
    """
    facts = read_facts(root)
    scores = objective_by_trial(facts)
    figures = draw(facts, scores)
    page = _render(
        facts=facts,
        scores=scores,
        figures=figures,
        cards=_cards(facts),
        finalists=finalists(facts),
        tasks=tasks(facts),
        signal=signal(facts),
        similarity=similarity_table(facts),
        overlap_sentence=overlap_sentence(facts.overlap, facts.contamination) if facts.overlap else "",
        duplicates_sentence=duplicates_sentence(facts.duplicates, facts.dedup) if facts.duplicates else "",
        transfer=transfer_sentence(facts.transfer) if facts.transfer else "",
        holm=HOLM,
        plotly=_plotly() if figures else "",
        version=__version__,
    )
    path = root / "report" / "index.html"
    write_text(path, page)
    return path


def _render(**values: Any) -> str:
    """Return the page: templates/page.html and what it includes, with these values."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("openclimb.report"),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": _number, "numbered": _numbered, "counted": counted}
    environment.tests["significant"] = significant
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    return environment.get_template("page.html").render(values)


def _printable(value: Any) -> Any:
    """Return a text of the workspace without what steers the page's reading direction; markup of ours as it is."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _numbered(places: Iterable[int], label: str) -> list[str]:
    """Return the label with the number of each place; people count from 1."""
    return [f"{label} {place + 1}" for place in places]


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError:
        raise MissingDependency("plotly", "pip install 'openclimb[report]'") from None
    script: str = get_plotlyjs()
    return script


def _cards(facts: Facts) -> list[dict[str, Any]]:
    """Return what the card of each domain shows."""
    colour = colours(facts.domains)
    weight = facts.answer.weights if facts.answer else {}
    return [
        {
            "name": row["name"],
            "colour": colour[row["name"]],
            "weight": weight.get(row["name"]),
            "tokens": int(row["tokens"]),
            "share": float(row["share"]),
            "documents": int(row["documents"]),
            "n_clusters": int(row.get("n_clusters") or 0),
            "scores": {name: float(value) for name, value in row.items() if name not in COLUMNS and value},
            "words": row["words"].split()[:WORDS],
            "examples": facts.examples.get(row["name"], []),
        }
        for row in facts.domains
    ]
