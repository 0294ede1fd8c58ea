"""`climb plan` and `climb status`: what a run will do and cost, and how far it is."""

import json
from pathlib import Path

import click

from openclimb.cli.options import Command, as_json, workspace
from openclimb.printable import say


@click.command(cls=Command)
@workspace
@click.option("--gpus", type=click.IntRange(1), default=None, metavar="N", help="plan for so many GPUs")
@click.option("--gpu", default="", metavar="NAME", help="of this kind: h100, h200, b200, a100, l40s, rtx4090")
@click.option("--cores", type=click.IntRange(1), default=None, metavar="N", help="plan for so many cores")
@click.option("--documents", default="", metavar="N", help="of a corpus that cannot be listed yet, such as 1B")
@click.option("--bytes", "n_bytes", default="", metavar="N", help="of its text, such as 4T")
@as_json
def plan(
    workspace: str, gpus: int | None, gpu: str, cores: int | None, documents: str, n_bytes: str, as_json: bool
) -> None:
    from openclimb.cli.plan_text import plan_text
    from openclimb.cli.planning import Asked
    from openclimb.cli.planning import plan as planned

    facts = planned(Path(workspace), Asked(gpus or 0, gpu, cores or 0, documents, n_bytes))
    say(json.dumps(facts, indent=1) if as_json else plan_text(facts))


@click.command(cls=Command)
@workspace
@as_json
def status(workspace: str, as_json: bool) -> None:
    from openclimb.cli.planning import status as state
    from openclimb.cli.text import status_text

    facts = state(Path(workspace))
    say(json.dumps(facts, indent=1) if as_json else status_text(facts))
