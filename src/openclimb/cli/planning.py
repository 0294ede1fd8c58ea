"""`climb plan` and `climb status`: what a run will do and cost, and how far it is. Reads only; holds nothing."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.cli.preflight import preflight
from openclimb.config.load import format_count
from openclimb.config.schema import Config
from openclimb.config.sizes import n_parameters
from openclimb.corpus.custom_domains import custom_domains, has_custom_domains, stop_without_corpus
from openclimb.corpus.tokenizer import describe_ends
from openclimb.engines.local import n_cores
from openclimb.masking import masked_words
from openclimb.recipes import current_recipes
from openclimb.search.selection.halving import UNIFORM_SEEDS, most_trials
from openclimb.search.transfer.store import transfer_facts
from openclimb.workspace.files import free_bytes
from openclimb.workspace.records import STAGES, Workspace
from openclimb.workspace.trials import read_trials

CPU_SHARE = 0.45  # of the plain matmul rate that training a small proxy reaches (bench/proxy.py)


def plan(root: Path) -> dict[str, Any]:
    """Return what `climb run` would do, read, train and cost. Checks the settings, inputs and tasks.

    Raises what the run itself would, before anything is made; where several things are wrong, one error with all.
    """
    workspace = Workspace(root)
    config = workspace.config()
    if not config.objective.external:
        stop_without_corpus(root, config)
    done = frozenset(stage for stage in STAGES if (workspace.folder(stage) / "record.json").is_file())
    inputs, tasks = preflight(root, config, done)
    return {
        "workspace": str(root),
        "scale": config.scale,
        "inputs": inputs,
        "tasks": tasks,
        "tokenizer": {} if config.objective.external else _tokenizer(config),
        "stages": _stages(workspace, config),
        "trials": _trial_costs(config),
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
    by_hand = given and not config.objective.external  # asked and completed one by one
    stages = [] if by_hand else _stages(workspace, config, network=False)
    trials = read_trials(root / "trials")
    count = {state: sum(trial.state == state for trial in trials) for state in ("done", "waiting", "failed")}
    running = sum((root / "trials" / f"{trial.number:04d}" / "claim.json").exists() for trial in trials)
    holder = workspace.holder()
    stale = [row["stage"] for row in stages if row["state"] == "stale"]
    if holder:
        command = f"climb status {root}"
    elif by_hand:
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
        "by_hand": by_hand,
        "stages": stages,
        "trials": {**count, "running": running if holder else 0},
        "waiting": [trial.number for trial in trials if trial.state == "waiting"],
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


def _trial_costs(config: Config) -> dict[str, Any]:
    n_search = sum(config.search.trials)
    n_pick = most_trials(config.selection)
    parameters = _n_parameters(config)
    flops = 6.0 * parameters * config.proxy.token_budget * (n_search + n_pick + config.search.replicates)
    cores = config.run.workers or n_cores()
    return {
        "search": n_search,
        "replicates": config.search.replicates,
        "iterations": len(config.search.trials),
        "selection": n_pick,
        "finalists": config.selection.finalists,
        "seeds": config.selection.seeds,
        "uniform_seeds": min(UNIFORM_SEEDS, config.selection.seeds),
        "parameters": parameters,
        "token_budget": config.proxy.token_budget,
        "flops": flops,
        "cores": cores,
        "core_hours": flops / (_matmul_rate() * CPU_SHARE * cores) / 3600,
    }


def _n_parameters(config: Config) -> int:
    """Return the parameters of a proxy; those of a checkpoint in a local folder, which is checked here too."""
    folder = Path(config.proxy.checkpoint).expanduser()
    if config.proxy.checkpoint and folder.is_dir():
        from openclimb.proxy.checkpoint import read_checkpoint, shaped

        shaped(config.proxy)
        return read_checkpoint(folder).n_parameters
    return n_parameters(config.proxy.width, config.proxy.depth, config.tokens.vocab_size)


def _matmul_rate() -> float:
    """Return the floating-point operations a second of one plain matrix product here (a few milliseconds' look)."""
    matrix = np.ones((512, 512), dtype=np.float32)
    matrix @ matrix
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - began)
    return 2 * 512.0**3 / best / n_cores()
