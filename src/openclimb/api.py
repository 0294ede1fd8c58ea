"""The library: what the command line does, as methods of an open workspace."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclimb import trials as trial_files
from openclimb.console import Progress
from openclimb.corpus.domains_file import read_domains
from openclimb.engine import Engine
from openclimb.errors import ConfigError, SearchError, WorkspaceError, nearest
from openclimb.given import DATA, given_domains, has_given_domains, stop_without_corpus, write_given
from openclimb.mixture import Domain
from openclimb.search.outside import ROLE
from openclimb.settings import Config, TasksSettings
from openclimb.stages import STAGES, current_recipes, stop_if_stale, trial_settings
from openclimb.trials import Proposal, Trial, weights_key
from openclimb.workspace import Workspace, fingerprint, read_json

if TYPE_CHECKING:
    from openclimb.search.reuse import Reuse

AGAIN = 1000  # added to the seed of a mixture that was asked for before, once for each time
PATIENCE = 20.0  # seconds that ask and tell wait for one another: trials that run at once may end at once


class OpenWorkspace:
    """A workspace that is open: run it, ask it for mixtures, tell it scores, read its answer."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.config: Config = self.workspace.config()

    def run(self, progress: Progress | None = None, redo: str = "", *, retry: bool = False) -> dict[str, Any]:
        """Do everything that is not done yet and return the answer (as in mixture/mixture.json).

        `redo`: a stage that is moved aside first; `retry`: try failed trials again (see `pipeline.run`).
        Raises StaleError, HeldError, InputError and the other errors of `openclimb.errors`.
        """
        from openclimb.pipeline import run

        if redo and redo not in STAGES:
            raise ConfigError(f"unknown stage '{redo}'{nearest(redo, STAGES)}", f"stages are: {', '.join(STAGES)}")
        engine = Engine(self.config.run.workers)
        try:
            run(self.workspace, engine, progress or Progress(), redo, retry=retry)
        finally:
            engine.release()
        return self.mixture()

    def ask(self, n: int = 1) -> list[Trial]:
        """Return n new trials to run elsewhere, with their mixtures; `tell` closes them.

        The mixtures are a function of the trials told and asked so far: at any time, also while others are running,
        which are neither repeated nor crowded. Where the region holds no other mixture, one of before has another seed.
        Needs the stages up to domains, or domains given by hand.
        """
        from openclimb.search.loop import next_batch
        from openclimb.search.signal import check_weigh, goal_of

        check_weigh(self.config)
        if n < 1:
            raise SearchError(f"{n} mixtures cannot be asked for", "ask for one or more")
        domains, data = self._hinge()
        with self.workspace.hold(PATIENCE):
            known = trial_files.read_trials(self._trials, data)
            search, seed = self.config.search, self.config.seed
            reuse = self._reuse(domains)
            batch = next_batch(
                reuse.informed(known),
                reuse.searched,
                n,
                len(known),
                search,
                goal_of(self.config, known),
                seed,
                reuse.required,
            )
            proposals, before = [], Counter(weights_key(trial.weights) for trial in known)
            for row in reuse.expanded(batch).tolist():  # a small region may have no other mixture left: another seed
                again = before[weights_key(row)]
                proposals.append(Proposal(ROLE, 0, tuple(row), seed + AGAIN * again, search.proposer))
                before[weights_key(row)] += 1
            names = [domain.name for domain in domains]
            return trial_files.ask(self._trials, proposals, names, trial_settings(self.config), data)

    def tell(self, number: int, scores: Mapping[str, float]) -> None:
        """Close a trial with its scores by task (higher is better). Telling the same again changes nothing.

        Raises SearchError for an unknown trial, other scores than it has, no numbers, or tasks that no other trial has.
        """
        folder = self._trial_folder(number)
        if not isinstance(scores, Mapping) or not scores or not all(map(_is_number, scores.values())):
            raise SearchError(f"the scores of trial {number} must be finite numbers by task", '{"task": 0.5}')
        with self.workspace.hold(PATIENCE):
            data = trial_files.read_trial(folder).data
            others = [trial for trial in trial_files.read_trials(self._trials, data) if trial.number != number]
            check_tasks(scores, others, self.config.tasks, f"trial {number}")
            trial_files.tell(folder, {"scores": {name: float(value) for name, value in scores.items()}})

    def tell_failed(self, number: int, message: str) -> None:
        """Close a trial that gave no scores, with the reason. Scores may still be told later."""
        folder = self._trial_folder(number)
        with self.workspace.hold(PATIENCE):
            trial_files.fail(folder, message or "no reason given", last=True)

    def import_runs(self, ratios: Path, metrics: Path, *, losses: bool = False) -> tuple[list[Trial], int]:
        """Make told trials of runs that were finished elsewhere; return all of them, and how many are new.

        `ratios` has one column a domain, `metrics` one a task (higher is better, or with `losses` lower), and both a
        column that names the run (see `search.runs_file`). Importing the same again adds nothing. Raises InputError.
        """
        from openclimb.search.runs_file import read_runs

        domains, data = self._hinge()
        names = [domain.name for domain in domains]
        runs = read_runs(ratios, metrics, names, losses=losses)
        settings = trial_settings(self.config)
        # The name decides the seed, so that two runs of one mixture are two trials, and the same ones when read again.
        proposals = [Proposal(ROLE, 0, run.weights, int(fingerprint(run.name)[:8], 16), "import") for run in runs]
        with self.workspace.hold(PATIENCE):
            known = trial_files.read_trials(self._trials, data)
            check_tasks(runs[0].scores, known, self.config.tasks, str(metrics))
            before = {trial.identity: trial for trial in known if trial.scores}
            new = 0
            for run, proposal in zip(runs, proposals, strict=True):
                mixture = dict(zip(names, run.weights, strict=True))
                there = before.get(trial_files.identity(mixture, proposal.seed, settings, data))
                if there and there.scores != run.scores:
                    raise SearchError(
                        f"run '{run.name}' was imported before as trial {there.number}, with other scores",
                        "trials are never changed; give the new run another name",
                    )
                new += there is None
            trials = trial_files.ask(self._trials, proposals, names, settings, data)
            for trial, run in zip(trials, runs, strict=True):
                trial_files.tell(trial_files.trial_folder(self._trials, trial.number), {"scores": run.scores})
        return [self._read(trial) for trial in trials], new

    def best(self) -> dict[str, Any]:
        """Return the mixture of the best expected score by the trials told so far (see `search.best.best`)."""
        from openclimb.search.best import best
        from openclimb.search.signal import check_weigh, goal_of

        check_weigh(self.config)

        domains, data = self._hinge()
        known, config = trial_files.read_trials(self._trials, data), self.config
        reuse = self._reuse(domains)
        found = best(known, reuse, config.target, config.search, goal_of(config, known), config.seed)
        tested = (self.workspace.folder("mixture") / "mixture.json").is_file()
        has_items = not (config.objective.external or has_given_domains(config))
        return {**found, "has_items": has_items, "tested": tested}

    def validate(
        self,
        against: Sequence[str] = (),
        seeds: int = 3,
        target: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        *,
        redo: bool = False,
        retry: bool = False,
    ) -> dict[str, Any]:
        """Train the found mixture and others as targets and return what that says: validation/validation.json.

        `against`: baselines (`validation.BASELINES`; empty: all but DoReMi that as many trials as ours suffice for);
        `target`: settings of [proxy] that the target has otherwise (`validation.target_of`); `redo`: move a table of
        other options aside; `retry`: try failed trials again. See `validation.validate` for errors.
        """
        from openclimb.validation import Plan, target_of, validate

        changed = target_of(self.config, target or {})
        engine = Engine(self.config.run.workers)
        try:
            plan = Plan(changed, tuple(against), seeds)
            found: dict[str, Any] = read_json(
                validate(self.workspace, plan, engine, progress or Progress(), redo, retry=retry) / "validation.json"
            )
        finally:
            engine.release()
        return found

    def front(self, goals: Sequence[str]) -> dict[str, Any]:
        """Return mixtures that none is expected to beat in both of two goals of `tasks.goals` (see `search.front`).

        Every weight moves, also where `search.reuse` is "block".
        """
        from openclimb.search.front import front
        from openclimb.search.pareto import goals_of
        from openclimb.search.required import required_of
        from openclimb.search.signal import goal_of

        domains, data = self._hinge()
        config, required = self.config, required_of(self.config)
        wanted = goals_of(config.tasks, goals)
        told = trial_files.read_trials(self._trials, data)
        reuse = self._reuse(domains).whole
        goal = goal_of(config, told)
        found = front(reuse.informed(told), reuse.searched, config.search, wanted, goal, config.seed, required)
        return reuse.own_front(found)

    def _hinge(self) -> tuple[list[Domain], str]:
        """Return the domains, and the fingerprint of the data that trials of them read."""
        if has_given_domains(self.config):
            return given_domains(self.workspace.root, self.config), DATA
        domains, recipes = read_domains(self._done("domains")), current_recipes(self.workspace, self.config)
        stop_if_stale(self.workspace, self.config, {name: recipes[name] for name in STAGES if name != "mixture"})
        return domains, recipes["tokens"].fingerprint

    def _reuse(self, domains: Sequence[Domain]) -> "Reuse":
        from openclimb.hints import with_hints
        from openclimb.prior import reuse_for

        return with_hints(
            reuse_for(self.workspace.root, self.config, domains), self.workspace.root, self.config, domains
        )

    def _read(self, trial: Trial) -> Trial:
        return trial_files.read_trial(trial_files.trial_folder(self._trials, trial.number))

    def _trial_folder(self, number: int) -> Path:
        folder = trial_files.trial_folder(self._trials, number)
        if not (folder / "trial.json").is_file():
            known = [trial.number for trial in self.trials()]
            raise SearchError(
                f"there is no trial {number}",
                f"trials are numbered {min(known)} to {max(known)}" if known else "ask for one first: climb ask",
            )
        return folder

    def trials(self) -> list[Trial]:
        """Return every trial of the workspace by number."""
        return trial_files.read_trials(self._trials)

    def mixture(self) -> dict[str, Any]:
        """Return the answer: mixture/mixture.json."""
        answer: dict[str, Any] = read_json(self._done("mixture") / "mixture.json")
        return answer

    def report(self) -> Path:
        """Write report/index.html and return its path."""
        from openclimb.report.page import build_report

        return build_report(self.workspace.root)

    def export(
        self, token_budget: int, out: Path, format: str = "parquet", progress: Progress | None = None
    ) -> dict[str, Any]:
        """Write the dataset for a token budget, in mixture order, and return what was written."""
        from openclimb.export.dataset import export

        stop_without_corpus(self.workspace.root, self.config)
        self._done("mixture")
        engine = Engine(self.config.run.workers)
        try:
            with self.workspace.hold():
                stop_if_stale(self.workspace, self.config, current_recipes(self.workspace, self.config))
                return export(
                    self.workspace.root, self.config, token_budget, out, format, engine, progress or Progress()
                )
        finally:
            engine.release()

    @property
    def _trials(self) -> Path:
        return self.workspace.root / "trials"

    def _done(self, stage: str) -> Path:
        folder = self.workspace.folder(stage)
        if not (folder / "record.json").is_file():
            raise WorkspaceError(f"{stage}/ is not made yet", f"climb run {self.workspace.root}")
        return folder


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_tasks(scores: Iterable[str], others: Sequence[Trial], tasks: TasksSettings, what: str) -> None:
    """Raise SearchError when the tasks of told scores are not those of the other trials, or lack one in the settings.

    A trial may lack tasks that others have: it then tells nothing of them.
    """
    expected = sorted({task for trial in others for task in trial.scores})
    unknown = sorted(set(scores) - set(expected)) if expected else []
    if unknown:
        raise SearchError(
            f"{what} has a score for '{unknown[0]}', which no trial so far has{nearest(unknown[0], expected)}",
            f"expected are: {', '.join(expected)}; where those are wrong, remove the scores.json of their trials",
        )
    lacking = sorted({*tasks.weights, *tasks.at_least} - set(scores)) if not expected else []
    if lacking:
        raise SearchError(
            f"{what} has no score for '{lacking[0]}'{nearest(lacking[0], scores)}, which [tasks] in climb.toml names",
            "give it, or correct climb.toml",
        )


def create(path: str | Path, config: Config) -> OpenWorkspace:
    """Make a new workspace with these settings and return it open."""
    workspace = Workspace(Path(path))
    workspace.create(config)
    return OpenWorkspace(workspace.root)


def create_from(
    path: str | Path, config: Config, old: Path, domains: Sequence[Domain] = (), given: Path | None = None
) -> tuple[OpenWorkspace, list[str]]:
    """Make a new workspace that the trials of the workspace `old` inform; return it open, and what to tell of them.

    `domains` are those given by hand, where there is no corpus; `given` is a table old,new,share beside them. Raises
    what `gather.gather` raises, before anything is written.
    """
    from openclimb.gather import gather
    from openclimb.search.region import region_of

    root = Path(path)
    if (root / "climb.toml").exists():
        Workspace(root).create(config)  # says that it is there
    if domains:
        region_of(domains, config.constraints)
    found = gather(Path(old), config, domains, given)
    found.write(root)  # before climb.toml: a workspace that is there has all it was given
    opened = create_given(path, config, domains) if domains else create(path, config)
    return opened, found.sentences()


def create_given(path: str | Path, config: Config, domains: Sequence[Domain]) -> OpenWorkspace:
    """Make a new workspace without a corpus, with domains given by hand, and return it open.

    Raises ConfigError for a constraint on an unknown domain, DomainError when no mixture meets the constraints.
    """
    from openclimb.search.region import region_of

    region_of(domains, config.constraints)
    opened = create(path, config)
    write_given(opened.workspace.root, domains)
    return opened
