"""The library: what the command line does, as methods of an open workspace."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclimb import seeds
from openclimb.config.schema import Config, TasksSettings
from openclimb.corpus.custom_domains import has_custom_domains, stop_without_corpus, weighed_domains, write_custom
from openclimb.corpus.reading.store import is_remote
from openclimb.engines.engine import engine_of
from openclimb.errors import ConfigError, SearchError, WorkspaceError, nearest
from openclimb.mixture import Domain
from openclimb.objectives.base import checked_scores
from openclimb.progress import Progress
from openclimb.recipes import current_recipes, stop_if_stale, trial_data
from openclimb.workspace import trials as trial_files
from openclimb.workspace.damage import Damage, find_damage, find_damaged_trials, stop_if_damaged
from openclimb.workspace.files import fingerprint, sweep
from openclimb.workspace.observations import EXTERNAL_ROLE
from openclimb.workspace.records import ANNOTATIONS, STAGES, Workspace, trial_settings
from openclimb.workspace.results import MIXTURE, Answer, Best, Validation, read_answer, read_validation
from openclimb.workspace.runs_file import Directions, Imported, read_runs
from openclimb.workspace.trials import Proposal, Trial, weights_key

if TYPE_CHECKING:
    from openclimb.export.verify import Verified
    from openclimb.validation.ablation.ablate import Ablation
    from openclimb.validation.ablation.table import AblationTable
    from openclimb.validation.scaling.scale import ScalingPlan
    from openclimb.validation.scaling.table import Scaling

PATIENCE = 20.0  # seconds that ask and tell wait for one another: trials that run at once may end at once


@dataclass(frozen=True)
class Told:
    """What `tell` took."""

    trial: int
    scores: Mapping[str, float]
    missing: tuple[str, ...]  # tasks that other trials or the settings have
    again: bool  # the trial had these scores already

    def sentences(self) -> list[str]:
        """Return what was taken and what is missing, a sentence each."""
        taken = ", ".join(f"{task} {score:.6g}" for task, score in self.scores.items())
        first = f"trial {self.trial} {'had these scores already' if self.again else 'is done'}: {taken}"
        lacking = f"no score for {', '.join(self.missing)}: trial {self.trial} tells nothing of them"
        return [first, lacking] if self.missing else [first]


MOST_ASKED = 10_000  # mixtures at once


class OpenWorkspace:
    """A workspace that is open: run it, ask it for mixtures, tell it scores, read its answer."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.config: Config = self.workspace.config()

    def run(self, progress: Progress | None = None, redo: str = "", *, retry: bool = False) -> Answer:
        """Do everything that is not done yet and return the answer (as in mixture/mixture.json).

        `redo`: a stage that is moved aside first; `retry`: try failed trials again (see `pipeline.run`).
        Raises StaleError, HeldError, InputError and the other errors of `openclimb.errors`.
        """
        from openclimb.pipeline import run

        if redo and redo not in STAGES:
            raise ConfigError(f"unknown stage '{redo}'{nearest(redo, STAGES)}", f"stages are: {', '.join(STAGES)}")
        with engine_of(self.config.run, self.config.engine, (progress or Progress()).note) as engine:
            run(self.workspace, engine, progress or Progress(), redo, retry=retry)
        return self.mixture()

    def ask(self, n: int = 1) -> list[Trial]:
        """Return n new trials to run elsewhere, with their mixtures; `tell` closes them.

        The mixtures are a function of the trials completed and asked so far: at any time, also while others are
        running, which are neither repeated nor crowded. Where the region holds no other mixture, one of before has
        another seed. Needs the stages up to domains, or domains given by hand.
        """
        from openclimb.search.goal import check_weighting, goal_of
        from openclimb.search.propose import next_batch
        from openclimb.search.transfer.store import search_space

        check_weighting(self.config)
        if not 1 <= n <= MOST_ASKED:
            raise SearchError(f"{n} mixtures cannot be asked for", f"ask for 1 to {MOST_ASKED:,}")
        domains, data = self._hinge()
        with self._writing_trials():
            known = trial_files.read_trials(self._trials, data)
            seed, proposer = self.config.seed, self.config.search.proposer
            space = search_space(self.workspace.root, self.config, domains, goal_of(self.config, known))
            batch = next_batch(space.observations(known), space.spec, n, len(known), seed)
            proposals, before = [], Counter(weights_key(trial.weights) for trial in known)
            for row in space.expanded(batch).tolist():  # a small region may have no other mixture left: another seed
                fresh = seeds.again(seed, before[weights_key(row)])
                proposals.append(Proposal(EXTERNAL_ROLE, 0, tuple(row), fresh, proposer))
                before[weights_key(row)] += 1
            names = [domain.name for domain in domains]
            return trial_files.ask(self._trials, proposals, names, trial_settings(self.config), data)

    def tell(self, number: int, scores: Mapping[str, float]) -> Told:
        """Close a trial with its scores by task (higher is better), and return what was taken and what is missing.

        Telling the same again changes nothing. Raises SearchError for an unknown trial, other scores than it has, no
        numbers, or tasks that no other trial has.
        """
        folder = self._trial_folder(number)
        taken = checked_scores(scores, f"the file for trial {number}")
        with self._writing_trials():
            before = trial_files.read_trial(folder)
            others = [t for t in trial_files.read_trials(self._trials, before.data) if t.number != number]
            check_tasks(taken, others, self.config.tasks, f"trial {number}")
            trial_files.tell(folder, {"scores": taken})
        known = {task for trial in others for task in trial.scores} | named_tasks(self.config.tasks)
        return Told(number, taken, tuple(sorted(known - set(taken))), again=bool(before.scores))

    def tell_failed(self, number: int, message: str) -> None:
        """Close a trial that gave no scores, with the reason. Scores may still be told later."""
        folder = self._trial_folder(number)
        with self._writing_trials():
            trial_files.fail(folder, message or "no reason given", last=True)

    def import_runs(self, ratios: Path, metrics: Path, *, losses: bool = False, lower: Sequence[str] = ()) -> Imported:
        """Make completed trials of runs that were finished elsewhere; return them, and what was taken and left out.

        `ratios` has one column a domain, `metrics` one a task (higher is better; lower with `losses`, or where a glob
        of `lower` matches its name), and both a column that names the run (see `workspace.runs_file`). Importing the
        same again adds nothing. Raises InputError before anything is written.
        """
        domains, data = self._hinge()
        names = [domain.name for domain in domains]
        known = {task for trial in trial_files.read_trials(self._trials, data) for task in trial.scores}
        known |= named_tasks(self.config.tasks)
        tables = read_runs(ratios, metrics, names, Directions(losses, lower), known)
        runs, settings = tables.runs, trial_settings(self.config)
        # The name decides the seed, so that two runs of one mixture are two trials, and the same ones when read again.
        proposals = [
            Proposal(EXTERNAL_ROLE, 0, run.weights, int(fingerprint(run.name)[:8], 16), "import") for run in runs
        ]
        with self._writing_trials():
            others = trial_files.read_trials(self._trials, data)
            check_tasks(tables.tasks, others, self.config.tasks, str(metrics))
            before = {trial.identity: trial for trial in others if trial.scores}
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
        return Imported([self._read(trial) for trial in trials], new, tables.notes)

    def best(self) -> Best:
        """Return the mixture of the best expected score by the trials completed so far (see `search.best.best`)."""
        from openclimb.search.goal import check_weighting, goal_of
        from openclimb.search.selection.best import best
        from openclimb.search.transfer.store import search_space

        check_weighting(self.config)

        domains, data = self._hinge()
        known, config = trial_files.read_trials(self._trials, data), self.config
        space = search_space(self.workspace.root, config, domains, goal_of(config, known))
        has_items = not (config.objective.external or has_custom_domains(config))
        return best(known, space, config.target, config.seed, has_items, (self.workspace.root / MIXTURE).is_file())

    def validate(
        self,
        against: Sequence[str] = (),
        seeds: int = 3,
        target: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        *,
        redo: bool = False,
        retry: bool = False,
    ) -> Validation:
        """Train the found mixture and others as targets and return what that says: validation/validation.json.

        `against`: baselines by name or `package.module:BASELINE` (empty: all but DoReMi that as many trials as ours
        suffice for); `target`: settings of [proxy] that the target has otherwise (`validation.target_of`); `redo`: move
        a table of other options aside; `retry`: try failed trials again. See `validation.validate` for errors.
        """
        from openclimb.validation.compare import Plan, target_of, validate

        changed = target_of(self.config, target or {})
        plan = Plan(changed, tuple(against), seeds)
        with engine_of(self.config.run, self.config.engine, (progress or Progress()).note) as engine:
            validate(self.workspace, plan, engine, progress or Progress(), redo, retry=retry)
        return read_validation(self.workspace.root)

    def train_quality(
        self, labels: Path | None = None, student: str = "", progress: Progress | None = None
    ) -> dict[str, Any]:
        """Train students of labels and return what is told of them: students/report.json (see `students.train`).

        `labels`: a file of them (None: the workspace's annotations); `student`: "fasttext" or "head" alone.
        """
        from openclimb.students import train

        with engine_of(self.config.run, self.config.engine, (progress or Progress()).note) as engine:
            return train(self.workspace, labels, student, engine, progress or Progress())

    def ablate(
        self, plan: "Ablation", progress: Progress | None = None, *, redo: bool = False, retry: bool = False
    ) -> "AblationTable":
        """Compare values of settings, one setting at a time, and return what that says: ablations/ablations.json.

        `redo`: variants of other settings than the present ones are moved aside; `retry`: try failed trials again. See
        `validation.ablation.ablate` for the plan and for errors.
        """
        from openclimb.validation.ablation.ablate import ablate

        with engine_of(self.config.run, self.config.engine, (progress or Progress()).note) as engine:
            return ablate(self.workspace, plan, engine, progress or Progress(), redo=redo, retry=retry)

    def scaling(self, plan: "ScalingPlan", progress: Progress | None = None, *, retry: bool = False) -> "Scaling":
        """Train the found mixture and others at several sizes and token budgets; return what that says.

        It is in scaling/scaling.json. `retry`: try failed trials again. See `validation.scaling.scale` for the plan and
        for errors.
        """
        from openclimb.validation.scaling.scale import scale

        with engine_of(self.config.run, self.config.engine, (progress or Progress()).note) as engine:
            return scale(self.workspace, plan, engine, progress or Progress(), retry=retry)

    def front(self, goals: Sequence[str]) -> dict[str, Any]:
        """Return mixtures that none is expected to beat in both of two goals of `tasks.goals` (see `search.front`).

        Every weight moves, also where `search.transfer` is "frozen".
        """
        from openclimb.search.acquisition.front import front
        from openclimb.search.acquisition.pareto import goals_of
        from openclimb.search.goal import goal_of
        from openclimb.search.transfer.store import search_space

        domains, data = self._hinge()
        config = self.config
        wanted = goals_of(config.tasks, goals)
        completed = trial_files.read_trials(self._trials, data)
        space = search_space(self.workspace.root, config, domains, goal_of(config, completed)).whole
        return space.expanded_front(front(space.observations(completed), space.spec, wanted, config.seed))

    def _hinge(self) -> tuple[list[Domain], str]:
        """Return the domains, and the fingerprint of the data that trials of them read."""
        recipes = current_recipes(self.workspace, self.config)
        if "domains" in recipes:
            self._done("domains")
            before = {name: recipe for name, recipe in recipes.items() if name != "mixture"}
            stop_if_stale(self.workspace, self.config, before)
        return weighed_domains(self.workspace.root, self.config)[0], trial_data(recipes)

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

    def mixture(self) -> Answer:
        """Return the answer: mixture/mixture.json."""
        self._done("mixture")
        return read_answer(self.workspace.root)

    def check(self) -> list[Damage]:
        """Compare every file of the finished stages with its record, and the trials with their own checksums.

        Returns the files that are not as they were made.
        """
        root = self.workspace.root
        made = (*STAGES, ANNOTATIONS, "students", "validation")
        stages = [one for stage in made for one in find_damage(root, stage, True)]
        return [*stages, *find_damaged_trials(root)]

    def report(self) -> Path:
        """Write report/index.html and return its path. Raises WorkspaceError where what it shows is damaged."""
        from openclimb.report.page import build_report

        stop_if_damaged(self.workspace.root, ("duplicates", "contamination", "domains", "mixture", "validation"))
        return build_report(self.workspace.root)

    def write_rubric(self) -> Path:
        """Write the rubric of annotations to rubric.toml, to be edited, and return its path."""
        from openclimb.quality.annotation.rubric import FILE, write_default

        path = self.workspace.root / FILE
        write_default(path)
        return path

    def annotate(self, n: int, progress: Progress | None = None, *, redo: bool = False, **more: Any) -> dict[str, Any]:
        """Have n documents rated by the rubric, those of earlier calls among them: annotations/labels.jsonl. Return
        what came: labels, failed, left, tokens_in, tokens_out, usd, means, counts.

        `more`: balanced, annotator, endpoint, limits, as in `quality.annotation.annotate.AnnotateSpec`; `redo`: move
        the labels that are there aside. Raises EndpointError, StaleError; what was answered is kept.
        """
        from openclimb.annotations import annotate
        from openclimb.quality.annotation.annotate import AnnotateSpec

        spec, config, progress = AnnotateSpec(n, **more), self.config, progress or Progress()
        with engine_of(config.run, config.engine, progress.note) as engine:
            return dict(annotate(self.workspace, engine, progress, spec, redo=redo))

    def export(
        self,
        token_budget: int | None,
        out: str | Path,
        format: str = "parquet",
        progress: Progress | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Write the dataset for a token budget, in mixture order, to a folder or a URL; return what was written.

        `more`: by_domain, by_cluster, tokenizer, seed, shard_bytes, as in `export.facts.ExportSpec`. None is the
        target's token budget.
        """
        from openclimb.export.dataset import asked_for, export
        from openclimb.export.facts import ExportSpec
        from openclimb.export.remote import export_to_store

        spec = ExportSpec(self.config.target.token_budget if token_budget is None else token_budget, format, **more)
        stop_without_corpus(self.workspace.root, self.config)
        self._done("mixture")
        root, config, progress = self.workspace.root, self.config, progress or Progress()
        with engine_of(config.run, config.engine, progress.note) as engine, self.workspace.hold(note=progress.note):
            stop_if_stale(self.workspace, config, current_recipes(self.workspace, config))
            stop_if_damaged(root, STAGES)

            def make(folder: Path) -> dict[str, Any]:
                return export(root, config, spec, folder, engine, progress)

            if is_remote(str(out)):
                return export_to_store(str(out), root, asked_for(root, config, spec), make, progress)
            return make(Path(str(out).removeprefix("file://")))

    @contextlib.contextmanager
    def _writing_trials(self) -> Iterator[None]:
        """Hold the workspace to write trials; what a killed command left half-written among them goes first."""
        with self.workspace.hold(PATIENCE):
            sweep(self._trials)
            yield

    @property
    def _trials(self) -> Path:
        return self.workspace.root / "trials"

    def _done(self, stage: str) -> Path:
        folder = self.workspace.folder(stage)
        if not (folder / "record.json").is_file():
            raise WorkspaceError(f"{stage}/ is not made yet", f"climb run {self.workspace.root}")
        return folder


def verify(out: str | Path, progress: Progress | None = None) -> "Verified":
    """Compare an exported dataset, read alone, with its record: see `export.verify`."""
    from openclimb.export.verify import verify

    return verify(str(out), progress or Progress())


def named_tasks(tasks: TasksSettings) -> set[str]:
    """Return the tasks that the settings name."""
    return {*tasks.weights, *tasks.thresholds}


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
    lacking = sorted(named_tasks(tasks) - set(scores)) if not expected else []
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
    from openclimb.search.space.region import region_of
    from openclimb.search.transfer.collect import collect

    root = Path(path)
    if (root / "climb.toml").exists():
        Workspace(root).create(config)  # says that it is there
    if domains:
        region_of(domains, config.constraints)
    found = collect(Path(old), config, domains, given)
    found.write(root)  # before climb.toml: a workspace that is there has all it was given
    opened = create_custom(path, config, domains) if domains else create(path, config)
    return opened, found.sentences()


def create_custom(path: str | Path, config: Config, domains: Sequence[Domain]) -> OpenWorkspace:
    """Make a new workspace without a corpus, with domains given by hand, and return it open.

    Raises ConfigError for a constraint on an unknown domain, DomainError when no mixture meets the constraints.
    """
    from openclimb.search.space.region import region_of

    region_of(domains, config.constraints)
    opened = create(path, config)
    write_custom(opened.workspace.root, domains)
    return opened
