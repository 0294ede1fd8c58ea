"""`climb ask`, `tell` and `import`: trials that are trained elsewhere."""

import json
from pathlib import Path

import click

import openclimb
from openclimb.cli.options import Command, workspace
from openclimb.errors import SearchError
from openclimb.printable import say
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
    from openclimb.objectives.base import EXAMPLE, parse_scores

    opened = openclimb.open(workspace)
    if failed is not None and scores is None:
        opened.tell_failed(trial, failed)
        say(f"trial {trial} is closed without scores: {failed or 'no reason given'}")
        return
    if failed is not None or scores is None:
        raise SearchError(f"trial {trial}: give a file of scores, or --failed MESSAGE", "climb tell --help")
    try:
        data = scores.read_bytes()
    except FileNotFoundError:
        raise SearchError(f"{scores} is missing", f"write the scores into it: {EXAMPLE}") from None
    except OSError as error:
        raise SearchError(f"{scores} cannot be read: {error.strerror}", "give a JSON file of scores") from None
    say("\n".join(opened.tell(trial, parse_scores(data, str(scores))).sentences()))


@click.command("import", cls=Command)
@workspace
@click.argument("ratios", type=Path, help="CSV: a column that names the run, then one weight a domain")
@click.argument("metrics", type=Path, help="CSV: the same column, then one score a task, higher is better")
@click.option("--losses", is_flag=True, help="all metrics are losses: lower is better")
@click.option(
    "--lower",
    multiple=True,
    metavar="GLOB",
    help="metrics of which lower is better, such as 'bpb_*' (quoted); may be given again",
)
def import_runs(workspace: str, ratios: Path, metrics: Path, losses: bool, lower: tuple[str, ...]) -> None:
    found = openclimb.open(workspace).import_runs(ratios, metrics, losses=losses, lower=lower)
    trials = found.trials
    numbers = [trial.number for trial in trials]
    where = f"trial {numbers[0]}" if len(numbers) == 1 else f"trials {min(numbers)} to {max(numbers)}"
    say(f"{counted(len(trials), 'runs')}, {found.new} of them new: {where}")
    say("\n".join(f"- {note}" for note in found.notes))
