"""`climb plan` and `climb status`: what a run will do and cost, and how far it is."""

import json
from pathlib import Path

import click

from openclimb.cli.options import Command, as_json, workspace
from openclimb.printable import say


@click.command(cls=Command)
@workspace
@as_json
def plan(workspace: str, as_json: bool) -> None:
    from openclimb.cli.planning import plan as planned
    from openclimb.cli.text import plan_text

    facts = planned(Path(workspace))
    say(json.dumps(facts, indent=1) if as_json else plan_text(facts))


@click.command(cls=Command)
@workspace
@as_json
def status(workspace: str, as_json: bool) -> None:
    from openclimb.cli.planning import status as state
    from openclimb.cli.text import status_text

    facts = state(Path(workspace))
    say(json.dumps(facts, indent=1) if as_json else status_text(facts))
