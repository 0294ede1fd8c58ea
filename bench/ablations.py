"""The paper's Table 3 and Figure 1 at the demo's scale: settings compared one at a time, gains over token budgets.

    python bench/ablations.py --demo FOLDER --root RUN [--part ablations | scaling] [--only-read]

FOLDER is what `make demo` made (.demo): its corpus, tasks and embedder. RUN keeps the workspace, what `climb ablate`
and `climb scaling` made of it, and their figures; it is gone on with. `--part` does one of the two. Writes
bench/results/ablations.json and scaling.json, and prints the tables of docs/ablations.md.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from _results import write_results
from openclimb.cli.main import main as climb
from openclimb.workspace.files import read_json
from openclimb.workspace.results import MIXTURE

# Half the demo's tokens a proxy, and few trials that confirm: fresh ones judge the answers.
SETTINGS = ["proxy.token_budget=150K", "selection.seeds=2"]
OVER = ["search.trials=[[16]]", "init=random", "clusters.k=12", "proxy.width=40"]  # half of k, of the parameters
SEEDS = 8
TOKENS = "50K,100K,200K,400K"
CURVE_SEEDS = 4


def workspace(demo: Path, root: Path, workers: int) -> None:
    """Make and run the demo's workspace where there is none."""
    if not (root / "climb.toml").exists():
        inputs = ["--corpus", str(demo / "corpus" / "part-*"), "--tasks", str(demo / "tasks" / "*.jsonl")]
        sets = [
            word
            for one in [*SETTINGS, f"run.workers={workers}", f"embed.model={demo / 'embedder'}"]
            for word in ("--set", one)
        ]
        done(climb(["init", str(root), *inputs, "--scale", "demo", *sets]))
    if not (root / MIXTURE).is_file():
        done(climb(["run", str(root), "--quiet"]))


def done(status: int) -> None:
    """End with the status of a command that failed."""
    if status:
        sys.exit(status)


def ablation_rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an ablation: of each mixture its score and what it differs by from the workspace's answer."""
    rows = [metric("judge", "seeds", table["seeds"]), metric("judge", "token budget", table["judge"]["token_budget"])]
    rows.append(metric("judge", "parameters", table["judge"]["parameters"]))
    for row in table["rows"]:
        case = row["name"]
        rows += [metric(case, name, row[name]) for name in ("domains", "effective_domains", "search_trials")]
        rows += [metric(case, "score", row["score"]), metric(case, "score, interval", row["interval"])]
        if one := row["difference"]:
            rows += [metric(case, "minus base", one["mean"]), metric(case, "minus base, interval", one["interval"])]
            rows += [metric(case, "p, Holm", one["p_holm"]), metric(case, "comparison", one["comparison"])]
        rows += [metric(case, "same mixture as", row["same_as"])] if row["same_as"] else []
    return rows


def scaling_rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a scaling run: points, multipliers and laws."""
    rows = [metric("all", "seeds", table["seeds"])]
    for point in table["points"]:
        case = f"{point['mixture']}, {point['size']}, {point['tokens']:,} tokens"
        rows += [metric(case, "score", point["score"]), metric(case, "score, interval", point["interval"])]
        if one := point["gain"]:
            rows += [
                metric(case, "minus natural", one["mean"]),
                metric(case, "minus natural, interval", one["interval"]),
            ]
            rows += [metric(case, "p, Holm", one["p_holm"]), metric(case, "comparison", one["comparison"])]
    for curve in table["curves"]:
        for one in curve["multipliers"]:
            case = f"{curve['mixture']}, {curve['size']}, {one['tokens']:,} tokens"
            rows.append(metric(case, "times the tokens natural needs", one["value"]))
            rows.append(metric(case, "times the tokens natural needs, interval", [one["low"], one["high"]]))
        case = f"{curve['mixture']}, {curve['size'] or 'all sizes'}"
        if curve["law"]:
            rows += [metric(case, f"law, {name}", value) for name, value in curve["law"]["parameters"].items()]
        rows.append(metric(case, "law not identified", curve["problem"]))
    return rows


def ablation_table(table: dict[str, Any]) -> str:
    """Return the differences from the workspace's own answer as Markdown."""
    lines = [
        "| setting | domains | search trials | score | minus base | 95 % interval | p, Holm |",
        "|---|" + "---|" * 6,
    ]
    for row in table["rows"]:
        one = row["difference"]
        found = f"the same mixture as {row['same_as']} | |" if row["same_as"] else "– | |"
        if one:
            low, high = one["interval"]
            bold = "**" if one["comparison"] != "not significant" else ""
            found = f"{bold}{one['mean']:+.4f}{bold} | {low:+.4f} to {high:+.4f} | {one['p_holm']:.3f}"
        cells = f"{row['domains']} | {row['search_trials'] or '–'} | {row['score']:+.4f}"
        lines.append(f"| {row['name']} | {cells} | {found} |")
    return "\n".join(lines)


def scaling_tables(table: dict[str, Any]) -> str:
    """Return the gains over natural, then the laws, as Markdown."""
    saved = {(c["size"], c["mixture"], one["tokens"]): one for c in table["curves"] for one in c["multipliers"]}
    lines = [
        "| tokens | mixture | score | minus natural | 95 % interval | natural needs × the tokens |",
        "|---|" + "---|" * 5,
    ]
    for point in table["points"]:
        one, times = point["gain"], saved.get((point["size"], point["mixture"], point["tokens"]))
        low, high = one["interval"] if one else (0.0, 0.0)
        gain = f"{one['mean']:+.4f} | {low:+.4f} to {high:+.4f}" if one else "– | "
        more = " to ".join(times_text(times[end], times["most"]) for end in ("low", "high")) if times else ""
        cell = f"{times_text(times['value'], times['most'])} ({more})" if times else ""
        lines.append(f"| {point['tokens']:,} | {point['mixture']} | {point['score']:+.4f} | {gain} | {cell} |")
    lines += ["", "| mixture | E | B | b | error | identified |", "|---|" + "---|" * 5]
    for curve in table["curves"]:
        if law := curve["law"]:
            cells = [f"{value:.3g} ({low:.3g} to {high:.3g})" for value, low, high in law["parameters"].values()]
            known = curve["problem"] or "yes"
            lines.append(f"| {curve['mixture']} | {' | '.join(cells)} | {law['error']:.4f} | {known} |")
    return "\n".join(lines)


def times_text(value: float | None, most: float) -> str:
    """Return a multiplier; a bound where natural was not trained long enough."""
    return f"> {most:.2f}" if value is None else f"{value:.2f}" if value else "less"


def metric(case: str, name: str, value: Any) -> dict[str, Any]:
    """Return a row; numbers are cut to six digits."""

    def cut(one: Any) -> Any:
        return float(f"{one:.6g}") if isinstance(one, float) else one

    return {"case": case, "metric": name, "value": [cut(v) for v in value] if isinstance(value, list) else cut(value)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--part", choices=["ablations", "scaling"], default="")
    parser.add_argument("--workers", type=int, default=0, help="as run.workers")
    parser.add_argument("--only-read", action="store_true", help="take the tables that are there")
    options = parser.parse_args()
    root: Path = options.root
    if not options.only_read:
        workspace(options.demo.absolute(), root, options.workers)
    if options.part in ("", "ablations"):
        if not options.only_read:
            done(climb(["ablate", str(root), "--over", *OVER, "--seeds", str(SEEDS)]))
        table = read_json(root / "ablations" / "ablations.json")
        write_results("ablations", ablation_rows(table))
        print(ablation_table(table))
    if options.part in ("", "scaling"):
        if not options.only_read:
            done(climb(["scaling", str(root), "--tokens", TOKENS, "--seeds", str(CURVE_SEEDS)]))
        table = read_json(root / "scaling" / "scaling.json")
        write_results("scaling", scaling_rows(table))
        print(scaling_tables(table))


if __name__ == "__main__":
    main()
