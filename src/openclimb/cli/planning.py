"""`climb plan` and `climb status`: what a run will do and cost, and how far it is. Reads only; holds nothing."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openclimb.cli.preflight import preflight
from openclimb.clustering.prune_limits import prune_limits
from openclimb.clustering.trust.result import trust_facts
from openclimb.config.load import format_count, parse_count
from openclimb.config.schema import Config
from openclimb.corpus.contamination import overlap_sentence, task_overlap
from openclimb.corpus.custom_domains import custom_domains, has_custom_domains
from openclimb.corpus.duplicates import duplicate_shares, duplicates_sentence
from openclimb.corpus.left_out import finds_duplicates
from openclimb.corpus.tokenizer import describe_ends
from openclimb.errors import ConfigError
from openclimb.masking import masked_words
from openclimb.planning.machine import machine_of
from openclimb.planning.plan import Plan, make_plan, plan_facts
from openclimb.planning.real import real
from openclimb.planning.work import by_hand, given_size
from openclimb.recipes import current_recipes
from openclimb.search.selection.halving import UNIFORM_SEEDS, most_trials
from openclimb.search.transfer.store import transfer_facts
from openclimb.workspace.files import free_bytes
from openclimb.workspace.records import STAGES, Workspace
from openclimb.workspace.trials import read_trials


@dataclass(frozen=True)
class Asked:
    """What a plan is asked for: another machine than this one, a corpus that cannot be listed yet."""

    gpus: int = 0
    gpu: str = ""
    cores: int = 0
    documents: str = ""
    n_bytes: str = ""


HERE = Asked()


def plan(root: Path, asked: Asked = HERE) -> dict[str, Any]:
    """Return what `climb run` would do, read, train and cost. Checks the settings, inputs and tasks.

    Raises what the run itself would, before anything is made; where several things are wrong, one error with all.
    """
    workspace = Workspace(root)
    config = workspace.config()
    documents, n_bytes = (parse_count(text) if text else 0 for text in (asked.documents, asked.n_bytes))
    given = given_size(documents, n_bytes) if documents or n_bytes else None
    if given and has_custom_domains(config):
        raise ConfigError(f"{root} has no corpus: its domains are given by hand", "leave out --documents and --bytes")
    done = frozenset(stage for stage in STAGES if (workspace.folder(stage) / "record.json").is_file())
    inputs, tasks = preflight(root, config, done, listed=given is None)
    machine = machine_of(config.run.workers, config.run.device, asked.gpus, asked.gpu, asked.cores)
    took = real(root, config, machine.cores)
    made = make_plan(root, config, tasks, machine, given, took)
    return {
        "workspace": str(root),
        "scale": config.scale,
        "inputs": inputs,
        "tasks": {name: {part: size.items for part, size in parts.items()} for name, parts in tasks.items()},
        "tokenizer": {} if config.objective.external or has_custom_domains(config) else _tokenizer(config),
        "stages": [] if given else _stages(workspace, config),
        "trials": _trials(config, made),
        "overlap": dict(made.overlap),
        "plan": plan_facts(made, took.seconds if machine.here and not given else {}),
        "by_hand": by_hand(config),
        "objective": config.objective.resolved,
        "command": masked_words(config.objective.command),
        "transfer": transfer_facts(root),
        "free_disk_bytes": free_bytes(root),
    }


def status(root: Path) -> dict[str, Any]:
    """Return the state of every stage and trial, who holds the workspace, and the next command."""
    workspace = Workspace(root)
    config = workspace.config()
    given = has_custom_domains(config)
    one_by_one = by_hand(config)
    stages = [] if one_by_one else _stages(workspace, config, network=False)
    trials = read_trials(root / "trials")
    count = {state: sum(trial.state == state for trial in trials) for state in ("done", "waiting", "failed")}
    running = sum((root / "trials" / f"{trial.number:04d}" / "claim.json").exists() for trial in trials)
    holder = workspace.holder()
    overlap = task_overlap(root) if (how := config.tasks.contamination) != "off" and not given else []
    duplicates = duplicate_shares(root) if finds_duplicates(config) else {}
    stale = [row["stage"] for row in stages if row["state"] == "stale"]
    if holder:
        command = f"climb status {root}"
    elif one_by_one:
        waiting = next((trial.number for trial in trials if trial.state == "waiting"), 0)
        command = f"climb tell {root} {waiting} FILE" if waiting else f"climb ask {root} -n 8"
        command = f"climb best {root}" if count["done"] else command
    elif stale:
        command = f"climb run {root} --redo {stale[0]}"
    elif stages[-1]["state"] == "done" and given:
        command = f"climb report {root}"
    elif stages[-1]["state"] == "done":
        command = f"climb export {root} --tokens {format_count(config.target.token_budget)} --out FOLDER"
    else:
        command = f"climb run {root}"
    return {
        "workspace": str(root),
        "held_by": holder,
        "domains_given": len(custom_domains(root, config)) if given else 0,
        "by_hand": one_by_one,
        "stages": stages,
        "trials": {**count, "running": running if holder else 0},
        "waiting": [trial.number for trial in trials if trial.state == "waiting"],
        "overlap": overlap,
        "contamination": overlap_sentence(overlap, how) if overlap else "",
        "duplicates": duplicates,
        "duplicates_sentence": duplicates_sentence(duplicates, config.corpus.dedup) if duplicates else "",
        "trust": trust_facts(root),
        "pruning": asdict(limits) if (limits := prune_limits(root)) else {},
        "transfer": transfer_facts(root),
        "failures": [{"trial": trial.number, "message": trial.failure} for trial in trials if trial.state == "failed"],
        "next": command,
    }


def _tokenizer(config: Config) -> dict[str, str]:
    """Return which tokens stand around a document for a tokenizer of the user's; nothing for one that is trained."""
    folder = Path(config.proxy.checkpoint).expanduser()
    path = folder / "tokenizer.json" if config.proxy.checkpoint else Path(config.tokens.tokenizer).expanduser()
    if config.proxy.checkpoint and not folder.is_dir():  # of a hub, and not fetched for a plan
        return {}
    return describe_ends(path) if config.proxy.checkpoint or config.tokens.tokenizer else {}


def _stages(workspace: Workspace, config: Config, *, network: bool = True) -> list[dict[str, Any]]:
    rows = []
    for stage, recipe in current_recipes(workspace, config, network=network).items():
        state = workspace.state(recipe)
        rows.append({"stage": stage, "state": state.state, "seconds": state.seconds, "differs": list(state.differs)})
    return rows


def _trials(config: Config, made: Plan) -> dict[str, Any]:
    """Return the trials and what each of them is."""
    counts = {row.stage: row.trials for row in made.rows}
    return {
        "search": counts["search"],
        "replicates": config.search.replicates,
        "iterations": len(config.search.trials),
        "selection": most_trials(config.selection) if "selection" in counts else 0,
        "finalists": config.selection.finalists,
        "seeds": config.selection.seeds,
        "uniform_seeds": min(UNIFORM_SEEDS, config.selection.seeds),
        "parameters": made.job.proxy.parameters,
        "token_budget": config.proxy.token_budget,
        "flops": sum(row.flops for row in made.rows if row.trials),
    }
