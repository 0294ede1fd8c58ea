"""`climb verify`: whether an exported dataset is what its card says."""

import json
from contextlib import closing
from dataclasses import asdict

import click

import openclimb
from openclimb.cli.options import Command, with_progress
from openclimb.errors import WorkspaceError
from openclimb.printable import say
from openclimb.progress import choose_progress, counted


@click.command(cls=Command)
@click.argument("out", metavar="OUT", help="an exported dataset: its folder, or its URL")
@with_progress
def verify(out: str, quiet: bool, as_json: bool) -> None:
    with closing(choose_progress(quiet=quiet, as_json=as_json)) as progress:
        found = openclimb.verify(out, progress)
    if as_json:
        print(json.dumps({"event": "verified", **asdict(found)}))
    elif found.faults:
        say("\n".join(map(str, found.faults)))
    else:
        say(
            f"as its card says: {', '.join(found.checks)} of {counted(found.documents, 'documents')}, "
            f"{found.tokens:,} tokens, {counted(found.files, 'files')}"
        )
    if found.faults:
        raise WorkspaceError(
            f"{counted(len(found.faults), 'faults')}: the dataset is not as its card says",
            "move it away, and export again",
        )
