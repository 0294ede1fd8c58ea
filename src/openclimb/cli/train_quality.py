"""`climb train-quality`: students of labels, which score documents in the label pass."""

import json
from contextlib import closing
from pathlib import Path

import click

import openclimb
from openclimb.cli.options import Command, with_progress, workspace
from openclimb.printable import say
from openclimb.progress import choose_progress


@click.command("train-quality", cls=Command)
@workspace
@with_progress
@click.option(
    "--labels",
    type=Path,
    metavar="FILE",
    help='JSON lines of "text" and "scores" (default: those of climb annotate, annotations/labels.jsonl)',
)
@click.option(
    "--student", metavar="fasttext|head", help="train this kind alone (default: the better one of each scale)"
)
def train_quality(workspace: str, quiet: bool, as_json: bool, labels: Path | None, student: str | None) -> None:
    from openclimb.quality.training.report import table_text

    opened = openclimb.open(workspace)
    with closing(choose_progress(quiet=quiet, as_json=as_json)) as progress:
        facts = opened.train_quality(labels, student or "", progress)
    if as_json:
        print(json.dumps({"event": "students", **facts}))
        return
    say(table_text(facts))
    folder = opened.workspace.root / "students"
    say(f'\nmore: {folder / "report.md"}\nto score with them: scorers = ["students"] in [quality] of climb.toml')
