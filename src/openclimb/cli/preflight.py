"""What `climb run` would stop on after minutes of work: found by `climb plan`, all at once, each with its fix.

Looks at settings, packages, folders and the first bytes of files. Trains nothing and fetches nothing.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from openclimb.config.registry import load
from openclimb.config.schema import Config, CorpusSettings, ProxySettings
from openclimb.corpus.custom_domains import has_custom_domains
from openclimb.corpus.reading.formats import text_stream
from openclimb.corpus.reading.lines import BOM
from openclimb.corpus.reading.read import damage
from openclimb.corpus.reading.store import open_file, patiently
from openclimb.corpus.reading.units import CHECKED_FILES, check_inputs, list_files
from openclimb.errors import ConfigError, InputError, MissingDependency, OpenclimbError
from openclimb.tasks.items import PartSize, check_task, task_files

PACKAGES = {"model2vec": "model2vec", "sentence-transformers": "sentence_transformers"}  # embedder → what it imports
TREES = ("lightgbm", "recipe")  # predictors that need LightGBM
LOOK = 1024  # bytes of a file


class Faults:
    """The errors that were found, in order."""

    def __init__(self) -> None:
        self.found: list[OpenclimbError] = []

    def ask(self, check: Callable[[], Any], default: Any = None) -> Any:
        """Return what a check returns; keep the OpenclimbError that it raises and return `default`."""
        try:
            return check()
        except OpenclimbError as error:
            self.found.append(error)
            return default

    def stop(self) -> None:
        """Raise the one error that was found, or one that lists all of them with their fixes."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            lines = [f"\n  {i}. {one.message}\n     fix: {one.fix}" for i, one in enumerate(self.found, 1)]
            raise ConfigError(
                f"{len(self.found)} things would stop the run:{''.join(lines)}", "correct each, then plan again"
            )


def preflight(
    root: Path, config: Config, done: frozenset[str], *, listed: bool = True
) -> tuple[dict[str, Any], dict[str, dict[str, PartSize]]]:
    """Return facts of the inputs and {task: {part: its size}} after all checks; `done` are stages that are finished.

    A corpus that cannot be `listed` yet is not looked at, nor its models, and there need not be tasks.
    Raises the error of what the run would stop on; several as one.
    """
    faults = Faults()
    inputs: dict[str, Any] = {}
    given = has_custom_domains(config)
    if listed and not given:
        inputs = faults.ask(partial(check_inputs, config.corpus, config.tokens.tokenizer), {})
        if inputs and "labels" not in done:
            faults.ask(partial(stop_on_arrays, config.corpus))
            for check in _label_checks(root, config):
                faults.ask(check)
        if config.tokens.tokenizer and "tokens" not in done:
            faults.ask(partial(_check_tokenizer, Path(config.tokens.tokenizer).expanduser()))
    tasks: dict[str, dict[str, PartSize]] = {}
    if config.tasks.paths or not (config.objective.external or given or not listed):
        for name, path in faults.ask(partial(task_files, config.tasks), {}).items():
            counts = faults.ask(partial(check_task, name, path, config.tasks))
            tasks |= {name: counts} if counts else {}
    for check in _search_checks(root, config):
        faults.ask(check)
    faults.stop()
    return inputs, tasks


def _label_checks(root: Path, config: Config) -> Iterator[Callable[[], Any]]:
    """Yield checks of what embeds and scores documents."""
    from openclimb.clustering.embed import embedding_fingerprint
    from openclimb.quality.scorers import Place, load_scorers

    if not config.corpus.domains:
        yield partial(check_embedder, config)
    vectors = embedding_fingerprint(config.embed, root / "clusters")
    yield partial(load_scorers, config.quality, Place(root, config.embed.trust_remote_code, vectors))
    if config.corpus.dedup == "near":
        yield partial(_need, "rensa", "rensa", "pip install 'openclimb[dedup]'")


def _search_checks(root: Path, config: Config) -> Iterator[Callable[[], Any]]:
    """Yield checks of what proposes, predicts and scores trials."""
    from openclimb.search.acquisition.pareto import goals_of
    from openclimb.search.goal import check_weighting

    yield partial(check_weighting, config)
    yield partial(load, "proposer", config.search.proposer)
    yield partial(load, "predictor", config.search.predictor)
    if config.search.predictor in TREES:
        yield partial(_need, "lightgbm", "lightgbm", "pip install 'openclimb[lightgbm]'")
    if config.search.proposer == "pareto":
        yield partial(goals_of, config.tasks, tuple(config.tasks.goals))
    kind = config.objective.resolved
    if kind == "command":
        yield partial(check_command, root, config.objective.command)
    elif kind == "proxy":
        yield partial(check_device, config.run.device)
        yield partial(check_shape, config.proxy)
    else:
        from openclimb.objectives.function import find_function

        yield partial(find_function, kind)


def check_embedder(config: Config) -> None:
    """Raise what the embedder would raise when the sample is drawn: its package, its folder, its function."""
    from openclimb.clustering.embed import check_model

    embedder = config.embed.embedder
    load("embedder", embedder)
    if embedder in PACKAGES:
        _need(embedder, PACKAGES[embedder], "pip install 'openclimb[embed]'")
        check_model(config.embed)


def check_command(root: Path, words: tuple[str, ...]) -> None:
    """Raise ConfigError when the program of objective.command cannot be found from the workspace's folder."""
    if not words:
        raise ConfigError("objective.kind is 'command' and objective.command is empty", "write the trainer's command")
    program = words[0]
    there = shutil.which(str(root / program)) if "/" in program else shutil.which(program)
    if there is None:
        raise ConfigError(
            f"objective.command: there is no program '{program}' that can be run from {root}",
            "write its whole path, or install it",
        )


def check_device(device: str) -> None:
    """Raise MissingDependency when a GPU is asked for and there is none."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise MissingDependency("a CUDA device", "set device = 'cpu' or 'auto' in [run]")


def check_shape(proxy: ProxySettings) -> None:
    """Raise ConfigError for a shape that no proxy can have. A checkpoint brings its own."""
    if not proxy.checkpoint and (proxy.width % proxy.heads or proxy.width // proxy.heads % 2):
        raise ConfigError(
            f"proxy.width = {proxy.width} must be an even multiple of proxy.heads = {proxy.heads}",
            f"set proxy.width to {max(1, proxy.width // proxy.heads // 2) * 2 * proxy.heads}",
        )


def stop_on_arrays(corpus: CorpusSettings) -> None:
    """Raise InputError for a file of JSON lines that holds one JSON array instead."""
    files = [file for file in list_files(corpus) if file.format.startswith("jsonl")]
    some = files[:: max(1, len(files) // CHECKED_FILES)]
    arrays = [file for file in some if patiently(file.path, partial(_begins, file.path, file.format))]
    if arrays:
        more = f" (and {len(arrays) - 1} more)" if len(arrays) > 1 else ""
        raise InputError(
            f"{arrays[0].name} is one JSON array, not JSON lines{more}",
            "write a document a line: jq -c '.[]' FILE > NEW.jsonl",
        )


def _begins(path: str, kind: str) -> bool:
    """Return whether a file begins as a JSON array of objects does."""
    with open_file(path) as stream, damage():
        text, _ = text_stream(stream, kind.partition(".")[2])
        head = text.read(LOOK).removeprefix(BOM).lstrip()
    return bool(head.startswith(b"[") and head[1:].lstrip()[:1] in (b"{", b"]", b""))


def _check_tokenizer(path: Path) -> None:
    from openclimb.corpus.tokenizer import ends_of

    ends_of(path)


def _need(name: str, module: str, fix: str) -> None:
    if find_spec(module) is None:
        raise MissingDependency(name, fix)
