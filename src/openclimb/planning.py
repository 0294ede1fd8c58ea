"""`climb plan` and `climb status`: what a run will do and cost, and how far it is. Reads only; holds nothing."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.config import format_count
from openclimb.console import counted
from openclimb.corpus.survey import check_inputs
from openclimb.engine import n_cores
from openclimb.given import given_domains, has_given_domains, stop_without_corpus
from openclimb.prior import prior_facts, prior_sentence
from openclimb.proxy.tasks import check_tasks
from openclimb.search.rounds import most_trials
from openclimb.settings import Config, ProxySettings
from openclimb.stages import current_recipes
from openclimb.trials import read_trials
from openclimb.workspace import Workspace, free_bytes

CPU_SHARE = 0.45  # of the plain matmul rate that training a small proxy reaches (bench/proxy.py)


def plan(root: Path) -> dict[str, Any]:
    """Return what `climb run` would do, read, train and cost. Checks the settings, inputs and tasks.

    Raises InputError, ConfigError as the run itself would, before anything is made.
    """
    workspace = Workspace(root)
    config = workspace.config()
    external = config.objective.external
    if not external:
        stop_without_corpus(root, config)
    inputs = {} if has_given_domains(config) else check_inputs(config.corpus)
    tasks = {} if external and not config.tasks.paths else check_tasks(config.tasks)
    return {
        "workspace": str(root),
        "scale": config.scale,
        "inputs": inputs,
        "tasks": tasks,
        "stages": _stages(workspace, config),
        "trials": _trial_costs(config),
        "objective": config.objective.resolved,
        "command": list(config.objective.command),
        "prior": prior_facts(root),
        "free_disk_bytes": free_bytes(root),
    }


def status(root: Path) -> dict[str, Any]:
    """Return the state of every stage and trial, who holds the workspace, and the next command."""
    workspace = Workspace(root)
    config = workspace.config()
    given = has_given_domains(config)
    by_hand = given and not config.objective.external  # asked and told one by one
    stages = [] if by_hand else _stages(workspace, config)
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
        "domains_given": len(given_domains(root, config)) if given else 0,
        "told_by_hand": by_hand,
        "stages": stages,
        "trials": {**count, "running": running if holder else 0},
        "waiting": [trial.number for trial in trials if trial.state == "waiting"],
        "prior": prior_facts(root),
        "failures": [{"trial": trial.number, "message": trial.failure} for trial in trials if trial.state == "failed"],
        "next": command,
    }


def n_parameters(proxy: ProxySettings, vocab_size: int) -> int:
    """Return the parameters of a proxy: embeddings (tied), attention 4·w², SwiGLU 3·w·(8/3)w, norms."""
    return vocab_size * proxy.width + proxy.depth * (12 * proxy.width**2 + 2 * proxy.width) + proxy.width


def _more(costs: Mapping[str, Any]) -> str:
    """Return the trials that measure the noise, in words."""
    return f" and {costs['replicates']} of the natural mixture for the noise" if costs["replicates"] else ""


def plan_text(facts: Mapping[str, Any]) -> str:
    """Return the plan as people read it."""
    inputs, costs = facts["inputs"], facts["trials"]
    lines = [
        f"{facts['workspace']} · scale {facts['scale']}",
        "",
        f"reads     {counted(inputs['files'], 'files')}, {_size(inputs['bytes'])}; never copied or changed"
        if inputs
        else "reads     nothing: the domains are given by hand",
        *(
            f"task      {name}: {task['search']:,} search items, {task['report']:,} report items"
            for name, task in facts["tasks"].items()
        ),
        f"trains    {costs['search']} search trials in {costs['iterations']} iterations{_more(costs)}, "
        f"at most {costs['pick']} to pick: {counted(costs['finalists'], 'finalists')}, natural and uniform in up to "
        f"{counted(costs['seeds'], 'rounds')}, then the best and natural × {costs['seeds']} fresh seeds, "
        f"uniform × {costs['uniform_seeds']}",
        *_prior_lines(facts["prior"]),
        *_cost_lines(facts),
        f"free disk {_size(facts['free_disk_bytes'])}",
        "",
        *_stage_lines(facts["stages"]),
    ]
    return "\n".join(lines)


def _cost_lines(facts: Mapping[str, Any]) -> list[str]:
    costs = facts["trials"]
    if facts["objective"] != "proxy":
        what = " ".join(facts["command"]) if facts["objective"] == "command" else facts["objective"]
        return [f"          by {what}, {format_count(costs['token_budget'])} tokens each"]
    return [
        f"          {costs['parameters'] / 1e6:.2g}M parameters × {format_count(costs['token_budget'])} tokens each, "
        f"{costs['flops']:.2g} FLOPs in all",
        f"costs     about {_hours(costs['core_hours'])} of training on {counted(costs['cores'], 'cores')} "
        "of this machine",
    ]


def status_text(facts: Mapping[str, Any]) -> str:
    """Return the status as people read it."""
    trials = facts["trials"]
    given = facts["domains_given"]
    lines = [f"domains   {given} given by hand; no corpus"] if given else []
    if facts["stages"]:
        lines += [*_stage_lines(facts["stages"]), ""]
    lines.append("trials    " + ", ".join(f"{n} {state}" for state, n in trials.items() if n or state == "done"))
    if facts["told_by_hand"] and facts["waiting"]:  # told one by one, so that it matters which are missing
        lines.append(f"waiting   for the scores of {', '.join(map(str, facts['waiting']))}")
    lines += _prior_lines(facts["prior"])
    lines += [f"          trial {row['trial']} failed: {row['message']}" for row in facts["failures"]]
    if facts["held_by"]:
        lines.append(f"running   held by {facts['held_by']}")
    return "\n".join([*lines, f"next      {facts['next']}"])


def answer_text(answer: Mapping[str, Any]) -> str:
    """Return the answer as people read it: the sentence, what is believed, the weights, the report items beside the
    baselines, the rounds.
    """
    what = "on report items" if answer.get("has_items", True) else "scores"
    names = [row["name"] for row in (*answer["domains"], *answer["mixtures"])]
    width = max(map(len, [what, *names, *(f"found − {name}" for name in answer["margins"])]))
    lines = [answer["sentence"], *_outlook_lines(answer), "", *_weight_lines(answer, width)]
    lines += ["", f"{what:<{width}}     mean  95% interval"]
    for mixture in answer["mixtures"]:
        low, high = mixture["report"]["interval"]
        lines.append(f"{mixture['name']:<{width}}  {mixture['report']['mean']:+.4f}  [{low:+.4f}, {high:+.4f}]")
    for name, margin in answer["margins"].items():
        low, high = margin["interval"]
        lines.append(f"{'found − ' + name:<{width}}  {margin['mean']:+.4f}  [{low:+.4f}, {high:+.4f}]")
    for i, one in enumerate(answer["rounds"], 1):
        ahead = one["left"][0]
        out = f"; out: {', '.join(one['dropped'])}" if one["dropped"] else ""
        lines.append(f"round {i}: {ahead} is the best with {one['probability_best'][ahead]:.0%}{out}")
    return "\n".join(lines)


def export_text(facts: Mapping[str, Any], out: Path) -> str:
    """Return what an export wrote as people read it: the shares asked for and realised, and where it is."""
    width = max(len(row["name"]) for row in facts["domains"])
    lines = [f"{'domain':<{width}}  asked for  realised  repetitions"]
    lines += [
        f"{row['name']:<{width}}  {row['weight']:9.2%}  {row['realised']:8.2%}  {row['repetitions']:11.2f}"
        for row in sorted(facts["domains"], key=lambda row: -row["weight"])
    ]
    lines += [
        "",
        f"{counted(facts['documents'], 'documents')}, {facts['tokens']:,} tokens, {_size(facts['text_bytes'])} of text "
        f"in {counted(len(facts['shards']), 'shards')}: {out}",
        f"largest difference between a realised share and the one asked for: {facts['largest_difference']:.3%}"
        + ("" if facts["within_tolerance"] else ", more than 0.1%: documents are too long for so small a token budget"),
    ]
    return "\n".join(lines)


def best_text(answer: Mapping[str, Any]) -> str:
    """Return the best expected mixture as people read it: what it promises, its weights, and which of them matter."""
    width = max(6, *(len(row["name"]) for row in answer["domains"]))
    lines = [
        *_outlook_lines(answer),
        f"from {counted(answer['trials'], 'trials')}{_old(answer)}; the natural mixture is expected at "
        f"{answer['expected_natural']:+.4f}",
        *(["a forecast from all trials; what the finalists' contest chose is in mixture/"] if answer["tested"] else []),
        *(
            f"{row['task']} is expected at {row['expected']:+.4f}, and at least {row['least']:+.4f} with probability "
            f"{row['probability']:.0%}"
            for row in answer["at_least"]
        ),
        "",
        *_weight_lines(answer, width),
    ]
    return "\n".join(lines)


def front_text(facts: Mapping[str, Any], shown: int = 4) -> str:
    """Return the front of two goals as people read it: expected scores ± half an 80 % interval, the largest weights."""
    goals = list(facts["goals"])
    rows = [("", *goals, "effective domains", "largest weights")]
    for i, point in enumerate(facts["points"], 1):
        cells = []
        for goal in goals:
            low, high = point["interval_80"][goal]
            cells.append(f"{point['expected'][goal]:+.4f} ± {(high - low) / 2:.4f}")
        largest = sorted(point["weights"].items(), key=lambda item: -item[1])[:shown]
        weights = ", ".join(f"{name} {weight:.0%}" for name, weight in largest if weight > 0)
        rows.append((str(i), *cells, f"{point['effective_domains']:.1f}", weights))
    rows.append(("", *(f"{facts['natural'][goal]:+.4f}" for goal in goals), "", "the natural mixture"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    n = len(facts["points"])
    what = (
        f"{counted(n, 'mixtures')} that no mixture is expected to beat in both goals"
        if n > 1
        else "one mixture is best"
    )
    tail = "" if n > 1 else " in both goals: they do not conflict"
    return "\n".join([f"{what}{tail}, by {counted(facts['trials'], 'trials')}{_old(facts)}", "", *lines])


def _outlook_lines(answer: Mapping[str, Any]) -> list[str]:
    low, high = answer["interval_80"]
    chance = f", the best of those compared with {answer['probability_best']:.0%}" if "rounds" in answer else ""
    where = " on search items" if answer.get("has_items", True) else ""
    return [
        f"expected score {answer['expected']:+.4f}{where} (80% interval {low:+.4f} to {high:+.4f}){chance}",
        f"{answer['distance']:.1%} of the weight away from the nearest trial ({answer['nearest_trial']}); "
        f"{answer['effective_domains']:.1f} effective domains",
    ]


def _weight_lines(answer: Mapping[str, Any], width: int) -> list[str]:
    """Return a line a domain: weight, natural share, repetitions, and what the expected score loses without some."""
    lines = [f"{'domain':<{width}}  weight  natural  repetitions  loss of moving 5 points to the others"]
    lines += [
        f"{row['name']:<{width}}  {row['weight']:6.1%}  {row['natural']:7.1%}  {row['repetitions']:11.2f}  "
        + (f"{row['loss']:+.4f}" if row["moved"] else "–")
        for row in sorted(answer["domains"], key=lambda row: -row["weight"])
    ]
    return lines


def _old(answer: Mapping[str, Any]) -> str:
    return f" and {answer['old_trials']} old ones" if answer["old_trials"] else ""


def _prior_lines(facts: Mapping[str, Any]) -> list[str]:
    return [f"          {prior_sentence(facts)}"] if facts else []


def _stages(workspace: Workspace, config: Config) -> list[dict[str, Any]]:
    rows = []
    for stage, recipe in current_recipes(workspace, config).items():
        state = workspace.state(recipe)
        rows.append({"stage": stage, "state": state.state, "seconds": state.seconds, "differs": list(state.differs)})
    return rows


def _stage_lines(stages: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in stages:
        spent = f"  {row['seconds']:,.0f} s" if row["state"] == "done" else ""
        lines.append(f"{row['stage']:<9} {row['state']}{spent}")
        lines += [f"            {line}" for line in row["differs"]]
    return lines


def _trial_costs(config: Config) -> dict[str, Any]:
    n_search = sum(config.search.trials)
    n_pick = most_trials(config.pick)
    parameters = _n_parameters(config)
    flops = 6.0 * parameters * config.proxy.token_budget * (n_search + n_pick + config.search.replicates)
    cores = config.run.workers or n_cores()
    return {
        "search": n_search,
        "replicates": config.search.replicates,
        "iterations": len(config.search.trials),
        "pick": n_pick,
        "finalists": config.pick.finalists,
        "seeds": config.pick.seeds,
        "uniform_seeds": min(config.pick.uniform_seeds, config.pick.seeds),
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
    return n_parameters(config.proxy, config.tokens.vocab_size)


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


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return ""


def _hours(hours: float) -> str:
    return counted(max(1, round(hours * 60)), "minutes") if hours < 2 else counted(round(hours), "hours")
