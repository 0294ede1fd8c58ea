"""What decides each stage's result: the recipes that records are compared with.

A recipe holds the settings that change the result, the fingerprints of what is read, and the version of the
stage's code (raise it when a stage gives other output for the same input). It holds nothing of where work runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openclimb.config import result_settings
from openclimb.corpus.survey import changed_inputs, input_fingerprint
from openclimb.errors import StaleError
from openclimb.given import DATA, FILE, has_given_domains
from openclimb.proxy.tasks import task_fingerprint
from openclimb.search.outside import told_fingerprint
from openclimb.settings import Config
from openclimb.trials import Trial, read_trials
from openclimb.workspace import Recipe, Workspace, folder_fingerprint, read_json, stale_error

STAGES = ("corpus", "clusters", "labels", "domains", "tokens", "mixture")
PRIOR = "prior"  # the folder of what a workspace took from another one (prior.py)
BY_HAND = "trials told or imported by hand"  # how the recipe of the search names them
VERSIONS = {**dict.fromkeys(STAGES, 1), "clusters": 3, "labels": 2, "tokens": 4, "mixture": 2}


def recipes(
    config: Config, input_files: str, task_files: str, trials: Sequence[Trial] = (), prior: str = ""
) -> dict[str, Recipe]:
    """Return the recipe of every stage, in order.

    `input_files` and `task_files` are fingerprints of the files that the settings match now, `trials` are those of the
    workspace: the search learns from the ones that were told or imported by hand. `prior` is the fingerprint of what
    was taken from another workspace.
    """
    made: dict[str, Recipe] = {}

    def add(stage: str, settings: dict[str, Any], upstream: Sequence[str], **inputs: str) -> None:
        known = {name: value for name, value in inputs.items() if value}
        known |= {f"{name}/": made[name].fingerprint for name in upstream}
        made[stage] = Recipe(stage, VERSIONS[stage], settings, known)

    seed = {"seed": config.seed}
    tokenizer = {"tokens.tokenizer": config.tokens.tokenizer, "tokens.vocab_size": config.tokens.vocab_size}
    add("corpus", _named(config, "corpus"), (), input_files=input_files)
    add(
        "clusters",
        {**_named(config, "embed"), **_named(config, "clusters"), **tokenizer, **seed},
        ("corpus",),
        embedder_model=folder_fingerprint(config.embed.model),
        tokenizer=folder_fingerprint(config.tokens.tokenizer),
        checkpoint_tokenizer=_checkpoint_tokenizer(config.proxy.checkpoint),
    )
    models = {
        f"fasttext {name}": folder_fingerprint(path.partition("#")[0]) for name, path in config.quality.fasttext.items()
    }
    add("labels", _named(config, "quality"), ("clusters",), **models)
    add("domains", {**_named(config, "domains"), **_named(config, "target")}, ("labels",))
    tasks = {
        name: value
        for name, value in _named(config, "tasks").items()
        if name not in ("tasks.weights", "tasks.weigh", "tasks.metric", "tasks.at_least", "tasks.goals")
    }
    budget = {"proxy.token_budget": config.proxy.token_budget, "proxy.sequence": config.proxy.sequence}
    add(
        "tokens",
        {"tokens.heldout": config.tokens.heldout, **tasks, **budget, **seed},
        ("domains",),
        task_files=task_files,
    )
    made["mixture"] = _mixture(
        config, {"tokens/": made["tokens"].fingerprint}, trials, made["tokens"].fingerprint, prior
    )
    return made


def _mixture(config: Config, inputs: dict[str, str], trials: Sequence[Trial], data: str, prior: str) -> Recipe:
    """Return the recipe of the search, whatever its domains come from."""
    goal: dict[str, Any] = {"tasks.weights": config.tasks.weights, "tasks.metric": config.tasks.metric}
    musts = {**_named(config, "constraints"), "tasks.at_least": config.tasks.at_least}
    musts |= {"tasks.weigh": config.tasks.weigh if config.tasks.weigh != "equal" else ""}
    musts |= {"search.replicates": config.search.replicates}
    if config.search.proposer == "pareto":
        musts["tasks.goals"] = {name: list(members) for name, members in config.tasks.goals.items()}
    goal |= {name: value for name, value in musts.items() if value}  # an answer of before there were any stays fresh
    told = told_fingerprint(trials, data)
    goal |= {BY_HAND: told} if told else {}
    search = _search(config)
    if not prior:
        del search["search.reuse"]  # there is nothing to reuse
    settings = {
        **_trainer(config),
        **search,
        **_named(config, "pick"),
        **goal,
        "seed": config.seed,
    }
    if not config.objective.external and config.proxy.checkpoint:
        inputs = inputs | {"checkpoint": folder_fingerprint(config.proxy.checkpoint)}
    if prior:
        inputs = inputs | {"prior": prior}
    return Recipe("mixture", VERSIONS["mixture"], settings, inputs)


def _trainer(config: Config) -> dict[str, Any]:
    """Return the settings of what scores a trial."""
    if not config.objective.external:
        return _proxy(config)
    return {**_named(config, "objective"), "proxy.token_budget": config.proxy.token_budget}


def _named(config: Config, section: str) -> dict[str, Any]:
    """Return a section's result settings as {"section.key": value}."""
    return {f"{section}.{key}": value for key, value in result_settings(getattr(config, section)).items()}


def _proxy(config: Config) -> dict[str, Any]:
    """Return the proxy's settings; without a checkpoint, as they were before there was such a setting."""
    found = _named(config, "proxy")
    return found if config.proxy.checkpoint else {k: v for k, v in found.items() if k != "proxy.checkpoint"}


def _search(config: Config) -> dict[str, Any]:
    found = {name: value for name, value in _named(config, "search").items() if name != "search.replicates"}
    return found if config.search.hint else {name: value for name, value in found.items() if name != "search.hint"}


def _checkpoint_tokenizer(checkpoint: str) -> str:
    """Return the fingerprint of a checkpoint's tokenizer; a hub's is known by the checkpoint's name."""
    if not checkpoint:
        return ""
    return folder_fingerprint(str(Path(checkpoint) / "tokenizer.json")) or checkpoint


def current_recipes(workspace: Workspace, config: Config) -> dict[str, Recipe]:
    """Return the recipe of every stage for the settings and the input files as they are now."""
    for stage in STAGES:
        workspace.recover(stage)
    trials = read_trials(workspace.root / "trials")
    record = workspace.root / PRIOR / "record.json"
    prior = str(read_json(record)["fingerprint"]) if record.is_file() else ""
    if has_given_domains(config):
        inputs = {FILE: folder_fingerprint(str(workspace.root / FILE))}
        return {"mixture": _mixture(config, inputs, trials, DATA, prior)}
    return recipes(config, input_fingerprint(config.corpus), task_fingerprint(config.tasks), trials, prior)


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


def trial_settings(config: Config) -> dict[str, Any]:
    """Return the settings that, with mixture, seed and data, decide a trial's scores."""
    if config.objective.external:  # the proxy's shape is not its trainer's
        return {**result_settings(config.objective), "token_budget": config.proxy.token_budget}
    proxy = result_settings(config.proxy)
    checkpoint = proxy.pop("checkpoint")
    if checkpoint:  # known by its content, wherever it is; a hub's by its name
        proxy["checkpoint"] = folder_fingerprint(checkpoint) or checkpoint
    return {**proxy, "metric": config.tasks.metric}
