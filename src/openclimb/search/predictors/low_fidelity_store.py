"""Low-fidelity scores of mixtures spread over a workspace's region, by the setting `search.low_fidelity`.

Reads `tokens/`. Writes `iterations/low_fidelity.json` (mixtures, scores, and what they were made from), once for the
same tokens, region and seed. `low_fidelity.py` has what the predictors make of them.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb import seeds
from openclimb.config.registry import load
from openclimb.config.schema import Config
from openclimb.mixture import Domain, Weights
from openclimb.search.predictors.ngram import count_ngrams
from openclimb.search.space.region import by_name, draw_in, region_of, rounded
from openclimb.workspace.files import fingerprint, read_json, write_json
from openclimb.workspace.observations import LOW_FIDELITY, Observation

N_MIXTURES = 256  # enough for a Gaussian process through their scores to rank other mixtures as the scores do (.99)

Scores = dict[str, NDArray[np.float64]]  # task → scores (n,) of n mixtures, higher is better


def low_fidelity(root: Path, config: Config, domains: Sequence[Domain]) -> list[Observation]:
    """Return the low-fidelity scores that the settings ask for; none where there are no packed tokens yet."""
    record = root / "tokens" / "record.json"
    if not config.search.low_fidelity or not record.is_file():
        return []
    ordered, back = by_name(domains)
    of = fingerprint(
        [
            read_json(record)["fingerprint"],
            asdict(config.constraints),
            config.search.low_fidelity,
            config.seed,
            N_MIXTURES,
        ]
    )
    path = root / "iterations" / "low_fidelity.json"
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    if found.get("of") != of:
        region = region_of(ordered, config.constraints)
        rng = seeds.stream(config.seed, "low_fidelity")
        rows = rounded(draw_in(N_MIXTURES, region, rng), region)[:, back]
        names = [domain.name for domain in domains]
        scores = load("low_fidelity", config.search.low_fidelity)(
            root / "tokens", names, rows, config.proxy.token_budget
        )
        by_task = {task: values.tolist() for task, values in scores.items()}
        found = {"of": of, "domains": names, "weights": rows.tolist(), "scores": by_task}
        write_json(path, found)
    return _observations(found, config)


def _observations(found: dict[str, Any], config: Config) -> list[Observation]:
    return [
        Observation(
            LOW_FIDELITY,
            tuple(found["domains"]),
            tuple(row),
            {task: scores[i] for task, scores in found["scores"].items()},
            config.seed,
            i,
        )
        for i, row in enumerate(found["weights"])
    ]


def bigram(tokens: Path, names: Sequence[str], weights: Weights, token_budget: int) -> Scores:
    """Return a bigram model's scores, minus bits per byte by task."""
    return _ngram(2, tokens, names, weights, token_budget)


def trigram(tokens: Path, names: Sequence[str], weights: Weights, token_budget: int) -> Scores:
    """Return a trigram model's scores, minus bits per byte by task."""
    return _ngram(3, tokens, names, weights, token_budget)


def _ngram(order: int, tokens: Path, names: Sequence[str], weights: Weights, token_budget: int) -> Scores:
    ngrams = count_ngrams(tokens, token_budget, order)
    columns = [list(names).index(name) for name in ngrams.domains]
    return dict(zip(ngrams.tasks, ngrams.scores(weights[:, columns]).T, strict=True))
