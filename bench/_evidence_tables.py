"""The tables of docs/evidence.md, made from bench/results/evidence.json."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openclimb.stats.multiple import comparison, holm
from openclimb.workspace.files import write_text

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"  # bench/evidence.py writes what stands between them


class Cases:
    """The rows of a results file by case and metric."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.rows = {(row["case"], row["metric"]): row for row in rows}

    def value(self, case: str, metric: str) -> Any:
        """Return a value, None where there is none."""
        return self.rows.get((case, metric), {}).get("value")

    def reference(self, case: str, metric: str) -> Any:
        """Return what a value stands beside."""
        return self.rows[case, metric]["reference"]

    def under(self, goal: str, metric: str) -> list[str]:
        """Return the cases "GOAL/…" that have a metric, in order."""
        return [case for case, name in self.rows if name == metric and case.startswith(f"{goal}/")]


def embed(text: str, page: Path) -> None:
    """Put the tables between the page's two marks. Raises ValueError where it lacks them."""
    head, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks {BEGIN} or {END}")
    write_text(page, f"{head}{BEGIN}\n\n{text}\n{END}{tail}")


def tables(results: Mapping[str, Any], goals: Mapping[str, Sequence[str]]) -> str:
    """Return the tables as Markdown, those of the goals first that are finished."""
    cases = Cases(results["rows"])
    done = [goal for goal in goals if cases.value(goal, "sentence")]
    machine, versions = results["machine"], results["versions"]
    where = f"{machine['processor']}, {machine['cores']} cores; torch {versions.get('torch', '–')}"
    parts = [f"Measured {results['date']} ({where}). {_sizes(cases, done)}"] if done else ["No goal is finished yet."]
    verdicts = corrected(cases, done)
    for goal in done:
        parts += [f"### {goal}: {', '.join(goals[goal])}", f"**{cases.value(goal, 'sentence')}**"]
        parts += [_mixtures(cases, goal, verdicts), _ranks(cases, goal), _curve(cases, goal), _favoured(cases, goal)]
    if done:
        parts += ["### The goals beside one another", _crossed(cases, done), _counts(cases)]
    return "\n\n".join(parts) + "\n"


def corrected(cases: Cases, done: Sequence[str]) -> dict[str, str]:
    """Return case → comparison after Holm over the comparisons of all goals, where the results have p-values."""
    rows = [case for goal in done for case in cases.under(goal, "found minus it, p")]
    adjusted = holm([cases.value(case, "found minus it, p") for case in rows])
    return {
        case: f"{comparison(cases.value(case, 'found minus it'), p)} (p {p:.4f})"
        for case, p in zip(rows, adjusted, strict=True)
    }


def _sizes(cases: Cases, done: Sequence[str]) -> str:
    parameters, tokens = ((done[0], f"target {what}") for what in ("parameters", "tokens"))
    seeds = cases.value(done[0], "target seeds")
    return (
        f"Proxies: {cases.reference(*parameters) / 1e6:.3g}M parameters, {_count(cases.reference(*tokens))} tokens. "
        f"Targets: {cases.value(*parameters) / 1e6:.3g}M parameters ({_times(cases, parameters)}), "
        f"{_count(cases.value(*tokens))} tokens ({_times(cases, tokens)}), {seeds} seeds."
    )


def _times(cases: Cases, key: tuple[str, str]) -> str:
    return f"{cases.value(*key) / cases.reference(*key):.1f} ×"


def _mixtures(cases: Cases, goal: str, verdicts: Mapping[str, str]) -> str:
    rows = [
        (
            case.partition("/")[2],
            str(cases.value(case, "search trials")),
            _count(cases.value(case, "search tokens")),
            _number(cases.value(case, "target score")) + _interval(cases, case, "target score,"),
            _number(cases.value(case, "found minus it"), "+") + _interval(cases, case, "found minus it, interval"),
            verdicts.get(case) or cases.value(case, "verdict") or "",
            f"{cases.value(case, 'probability best'):.0%}",
            _number(cases.value(case, "proxy score")),
        )
        for case in cases.under(goal, "target score")
    ]
    heads = "mixture|search trials|search tokens|target's score|found − it|after Holm, all goals|P(best)|proxies' score"
    return _table(heads.split("|"), rows)


def _ranks(cases: Cases, goal: str) -> str:
    these = _number(cases.value(goal, "rank correlation, these mixtures"), digits=2)
    whole = _number(cases.value(goal, "rank correlation, mixtures of all goals"), digits=2)
    return f"Rank correlation of proxies and targets: {these} over these mixtures, {whole} over those of all goals."


def _curve(cases: Cases, goal: str) -> str:
    rows = [
        (
            case.partition("/")[2],
            str(cases.value(case, "trials so far")),
            _number(cases.value(case, "best measured")),
            _number(cases.value(case, "best expected")),
            _number(cases.value(case, "rank correlation, cross-validated"), digits=2),
        )
        for case in cases.under(goal, "trials so far")
    ]
    rows.append(("the answer", "", "", _number(cases.value(goal, "answer, expected")), ""))
    return _table(("search", "trials so far", "best measured", "best expected", "predictor's rank correlation"), rows)


def _favoured(cases: Cases, goal: str) -> str:
    rows = []
    for case in cases.under(goal, "weight"):
        weight, natural = cases.value(case, "weight"), cases.reference(case, "weight")
        times = f"{weight / natural:.2f} ×" if natural else ""
        words = ", ".join(cases.value(case, "words").split()[:8])
        rows.append((case.partition("/")[2], f"{weight:.1%}", f"{natural:.1%}", times, words))
    return _table(("favoured most, avoided most", "weight", "natural", "ratio", "words of the domain"), rows)


def _crossed(cases: Cases, done: Sequence[str]) -> str:
    rows = [
        (
            f"found for {other}",
            *(_number(cases.value(f"{goal}/found for {other}", "target score of it")) for goal in done),
        )
        for other in done
    ]
    return _table(("target's score", *done), rows)


def _counts(cases: Cases) -> str:
    n, trials, twice = (
        cases.value("all", metric) for metric in ("mixtures trained as targets", "trials", "trials trained twice")
    )
    return f"{n} mixtures were trained as targets; {trials} trials in all, {twice} of them trained twice."


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _interval(cases: Cases, case: str, metric: str) -> str:
    low, high = cases.value(case, f"{metric} low"), cases.value(case, f"{metric} high")
    return "" if low is None else f" [{low:+.4f}, {high:+.4f}]"


def _number(value: float | None, sign: str = "", digits: int = 4) -> str:
    return "" if value is None else f"{value:{sign}.{digits}f}"


def _count(n: int) -> str:
    return f"{n / 1e6:.3g}M" if n >= 10**6 else f"{n / 1e3:.4g}K"
