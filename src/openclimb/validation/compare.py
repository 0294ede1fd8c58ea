"""`climb validate`: the found mixture as a target beside what people would use instead, at equal search compute.

Reads mixture/, domains/, tokens/, trials/. Writes `validation/`: trials/ (the searches of the others, their proxies and
the targets, by the protocol of `trials.py`), doremi.json, validation.json, validation.csv and, last, record.json. What
is done is not done again; trials of an earlier validation that still fit are used again.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from openclimb import seeds
from openclimb.baselines.baseline import answer_of, find_baseline
from openclimb.config.load import recorded_settings, with_changes
from openclimb.config.registry import names
from openclimb.config.schema import Config
from openclimb.config.sizes import n_parameters, rate_at
from openclimb.engines.engine import Engine
from openclimb.errors import ConfigError, SearchError, StaleError
from openclimb.mixture import Weights
from openclimb.objectives.run import read_items
from openclimb.progress import Progress
from openclimb.proxy.checkpoint import shaped
from openclimb.recipes import current_recipes, stop_if_unfinished, trial_data
from openclimb.search.acquisition.spec import spec_of
from openclimb.search.propose import next_batch
from openclimb.search.space.region import bend, region_of, rounded
from openclimb.validation.judge import FOUND, Mixture, judge, sentence, table_csv
from openclimb.validation.targets import Targets, check_tokenizer
from openclimb.workspace.context import StageContext
from openclimb.workspace.damage import set_damaged_aside
from openclimb.workspace.files import fingerprint, read_json, sweep, write_json, write_text
from openclimb.workspace.observations import observed
from openclimb.workspace.records import Recipe, Workspace, trial_settings
from openclimb.workspace.results import Objective, TargetModel, Validation, read_answer, write_validation
from openclimb.workspace.trials import Proposal, Trial, read_trials, reopen

STAGE = "validation"
VERSION = 2
BASELINES = names("baseline")
DEFAULT = tuple(name for name in BASELINES if name != "doremi")  # it trains two models of the target's length

MOST_SEEDS = 400  # as of selection.seeds


@dataclass(frozen=True)
class Plan:
    """What is validated: the target's settings, the baselines, the seeds."""

    target: Config  # the workspace's settings with the target's shape and token budget in [proxy]
    against: tuple[str, ...] = ()  # empty: those of DEFAULT that as many trials as ours suffice for
    seeds: int = 3
    left_out: tuple[str, ...] = ()  # of DEFAULT: those that as many trials as ours are too few for


def target_of(config: Config, given: Mapping[str, Any]) -> Config:
    """Return a workspace's settings with those of [proxy] that its target has otherwise.

    Another width brings its own learning rate, as width^-1.5, unless one is given or all starts from a checkpoint.
    """
    changed = with_changes(config, {"proxy": dict(given)})
    if "width" in given and not config.proxy.checkpoint and not {"size", "learning_rate"} & set(given):
        rate = rate_at(changed.proxy.width, config.proxy.learning_rate, config.proxy.width)
        changed = replace(changed, proxy=replace(changed.proxy, learning_rate=rate))
    return changed


def least_trials(name: str) -> int:
    """Return how many trials a baseline needs at least: fewer leave its trees, in any of its rounds, a constant."""
    return find_baseline(name).least_trials()


def search_budgets(root: Path, config: Config, data: str) -> list[int]:
    """Return the tokens of each trial that our own search cost, on tokens of the fingerprint `data`.

    These are its trials, those of the rounds, and the answer's own of the claim.
    """
    trials = read_trials(root / "trials", data)
    budgets = [trial.token_budget for trial in trials if trial.role == "search" and trial.state != "waiting"]
    answer = read_answer(root)
    chosen = next(one for one in answer.mixtures if one.name == answer.choice)
    n_selected = sum(len(one.expected) for one in answer.rounds) + len(chosen.seeds)
    return budgets + [config.proxy.token_budget] * n_selected


def check_plan(plan: Plan, config: Config) -> None:
    """Raise ConfigError for a plan that cannot be carried out."""
    for name in plan.against:
        if find_baseline(name).own_run and config.objective.external:
            raise ConfigError(
                f"{name} weighs losses of the local proxy, and trials are scored by another trainer", "leave it out"
            )
    if len(set(plan.against)) < len(plan.against):
        raise ConfigError("the baselines must be named once each", "--against natural,uniform")
    if plan.seeds < 2:
        raise ConfigError(f"{plan.seeds} seeds cannot tell a difference from noise", "use 3 or more")
    if plan.seeds > MOST_SEEDS:
        raise ConfigError(f"{plan.seeds:,} seeds are too many targets of each mixture", f"use at most {MOST_SEEDS}")
    check_shape(plan.target)


def check_shape(target: Config) -> None:
    """Raise ConfigError for a target whose width cannot be divided among its heads."""
    proxy = shaped(target.proxy)
    if proxy.width % proxy.heads or proxy.width // proxy.heads % 2:
        raise ConfigError(
            f"proxy.width = {proxy.width} must be an even multiple of proxy.heads = {proxy.heads}", "--set both"
        )


def validate(
    workspace: Workspace, plan: Plan, engine: Engine, progress: Progress, redo: bool = False, *, retry: bool = False
) -> Path:
    """Do what is not done yet of a validation and return its folder.

    `redo`: a table of other settings is moved aside first; its trials that still fit are used again. `retry`: trials
    that failed in earlier runs are tried again. Raises ConfigError for a plan that cannot be carried out,
    WorkspaceError when there is no answer yet, StaleError when the answer or the table is of other settings.
    """
    config = workspace.config()
    check_plan(plan, config)
    with workspace.hold(note=progress.note):
        sweep(workspace.root)
        for said in set_damaged_aside(workspace.root / f"{STAGE}.partial" / "trials"):
            progress.note(said)
        recipes = current_recipes(workspace, config)
        stop_if_unfinished(workspace, config, recipes)
        check_tokenizer(workspace.root, plan.target)
        workspace.recover(STAGE)
        n = len(search_budgets(workspace.root, config, trial_data(recipes)))
        plan = _whole(plan, n)
        recipe = validation_recipe(plan, recipes["mixture"])
        state = workspace.state(recipe)
        if state.state == "stale" and not redo:
            listed = "\n".join(f"  {line}" for line in state.differs)
            raise StaleError(
                f"{STAGE}/ was made with other settings or of another mixture:\n{listed}",
                f"give the same options as then; or `climb validate {workspace.root} --redo …` (the old table is moved "
                "aside, trials that still fit are used again)",
            )
        if redo and state.state != "missing":
            workspace.set_aside(STAGE)
        context = StageContext(workspace.root, engine, progress, config.seed)
        return workspace.make(recipe, context, _make, workspace.root, config, plan, recipes, retry)


def _whole(plan: Plan, n: int) -> Plan:
    """Return a plan with the usual baselines where it names none.

    Raises SearchError where it names one that could learn nothing from n trials, as many as ours.
    """
    few = [name for name in plan.against or DEFAULT if n < least_trials(name)]
    if not plan.against:
        return replace(plan, against=tuple(name for name in DEFAULT if name not in few), left_out=tuple(few))
    if few:
        raise SearchError(
            f"{few[0]} cannot learn from {n} trials, as many as our search took: it needs {least_trials(few[0])}",
            f"leave {few[0]} out of --against, or search longer (search.trials)",
        )
    return plan


def _left_out(plan: Plan, n: int) -> str:
    """Return a sentence on the baselines that were left out, if any."""
    needs = ", ".join(f"{name} (at least {least_trials(name)})" for name in plan.left_out)
    return f" {n} trials, as many as our search took, are too few for {needs}." if needs else ""


def validation_recipe(plan: Plan, mixture: Recipe) -> Recipe:
    """Return what decides a validation's result."""
    trained = {f"target.{name}": value for name, value in recorded_settings(plan.target.proxy).items()}
    settings = {**trained, "against": list(plan.against), "seeds": plan.seeds}
    return Recipe(STAGE, VERSION, settings, {"mixture/": mixture.fingerprint})


def _make(
    context: StageContext, root: Path, config: Config, plan: Plan, recipes: Mapping[str, Recipe], retry: bool
) -> dict[str, object]:
    return _Work(context, root, config, plan, recipes).run(retry)


class _Work:
    """One validation on its way."""

    def __init__(
        self, context: StageContext, root: Path, config: Config, plan: Plan, recipes: Mapping[str, Recipe]
    ) -> None:
        self.root, self.config, self.plan, self.recipes = root, config, plan, recipes
        self.data, self.progress = trial_data(recipes), context.progress
        self.targets = Targets(root, config, self.data, context.folder, context.engine, context.progress)
        self.domains, self.names, self.tokens = self.targets.domains, self.targets.names, self.targets.tokens
        self.answer = read_answer(root)
        self.share = self.answer.objective.tasks

    def run(self, retry: bool) -> dict[str, object]:
        """Search by the others' rules, train targets and proxies of every mixture, compare; return facts."""
        out = self.targets.out
        self._take_trials(out)
        if retry:
            reopen(out / "trials", read_trials(out / "trials"))
        spent = self._spent()
        mixtures = [self._found(spent), *(self._baseline(name, spent.search_trials, out) for name in self.plan.against)]
        target = self.plan.target
        targets = self._trained(mixtures, target, "targets")
        same = trial_settings(target) == trial_settings(self.config) and self.targets.data_of(target) == self.data
        proxies = targets if same else self._trained(mixtures, self.config, "proxies")
        table = self._table(mixtures, targets, None if same else proxies, out)
        write_validation(out, table)
        write_text(out / "validation.csv", table_csv(table))
        self.targets.clear()
        return {"sentence": table.sentence, "trials": len(read_trials(out / "trials"))}

    def _take_trials(self, out: Path) -> None:
        """Copy the trials of the validation that was moved aside last; those that do not fit are never asked for."""
        old = sorted(self.root.glob(f"{STAGE}*.old-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        if old and not (out / "trials").exists():
            for name in self.plan.against:
                if (path := _own_run_path(old[-1], name)).is_file():
                    shutil.copyfile(path, out / path.name)
            if (old[-1] / "trials").is_dir():
                shutil.rmtree(out / "trials.partial", ignore_errors=True)
                shutil.copytree(old[-1] / "trials", out / "trials.partial")
                (out / "trials.partial").rename(out / "trials")  # half a copy must not be taken for trials

    def _spent(self) -> Mixture:
        """Return what our own search cost, its finalists' trials among it."""
        budgets = search_budgets(self.root, self.config, self.data)
        return Mixture(FOUND, (), len(budgets), sum(budgets))

    def _found(self, spent: Mixture) -> Mixture:
        return replace(spent, weights=tuple(self.answer.weights[name] for name in self.names))

    def _baseline(self, name: str, n: int, out: Path) -> Mixture:
        baseline = find_baseline(name)
        if baseline.own_run:
            return self._own_run(name, baseline.own_run, n, out)
        spec = replace(spec_of(self.config, self.domains), proposer=name, predictor=baseline.predictor)
        done: list[Trial] = []
        for iteration, size in enumerate(baseline.rounds(n)):
            rows = next_batch(observed(done), spec, size, iteration, self.config.seed, baseline.propose)
            proposals = [Proposal("search", iteration, row, self.config.seed, name) for row in _tuples(rows)]
            done += self.targets.train(self.config, proposals, f"search of {name}", ("search",))
        weights = answer_of(name, spec, observed(done), seeds.stream(self.config.seed, "answer"))
        return Mixture(name, tuple(weights.tolist()), len(done), sum(trial.token_budget for trial in done))

    def _own_run(self, name: str, own_run: Callable[..., Any], n: int, out: Path) -> Mixture:
        """Return the answer of a baseline that trains two models of its own.

        They have the target's token budget, or our search's if that is less.
        """
        from openclimb.proxy.train import plan_stack

        assert self.tokens is not None  # `check_plan`
        proxy = self.config.proxy
        budget = max(proxy.token_budget, min(self.plan.target.proxy.token_budget, n * proxy.token_budget // 2))
        region = region_of(self.domains, self.config.constraints)
        key = fingerprint([VERSION, name, recorded_settings(proxy), self.data, budget, self.config.seed, self.names])
        path = _own_run_path(out, name)
        if not path.is_file() or read_json(path)["key"] != key:
            self.progress.start(f"{name}: reference and proxy", 1, "runs")
            run = self.config.run
            device, _ = plan_stack(run.device, 1, proxy, self.tokens)
            shares, seed = region.share.tolist(), self.config.seed
            found = own_run(self.tokens, self.names, shares, proxy, budget, seed, device, run.bf16)
            write_json(path, {"key": key, "domains": self.names, **asdict(found)})
            self.progress.finish()
        stored = read_json(path)
        weights = rounded(bend(np.array(stored["weights"]), region), region)
        return Mixture(name, tuple(weights.tolist()), 2, stored["tokens"])

    def _trained(self, mixtures: Sequence[Mixture], config: Config, label: str) -> dict[str, list[Trial]]:
        """Train every mixture with every seed; return the trials with scores by mixture."""
        fresh = seeds.targets(self.config.seed, self.plan.seeds)
        return self.targets.with_seeds(config, mixtures, fresh, STAGE, label)

    def _table(
        self,
        mixtures: Sequence[Mixture],
        targets: Mapping[str, list[Trial]],
        proxies: Mapping[str, list[Trial]] | None,
        out: Path,
    ) -> Validation:
        """Return what the trials say, whole."""
        folder, metric, proxy = out / "trials", self.config.tasks.metric, self.plan.target.proxy
        if not targets[FOUND]:
            raise SearchError(
                "no target of the found mixture has scores", f"see failure.json in {folder}; then --retry"
            )
        items = read_items(folder, [trial for some in targets.values() for trial in some])
        size = None
        if self.tokens is not None and not self.config.objective.external:
            size = n_parameters(proxy.width, proxy.depth, read_json(self.tokens / "domains.json")["vocab_size"])
        found = judge(mixtures, self.names, targets, proxies, items, self.share, metric, self.config.seed)
        target, has_items = TargetModel(size, proxy.token_budget), size is not None
        return Validation(
            VERSION,
            self.recipes["mixture"].fingerprint,
            target,
            has_items,
            Objective(metric, self.share),
            **vars(found),
            sentence=sentence(found, target, has_items) + _left_out(self.plan, mixtures[0].search_trials),
        )


def _own_run_path(folder: Path, name: str) -> Path:
    """Return where the answer of a baseline with models of its own is kept: doremi.json."""
    return folder / f"{name.rpartition(':')[2]}.json"


def _tuples(rows: Weights) -> list[tuple[float, ...]]:
    return [tuple(row) for row in rows.tolist()]
