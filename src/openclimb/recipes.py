"""What decides each stage's result: the recipes that records are compared with.

A recipe holds the settings that change the result, the fingerprints of what is read, and the version of the
stage's code (raise it when a stage gives other output for the same input). It holds nothing of where work runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openclimb.config.load import recorded_settings
from openclimb.config.schema import Config
from openclimb.corpus.custom_domains import FILE, NO_DATA, has_custom_domains
from openclimb.corpus.left_out import finds_duplicates
from openclimb.corpus.pack import least_tokens
from openclimb.corpus.reading.store import is_remote
from openclimb.corpus.reading.units import changed_inputs, input_fingerprint
from openclimb.corpus.tokenizer import tokenizer_fingerprint
from openclimb.errors import StaleError, WorkspaceError
from openclimb.quality.scorers import scorer_files
from openclimb.search.external import external_fingerprint
from openclimb.tasks.items import reported, task_fingerprint
from openclimb.workspace.damage import stop_if_damaged
from openclimb.workspace.files import folder_fingerprint, read_json
from openclimb.workspace.records import READ_WHOLE, STAGES, TRANSFER, Recipe, Workspace, stale_error
from openclimb.workspace.trials import Trial, read_trials

# Settings that change nothing with these values; records made before there was a choice do not name them.
UNSAID = {
    "embed.revision": "",
    "embed.max_tokens": 0,
    "quality.label": "expected",
    "domains.centroids": "unit",
    "search.answer": "tested",
}
BY_HAND = "trials completed or imported by hand"  # how the recipe of the search names them
VERSIONS = {**dict.fromkeys(STAGES, 1), "corpus": 3, "clusters": 4, "labels": 3, "tokens": 6, "mixture": 2}


def recipes(
    config: Config,
    input_files: str,
    task_files: str,
    trials: Sequence[Trial] = (),
    transfer: str = "",
    root: Path = Path(),
) -> dict[str, Recipe]:
    """Return the recipe of every stage, in order.

    `input_files` and `task_files` are fingerprints of the files that the settings match now, `trials` are those of the
    workspace: the search learns from the ones that were told or imported by hand. `transfer` is the fingerprint of what
    was taken from another workspace; `root` is the workspace, whose students may score.
    """
    made: dict[str, Recipe] = {}

    def add(stage: str, settings: dict[str, Any], upstream: Sequence[str], **inputs: str) -> None:
        known = {name: value for name, value in inputs.items() if value}
        known |= {f"{name}/": made[name].fingerprint for name in upstream}
        made[stage] = Recipe(stage, VERSIONS[stage], settings, known)

    seed = {"seed": config.seed}
    tokenizer = {"tokens.tokenizer": config.tokens.tokenizer, "tokens.vocab_size": config.tokens.vocab_size}
    corpus = _named(config, "corpus")
    dedup = {"corpus.dedup": corpus.pop("corpus.dedup")} if finds_duplicates(config) else {}
    corpus.pop("corpus.dedup", None)  # what is read is the same
    add("corpus", corpus, (), input_files=input_files)
    add(
        "clusters",
        {**_named(config, "embed"), **_named(config, "clusters"), **tokenizer, **seed},
        ("corpus",),
        embedder_model=folder_fingerprint(config.embed.model),
        tokenizer=tokenizer_fingerprint(config.tokens.tokenizer),
        checkpoint_tokenizer=_checkpoint_tokenizer(config.proxy.checkpoint),
    )
    models = {name: folder_fingerprint(path) for name, path in scorer_files(config.quality, root).items()}
    add("labels", _named(config, "quality"), ("clusters",), **models)
    if dedup:
        add("duplicates", dedup, ("labels",))
    parts = {"tasks.report_only": list(reported(config.tasks)), "tasks.max_items": config.tasks.max_items}
    if config.tasks.contamination != "off" and config.tasks.paths:
        add("contamination", parts, ("labels",), task_files=task_files)
    found = {what: _left_out(config, what) for what in ("documents", "items")}
    least = {"least_tokens": least_tokens(config.proxy, config.target)}
    add(
        "domains",
        {**_named(config, "domains"), **_named(config, "target"), **least, **dedup, **found["documents"]},
        ("labels", *(["duplicates"] if dedup else []), *(["contamination"] if found["documents"] else [])),
    )
    add(
        "tokens",
        {**_packed(config), **parts, **seed, **found["items"]},
        ("domains", *(["contamination"] if found["items"] else [])),
        task_files=task_files,
    )
    made["mixture"] = _mixture(
        config, {"tokens/": made["tokens"].fingerprint}, trials, made["tokens"].fingerprint, transfer
    )
    return made


def _packed(config: Config) -> dict[str, Any]:
    """Return what decides which tokens are packed, beside the domains and the parts of tasks."""
    return {
        "tokens.heldout": config.tokens.heldout,
        "tasks.paths": _named(config, "tasks")["tasks.paths"],
        "proxy.token_budget": config.proxy.token_budget,
        "proxy.sequence": config.proxy.sequence,
    }


def _left_out(config: Config, what: str) -> dict[str, Any]:
    """Return the setting that leaves documents or items out, where it does."""
    on = config.tasks.contamination == what and config.tasks.paths
    return {"tasks.contamination": what} if on else {}


def _mixture(config: Config, inputs: dict[str, str], trials: Sequence[Trial], data: str, transfer: str) -> Recipe:
    """Return the recipe of the search, whatever its domains come from."""
    goal: dict[str, Any] = {"tasks.weights": config.tasks.weights, "tasks.metric": config.tasks.metric}
    goal |= {
        **_named(config, "constraints"),
        "tasks.thresholds": config.tasks.thresholds,
        "tasks.weighting": config.tasks.weighting,
    }
    if config.search.proposer == "pareto":
        goal["tasks.goals"] = {name: list(members) for name, members in config.tasks.goals.items()}
    completed = external_fingerprint(trials, data)
    goal |= {BY_HAND: completed} if completed else {}
    search = _named(config, "search")
    if not transfer:
        del search["search.transfer"]  # there is nothing to reuse
    settings = {
        **_trainer(config),
        **search,
        **_named(config, "selection"),
        **goal,
        "seed": config.seed,
    }
    if not config.objective.external and config.proxy.checkpoint:
        inputs = inputs | {"checkpoint": folder_fingerprint(config.proxy.checkpoint)}
    if transfer:
        inputs = inputs | {"transfer": transfer}
    return Recipe("mixture", VERSIONS["mixture"], settings, inputs)


def _trainer(config: Config) -> dict[str, Any]:
    """Return the settings of what scores a trial."""
    if not config.objective.external:
        return _named(config, "proxy")
    return {**_named(config, "objective"), "proxy.token_budget": config.proxy.token_budget}


def _named(config: Config, section: str) -> dict[str, Any]:
    """Return a section's result settings as {"section.key": value}; of those of UNSAID the others than theirs."""
    named = {f"{section}.{key}": value for key, value in recorded_settings(getattr(config, section)).items()}
    return {key: value for key, value in named.items() if key not in UNSAID or value != UNSAID[key]}


def _checkpoint_tokenizer(checkpoint: str) -> str:
    """Return the fingerprint of a checkpoint's tokenizer; a hub's is known by the checkpoint's name."""
    if not checkpoint:
        return ""
    return tokenizer_fingerprint(str(Path(checkpoint) / "tokenizer.json")) or checkpoint


def current_recipes(workspace: Workspace, config: Config, *, network: bool = True) -> dict[str, Recipe]:
    """Return the recipe of every stage for the settings and the input files as they are now.

    Without `network`, files of other stores are taken as the records have them.
    """
    trials = read_trials(workspace.root / "trials")
    record = workspace.root / TRANSFER / "record.json"
    transfer = str(read_json(record)["fingerprint"]) if record.is_file() else ""
    if has_custom_domains(config):
        inputs = {FILE: folder_fingerprint(str(workspace.root / FILE))}
        return {"mixture": _mixture(config, inputs, trials, NO_DATA, transfer)}
    asked = network or not any(map(is_remote, config.corpus.paths))
    documents = input_fingerprint(config.corpus) if asked else _recorded(workspace, ("corpus",), "input_files")
    asked = network or not any(map(is_remote, config.tasks.paths))
    tasks = task_fingerprint(config.tasks) if asked else _recorded(workspace, ("tokens", "contamination"), "task_files")
    return recipes(config, documents, tasks, trials, transfer, workspace.root)


def _recorded(workspace: Workspace, stages: Sequence[str], name: str) -> str:
    """Return the fingerprint of the input files that the first of these stages was made from; empty where none is."""
    for stage in stages:
        folder = workspace.folder(stage)
        for path in (folder / "record.json", folder.with_name(f"{stage}.partial") / "recipe.json"):
            if path.is_file():
                return str(read_json(path)["inputs"].get(name, ""))
    return ""


def trial_data(recipes: Mapping[str, Recipe]) -> str:
    """Return the fingerprint of what the search's trials read: the packed tokens, where there is a corpus."""
    return recipes["tokens"].fingerprint if "tokens" in recipes else NO_DATA


def stop_if_stale(workspace: Workspace, config: Config, made: dict[str, Recipe]) -> None:
    """Raise StaleError for the first stage that was made from other settings or inputs than the present ones."""
    for stage, recipe in made.items():
        state = workspace.state(recipe)
        if state.state == "stale":
            error = stale_error(state, workspace.root)
            files = changed_inputs(workspace.folder("corpus"), config.corpus) if stage == "corpus" else []
            if any(line.startswith(BY_HAND) for line in state.differs):
                files = ["they came after the search; redone, it learns from them, keeps its trials and picks again"]
            more = "".join(f"\n  {line}" for line in files)
            raise StaleError(error.message + more, error.fix)


def stop_if_unfinished(workspace: Workspace, config: Config, made: dict[str, Recipe]) -> None:
    """Raise where what comes after a search cannot begin.

    StaleError as `stop_if_stale`, WorkspaceError where there is no answer yet, or a file of a stage is damaged.
    """
    stop_if_stale(workspace, config, made)
    if workspace.state(made["mixture"]).state != "done":
        raise WorkspaceError(f"{workspace.root} has no mixture yet", f"climb run {workspace.root}")
    for stage in STAGES:
        stop_if_damaged(workspace.root, [stage], stage in READ_WHOLE)
