"""`climb best`: the mixture of the best expected score, or the front of two goals."""

import json
from dataclasses import asdict

import click

import openclimb
from openclimb.cli.options import Command, as_json, workspace
from openclimb.printable import say


@click.command(cls=Command)
@workspace
@click.option(
    "--pareto", nargs=2, metavar="GOAL GOAL", help="instead: mixtures that none is expected to beat in both tasks.goals"
)
@as_json
def best(workspace: str, pareto: tuple[str, str] | None, as_json: bool) -> None:
    from openclimb.cli.text import best_text, front_text

    opened = openclimb.open(workspace)
    if pareto:
        front = opened.front(pareto)
        say(json.dumps(front, indent=1) if as_json else front_text(front))
    else:
        found = opened.best()
        say(json.dumps(asdict(found), indent=1) if as_json else best_text(found))
