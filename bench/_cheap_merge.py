"""Merging: one component model a domain from a shared trunk, weights averaged by mixture (DeMix 2602.00747).

The trunk is the natural mixture's proxy at the end of its plateau; each component goes on from it, weights and moments,
on one domain alone while its rate falls to zero. Any mixture then costs an average of weights and an evaluation.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from openclimb.config.schema import Config
from openclimb.engines.local import set_allocator
from openclimb.mixture import Weights
from openclimb.proxy import train
from openclimb.proxy.data import open_tokens
from openclimb.proxy.evaluate import evaluate, score_of
from openclimb.proxy.hf_io import make_decoder
from openclimb.proxy.optimizer import schedule
from openclimb.proxy.stack.program import Program, program_for
from openclimb.proxy.train import KEPT_BLOCK, Training
from openclimb.workspace.files import atomic, read_json, write_json
from openclimb.workspace.trials import Trial

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Merged:
    """Scores (n, n_tasks) of merged models, and the seconds of one core that they took."""

    scores: Floats
    fixed: float  # trunk and components
    each: float  # a mixture


def merged(
    root: Path, config: Config, like: Trial, weights: Weights, tasks: tuple[str, ...], trunk: float, part: float
) -> Merged:
    """Return the scores of models merged by the rows of `weights`; what was made in `root` is not made again.

    `like`: a trial of the natural mixture. `trunk` and `part` are shares of its token budget: what the trunk reads,
    and what each component reads after it.
    """
    place = root / f"merged-{trunk:g}-{part:g}"
    place.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    set_allocator(KEPT_BLOCK)
    budget = round((trunk + part) * like.token_budget)
    proxy = replace(config.proxy, token_budget=budget)
    train.schedule = partial(schedule, decay=part / (trunk + part))  # each part ends with the fall of the rate
    vocab_size = open_tokens(root / "tokens").vocab_size
    program = program_for(make_decoder(proxy, vocab_size, [like.seed]), proxy, "cpu")
    if not (place / "seconds.json").exists():
        began = time.process_time()
        found = _train(program, replace(like, token_budget=budget), replace(config, proxy=proxy), root, trunk, part)
        with atomic(place / "parts.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]
        write_json(place / "seconds.json", time.process_time() - began)
    if not (place / "scores.json").exists() or len(read_json(place / "scores.json")["rows"]) != len(weights):
        began = time.process_time()
        rows = _scores(program, place, config, root, weights, tasks)
        write_json(place / "scores.json", {"rows": rows, "each": (time.process_time() - began) / len(weights)})
    scores = read_json(place / "scores.json")
    return Merged(np.array(scores["rows"]), float(read_json(place / "seconds.json")), float(scores["each"]))


def _train(
    program: Program, like: Trial, config: Config, root: Path, trunk: float, part: float
) -> dict[str, NDArray[np.float32]]:
    """Return each component's weights, by kind and domain."""
    tokens = open_tokens(root / "tokens")
    training = Training(program, [like], tokens, config.proxy)
    fork = round(trunk / (trunk + part) * training.n_steps)
    training.advance(fork)
    state = program.optimiser.state(0)
    found = {}
    for domain, alone in enumerate(np.eye(len(like.domains))):
        training = Training(program, [replace(like, weights=tuple(alone.tolist()))], tokens, config.proxy)
        program.optimiser.load([state], fork)
        training.step = fork
        training.advance(training.n_steps)
        found |= {f"{kind}/{domain}": flat.detach().numpy().copy() for kind, flat in program.optimiser.flat.items()}
    return found


def _scores(
    program: Program, place: Path, config: Config, root: Path, weights: Weights, tasks: tuple[str, ...]
) -> list[list[float]]:
    with np.load(place / "parts.npz", allow_pickle=False) as stored:
        parts = {
            kind: torch.from_numpy(np.stack([stored[f"{kind}/{domain}"] for domain in range(weights.shape[1])]))
            for kind in program.optimiser.flat
        }
    rows = []
    for row in torch.from_numpy(weights.astype(np.float32)):
        with torch.no_grad():
            for kind, flat in program.optimiser.flat.items():
                flat.copy_(torch.tensordot(row, parts[kind], 1))
        means = evaluate(program.model, root / "tokens", config.tasks, ("search",), "cpu")[0].means["search"]
        rows.append([score_of(means[task], config.tasks.metric) for task in tasks])
    return rows
