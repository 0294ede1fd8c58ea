"""Merging: one component model a domain from a shared trunk, weights averaged by mixture (DeMix 2602.00747).

The trunk is the natural mixture's proxy at the end of its plateau; each component goes on from it, weights and moments,
on one domain alone while its rate falls to zero. Any mixture then costs an average of weights and an evaluation.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from openclimb.config import Config
from openclimb.engine import set_allocator
from openclimb.mixture import Weights
from openclimb.proxy.batches import open_tokens
from openclimb.proxy.evaluate import evaluate, score_of
from openclimb.proxy.llama import make_decoder
from openclimb.proxy.program import program_for
from openclimb.proxy.train import KEPT_BLOCK, Training
from openclimb.trials import Trial


@dataclass(frozen=True)
class Merged:
    """Scores (n, n_tasks) of merged models, and the seconds of one core that they took."""

    scores: NDArray[np.float64]
    fixed: float  # trunk and components
    each: float  # a mixture


def merged(
    root: Path, config: Config, like: Trial, weights: Weights, tasks: tuple[str, ...], trunk: float, part: float
) -> Merged:
    """Return the scores of models merged by the rows of `weights`.

    `like`: a trial of the natural mixture. `trunk` and `part` are shares of its token budget: what the trunk reads,
    and what each component reads after it.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    set_allocator(KEPT_BLOCK)
    began = time.process_time()
    budget = round((trunk + part) * like.token_budget)
    proxy = replace(config.proxy, token_budget=budget, early=(), decay=part / (trunk + part))
    like = replace(like, token_budget=budget)
    tokens = open_tokens(root / "tokens")
    program = program_for(make_decoder(proxy, tokens.vocab_size, [like.seed]), proxy, "cpu", False)
    training = Training(program, [like], tokens, proxy)
    fork = round(trunk / (trunk + part) * training.n_steps)
    training.advance(fork)
    state = program.optimiser.state(0)
    parts = []
    for alone in np.eye(len(like.domains)):
        training = Training(program, [replace(like, weights=tuple(alone.tolist()))], tokens, proxy)
        program.optimiser.load([state], fork)
        training.step = fork
        training.advance(training.n_steps)
        parts.append({kind: flat.detach().clone() for kind, flat in program.optimiser.flat.items()})
    middle = time.process_time()
    rows = []
    for row in weights:
        with torch.no_grad():
            for kind, flat in program.optimiser.flat.items():
                flat.copy_(sum(weight * one[kind] for weight, one in zip(row.tolist(), parts, strict=True)))
        means = evaluate(program.model, root / "tokens", config.tasks, ("search",), "cpu")[0].means["search"]
        rows.append([score_of(means[task], config.tasks.metric) for task in tasks])
    end = time.process_time()
    return Merged(np.array(rows), middle - began, (end - middle) / len(weights))
