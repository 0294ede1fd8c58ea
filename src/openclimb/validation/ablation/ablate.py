"""`climb ablate`: settings of the search compared one at a time, as the paper's Table 3, with paired fresh seeds.

Reads a finished workspace, the base. Writes `ablations/`: a workspace for each variant (`variants.py`), trials/ of the
judge, ablations.json, ablations.csv and ablations.svg. What is done is not done again, to the trial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openclimb import pipeline, seeds
from openclimb.config.schema import Config
from openclimb.config.sizes import n_parameters
from openclimb.corpus.custom_domains import has_custom_domains, weighed_domains
from openclimb.engines.engine import Engine
from openclimb.errors import ConfigError, SearchError
from openclimb.mixture import effective_domains
from openclimb.objectives.run import read_items
from openclimb.progress import Progress, counted
from openclimb.recipes import current_recipes, stop_if_unfinished, trial_data
from openclimb.search.space.region import natural_mixture, uniform_mixture
from openclimb.stats.compare import Comparison, Margin, correct, read_scored
from openclimb.stats.intervals import Estimate
from openclimb.validation.ablation.table import BASE, AblationTable, Row, sentence, write_ablation
from openclimb.validation.ablation.variants import FOLDER, Over, at_home, make_variant, stages_to_make, variants_of
from openclimb.validation.compare import MOST_SEEDS, check_shape, search_budgets
from openclimb.validation.costs import Cost, Costs
from openclimb.validation.judge import Mixture, difference
from openclimb.validation.targets import Targets, check_tokenizer
from openclimb.workspace.damage import set_damaged_aside
from openclimb.workspace.files import fingerprint, read_json, sweep
from openclimb.workspace.records import Workspace
from openclimb.workspace.results import Objective, TargetModel, read_answer
from openclimb.workspace.trials import Trial, read_trials, reopen, weights_key

NATURAL, UNIFORM = "natural", "uniform"
VERSION = 1


@dataclass(frozen=True)
class Ablation:
    """What is compared: the values of each setting, and the judge's settings and seeds."""

    over: Over
    judge: Config  # the base's settings with the judge's shape and token budget in [proxy]
    seeds: int = 8


def check_ablation(plan: Ablation) -> None:
    """Raise ConfigError for a judge that cannot be used."""
    if not 2 <= plan.seeds <= MOST_SEEDS:
        raise ConfigError(f"{plan.seeds} seeds cannot judge", f"use 2 to {MOST_SEEDS}; 8 or more tell more")
    check_shape(plan.judge)


def cost(workspace: Workspace, plan: Ablation) -> dict[str, Cost]:
    """Return what an ablation takes: by variant, and its "judge". Changes nothing."""
    config = workspace.config()
    check_ablation(plan)
    variants = variants_of(config, plan.over, workspace.root)
    costs = Costs(workspace.root, config)
    found = {one.title: costs.of_run(one.config, stages_to_make(workspace, one)) for one in variants}
    return {**found, "judge": costs.of_targets(plan.judge, plan.seeds * (len(variants) + 3))}


def ablate(
    workspace: Workspace, plan: Ablation, engine: Engine, progress: Progress, *, redo: bool = False, retry: bool = False
) -> AblationTable:
    """Do what is not done yet of an ablation, write its table and return it.

    `redo`: variants of other settings than the present ones are moved aside. `retry`: trials that failed are tried
    again. Raises ConfigError for what cannot be compared, WorkspaceError where the base has no answer yet, StaleError
    where the base, or a variant without `redo`, is of other settings.
    """
    config = workspace.config()
    check_ablation(plan)
    variants = variants_of(config, plan.over, workspace.root)
    with workspace.hold(note=progress.note):
        sweep(workspace.root)
        recipes = current_recipes(workspace, config)
        stop_if_unfinished(workspace, config, recipes)
        check_tokenizer(workspace.root, plan.judge)
        out = workspace.root / FOLDER
        for said in set_damaged_aside(out / "trials"):
            progress.note(said)
        if retry:
            reopen(out / "trials", read_trials(out / "trials"))
        made: list[_Answer] = [_answer(BASE, "", "", workspace.root, config)]
        for i, variant in enumerate(variants):
            progress.note(f"variant {i + 1} of {len(variants)}: {variant.title}")
            there = make_variant(workspace, config, variant, variants[:i], redo)
            pipeline.run(there, engine, progress, retry=retry)
            made.append(_answer(variant.title, variant.factor, variant.value, there.root, variant.config))
        made += _baselines(workspace.root, config)
        table = _judged(workspace, plan, made, engine, progress)
        write_ablation(out, table)
    return table


@dataclass(frozen=True)
class _Answer:
    """A mixture of some workspace's domains, and what its search cost."""

    mixture: Mixture
    factor: str
    value: Any
    root: Path
    config: Config
    names: tuple[str, ...]
    content: str  # stands for the documents of the domains: answers of the same ones share the judge's tokens

    @property
    def key(self) -> tuple[str, tuple[float, ...]]:
        return self.content, weights_key(self.mixture.weights)


def _answer(name: str, factor: str, value: Any, root: Path, config: Config) -> _Answer:
    weights = read_answer(root).weights
    names = tuple(domain.name for domain in weighed_domains(root, config)[0])
    budgets = search_budgets(root, config, trial_data(current_recipes(Workspace(root), config)))
    mixture = Mixture(name, tuple(weights[one] for one in names), len(budgets), sum(budgets))
    return _Answer(mixture, factor, value, root, config, names, _content(root, config))


def _baselines(root: Path, config: Config) -> list[_Answer]:
    domains = weighed_domains(root, config)[0]
    names, content = tuple(domain.name for domain in domains), _content(root, config)
    found = {
        NATURAL: natural_mixture(domains, config.constraints),
        UNIFORM: uniform_mixture(domains, config.constraints),
    }
    return [
        _Answer(Mixture(name, tuple(weights.tolist())), "", "", root, config, names, content)
        for name, weights in found.items()
    ]


def _content(root: Path, config: Config) -> str:
    """Return what stands for the domains' documents: what they were made from and what came out, not how."""
    if has_custom_domains(config):
        return ""
    files = {name: kept["checksum"] for name, kept in read_json(root / "domains" / "record.json")["files"].items()}
    return fingerprint([read_json(root / "labels" / "record.json")["fingerprint"], files])


def _judged(
    workspace: Workspace, plan: Ablation, answers: Sequence[_Answer], engine: Engine, progress: Progress
) -> AblationTable:
    """Train every answer with the judge's settings and fresh seeds, and compare."""
    out, config, trials = workspace.root / FOLDER, workspace.config(), dict[str, list[Trial]]()
    settings = at_home(plan.judge, workspace.root)
    fresh = seeds.targets(config.seed, plan.seeds)
    for content in dict.fromkeys(one.content for one in answers):
        group = [one for one in answers if one.content == content]
        home = next((one for one in group if _fits(one.config, plan.judge)), group[0])
        data = trial_data(current_recipes(Workspace(home.root), home.config))
        targets = Targets(home.root, home.config, data, out, engine, progress, exact=True)
        first = {one.key: one.mixture for one in reversed(group)}
        label = f"judge of {counted(len(first), 'mixtures')}"
        trials |= targets.with_seeds(settings, list(first.values()), fresh, FOLDER, label)
        targets.clear()
    return _table(workspace, plan, answers, trials)


def _fits(config: Config, judge: Config) -> bool:
    """Return whether a workspace's tokens and task items are those that the judge reads."""

    def read(one: Config) -> tuple[Any, ...]:
        tasks = one.tasks
        return one.proxy.token_budget, one.proxy.sequence, tasks.paths, tasks.report_only, tasks.max_items

    return read(config) == read(judge)


def _table(
    workspace: Workspace, plan: Ablation, answers: Sequence[_Answer], trials: Mapping[str, list[Trial]]
) -> AblationTable:
    root, config = workspace.root, workspace.config()
    found = read_answer(root)
    share, metric = found.objective.tasks, config.tasks.metric
    first = {one.key: one.mixture.name for one in reversed(answers)}
    lost = [name for name in dict.fromkeys(first.values()) if not trials[name]]
    if lost:
        raise SearchError(
            f"no trial of {', '.join(lost)} has scores", f"see failure.json in {root / FOLDER / 'trials'}; then --retry"
        )
    items = read_items(root / FOLDER / "trials", [trial for some in trials.values() for trial in some])
    scored = [read_scored(name, trials[name], items, share, metric, "report") for name in dict.fromkeys(first.values())]
    compared = Comparison(scored, share, config.seed)
    at = {one.name: i for i, one in enumerate(scored)}
    # our margin is the base's minus the other's; the table has the other's minus the base's
    margins = correct({name: compared.margin(at[BASE], i) for name, i in at.items() if name != BASE})
    estimates = {name: compared.score(i) for name, i in at.items()}
    by_seed = {one.name: list(one.by_seed(share).values()) for one in scored}
    rows = [_row(one, first[one.key], estimates, by_seed, margins) for one in answers]
    size = None
    if not config.objective.external:
        shape = plan.judge.proxy
        size = n_parameters(shape.width, shape.depth, read_json(root / "tokens" / "domains.json")["vocab_size"])
    judge = TargetModel(size, plan.judge.proxy.token_budget)
    n_seeds = min(len(one.seeds) for one in scored)
    asked = {"over": {name: list(values) for name, values in plan.over.items()}, "seeds": plan.seeds}
    said = sentence(rows, judge, n_seeds, size is not None)
    return AblationTable(VERSION, asked, judge, size is not None, Objective(metric, share), n_seeds, rows, said)


def _row(
    answer: _Answer,
    judged: str,
    scores: Mapping[str, Estimate],
    by_seed: Mapping[str, list[float]],
    margins: Mapping[str, Margin],
) -> Row:
    """Return the row of an answer; `judged` is the first one with its mixture, whose trials count."""
    mixture, score = answer.mixture, scores[judged]
    return Row(
        name=mixture.name,
        factor=answer.factor,
        value=answer.value,
        domains=len(answer.names),
        effective_domains=effective_domains(np.array(mixture.weights)),
        search_trials=mixture.search_trials,
        search_tokens=mixture.search_tokens,
        score=score.mean,
        interval=score.interval,
        by_seed=by_seed[judged],
        difference=difference(margins[judged]) if mixture.name in margins else None,
        same_as=judged if judged != mixture.name else "",
        weights=dict(zip(answer.names, mixture.weights, strict=True)),
    )
