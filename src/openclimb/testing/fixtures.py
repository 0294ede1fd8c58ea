"""Small real things for tests and benchmarks: trials with scores, tasks, a workspace of seconds. Nothing is faked."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import openclimb
from openclimb.config.schema import CorpusSettings, SearchSettings
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.reading.units import read_units, survey
from openclimb.engines.local import LocalEngine
from openclimb.mixture import Domain
from openclimb.progress import Progress
from openclimb.search.acquisition.spec import make_spec
from openclimb.search.space.search_space import SearchSpace
from openclimb.workspace.context import StageContext
from openclimb.workspace.observations import OWN, PENDING, Observation, observed
from openclimb.workspace.trials import Trial

GENRES = {"stories": ("novel", "manners"), "speech": ("scripture", "politics")}
CONTEXT_WORDS, OPTION_WORDS, N_OPTIONS = 24, 12, 4

SETTINGS: dict[str, dict[str, object]] = {
    "embed": {"embedder": "hashing"},
    "clusters": {"k": 8, "sample": 400},
    "domains": {"merge_to": 4, "min_share": 0.01},
    "target": {"token_budget": 100_000},
    "tokens": {"vocab_size": 512, "heldout": 0.05},
    "proxy": {"width": 32, "depth": 1, "heads": 2, "sequence": 32, "batch": 8, "token_budget": 8192},
    "search": {"trials": [4, 2, 2]},
    "selection": {"finalists": 1, "seeds": 2},
    "run": {"workers": 1},
}


def make_tiny_tasks(folder: Path, passages_file: Path) -> Path:
    """Write two task files from JSON lines of passages: which continuation belongs to the beginning of a passage?"""
    folder.mkdir(parents=True, exist_ok=True)
    passages = [json.loads(line) for line in passages_file.read_text(encoding="utf-8").splitlines()]
    for name, domains in GENRES.items():
        mine = [passage["text"].split() for passage in passages if passage["domain"] in domains]
        lines = [json.dumps(_item(mine, i)) + "\n" for i in range(len(mine))]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def _item(passages: list[list[str]], number: int) -> dict[str, object]:
    """Return the question about one passage; the wrong options continue the passages that follow it in the list."""
    end = CONTEXT_WORDS + OPTION_WORDS
    gold = number % N_OPTIONS
    options = [
        " " + " ".join(passages[(number + i - gold) % len(passages)][CONTEXT_WORDS:end]) for i in range(N_OPTIONS)
    ]
    return {"context": " ".join(passages[number][:CONTEXT_WORDS]), "options": options, "gold": gold}


def make_tiny_workspace(root: Path, paths: Path, tasks: Path, /, **changes: dict[str, object]) -> Path:
    """Make a workspace over a small corpus file and a folder of task files; return its root."""
    sections = {name: {**values, **changes.get(name, {})} for name, values in SETTINGS.items()}
    sections |= {name: values for name, values in changes.items() if name not in sections}
    sections["corpus"] = {"paths": [str(paths)], **changes.get("corpus", {})}
    sections["tasks"] = {"paths": [f"{tasks}/*.jsonl"], "max_items": 40, **changes.get("tasks", {})}
    openclimb.init(root, scale="demo", **sections)
    return root


def make_space(domains: Sequence[Domain], search: SearchSettings, *args: Any, **spec: Any) -> SearchSpace:
    """Return a search space of these domains that nothing else informs; further arguments as those of `make_spec`."""
    return SearchSpace(tuple(domains), make_spec(domains, search, *args, **spec))


def make_domains(n: int, cap: float = 1.0, seed: int = 0) -> list[Domain]:
    """Return n domains of very different sizes; caps leave room for a mixture."""
    rng = np.random.default_rng(seed)
    tokens = np.round(1e6 * np.exp(rng.standard_normal(n))).astype(int)
    return [
        Domain(f"domain-{i:02d}", int(tokens[i]), max(cap, 1.2 / n, float(tokens[i] / tokens.sum()))) for i in range(n)
    ]


def make_trial(
    number: int,
    domains: Sequence[Domain],
    weights: Sequence[float],
    scores: dict[str, float],
    *,
    role: str = "search",
    seed: int = 0,
) -> Trial:
    """Return a completed trial."""
    return Trial(
        number=number,
        role=role,
        iteration=0,
        domains=tuple(domain.name for domain in domains),
        weights=tuple(float(weight) for weight in weights),
        seed=seed,
        token_budget=1000,
        data="data",
        proposer="climb",
        identity=f"identity-{number}",
        scores=scores,
    )


def make_observation(
    name: int,
    domains: Sequence[Domain],
    weights: Sequence[float],
    scores: dict[str, float],
    *,
    source: str = OWN,
    seed: int = 0,
) -> Observation:
    """Return an observation; without scores the mixture is pending."""
    source = source if scores else PENDING
    names = tuple(domain.name for domain in domains)
    return Observation(source, names, tuple(float(weight) for weight in weights), scores, seed, name)


def smooth_trials(domains: Sequence[Domain], n: int, seed: int = 0, noise: float = 0.01) -> list[Trial]:
    """Return n trials at random mixtures, with two tasks that are smooth in the weights."""
    rng = np.random.default_rng(seed)
    weights: NDArray[np.float64] = rng.dirichlet(np.ones(len(domains)), n)
    likes = rng.random((len(domains), 2))
    scores = np.sqrt(weights) @ likes + noise * rng.standard_normal((n, 2))
    return [
        make_trial(i + 1, domains, weights[i], {"first": float(scores[i, 0]), "second": float(scores[i, 1])})
        for i in range(n)
    ]


def smooth_observations(domains: Sequence[Domain], n: int, seed: int = 0, noise: float = 0.01) -> list[Observation]:
    """Return what `smooth_trials` say."""
    return observed(smooth_trials(domains, n, seed, noise))


def survey_pieces(corpus: CorpusSettings, folder: Path, pieces: int = 1) -> list[Unit]:
    """Survey a corpus of one JSONL file and return its units, cut into so many pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    survey(StageContext(folder, LocalEngine(1), Progress()), corpus)
    (unit,) = read_units(folder)
    edges = np.linspace(0, unit.stop, pieces + 1).astype(int).tolist()
    return [
        replace(unit, number=i, start=a, stop=b, n_bytes=b - a)
        for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False))
    ]


def complaint(stderr: str) -> str:
    """Return what a command wrote to stderr, which must be an error with its fix and no traceback."""
    assert stderr.startswith("error: "), stderr
    assert "\nfix: " in stderr, stderr
    assert "Traceback" not in stderr, stderr
    return stderr
