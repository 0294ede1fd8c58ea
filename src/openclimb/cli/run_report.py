"""`climb run` and `climb report`: the whole job, and the page that shows it."""

import json
from contextlib import closing
from dataclasses import asdict

import click

import openclimb
from openclimb.cli.options import Command, with_progress, workspace
from openclimb.printable import say
from openclimb.progress import choose_progress


@click.command(cls=Command)
@workspace
@with_progress
@click.option("--redo", default="", metavar="STAGE", help="move this stage and those made from it aside first")
@click.option(
    "--retry",
    is_flag=True,
    help="try failed trials again, also where the search went on without them: what it proposed after may change "
    "(where all of an iteration failed, the next run tries them by itself; where there is an answer, add "
    "--redo mixture)",
)
def run(workspace: str, quiet: bool, as_json: bool, redo: str, retry: bool) -> None:
    from openclimb.cli.text import answer_text
    from openclimb.config.load import format_count

    opened = openclimb.open(workspace)
    with closing(choose_progress(quiet=quiet, as_json=as_json)) as progress:
        answer = opened.run(progress, redo, retry=retry)
    written = opened.report()
    if as_json:
        print(json.dumps({"event": "answer", "mixture": asdict(answer), "report": str(written)}))
        return
    say(f"{answer_text(answer)}\n\nreport: {written}")
    if opened.config.corpus.paths:
        budget = format_count(opened.config.target.token_budget)
        say(f"next: climb export {workspace} --tokens {budget} --out FOLDER")


@click.command(cls=Command)
@workspace
def report(workspace: str) -> None:
    from openclimb.cli.planning import status

    opened = openclimb.open(workspace)
    say(str(opened.report()))
    stale = [row["stage"] for row in status(opened.workspace.root)["stages"] if row["state"] == "stale"]
    if stale:
        print(
            f"note: {', '.join(stale)} are of other settings or inputs than the present ones: climb status says which"
        )
