"""The best mixture that the completed trials speak for, without training anything: what `climb best` prints."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import TargetSettings
from openclimb.mixture import Domain, Weights, effective_domains, natural, repetitions
from openclimb.search.acquisition.thresholds import expected_tasks
from openclimb.search.history import History, read_history
from openclimb.search.predictors.objective import ObjectivePredictor, Reordered, fit_objective
from openclimb.search.propose import NORMAL_80, finalists, one_thread
from openclimb.search.space.region import TOLERANCE, Region, allowed, bend, natural_mixture, region_of
from openclimb.search.space.search_space import SearchSpace
from openclimb.workspace.results import Best, DomainRow, Outlook, Target
from openclimb.workspace.trials import Trial

Floats = NDArray[np.float64]

MOVED = 0.05  # weight that is taken from a domain to tell what it is worth
TRIES = 4  # halvings of it, where constraints do not let it all go


@one_thread
def best(
    trials: Sequence[Trial],
    space: SearchSpace,
    target: TargetSettings,
    seed: int,
    has_items: bool = True,
    tested: bool = False,
) -> Best:
    """Return the mixture of the best expected score under the caps and constraints, and its outlook.

    Raises SearchError when no trial has scores.
    """
    known, (ordered, _) = space.observations(trials), space.spec.by_name()
    plain = fit_objective(read_history(known, ordered.domains, ordered.task_weights), ordered.predictor)
    found = finalists(known, space.spec, 1, seed, plain)[0][1]
    weights, whole = space.expanded(np.array(found)), space.whole
    spec = whole.spec
    history = read_history(whole.observations(trials), spec.domains, spec.task_weights)
    if whole is space:
        order = [spec.domains.index(domain) for domain in ordered.domains]
        predictor: ObjectivePredictor = Reordered(**vars(plain), order=order)
    else:
        predictor = fit_objective(history, spec.predictor)
    natural = natural_mixture(whole.domains, spec.constraints)
    objective, counts = history.objective, history.counts
    top = int(np.nanargmax(objective)) if np.isfinite(objective).any() else None
    measured = None if top is None else {"trial": history.names[top], "score": float(objective[top])}
    return Best(
        **vars(outlook(history, predictor, weights, whole, target)),
        expected_natural=float(predictor.predict(whole.reduced(natural[None]))[0][0]),
        best_measured=measured,
        tasks=dict(zip(history.tasks, history.importance.tolist(), strict=True)),
        thresholds=expected_tasks(history, spec.predictor, spec.thresholds, whole.reduced(weights)),
        trials=counts["trials"],
        transferred=counts["transferred"],
        target=Target(target.token_budget, target.max_repetitions),
        has_items=has_items,
        tested=tested,
    )


def outlook(
    history: History, predictor: ObjectivePredictor, weights: Weights, space: SearchSpace, target: TargetSettings
) -> Outlook:
    """Return what the completed trials say of one mixture (n_domains,).

    `space` reads mixtures as the predictor does. `loss` of a domain is what the expected score loses when MOVED of the
    weight goes from it to the others in proportion, or as much as constraints let go (`move`).
    """
    moved = move(weights, region_of(space.domains, space.spec.constraints))
    read = space.reduced(weights[None])
    mean, deviation = (float(value[0]) for value in predictor.true_score(read))
    distance = 0.5 * np.abs(history.weights - read).sum(1)
    return Outlook(
        expected=mean,
        interval_80=[mean - NORMAL_80 * deviation, mean + NORMAL_80 * deviation],
        distance=float(distance.min()),
        nearest_trial=history.names[int(distance.argmin())],
        effective_domains=effective_domains(weights),
        domains=_rows(weights, moved, mean - predictor.predict(space.reduced(moved))[0], space.domains, target),
        transfer=space.described,
    )


def move(weights: Weights, region: Region, size: float = MOVED) -> Weights:
    """Return one mixture a domain, (n_domains, n_domains): row i has `size` less of domain i, shared by the others.

    The others gain in proportion to what they have, as far as caps, floors, fixed weights, groups and the number of
    domains allow. Where no allowed mixture takes so much, a half, a quarter or an eighth is tried; where these fail
    too, row i is the mixture itself.
    """
    rows = np.tile(weights, (len(weights), 1))
    for i, weight in enumerate(weights):
        for taken in np.minimum(size, weight - region.floors[i]) * 0.5 ** np.arange(TRIES):
            moved = _moved(weights, region, i, float(taken))
            if taken > 0 and allowed(moved[None], region)[0] and abs(moved[i] - weight + taken) < TOLERANCE:
                rows[i] = moved
                break
    return rows


def _moved(weights: Weights, region: Region, i: int, taken: float) -> Weights:
    """Return the mixture with `taken` less of domain i, bent into the region as far as it goes."""
    raw, floors, caps = weights.copy(), region.floors.copy(), region.caps.copy()
    raw[i] = floors[i] = caps[i] = weights[i] - taken
    if raw.sum() <= raw[i]:  # no other has any
        raw[np.arange(len(raw)) != i] = 1.0
    return bend(raw, replace(region, floors=floors, caps=caps))


def _rows(
    weights: Weights, moves: Weights, losses: Floats, domains: Sequence[Domain], target: TargetSettings
) -> list[DomainRow]:
    taken = weights - np.diag(moves)
    times = repetitions(weights, [domain.n_tokens for domain in domains], target.token_budget)
    share = natural(domains)
    return [
        DomainRow(
            name=domain.name,
            tokens=domain.n_tokens,
            weight=float(weights[i]),
            natural=float(share[i]),
            cap=domain.cap,
            repetitions=float(times[i]),
            moved=float(taken[i]),
            loss=float(losses[i]) if taken[i] > 0 else 0.0,
            words=list(domain.words),
        )
        for i, domain in enumerate(domains)
    ]
