"""`climb ask`, `tell` and `import`: trials that are trained elsewhere."""

import json
from pathlib import Path

import click

import openclimb
from openclimb.cli.options import Command, workspace
from openclimb.errors import SearchError
from openclimb.progress import counted


@click.command(cls=Command)
@workspace
@click.option("-n", type=int, default=1, metavar="N", help="how many (default: 1)")
@click.option("--json", "as_json", is_flag=True, help="print one JSON list instead")
def ask(workspace: str, n: int, as_json: bool) -> None:
    rows = [
        {"trial": trial.number, "mixture": trial.mixture.as_dict(), "seed": trial.seed}
        for trial in openclimb.open(workspace).ask(n)
    ]
    print(json.dumps(rows, indent=1) if as_json else "\n".join(map(json.dumps, rows)))


@click.command(cls=Command)
@workspace
@click.argument("trial", type=int, help="number of the trial")
@click.argument("scores", type=Path, required=False, help="JSON file; the same scores may be given again")
@click.option("--failed", metavar="MESSAGE", help="say instead that the trial gave no scores")
def tell(workspace: str, trial: int, scores: Path | None, failed: str | None) -> None:
    opened = openclimb.open(workspace)
    if failed is not None and scores is None:
        opened.tell_failed(trial, failed)
        return
    if failed is not None or scores is None:
        raise SearchError(f"trial {trial}: give a file of scores, or --failed MESSAGE", "climb tell --help")
    if not scores.is_file():
        raise SearchError(f"{scores} is missing", 'write the scores into it: {"task": 0.5}')
    try:
        found = json.loads(scores.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise SearchError(f"{scores} is not JSON: {error}", '{"task": 0.5}') from None
    opened.tell(trial, found)


@click.command("import", cls=Command)
@workspace
@click.argument("ratios", type=Path, help="CSV: a column that names the run, then one weight a domain")
@click.argument("metrics", type=Path, help="CSV: the same column, then one score a task, higher is better")
@click.option("--losses", is_flag=True, help="the metrics are losses: lower is better")
def import_runs(workspace: str, ratios: Path, metrics: Path, losses: bool) -> None:
    trials, new = openclimb.open(workspace).import_runs(ratios, metrics, losses=losses)
    print(f"{counted(len(trials), 'runs')}, {new} of them new: trials {trials[0].number} to {trials[-1].number}")
