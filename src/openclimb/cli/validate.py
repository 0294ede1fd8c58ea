"""`climb validate`: the found mixture and others, each trained as a target."""

import json
from contextlib import closing
from dataclasses import asdict
from typing import Any

import click

import openclimb
from openclimb.cli.options import Command, assign, with_progress, workspace
from openclimb.config import registry
from openclimb.errors import ConfigError
from openclimb.printable import say
from openclimb.progress import choose_progress


@click.command(cls=Command)
@workspace
@with_progress
@click.option(
    "--against",
    default="",
    metavar="NAMES",
    help=f"any of {','.join(registry.names('baseline'))} or package.module:BASELINE (default: all but doremi; regmix "
    "and the recipe where as many trials as ours suffice for them)",
)
@click.option("--seeds", type=int, default=3, metavar="N", help="targets of each mixture (default: 3)")
@click.option("--token-budget", default="", metavar="N", help="of a target (default: the proxy's)")
@click.option(
    "--set", "assignments", multiple=True, metavar="proxy.KEY=VALUE", help="the target's shape, such as proxy.size=2M"
)
@click.option("--redo", is_flag=True, help="move a table of other options aside first; keep its trials")
@click.option("--retry", is_flag=True, help="try failed trials again")
def validate(
    workspace: str,
    quiet: bool,
    as_json: bool,
    against: str,
    seeds: int,
    token_budget: str,
    assignments: tuple[str, ...],
    **again: bool,  # redo, retry
) -> None:
    from openclimb.config.load import parse_count
    from openclimb.validation.judge import validation_text

    raw: dict[str, Any] = {}
    assign(raw, assignments)
    if set(raw) - {"proxy"}:
        raise ConfigError("only settings of [proxy] can be the target's", "write --set proxy.key=value")
    target = raw.get("proxy", {})
    if token_budget:
        target["token_budget"] = parse_count(token_budget)
    names = [name.strip() for name in against.split(",") if name.strip()]
    opened = openclimb.open(workspace)
    with closing(choose_progress(quiet=quiet, as_json=as_json)) as progress:
        table = opened.validate(names, seeds, target, progress, **again)
    report = opened.report()
    if as_json:
        print(json.dumps({"event": "validation", **asdict(table), "report": str(report)}))
    else:
        say(f"{validation_text(table)}\n\nreport: {report}")
