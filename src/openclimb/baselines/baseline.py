"""What every baseline has: how it proposes mixtures, and the one that it would have you train on after its last trial.

A baseline is one file, which ends with its `Baseline`; `config/registry.py` has its name. All keep to the caps and
constraints, by being bent into the region, so that none is ahead by breaking them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.random import Generator

from openclimb.config.registry import load
from openclimb.errors import ConfigError, SearchError
from openclimb.mixture import Weights
from openclimb.search.acquisition.design import Proposer, topped_up, unseen
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.history import History, read_history, read_running
from openclimb.search.propose import one_thread
from openclimb.search.space.region import Region, bend, by_name
from openclimb.search.space.simplex import fill
from openclimb.workspace.observations import Observation

STRENGTHS = np.logspace(np.log10(0.1), np.log10(5.0), 15)  # of the Dirichlet draws: RegMix, the recipe and Olmix
LARGEST_RATIO = 15.0  # RegMix, the recipe: weight ≤ 15 × natural in the first draw
SMALLEST = 2e-4  # RegMix, the recipe: smaller weights become 0
TRIED = 100  # RegMix, the recipe: draws for each mixture that is wanted; those over LARGEST_RATIO are thrown away
DRAWS = 100_000  # RegMix, the recipe: mixtures whose scores are predicted
CHUNK = 10_000

Answer = Callable[[SearchSpec, Sequence[Observation], Generator], Weights]


@dataclass(frozen=True)
class Baseline:
    """What others do: how they propose and answer, or a run of their own in place of trials."""

    propose: Proposer | None = None
    answer: Answer | None = None
    predictor: str = "auto"  # that it answers with, where it asks for one of the settings
    rounds: Callable[[int], tuple[int, ...]] = lambda n: (n,)  # in which so many trials are spent
    least_trials: Callable[[], int] = lambda: 0  # with fewer its fit is a constant
    own_run: Callable[..., Any] | None = None  # trains models of its own instead (`doremi.py`)


def find_baseline(name: str) -> Baseline:
    """Return a baseline by name, or `package.module:BASELINE`. Raises ConfigError where there is none."""
    found = load("baseline", name)
    if not isinstance(found, Baseline):
        raise ConfigError(f"baseline '{name}' is a {type(found).__name__}, not a Baseline", "see baselines/natural.py")
    return found


@one_thread
def answer_of(name: str, spec: SearchSpec, observations: Sequence[Observation], rng: Generator) -> Weights:
    """Return the mixture (n_domains,) that the baseline `name` makes of the completed trials, whoever proposed them.

    It is in the allowed region; a pure function of the trials, in any order of trials or domains. Thresholds of tasks
    are not heeded. `spec.predictor` is used by `recipe` only. Raises ConfigError for an unknown baseline, SearchError
    where it needs trials with an objective and there are none, MissingDependency for `regmix` without LightGBM.
    """
    baseline = find_baseline(name)
    assert baseline.answer is not None, f"{name} learns from no trials"
    ordered, back = by_name(spec.domains)
    return baseline.answer(replace(spec, domains=tuple(ordered)), observations, rng)[back]


class Predicts(Protocol):
    """A fitted predictor."""

    def predict(self, weights: Weights) -> tuple[Weights, Weights]:
        """Return mean and standard deviation (n,)."""


def natural_draws(region: Region, rng: Generator) -> Weights:
    """Return DRAWS draws of Dirichlet(natural), bent into the region: RegMix's and the recipe's candidates."""
    share = np.maximum(region.share, 1e-9)
    chunks = [rng.dirichlet(share, CHUNK) for _ in range(DRAWS // CHUNK)]
    return np.concatenate([bend(np.nan_to_num(chunk), region) for chunk in chunks])


def predicted(predictor: Predicts, weights: Weights) -> Weights:
    """Return a predictor's mean scores (n,) of many mixtures, some at a time."""
    return np.concatenate([predictor.predict(weights[i : i + CHUNK])[0] for i in range(0, len(weights), CHUNK)])


def fresh(drawn: Weights, spec: SearchSpec, observations: Sequence[Observation], n: int, rng: Generator) -> Weights:
    """Return the first n rows that no trial has yet, topped up by draws under the caps."""
    history = read_history(observations, spec.domains, spec.task_weights)
    seen = np.concatenate([history.weights, read_running(observations, spec.domains)])
    return topped_up(unseen(drawn, seen), n, spec.region, rng, seen)


def regmix_draws(n: int, region: Region, rng: Generator) -> Weights:
    """Return n draws of RegMix's, bent into the region; only where too few are within 15 × natural, others are cut."""
    share, floors = region.share, region.floors
    limits = np.minimum(1.0, LARGEST_RATIO * share)
    drawn = dirichlet(TRIED * n, np.sqrt(share) / np.sqrt(share).sum(), rng, SMALLEST)
    over = (drawn > limits).any(1)
    drawn = np.concatenate([drawn[~over], drawn[over]])[:n]
    return bend(fill(drawn, floors, np.maximum(floors, limits)), region)


def dirichlet(n: int, center: Weights, rng: Generator, smallest: float) -> Weights:
    """Return n Dirichlet draws (n, n_domains) of mean `center` and any of STRENGTHS; smaller weights are 0."""
    strength = rng.choice(STRENGTHS, (n, 1))
    gammas = rng.standard_gamma(center * strength * np.ones((n, 1))) + 1e-300
    drawn = gammas / gammas.sum(1, keepdims=True)
    return np.where(drawn < smallest, 0.0, drawn)


def measured(spec: SearchSpec, observations: Sequence[Observation]) -> History:
    """Return the trials that have an objective, as the only task."""
    history = read_history(observations, spec.domains, spec.task_weights).aggregated()
    if not len(history.weights):
        raise SearchError("no trial has scores in all tasks that count", "run or tell at least one trial")
    return history
