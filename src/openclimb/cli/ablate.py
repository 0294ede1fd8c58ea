"""`climb ablate`: settings of the search compared, one at a time."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Any

import click

import openclimb
from openclimb.cli.options import Command, Several, parse_over, with_progress, workspace
from openclimb.printable import say
from openclimb.progress import choose_progress


@click.command(cls=Command)
@workspace
@with_progress
@click.option(
    "--over",
    cls=Several,
    required=True,
    metavar="SECTION.KEY=VALUES ...",
    help="settings and their values, with commas or as a list: clusters.k=12,48 'search.trials=[[16, 8, 4], [28]]'; "
    "init=design,dirichlet,random is how the first design is drawn; seed=1,2 shows how far the answers of equal "
    "searches differ",
)
@click.option("--seeds", type=int, default=8, metavar="N", help="fresh trials of each mixture (default: 8)")
@click.option("--judge-size", default="", metavar="SIZE", help="of those trials, such as 2M (default: the proxy's)")
@click.option("--judge-tokens", default="", metavar="N", help="token budget of those trials (default: the proxy's)")
@click.option("--dry-run", is_flag=True, help="say how many trials and hours it takes, and do nothing")
@click.option("--redo", is_flag=True, help="move variants of other settings than the present ones aside")
@click.option("--retry", is_flag=True, help="try failed trials again")
def ablate(
    workspace: str,
    quiet: bool,
    as_json: bool,
    over: tuple[str, ...],
    seeds: int,
    judge_size: str,
    judge_tokens: str,
    **flags: bool,  # dry_run, redo, retry
) -> None:
    from openclimb.validation.ablation.ablate import Ablation, cost
    from openclimb.validation.ablation.table import ablation_text
    from openclimb.validation.compare import target_of

    opened = openclimb.open(workspace)
    judge = target_of(opened.config, _judge_settings(judge_size, judge_tokens))
    plan = Ablation(parse_over(over), judge, seeds)
    costs = cost(opened.workspace, plan)
    if flags.pop("dry_run"):
        say(json.dumps({name: asdict(one) for name, one in costs.items()}) if as_json else cost_text(costs))
        return
    with closing(choose_progress(quiet=quiet, as_json=as_json)) as progress:
        for line in cost_text(costs).splitlines():
            progress.note(line)
        table = opened.ablate(plan, progress, **flags)
    if as_json:
        print(json.dumps({"event": "ablation", **asdict(table)}))
    else:
        say(f"{ablation_text(table)}\n\ntable and figure: {opened.workspace.root}/ablations/ablations.json, .csv, .svg")


def _judge_settings(size: str, tokens: str) -> dict[str, Any]:
    """Return the settings of [proxy] that a size and a token budget stand for; those not given are left out."""
    from openclimb.config.load import parse_count

    return {**({"size": size} if size else {}), **({"token_budget": parse_count(tokens)} if tokens else {})}


def cost_text(cost: Mapping[str, Any]) -> str:
    """Return what the parts of the work take as people read it, with the sum."""
    from openclimb.cli.plan_text import time_text

    total = sum(cost.values(), start=type(next(iter(cost.values())))())
    rows = {**cost, "all, at most": total}
    width = max(map(len, rows))
    return "\n".join(
        f"{name:<{width}}  {one.trials:>6,} trials  {time_text(one.hours):>8}" for name, one in rows.items()
    )
