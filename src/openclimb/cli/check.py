"""`climb check`: whether the files of a workspace are as they were made."""

import json
from dataclasses import asdict

import click

import openclimb
from openclimb.cli.options import Command, as_json, workspace
from openclimb.errors import WorkspaceError
from openclimb.printable import say


@click.command(cls=Command)
@workspace
@as_json
def check(workspace: str, as_json: bool) -> None:
    found = openclimb.open(workspace).check()
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    elif found:
        say("\n".join(f"{one.file} {one.what} · {one.fix}" for one in found))
    else:
        print("every file is as it was made")
    if found:
        files = "1 file is" if len(found) == 1 else f"{len(found)} files are"
        raise WorkspaceError(f"{files} not as made", found[0].fix)
