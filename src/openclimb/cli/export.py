"""`climb export`: the dataset of the found mixture."""

import json
from contextlib import closing

import click

import openclimb
from openclimb.cli.options import Command, with_progress, workspace
from openclimb.config.registry import names
from openclimb.printable import say
from openclimb.progress import choose_progress


@click.command(cls=Command)
@workspace
@with_progress
@click.option("--tokens", required=True, metavar="N", help="token budget of the dataset, such as 10B")
@click.option("--out", required=True, metavar="FOLDER", help="folder to write, or a URL such as s3://bucket/data")
@click.option("--format", default="parquet", type=click.Choice(names("writer")), help="of the shards")
def export(workspace: str, quiet: bool, as_json: bool, tokens: str, out: str, format: str) -> None:
    from openclimb.cli.text import export_text
    from openclimb.config.load import parse_count
    from openclimb.masking import without_secrets

    with closing(choose_progress(quiet=quiet, as_json=as_json)) as progress:
        facts = openclimb.open(workspace).export(parse_count(tokens), out, format, progress)
    say(json.dumps({"event": "exported", **facts}) if as_json else export_text(facts, without_secrets(out)))
