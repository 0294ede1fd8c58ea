"""`climb export`: the dataset of the found mixture."""

import json
from contextlib import closing
from typing import Any

import click

import openclimb
from openclimb.cli.options import Command, with_progress, workspace
from openclimb.config.registry import names
from openclimb.printable import say
from openclimb.progress import choose_progress


@click.command(cls=Command)
@workspace
@with_progress
@click.option("--tokens", default="", metavar="N", help="token budget, such as 10B; --by-cluster has [target]'s")
@click.option("--out", required=True, metavar="FOLDER", help="folder to write, or a URL such as s3://bucket/data")
@click.option("--format", default="parquet", type=click.Choice(names("writer")), help="of the shards")
@click.option("--by-domain", is_flag=True, help="shards of one domain each, in place of the mixture in order")
@click.option("--by-cluster", is_flag=True, help="each kept document once, with its labels, a folder a domain")
@click.option(
    "--tokenizer", default="", metavar="FILE", help="the target's tokenizer.json, whose tokens count (default: our own)"
)
@click.option("--shard-mb", type=float, default=128.0, metavar="N", help="megabytes of text in a shard (default: 128)")
@click.option("--seed", type=int, metavar="N", help="of the documents' order (default: the workspace's)")
def export(
    workspace: str,
    quiet: bool,
    as_json: bool,
    tokens: str,
    out: str,
    format: str,
    shard_mb: float,
    **more: Any,  # by_domain, by_cluster, tokenizer, seed
) -> None:
    from openclimb.cli.text import export_text
    from openclimb.config.load import parse_count
    from openclimb.masking import without_secrets

    if not tokens and not more["by_cluster"]:
        context = click.get_current_context()
        (missing,) = [one for one in context.command.params if one.name == "tokens"]
        raise click.MissingParameter(ctx=context, param=missing)
    shard_bytes = round(shard_mb * 1e6)
    with closing(choose_progress(quiet=quiet, as_json=as_json)) as progress:
        opened = openclimb.open(workspace)
        budget = parse_count(tokens) if tokens else None
        facts = opened.export(budget, out, format, progress, shard_bytes=shard_bytes, **more)
    say(json.dumps({"event": "exported", **facts}) if as_json else export_text(facts, without_secrets(out)))
