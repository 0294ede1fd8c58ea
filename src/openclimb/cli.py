"""The command `climb`: does what the options (`options.py`) ask for and prints. Only here is OpenclimbError caught.

Nothing heavy is imported before a command needs it, so that `climb --help` answers at once.
"""

import argparse
import errno
import json
import signal
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from openclimb.config import format_count, from_dict, parse_count
from openclimb.console import choose_progress, counted
from openclimb.errors import ConfigError, MissingDependency, OpenclimbError, SearchError
from openclimb.options import Command, build_parser
from openclimb.settings import SECTIONS

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 error, 2 usage, 130 interrupted."""
    options = build_parser(COMMANDS).parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)  # what Slurm and Kubernetes send first
    try:
        command: Command = options.command
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
            f"--set {assignment} is not understood", "write --set section.key=value, such as proxy.size=2M"
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
        answer = opened.run(progress, options.redo, retry=options.retry)
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
    from openclimb.planning import status

    opened = openclimb.open(options.workspace)
    print(opened.report())
    stale = [row["stage"] for row in status(opened.workspace.root)["stages"] if row["state"] == "stale"]
    if stale:
        print(
            f"note: {', '.join(stale)} are of other settings or inputs than the present ones: climb status says which"
        )
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
        table = opened.validate(against, options.seeds, target, progress, redo=options.redo, retry=options.retry)
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

    opened = openclimb.open(options.workspace)
    if (options.failed is None) == (options.scores is None):
        raise SearchError(f"trial {options.trial}: give a file of scores, or --failed MESSAGE", "climb tell --help")
    if options.scores and not options.scores.is_file():
        raise SearchError(f"{options.scores} is missing", 'write the scores into it: {"task": 0.5}')
    if options.failed is not None:
        opened.tell_failed(options.trial, options.failed)
    else:
        try:
            scores = json.loads(options.scores.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise SearchError(f"{options.scores} is not JSON: {error}", '{"task": 0.5}') from None
        opened.tell(options.trial, scores)
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
    print(f"{counted(len(trials), 'runs')}, {new} of them new: trials {trials[0].number} to {trials[-1].number}")
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


COMMANDS: dict[str, Command] = {
    "init": _init,
    "plan": _plan,
    "run": _run,
    "status": _status,
    "report": _report,
    "export": _export,
    "validate": _validate,
    "ask": _ask,
    "tell": _tell,
    "best": _best,
    "import": _import,
    "tasks": _tasks,
}

if __name__ == "__main__":
    sys.exit(main())
