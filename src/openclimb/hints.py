"""Hints for a workspace's search: cheap scores of mixtures spread over its region, by the setting `search.hint`.

Reads `tokens/`. Writes `iterations/hints.json` (mixtures, scores, and what they were made from), once for the same
tokens, region and seed. `search/hint.py` says what the search makes of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Domain, Weights
from openclimb.proxy.ngram import count_ngrams
from openclimb.search.hint import ROLE
from openclimb.search.region import by_name, draw_in, region_of, rounded
from openclimb.search.reuse import Reuse
from openclimb.settings import Config
from openclimb.trials import Trial
from openclimb.workspace import fingerprint, read_json, write_json

N_HINTS = 256  # enough for a Gaussian process through them to rank other mixtures as the hint itself does (.99)
DRAW = 40_000  # stands for "the hints" in the seed of a draw

# (tokens folder, names of the domains, weights (n, n_domains), token budget) → task → scores (n,), higher is better
Hinter = Callable[[Path, Sequence[str], Weights, int], dict[str, NDArray[np.float64]]]


def with_hints(reuse: Reuse, root: Path, config: Config, domains: Sequence[Domain]) -> Reuse:
    """Return the same search with the hints of the settings; as it is where there are no packed tokens yet."""
    record = root / "tokens" / "record.json"
    if not config.search.hint or not record.is_file():
        return reuse
    ordered, back = by_name(domains)
    of = fingerprint(
        [read_json(record)["fingerprint"], asdict(config.constraints), config.search.hint, config.seed, N_HINTS]
    )
    path = root / "iterations" / "hints.json"
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    if found.get("of") != of:
        region = region_of(ordered, config.constraints)
        rng = np.random.default_rng([config.seed, DRAW])
        rows = rounded(draw_in(N_HINTS, region, rng), region)[:, back]
        names = [domain.name for domain in domains]
        scores = HINTERS[config.search.hint](root / "tokens", names, rows, config.proxy.token_budget)
        by_task = {task: values.tolist() for task, values in scores.items()}
        found = {"of": of, "domains": names, "weights": rows.tolist(), "scores": by_task}
        write_json(path, found)
    return reuse.hinted(_trials(found, config))


def _trials(found: dict[str, Any], config: Config) -> list[Trial]:
    return [
        Trial(
            number=-1 - i,
            role=ROLE,
            iteration=0,
            domains=tuple(found["domains"]),
            weights=tuple(row),
            seed=config.seed,
            token_budget=0,
            data=found["of"],
            proposer=ROLE,
            identity=f"{ROLE} {i}",
            scores={task: scores[i] for task, scores in found["scores"].items()},
        )
        for i, row in enumerate(found["weights"])
    ]


def _ngram(
    order: int, tokens: Path, names: Sequence[str], weights: Weights, token_budget: int
) -> dict[str, NDArray[np.float64]]:
    ngrams = count_ngrams(tokens, token_budget, order)
    columns = [list(names).index(name) for name in ngrams.domains]
    return dict(zip(ngrams.tasks, ngrams.scores(weights[:, columns]).T, strict=True))


HINTERS: dict[str, Hinter] = {"bigram": partial(_ngram, 2), "trigram": partial(_ngram, 3)}
