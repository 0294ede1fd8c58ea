"""`climb tasks`: task files of an evaluation suite."""

from pathlib import Path

import click

from openclimb.cli.options import Command, Several
from openclimb.errors import ConfigError
from openclimb.printable import say

AFTER = {
    "mmlu": """to search for one group of subjects and have the others reported, in [tasks] of climb.toml:
  paths = ["{out}/mmlu_*.jsonl"]
  report_only = ["mmlu_stem", "mmlu_humanities", "mmlu_other"]  # the search sees mmlu_social_sciences""",
    "paper": """in [tasks] of climb.toml:
  paths = ["{out}/*.jsonl"]
  preset = "paper"  # PIQA, ARC-Easy and HellaSwag are optimised, the others reported
RACE and TruthfulQA are not in this suite: climb tasks lm-eval:race, climb tasks lm-eval:truthfulqa_mc1; name the
files race.jsonl and truthfulqa.jsonl""",
}


@click.command(cls=Command)
@click.argument(
    "source",
    help="mmlu: its four groups; paper: the paper's tasks; a folder or wheel with the suite's request files; "
    "lm-eval:TASK or lm-eval:FILE.yaml",
)
@click.argument("out", type=Path, help="folder to write TASK.jsonl into")
@click.option("--only", cls=Several, metavar="TASK ...", help="which tasks (default: all that are known)")
@click.option("--suite", type=Path, help="of mmlu and paper: the suite's folder or wheel (default: pip fetches it)")
def tasks(source: str, out: Path, only: tuple[str, ...], suite: Path | None) -> None:
    from openclimb.tasks.lm_eval import PREFIX, convert_harness
    from openclimb.tasks.olmes import SETS, convert, convert_set

    if suite and source not in SETS:
        raise ConfigError("--suite goes with mmlu and paper", f"name the suite itself: climb tasks {suite} {out}")
    if source in SETS:
        counts = convert_set(source, out, only, suite)
    elif source.startswith(PREFIX):
        counts = convert_harness([source.removeprefix(PREFIX)], out)
    else:
        counts = convert(Path(source), out, only)
    for name, n in counts.items():
        say(f"{name}: {n} items")
    if source in AFTER and not only:
        say(AFTER[source].format(out=out))
