"""The order of stages and the search loop. START READING HERE.

    input files → corpus → clusters → labels → domains → tokens → trials ⟲ → mixture

Each stage is a function from files to files that knows no neighbour; this file hands them to one another. What is
done is not done again, what is stale stops the run, and a run that was killed goes on where it was.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from openclimb.cluster.domains import make_domains
from openclimb.cluster.fit import fit
from openclimb.cluster.label import label
from openclimb.console import Progress
from openclimb.corpus.domains_file import read_domains
from openclimb.corpus.pack import pack
from openclimb.corpus.survey import read_units, survey
from openclimb.engine import Engine
from openclimb.given import DATA, given_domains, has_given_domains, stop_without_corpus
from openclimb.hints import with_hints
from openclimb.mixture import Domain, mixture_table
from openclimb.objective import load_objective, run_objective, stop_if_idle
from openclimb.prior import reuse_for
from openclimb.proxy.checkpoint import shaped, with_tokenizer
from openclimb.proxy.tasks import pack_tasks, search_tasks
from openclimb.search.contest import claim, next_round, open_contest
from openclimb.search.loop import diagnose, finalists, next_batch
from openclimb.search.outside import batch_history, of_tasks, outside_trials
from openclimb.search.pick import pick
from openclimb.search.region import region_of
from openclimb.search.required import required_of
from openclimb.search.signal import check_weigh, goal_of, replicates, signal_rows
from openclimb.settings import Config
from openclimb.stages import STAGES, current_recipes, stop_if_stale, trial_settings
from openclimb.trial_runs import read_items, run_trials
from openclimb.trials import Proposal, Trial, ask, fitting, read_trials, reopen
from openclimb.workspace import Workspace, fingerprint, write_json, write_text


def run(workspace: Workspace, engine: Engine, progress: Progress, redo: str = "", *, retry: bool = False) -> Path:
    """Do everything that is not done yet and return the mixture's folder.

    `redo` names a stage whose folder, and those made from it, are moved aside first. With `retry` trials that failed in
    earlier runs are tried again, also where the search went on without them; what it proposed after may then change.
    Raises StaleError when a finished stage was made from other settings or inputs.
    """
    config = workspace.config()
    if not config.objective.external:
        stop_without_corpus(workspace.root, config)
    with workspace.hold():
        if redo:
            for stage in (*STAGES[STAGES.index(redo) :], "validation"):
                workspace.set_aside(stage)
        recipes = current_recipes(workspace, config)
        stop_if_stale(workspace, config, recipes)
        stop_if_idle(config)
        check_weigh(config)
        if retry and workspace.state(recipes["mixture"]).state == "done":
            progress.note("there is an answer without the failed trials: to try them again, add --redo mixture")
        elif retry:
            data = DATA if has_given_domains(config) else recipes["tokens"].fingerprint
            again = reopen(workspace.root / "trials", fitting(workspace.root / "trials", trial_settings(config), data))
            progress.note(f"failed trials that are tried again: {', '.join(map(str, again)) or 'none'}")
        if has_given_domains(config):
            given = given_domains(workspace.root, config)
            return workspace.make(
                recipes["mixture"],
                progress,
                lambda out: search(workspace.root, config, given, None, DATA, out, engine, progress),
            )
        shaped(config.proxy)  # a checkpoint that cannot be used is told before the long work
        tokenizer = with_tokenizer(config.tokens, config.proxy)

        corpus = workspace.make(recipes["corpus"], progress, lambda out: survey(config.corpus, out, progress))
        units = read_units(corpus)
        clusters = workspace.make(
            recipes["clusters"],
            progress,
            lambda out: fit(
                units, config.corpus, config.embed, config.clusters, tokenizer, config.seed, out, engine, progress
            ),
        )
        labels = workspace.make(
            recipes["labels"],
            progress,
            lambda out: label(units, clusters, config.corpus, config.embed, config.quality, out, engine, progress),
        )
        engine.release()  # the embedder's memory
        domains = workspace.make(
            recipes["domains"],
            progress,
            lambda out: make_domains(clusters, labels, config.domains, config.target, out, progress),
        )

        region_of(read_domains(domains), config.constraints)  # constraints that clash are told before the long work

        def tokens_of(out: Path) -> dict[str, object]:
            facts = pack(
                units,
                labels,
                domains,
                clusters / "tokenizer.json",
                config.corpus,
                config.tokens,
                config.proxy.token_budget,
                config.target,
                config.proxy.sequence,
                config.seed,
                out,
                engine,
                progress,
            )
            if config.objective.external and not config.tasks.paths:  # the trainer brings its own
                return facts
            return {**facts, "tasks": pack_tasks(config.tasks, out / "tokenizer.json", out / "tasks", progress)}

        tokens = workspace.make(recipes["tokens"], progress, tokens_of)
        return workspace.make(
            recipes["mixture"],
            progress,
            lambda out: search(
                workspace.root,
                config,
                read_domains(domains),
                tokens,
                recipes["tokens"].fingerprint,
                out,
                engine,
                progress,
            ),
        )


def search(
    root: Path,
    config: Config,
    domains: list[Domain],
    tokens: Path | None,
    data: str,
    out: Path,
    engine: Engine,
    progress: Progress,
) -> dict[str, object]:
    """Propose, run trials, learn, for each iteration; then let finalists and baselines contend, and measure the answer
    again beside the baselines with fresh seeds.

    `trials/` is the search's only state: a proposal is a function of the trials told so far, so a search that is
    run again comes to the same mixtures and finds their scores already there. Trials told or imported by hand are
    learnt from as well (`search/outside.py`), and so are those of another workspace: `reuse` stands between the
    domains and what the search weighs (`search/reuse.py`). `tokens` are the packed ones, None for domains given by
    hand; `data` is the fingerprint of what trials read.
    """
    folder = root / "trials"
    names = [domain.name for domain in domains]
    settings = trial_settings(config)
    required = required_of(config)
    goal = goal_of(config, ())
    external = config.objective.external
    objective = (
        load_objective(config.objective, root, domains, config.target.token_budget, tokens) if external else None
    )
    outside = outside_trials(read_trials(folder), data)
    if config.tasks.paths:  # a trainer of the user's may bring tasks of its own
        outside, useless = of_tasks(outside, search_tasks(config.tasks))
        if useless:
            progress.note(f"trials without a score of the search's tasks are left out: {', '.join(map(str, useless))}")
    reuse = reuse_for(root, config, domains)  # the trials of another workspace, where it gave some
    if reuse.said:
        progress.note(reuse.said)
    reuse = with_hints(reuse, root, config, domains)

    def train(proposals: Iterable[Proposal], label: str, parts: tuple[str, ...]) -> list[Trial]:
        asked = ask(folder, list(proposals), names, settings, data)
        if objective:
            return run_objective(
                folder, asked, objective, config.objective.parallel, config.tasks, label, engine, progress
            )
        assert tokens is not None  # without a corpus there is an objective
        return run_trials(folder, asked, tokens, config.proxy, config.tasks, config.run, parts, label, engine, progress)

    repeated = train(replicates(domains, config), "replicates", ("search",)) if config.search.replicates else []
    told: list[Trial] = []
    key = fingerprint([data, settings, {**asdict(config.search), "trials": []}, goal, config.seed])
    for iteration, n in enumerate(config.search.trials):
        place = root / "iterations" / f"{iteration:02d}"
        key = fingerprint([key, asdict(required), n])
        learnt = batch_history(place, key, outside)
        known = reuse.informed([*learnt, *told])
        batch = next_batch(known, reuse.searched, n, iteration, config.search, goal, config.seed, reuse.required)
        told += train(
            (
                Proposal("search", iteration, tuple(row), config.seed, config.search.proposer)
                for row in reuse.expanded(batch).tolist()
            ),
            f"iteration {iteration + 1} of {len(config.search.trials)}",
            ("search",),
        )
        goal = goal_of(config, [*told, *repeated])
        found = diagnose(reuse.informed([*learnt, *told]), reuse.searched, iteration, config.search, goal, config.seed)
        diagnostics = {**reuse.own_diagnostics(found), "signal": signal_rows(told, repeated, goal)}
        write_json(place / "diagnostics.json", diagnostics)
        progress.note(diagnostics["warning"] or f"best so far {diagnostics['best_measured']:.4f}")

    learnt = [*outside, *told]
    known = reuse.informed(learnt)
    best = finalists(known, reuse.searched, config.search, config.pick, goal, config.seed, reuse.required)
    compared = reuse.expanded_finalists(best)
    contest = open_contest(learnt, reuse, compared, config.search, config.pick, goal, required.at_least, config.seed)
    picked: list[Trial] = []
    last, both = len(config.search.trials), ("search", "report")
    while proposals := next_round(contest, picked, last):
        picked += train(proposals, f"finalists, seed {proposals[0].seed - config.seed} of {config.pick.seeds}", both)
    picked += train(claim(contest, picked, last), "the answer and the baselines", both)
    config = replace(config, tasks=replace(config.tasks, weights=goal))
    answer = pick(told, picked, read_items(folder, picked), domains, contest, config)
    answer["signal"] = signal_rows(told, [*repeated, *picked], goal)
    write_json(out / "mixture.json", answer)
    write_text(out / "mixture.csv", mixture_table(answer["domains"]))
    return {"sentence": answer["sentence"], "trials": len(read_trials(folder))}
