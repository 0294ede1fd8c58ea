"""`climb init`: makes a workspace for a corpus, for domains given by hand, or from another workspace."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from openclimb.cli.options import Command, Several, assign, workspace
from openclimb.config.load import from_dict, parse_count
from openclimb.config.scales import SCALES
from openclimb.errors import ConfigError
from openclimb.printable import say

TWO_KINDS = "give either a corpus or a file of domains"


@dataclass(frozen=True)
class Given:
    """What the command line gives for a new workspace."""

    workspace: str
    corpus: tuple[str, ...]
    domains_file: Path | None
    tasks: tuple[str, ...]
    scale: str | None
    old: Path | None
    map: Path | None
    domains: str
    target_tokens: str
    assignments: tuple[str, ...]


@click.command(cls=Command)
@workspace
@click.option("--corpus", cls=Several, metavar="PATH ...", help="files, folders, globs or URLs of documents")
@click.option(
    "--domains-file", type=Path, metavar="CSV", help="instead of a corpus: domains by hand, columns name,tokens"
)
@click.option("--tasks", cls=Several, metavar="PATH ...", help="JSONL files or globs, one a task")
@click.option("--scale", type=click.Choice(list(SCALES)), help="presets all settings (default: laptop)")
@click.option(
    "--from",
    "old",
    type=Path,
    metavar="OLD",
    help="a workspace whose settings this one takes and whose trials inform its search; --corpus adds files to its",
)
@click.option(
    "--map",
    type=Path,
    metavar="CSV",
    help="with --from and --domains-file: which share of an old domain is in which new one, columns old,new,share",
)
@click.option("--domains", default="", metavar="WHAT", help='ready-made domains: "column:NAME" or "folders"')
@click.option("--target-tokens", default="", metavar="N", help="token budget of the target run, such as 40B")
@click.option(
    "--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", help="change a setting, as in climb.toml"
)
def init(**options: Any) -> None:
    given = Given(**options)
    say("\n".join(_new(given) if given.old is None else _from_old(given, given.old)))


def _new(given: Given) -> list[str]:
    """Make a workspace with the presets of a scale; return what to print."""
    from openclimb.api import create, create_custom
    from openclimb.corpus.custom_domains import SETTING, read_custom

    if given.map:
        raise ConfigError("--map says how old domains stand to new ones", "give the old workspace too: --from OLD")
    if bool(given.corpus) == bool(given.domains_file):
        raise ConfigError(
            f"{given.workspace}: {TWO_KINDS}",
            f"climb init {given.workspace} --corpus PATH, or --domains-file domains.csv for trials trained elsewhere",
        )
    raw = _with_inputs({"scale": given.scale or "laptop"}, given)
    if given.domains_file is None:
        opened = create(given.workspace, from_dict(raw))
        return [f"made {opened.workspace.config_path}", f"next: climb plan {given.workspace}"]
    raw["corpus"] = {"paths": [], "domains": SETTING}
    config = from_dict(raw)
    notes: list[str] = []
    opened = create_custom(given.workspace, config, read_custom(given.domains_file, config.target, notes.append))
    follow = f"run {given.workspace}" if config.objective.external else f"ask {given.workspace} -n 8"
    return [*notes, f"made {opened.workspace.config_path}", f"next: climb {follow}"]


def _from_old(given: Given, old: Path) -> list[str]:
    """Make a workspace with the settings of another one, which informs its search; return what to print."""
    from openclimb.api import create_from
    from openclimb.corpus.custom_domains import SETTING, read_custom
    from openclimb.search.transfer.collect import given_table
    from openclimb.workspace.records import Workspace

    before = Workspace(old).config()
    raw = tomllib.loads(Workspace(old).config_path.read_text(encoding="utf-8"))
    raw.pop("format", None)
    by_hand = bool(given.domains_file) or (before.corpus.domains.startswith("file:") and not given.corpus)
    if given.scale:
        raise ConfigError("--scale presets the settings that --from takes from OLD", "use --set section.key=value")
    if given.corpus and given.domains_file:
        raise ConfigError(f"{given.workspace}: {TWO_KINDS}", "climb init --help")
    if given.map and not by_hand:
        raise ConfigError(
            "--map is for domains given by hand; those of a corpus are mapped by its documents",
            "leave it out, or give the new domains with --domains-file",
        )
    _with_inputs(raw, given)
    if by_hand:
        raw["corpus"] |= {"paths": [], "domains": SETTING}
    config = from_dict(raw)
    notes: list[str] = []
    table = given.domains_file or given_table(old, before)
    domains = read_custom(table, config.target, notes.append) if by_hand else []
    opened, said = create_from(given.workspace, config, old, domains, given.map)
    follow = f"ask {given.workspace} -n 8" if by_hand else f"plan {given.workspace}"
    return [*notes, f"made {opened.workspace.config_path}", *said, f"next: climb {follow}"]


def _with_inputs(raw: dict[str, Any], given: Given) -> dict[str, Any]:
    """Add what the command line names to the settings, and return them."""
    corpus, tasks = raw.setdefault("corpus", {}), raw.setdefault("tasks", {})
    corpus["paths"] = [*corpus.get("paths", []), *map(_absolute, given.corpus)]
    tasks["paths"] = [*tasks.get("paths", []), *map(_absolute, given.tasks)]
    if given.domains or str(corpus.get("domains", "")).startswith("file:"):
        corpus["domains"] = given.domains
    if given.target_tokens:
        raw.setdefault("target", {})["token_budget"] = parse_count(given.target_tokens)
    assign(raw, given.assignments)
    return raw


def _absolute(path: str) -> str:
    """Return a local path as absolute, so that a workspace can be run from any folder; URLs stay."""
    return path if "://" in path else str(Path(path).expanduser().absolute())
