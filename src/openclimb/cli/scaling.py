"""`climb scaling`: the mixture and others at several sizes and token budgets."""

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

import openclimb
from openclimb.cli.ablate import cost_text
from openclimb.cli.options import Command, Several, with_progress, workspace
from openclimb.printable import say
from openclimb.progress import choose_progress


@click.command(cls=Command)
@workspace
@with_progress
@click.option("--tokens", required=True, metavar="N,N,…", help="token budgets; a law needs four: 1M,2M,4M,8M")
@click.option(
    "--sizes", default="own", metavar="SIZE,…", help="such as own,2M,5M (own: the workspace's proxy, the default)"
)
@click.option(
    "--against",
    default="natural,uniform",
    metavar="NAMES",
    help="natural, uniform, and mixtures of the workspace's validation (default: natural,uniform; natural always is)",
)
@click.option(
    "--mixture",
    "files",
    cls=Several,
    type=Path,
    metavar="CSV ...",
    help="mixtures of your own, columns domain,weight as in mixture/mixture.csv",
)
@click.option("--seeds", type=int, default=5, metavar="N", help="trials of each mixture, size and budget (default: 5)")
@click.option("--dry-run", is_flag=True, help="say how many trials and hours it takes, and do nothing")
@click.option("--retry", is_flag=True, help="try failed trials again")
def scaling(
    workspace: str,
    quiet: bool,
    as_json: bool,
    tokens: str,
    sizes: str,
    against: str,
    files: tuple[Path, ...],
    **more: int,  # seeds, dry_run, retry
) -> None:
    from openclimb.config.load import parse_count
    from openclimb.validation.scaling.scale import ScalingPlan, cost
    from openclimb.validation.scaling.table import scaling_text

    budgets = tuple(parse_count(one) for one in tokens.split(",") if one.strip())
    plan = ScalingPlan(budgets, _names(sizes), _names(against), files, more["seeds"])
    opened = openclimb.open(workspace)
    costs = cost(opened.workspace, plan)
    if more["dry_run"]:
        say(json.dumps({name: asdict(one) for name, one in costs.items()}) if as_json else cost_text(costs))
        return
    with closing(choose_progress(quiet=quiet, as_json=as_json)) as progress:
        for line in cost_text(costs).splitlines():
            progress.note(line)
        table = opened.scaling(plan, progress, retry=bool(more["retry"]))
    if as_json:
        print(json.dumps({"event": "scaling", **asdict(table)}))
    else:
        say(f"{scaling_text(table)}\n\ntable and figure: {opened.workspace.root}/scaling/scaling.json, .csv, .svg")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
