"""How each baseline answers after its last trial: told trials → the mixture that it would have you train on.

A baseline is a proposer (`baselines.py`) and an answer of the same name. Ours is not here: it answers with finalists
that are trained again (`loop.finalists`).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

from openclimb.errors import ConfigError, SearchError, nearest
from openclimb.mixture import Domain, Weights
from openclimb.search.baselines import natural_draws, natural_mixture, predicted, uniform_mixture
from openclimb.search.design import Aim
from openclimb.search.forecast import fit_forecast
from openclimb.search.history import History, read_history
from openclimb.search.loop import one_thread
from openclimb.search.olmix import olmix_mixture
from openclimb.search.region import allowed, bend, by_name, rounded
from openclimb.search.trees import paper_trees, regmix_trees, stop_if_constant
from openclimb.trials import Trial

REGMIX_TOP = 128  # RegMix: the answer is the mean of so many best candidates

Answer = Callable[[Sequence[Trial], Sequence[Domain], Generator, Aim], Weights]


@one_thread
def answer_of(name: str, trials: Sequence[Trial], domains: Sequence[Domain], rng: Generator, aim: Aim) -> Weights:
    """Return the mixture (n_domains,) that the baseline `name` makes of the told trials, whoever proposed them.

    It is in the allowed region; a pure function of the trials, in any order of trials or domains. Least scores of tasks
    are not heeded. `aim.predictor` is used by `paper` only. Raises ConfigError for an unknown baseline, SearchError
    where it needs trials with an objective and there are none, MissingDependency for `regmix` without LightGBM.
    """
    if name not in ANSWERS:
        raise ConfigError(
            f"baseline '{name}' is not known{nearest(name, ANSWERS)}", f"use one of: {', '.join(ANSWERS)}"
        )
    ordered, back = by_name(domains)
    return ANSWERS[name](trials, ordered, rng, aim)[back]


def answer_natural(trials: Sequence[Trial], domains: Sequence[Domain], rng: Generator, aim: Aim) -> Weights:
    """Return the natural mixture."""
    return natural_mixture(domains, aim.required.constraints)


def answer_uniform(trials: Sequence[Trial], domains: Sequence[Domain], rng: Generator, aim: Aim) -> Weights:
    """Return the uniform mixture."""
    return uniform_mixture(domains, aim.required.constraints)


def answer_best_of_n(trials: Sequence[Trial], domains: Sequence[Domain], rng: Generator, aim: Aim) -> Weights:
    """Return the allowed mixture of the best measured objective, of replicates the mean."""
    history = _measured(trials, domains, aim)
    history = history.only(allowed(history.weights, aim.region(domains)))
    if not len(history.weights):
        raise SearchError("no trial's mixture is allowed", "loosen a constraint, or run trials under the present ones")
    mixtures, of = np.unique(history.weights, axis=0, return_inverse=True)
    of = of.reshape(-1)
    means = np.bincount(of, history.scores[:, 0]) / np.bincount(of)
    best: Weights = mixtures[int(means.argmax())]
    return best


def answer_regmix(trials: Sequence[Trial], domains: Sequence[Domain], rng: Generator, aim: Aim) -> Weights:
    """Return the mean of the 128 mixtures, of 100,000 draws, that LightGBM on the objective predicts best.

    Raises SearchError where there are too few trials for its trees.
    """
    history, region = _measured(trials, domains, aim), aim.region(domains)
    trees = regmix_trees().fit(history.weights, history.scores[:, 0])
    stop_if_constant(trees, len(history.weights), "regmix")
    pool = natural_draws(region, rng)
    means = predicted(trees, pool)
    best = np.argsort(-means, kind="stable")[:REGMIX_TOP]
    return rounded(bend(pool[best].mean(0), region), region)


def answer_paper(trials: Sequence[Trial], domains: Sequence[Domain], rng: Generator, aim: Aim) -> Weights:
    """Return the best predicted of 100,000 draws, by the predictor of the settings (`paper`: the recipe's).

    Raises SearchError where there are too few trials for the recipe's trees.
    """
    history, region = _measured(trials, domains, aim), aim.region(domains)
    if aim.predictor == "paper":
        trees = paper_trees().fit(history.weights, history.scores[:, 0])
        stop_if_constant(trees, len(history.weights), "the recipe (paper)")
    pool = natural_draws(region, rng)
    means = predicted(fit_forecast(history, aim.predictor), pool)
    return rounded(pool[int(means.argmax())], region)


def answer_olmix(trials: Sequence[Trial], domains: Sequence[Domain], rng: Generator, aim: Aim) -> Weights:
    """Return the mixture of the least loss by a log-linear law of each task, drawn to natural (`olmix.py`)."""
    _measured(trials, domains, aim)
    region = aim.region(domains)
    return rounded(olmix_mixture(read_history(trials, domains, aim.task_weights), region), region)


def _measured(trials: Sequence[Trial], domains: Sequence[Domain], aim: Aim) -> History:
    """Return the trials that have an objective, as the only task."""
    history = read_history(trials, domains, aim.task_weights).aggregated()
    if not len(history.weights):
        raise SearchError("no trial has scores in all tasks that count", "run or tell at least one trial")
    return history


ANSWERS: dict[str, Answer] = {
    "natural": answer_natural,
    "uniform": answer_uniform,
    "best_of_n": answer_best_of_n,
    "regmix": answer_regmix,
    "paper": answer_paper,
    "olmix": answer_olmix,
}
