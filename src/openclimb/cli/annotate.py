"""`climb annotate`: labels of documents by a language model."""

import json
from contextlib import closing
from typing import Any

import click

import openclimb
from openclimb.cli.options import Command, with_progress, workspace
from openclimb.errors import ConfigError
from openclimb.printable import say
from openclimb.progress import choose_progress

MILLION = "for a million tokens"


@click.command(cls=Command)
@workspace
@with_progress
@click.option("-n", default="2000", metavar="N", help="documents in all, earlier ones among them (default: 2000)")
@click.option("--balanced", is_flag=True, help="the same number from every cluster, as far as each has them")
@click.option(
    "--endpoint", default="", metavar="URL", help="OpenAI-compatible server, such as http://localhost:8000/v1"
)
@click.option("--model", default="", metavar="NAME", help="the model's name there")
@click.option(
    "--concurrency", type=click.IntRange(1, 1024), default=16, metavar="N", help="requests at once (default: 16)"
)
@click.option("--budget-tokens", default="", metavar="N", help="most tokens to spend in all, such as 10M")
@click.option("--budget-usd", type=click.FloatRange(0), metavar="X", help="most dollars to spend in all; needs prices")
@click.option("--usd-in", type=click.FloatRange(0), metavar="X", help=f"price of prompts in dollars, {MILLION}")
@click.option("--usd-out", type=click.FloatRange(0), metavar="X", help=f"price of answers in dollars, {MILLION}")
@click.option("--annotator", default="", metavar="NAME", help="package.module:function in place of an endpoint")
@click.option("--write-rubric", is_flag=True, help="write rubric.toml, which you may edit, and stop")
@click.option("--redo", is_flag=True, help="move the labels that are there aside and begin anew")
def annotate(
    workspace: str, quiet: bool, as_json: bool, n: str, balanced: bool, write_rubric: bool, redo: bool, **by: Any
) -> None:
    from openclimb.cli.text import annotate_text
    from openclimb.config.load import parse_count

    opened = openclimb.open(workspace)
    if write_rubric:
        say(str(opened.write_rubric()))
        return
    spec = _annotator(**by)
    with closing(choose_progress(quiet=quiet, as_json=as_json)) as progress:
        facts = opened.annotate(parse_count(n), progress, redo=redo, balanced=balanced, **spec)
    say(json.dumps({"event": "annotated", **facts}) if as_json else annotate_text(facts, workspace))


def _annotator(
    endpoint: str, model: str, concurrency: int, annotator: str, budget_tokens: str, **usd: float | None
) -> dict[str, Any]:
    """Return who labels and for how much, as AnnotateSpec has it."""
    from openclimb.config.load import parse_count
    from openclimb.quality.annotation.budget import Limits
    from openclimb.quality.annotation.endpoint import Endpoint

    if bool(endpoint) != bool(model):
        raise ConfigError(
            f"--{'model' if endpoint else 'endpoint'} is missing",
            "give both: --endpoint http://localhost:8000/v1 --model NAME; GET /v1/models lists a server's names",
        )
    tokens = parse_count(budget_tokens) if budget_tokens else None
    limits = Limits(tokens, usd["budget_usd"], usd["usd_in"], usd["usd_out"])
    where = Endpoint(endpoint, model, concurrency) if endpoint else None
    return {"annotator": annotator or "endpoint", "endpoint": where, "limits": limits}
