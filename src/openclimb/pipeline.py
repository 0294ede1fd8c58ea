"""The order of stages and the search loop. START READING HERE.

    input files → corpus → clusters → labels → domains → tokens → trials ⟲ → mixture

Each stage is a function from files to files that knows no neighbour; this file hands them to one another. What is
done is not done again, what is stale stops the run, and a run that was killed goes on where it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from openclimb import seeds
from openclimb.baselines.baseline import answer_of
from openclimb.clustering.domains import make_domains
from openclimb.clustering.fit import fit
from openclimb.clustering.label import label
from openclimb.clustering.similarity import write_similarity
from openclimb.config.schema import Config
from openclimb.corpus.contamination import contaminated_items
from openclimb.corpus.custom_domains import custom_domains, has_custom_domains, stop_without_corpus
from openclimb.corpus.domains import read_domains
from openclimb.corpus.left_out import folders_left_out
from openclimb.corpus.pack import Source, least_tokens, pack
from openclimb.corpus.reading.find import left_out_text
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.reading.units import left_out, read_units, survey
from openclimb.engines.engine import Engine
from openclimb.mixture import Domain
from openclimb.objectives.run import TrialRunner, read_items, stop_if_idle
from openclimb.progress import Progress
from openclimb.proxy.checkpoint import shaped, with_tokenizer
from openclimb.quality.contamination import find_contamination, make_index
from openclimb.quality.duplicates import find_duplicates
from openclimb.recipes import current_recipes, stop_if_stale, trial_data
from openclimb.search.acquisition.spec import spec_of
from openclimb.search.external import batch_history, usable_external
from openclimb.search.goal import check_weighting, goal_of, replicates
from openclimb.search.propose import compared_with, diagnose, finalists, next_batch
from openclimb.search.selection.answer import select
from openclimb.search.selection.candidates import confirmation, make_candidates, next_round
from openclimb.search.space.region import region_of
from openclimb.search.space.search_space import SearchSpace
from openclimb.search.transfer.store import search_space
from openclimb.stats.signal_to_noise import signal_rows
from openclimb.tasks.items import pack_tasks, search_items
from openclimb.workspace.context import StageContext
from openclimb.workspace.damage import set_damaged_aside
from openclimb.workspace.files import fingerprint, sweep, write_text
from openclimb.workspace.records import STAGES, Recipe, Workspace, trial_settings
from openclimb.workspace.results import write_answer, write_diagnostics
from openclimb.workspace.tables import mixture_table
from openclimb.workspace.trials import Proposal, Trial, fitting, read_trials, reopen


def run(workspace: Workspace, engine: Engine, progress: Progress, redo: str = "", *, retry: bool = False) -> Path:
    """Do everything that is not done yet and return the mixture's folder.

    `redo` names a stage whose folder, and those made from it, are moved aside first. With `retry` trials that failed in
    earlier runs are tried again, also where the search went on without them; what it proposed after may then change.
    Raises StaleError when a finished stage was made from other settings or inputs, or an input changed meanwhile.
    """
    config = workspace.config()
    if not config.objective.external:
        stop_without_corpus(workspace.root, config)
    with workspace.hold(note=progress.note):
        sweep(workspace.root)
        for said in set_damaged_aside(workspace.root / "trials"):
            progress.note(said)
        if redo:
            for stage in (*STAGES[STAGES.index(redo) :], "validation"):
                workspace.set_aside(stage)
        recipes = current_recipes(workspace, config)
        stop_if_stale(workspace, config, recipes)
        stop_if_idle(config)
        check_weighting(config)
        if retry and workspace.state(recipes["mixture"]).state == "done":
            progress.note("there is an answer without the failed trials: to try them again, add --redo mixture")
        elif retry:
            trials = workspace.root / "trials"
            again = reopen(trials, fitting(trials, trial_settings(config), trial_data(recipes)))
            progress.note(f"failed trials that are tried again: {', '.join(map(str, again)) or 'none'}")
        context = StageContext(workspace.root, engine, progress, config.seed)
        if has_custom_domains(config):
            given, data = custom_domains(workspace.root, config), trial_data(recipes)
            return workspace.make(recipes["mixture"], context, search, workspace.root, config, given, None, data)
        shaped(config.proxy)  # a checkpoint that cannot be used is refused before the long work
        units = surveyed(workspace, context, recipes["corpus"], config)
        clusters = clustered(workspace, context, recipes["clusters"], config, units)
        labels = label_all(workspace, context, recipes, config, units, clusters)
        without = folders_left_out(workspace.root, config)
        least = least_tokens(config.proxy, config.target)
        merged = (clusters, labels, config.domains, config.target, least, without)
        domains = workspace.make(recipes["domains"], context, make_domains, *merged)
        weighed = read_domains(domains)
        region_of(weighed, config.constraints)  # constraints that clash are named before the long work
        source = Source(units, labels, domains, clusters / "tokenizer.json", config.corpus, without)
        tokens = workspace.make(recipes["tokens"], context, pack_all, source, config)
        data = trial_data(recipes)
        mixture = workspace.make(recipes["mixture"], context, search, workspace.root, config, weighed, tokens, data)
        now = {"corpus": current_recipes(workspace, config)["corpus"]}
        stop_if_stale(workspace, config, now)  # a file that changed while it was read is told at once
        return mixture


def surveyed(workspace: Workspace, context: StageContext, recipe: Recipe, config: Config) -> list[Unit]:
    """Return the units of the corpus stage, which is made where it is not done."""
    corpus = workspace.make(recipe, context, survey, config.corpus, config.tokens.tokenizer)
    if left := left_out(corpus):
        context.progress.note(f"left out: {left_out_text(left)}")
    return read_units(corpus, config.corpus, config.tokens.tokenizer)


def clustered(
    workspace: Workspace, context: StageContext, recipe: Recipe, config: Config, units: Sequence[Unit]
) -> Path:
    """Return the folder of the clusters stage, which is made where it is not done."""
    tokenizer = with_tokenizer(config.tokens, config.proxy)
    return workspace.make(recipe, context, fit, units, config.corpus, config.embed, config.clusters, tokenizer)


def label_all(
    workspace: Workspace,
    context: StageContext,
    recipes: Mapping[str, Recipe],
    config: Config,
    units: Sequence[Unit],
    clusters: Path,
) -> Path:
    """Label the documents, and look for duplicates and for items of the tasks, for which the label pass reads the text
    too; return the labels' folder.
    """
    looked, compared = recipes.get("contamination"), recipes.get("duplicates")
    beside = workspace.begin_waiting(looked)
    overlap = make_index(beside, config.tasks) if beside else None
    signatures = workspace.begin_waiting(compared) if config.corpus.dedup == "near" else None
    labelled = (units, clusters, config.corpus, config.embed, config.quality, overlap, signatures)
    labels = workspace.make(recipes["labels"], context, label, *labelled)
    context.engine.release()  # the embedder's memory
    if compared:
        workspace.make(compared, context, find_duplicates, units, labels, config.corpus)
    if looked:
        workspace.make(looked, context, find_contamination, units, labels, config.corpus, config.tasks)
    return labels


def pack_all(context: StageContext, source: Source, config: Config) -> dict[str, object]:
    """Pack the tokens that proxies read and, where there are any, the tasks that score them, beside domains."""
    facts = pack(context, source, config.tokens, config.proxy, config.target)
    if config.objective.external and not config.tasks.paths:  # the trainer brings its own
        return facts
    out = context.folder
    root = source.labels.parent
    left_out = contaminated_items(root, config.tasks)
    packed = pack_tasks(config.tasks, out / "tokenizer.json", out / "tasks", context.progress, left_out)
    write_similarity(context, config.embed, root / "clusters", source.domains, search_items(config.tasks, left_out))
    return {**facts, "tasks": packed}


def search(
    context: StageContext, root: Path, config: Config, domains: list[Domain], tokens: Path | None, data: str
) -> dict[str, object]:
    """Propose, run trials, learn, for each iteration; then select among finalists and baselines, and measure the answer
    again beside the baselines with fresh seeds.

    `trials/` is the search's only state: a proposal is a function of the trials completed so far, so a search that is
    run again comes to the same mixtures and finds their scores already there. `tokens` are the packed ones, None for
    custom domains; `data` is the fingerprint of what trials read.
    """
    runner = TrialRunner(root / "trials", root, config, domains, tokens, data, context)
    external = usable_external(read_trials(runner.folder, data), config.tasks, context.progress.note)
    space = search_space(root, config, domains, goal_of(config, ()))  # with another workspace's trials, if it has some
    if space.described:
        context.progress.note(space.described)
    repeated = runner.run(replicates(domains, config), "replicates") if config.search.replicates else []
    completed, space = iterate(runner, space, external, repeated)
    learnt = [*external, *completed]
    known = space.observations(learnt)
    if config.search.answer == "argmax":
        argmax = answer_of("recipe", space.spec, known, seeds.stream(config.seed, "answer"))
        best = [("finalist", tuple(argmax.tolist())), *compared_with(space.spec)]
    else:
        best = finalists(known, space.spec, config.selection.finalists, config.seed)
    candidates = make_candidates(learnt, space, space.expanded_finalists(best), config.selection, config.seed)
    if config.search.answer == "argmax":
        candidates = candidates.decided()
    selected: list[Trial] = []
    last, both = len(config.search.trials), ("search", "report")
    while proposals := next_round(candidates, selected, last):
        label = f"finalists, seed {proposals[0].seed - config.seed} of {config.selection.seeds}"
        selected += runner.run(proposals, label, both)
    selected += runner.run(confirmation(candidates, selected, last), "the answer and the baselines", both)
    goal = space.spec.task_weights
    config = replace(config, tasks=replace(config.tasks, weights=dict(goal)))
    items, signal = read_items(runner.folder, selected), signal_rows(completed, [*repeated, *selected], goal)
    answer = select(completed, selected, items, domains, candidates, config, signal)
    write_answer(context.folder, answer)
    write_text(context.folder / "mixture.csv", mixture_table([vars(row) for row in answer.domains]))
    return {"sentence": answer.sentence, "trials": len(read_trials(runner.folder))}


def iterate(
    runner: TrialRunner, space: SearchSpace, external: list[Trial], repeated: list[Trial]
) -> tuple[list[Trial], SearchSpace]:
    """Return the trials of all iterations, and the search space with the tasks' weights as they stand at the end."""
    config, progress, completed = runner.config, runner.context.progress, list[Trial]()
    settings = {**asdict(config.search), "trials": []}
    key = fingerprint([runner.data, trial_settings(config), settings, goal_of(config, ()), config.seed])
    for iteration, n in enumerate(config.search.trials):
        place = runner.root / "iterations" / f"{iteration:02d}"
        key = fingerprint([key, asdict(spec_of(config, runner.domains)), n])
        known = batch_history(place, key, external)  # those that came later count from the next batch on
        batch = next_batch(space.observations([*known, *completed]), space.spec, n, iteration, config.seed)
        rows = space.expanded(batch).tolist()
        proposals = [Proposal("search", iteration, tuple(row), config.seed, config.search.proposer) for row in rows]
        completed += runner.run(proposals, f"iteration {iteration + 1} of {len(config.search.trials)}")
        goal = goal_of(config, [*completed, *repeated])
        space = space.weighing(goal)
        signal = signal_rows(completed, repeated, goal)
        found = diagnose(space.observations([*known, *completed]), space.spec, iteration, signal)
        write_diagnostics(place, found)
        progress.note(found.warning or f"best so far {found.best_measured:.4f}")
    return completed, space
