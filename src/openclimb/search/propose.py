"""The search's decisions, each a pure function of the observations: the next batch, the finalists, what was learnt.

Same trials, settings and seed give the same mixtures, whatever the order of the trials or of the domains.
"""

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from openclimb import seeds
from openclimb.mixture import Weights
from openclimb.search.acquisition.design import Proposer, search_region
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.acquisition.thresholds import objective_for
from openclimb.search.acquisition.ucb import check_proposed, find_proposer
from openclimb.search.acquisition.value import Value, climb
from openclimb.search.history import History, in_order, read_history
from openclimb.search.predictors.objective import ObjectivePredictor, cross_validate, fit_objective
from openclimb.search.space.local_search import KEPT
from openclimb.search.space.region import allowed, bend, natural_mixture, rounded, uniform_mixture
from openclimb.workspace.observations import TRANSFERRED, Observation
from openclimb.workspace.results import Diagnostics, Prediction, SignalRow

Floats = NDArray[np.float64]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

CAUTION = 0.5  # a finalist's expected score is marked down by so many deviations: far from all trials, promise more
APART = 0.1  # least total variation between two finalists
NORMAL_80 = 1.2816  # an 80 % interval is ± so many deviations
LEAST_TRIALS = 4  # a rank correlation of fewer says nothing
NO_BETTER = 0.95  # a cross-validated error of this share of a constant's is no better
CHANCE = 1.645  # rank correlations of unrelated numbers are normal with deviation 1/√(n−1): one in twenty is above this


def one_thread(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return `function` run with one BLAS thread: the matrices are small, and sums then do not depend on the cores."""

    @functools.wraps(function)
    def limited(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        import scipy.linalg  # noqa: F401  (its BLAS must be loaded to be limited)
        from threadpoolctl import threadpool_limits

        with threadpool_limits(limits=1):
            return function(*args, **kwargs)

    return limited


@one_thread
def next_batch(
    observations: Sequence[Observation],
    spec: SearchSpec,
    n: int,
    iteration: int,
    seed: int,
    propose: Proposer | None = None,
) -> Weights:
    """Return the n mixtures to try next, shape (n, n_domains), under the caps and on the grid.

    Pending mixtures are running: they are neither repeated nor crowded. `propose`: in place of the spec's proposer.
    Raises DomainError when no mixture meets the constraints or a proposer breaks them, SearchError for unusable trials.
    """
    ordered, back = spec.by_name()
    propose = propose or find_proposer(spec.proposer)
    weights = propose(ordered, in_order(observations), n, seeds.proposals(seed, iteration))
    return check_proposed(weights, ordered.region, n, spec.proposer)[:, back]


@one_thread
def finalists(
    observations: Sequence[Observation],
    spec: SearchSpec,
    n_finalists: int,
    seed: int,
    plain: ObjectivePredictor | None = None,
) -> list[tuple[str, tuple[float, ...]]]:
    """Return (role, weights) of the mixtures to train again: the finalists, then the natural and the uniform mixture.

    The first finalist has the best cautious prediction, climbed to from the best draws; the others are the best
    that are at least APART from those before. Measured mixtures that are allowed stand among the candidates. `plain`:
    the prediction of the objective from these observations with the domains by name, where it is fitted already.
    """
    ordered, back = spec.by_name()
    region = ordered.region
    history = read_history(observations, ordered.domains, spec.task_weights)
    predictor = objective_for(history, spec.predictor, spec.thresholds, CAUTION, plain)
    rng = seeds.stream(seed, "finalists")

    def marked_down(predictors: Sequence[ObjectivePredictor], weights: Weights) -> Floats:
        mean, deviation = predictors[0].true_score(weights)
        return mean - CAUTION * deviation

    cautious = Value((predictor,), marked_down)
    pool = search_region(cautious, history, predictor, region, rng)
    measured = history.weights[predictor.promising()]
    measured = measured[allowed(measured, region)]
    climbed = climb(cautious, pool[:KEPT], lambda rows: bend(rows, region), rng)
    pool = np.concatenate([bend(climbed.mean(0, keepdims=True), region), climbed, pool, measured])
    pool = pool[np.argsort(-cautious(pool), kind="stable")]
    chosen = _apart(pool, n_finalists)
    best = [("finalist", tuple(row[back].tolist())) for row in rounded(chosen, region)]
    return [*best, *compared_with(spec)]


def compared_with(spec: SearchSpec) -> list[tuple[str, tuple[float, ...]]]:
    """Return (role, weights) of what stands beside every answer: the natural and the uniform mixture."""
    natural = natural_mixture(spec.domains, spec.constraints)
    uniform = uniform_mixture(spec.domains, spec.constraints)
    return [("natural", tuple(natural.tolist())), ("uniform", tuple(uniform.tolist()))]


@one_thread
def diagnose(
    observations: Sequence[Observation], spec: SearchSpec, iteration: int, signal: Sequence[SignalRow] = ()
) -> Diagnostics:
    """Return what the predictors made of the observations.

    Single trials in it are this workspace's; the fit and its errors are those of all.
    """
    began = time.monotonic()
    ordered, _ = spec.by_name()
    history = read_history(observations, ordered.domains, spec.task_weights)
    predictor = fit_objective(history, spec.predictor)
    means, deviations, whole = cross_validate(history, spec.predictor)
    objective, guess = history.objective, means @ history.importance
    rho = {task: _rank_correlation(means[:, j], history.scores[:, j]) for j, task in enumerate(history.tasks)}
    rho["objective"] = _rank_correlation(guess, objective)
    inside = np.abs(history.scores - means) <= NORMAL_80 * deviations
    known = np.isfinite(history.scores) & np.isfinite(means)
    counts = known & (history.importance > 0)  # the others are not predicted
    coverage = {task: _share(inside[counts[:, j], j]) for j, task in enumerate(history.tasks)}
    coverage["objective"] = _share((np.abs(objective - guess) <= NORMAL_80 * whole)[known.all(1)])
    error = _error_ratio(guess, objective)
    names = dict.fromkeys(history.tasks, "")
    for columns, one in predictor.groups:
        names |= {history.tasks[j]: getattr(one, "description", spec.predictor) for j in columns}
    own = [source != TRANSFERRED for source in history.sources]
    measured = objective[np.array(own) & np.isfinite(objective)] if any(own) else objective
    return Diagnostics(
        iteration=iteration,
        trials=sorted(itertools.compress(history.names, own)),
        transferred=history.counts["transferred"],
        predictor=names,
        rank_correlation=rho,
        coverage_80=coverage,
        noise_floor=predictor.objective_noise,
        noise=_by_task(history, predictor.noise, predictor.objective_noise),
        spread=_by_task(history, _deviation(history.scores), float(_deviation(objective[:, None])[0])),
        error_ratio=error,
        best_predicted=float(predictor.predict(history.weights)[0].max()),
        best_measured=float(np.nanmax(measured)) if np.isfinite(measured).any() else None,
        predictions=[
            Prediction(name, float(mean), float(deviation), float(score))
            for name, mine, mean, deviation, score in zip(history.names, own, guess, whole, objective, strict=True)
            if mine and np.isfinite(mean + deviation + score)
        ],
        warning=_warning(history, rho["objective"], error),
        seconds=round(time.monotonic() - began, 3),
        signal=list(signal),
    )


def _warning(history: History, rho: float | None, error: float) -> str:
    n = len(history.weights)
    columns = [column[np.isfinite(column)] for column in history.scores.T]
    if n > 1 and all(np.ptp(column) == 0 for column in columns if len(column)):
        return "all trials have the same score: the tasks do not tell mixtures apart"
    if rho is None:
        return f"{n} trials are too few to say how well scores can be predicted"
    chance = CHANCE / np.sqrt(n - 1)
    cure = "more trials, more task items or a larger proxy would help"
    if rho < chance:
        return (
            f"scores cannot be predicted from the mixture yet (cross-validated rank correlation {rho:.2f}, "
            f"chance alone reaches {chance:.2f}): {cure}"
        )
    if error > NO_BETTER:
        return (
            f"mixtures can be ranked (cross-validated rank correlation {rho:.2f}), but how far apart they are is "
            f"predicted hardly better than by a constant (error {error:.0%} of the constant's): {cure}"
        )
    return ""


def _by_task(history: History, by_task: Floats, objective: float) -> dict[str, float]:
    """Return numbers by task (n_tasks,), of those that have one, and the objective's."""
    counts = zip(history.tasks, by_task.tolist(), history.importance, strict=True)
    return {task: value for task, value, weight in counts if weight > 0 and np.isfinite(value)} | {
        "objective": objective
    }


def _deviation(scores: Floats) -> Floats:
    """Return the standard deviation (n_columns,) of the scores that are known; 0 where there are none."""
    columns = [column[np.isfinite(column)] for column in scores.T]
    return np.array([float(column.std()) if len(column) else 0.0 for column in columns])


def _error_ratio(guess: Floats, scores: Floats) -> float:
    """Return the cross-validated error over that of the mean of the other trials: 1 is no better than a constant."""
    known = np.isfinite(guess) & np.isfinite(scores)
    n = int(known.sum())
    constant = float(np.var(scores[known])) * (n / (n - 1)) ** 2 if n > 1 else 0.0
    return float(np.sqrt(np.mean((guess - scores)[known] ** 2) / constant)) if constant > 0 else 1.0


def _rank_correlation(guess: Floats, scores: Floats) -> float | None:
    from scipy.stats import spearmanr

    known = np.isfinite(guess) & np.isfinite(scores)
    if known.sum() < LEAST_TRIALS or np.ptp(guess[known]) == 0 or np.ptp(scores[known]) == 0:
        return None
    return float(spearmanr(guess[known], scores[known]).statistic)


def _share(inside: NDArray[np.bool_]) -> float | None:
    return float(inside.mean()) if len(inside) else None


def _apart(pool: Weights, n: int) -> Weights:
    """Return the first n rows that are APART from those before them; the distance is halved until there are n."""
    distance = APART
    while distance > 1e-4:
        chosen = [0]
        for i in range(1, len(pool)):
            if len(chosen) == n:
                break
            if (0.5 * np.abs(pool[chosen] - pool[i]).sum(1)).min() >= distance:
                chosen.append(i)
        if len(chosen) >= n:
            return pool[chosen[:n]]
        distance /= 2
    return pool[chosen]
