"""How far a task's score tells mixtures apart: its spread over mixtures against its spread over seeds of one mixture.

Signal is the standard deviation of a task's search score over the mixtures of the search, without the share of it that
is noise; noise is the standard deviation over seeds of the same mixture, pooled over the mixtures that have several.
Their ratio has an interval by Fisher's F. After Heineman et al. 2025 ("Signal and Noise", arXiv 2508.13144), who find
that it says which benchmarks decide between models as larger ones would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from openclimb.stats.intervals import LEVEL
from openclimb.stats.noise import seed_noise
from openclimb.stats.objective import objective
from openclimb.workspace.results import SignalRow
from openclimb.workspace.trials import Trial

OBJECTIVE = "objective"
FLOOR = 0.1  # least weight of a task, as a share of the largest
TRUST = 4.0  # degrees of freedom of the noise at which a task's own ratio counts as much as that of all tasks


@dataclass(frozen=True)
class Signal:
    """What a task's score says of a mixture, in the score's unit."""

    task: str
    spread: float  # standard deviation over mixtures of one seed, noise in it
    noise: float  # standard deviation over seeds of one mixture
    n_mixtures: int
    freedom: int  # degrees of freedom of the noise
    ratio: float  # signal to noise
    low: float
    high: float


def signals(searched: Sequence[Trial], repeated: Sequence[Trial], share: Mapping[str, float]) -> list[Signal]:
    """Return the signal of every task and of the objective, which weighs them by `share`, strongest first.

    `searched`: trials of one seed at several mixtures; `repeated`: trials of any mixtures at several seeds. Empty when
    either are too few to tell.
    """
    tasks = sorted({task for trial in [*searched, *repeated] for task in trial.scores})
    whole = sum(max(0.0, share.get(task, 1.0)) for task in tasks)
    found = []
    for task in (*tasks, OBJECTIVE):
        weights = {task: 1.0} if task != OBJECTIVE else {one: max(0.0, share.get(one, 1.0)) / whole for one in tasks}
        values = [value for trial in searched if (value := _score(trial, weights)) is not None]
        noise, freedom = seed_noise(_tables(repeated, weights), paired=False)
        if len(values) > 1 and freedom > 0:
            found.append(_signal(task, float(np.std(values, ddof=1)), noise, len(values), freedom))
    return sorted(found, key=lambda one: (one.task == OBJECTIVE, -one.ratio, one.task))


def signal_rows(searched: Sequence[Trial], repeated: Sequence[Trial], share: Mapping[str, float]) -> list[SignalRow]:
    """Return the table of signals as files have it, with each task's weight in the objective."""
    found = signals(searched, repeated, share)
    whole = sum(max(0.0, share.get(one.task, 1.0)) for one in found if one.task != OBJECTIVE)
    rows = []
    for one in found:
        weight = 1.0 if one.task == OBJECTIVE or not whole else max(0.0, share.get(one.task, 1.0)) / whole
        ratio, low, high = (value if np.isfinite(value) else None for value in (one.ratio, one.low, one.high))
        rows.append(SignalRow(one.task, weight, one.spread, one.noise, one.n_mixtures, one.freedom, ratio, low, high))
    return rows


def weighed(
    given: Mapping[str, float], searched: Sequence[Trial], repeated: Sequence[Trial], weigh: str
) -> dict[str, float]:
    """Return the tasks' weights in the objective: as given, or times their signal to noise in the first iteration.

    A ratio from few seeds is drawn towards that of all tasks; no task falls below FLOOR of the largest. The same trials
    of the first iteration and the same replicates give the same weights for the whole search.
    """
    if weigh != "signal":
        return dict(given)
    first = [trial for trial in searched if trial.iteration == 0]
    found = {one.task: one for one in signals(first, repeated, given) if one.task != OBJECTIVE}
    top = max((one.ratio for one in found.values()), default=0.0)
    if not 0 < top < np.inf:
        return dict(given)
    logs = {task: float(np.log(max(one.ratio, FLOOR * top))) for task, one in found.items()}
    middle = float(np.mean(list(logs.values())))
    drawn = {
        task: float(np.exp(middle + (logs[task] - middle) * one.freedom / (one.freedom + TRUST)))
        for task, one in found.items()
    }
    largest = max(drawn.values())
    return {**given, **{task: given.get(task, 1.0) * max(FLOOR, value / largest) for task, value in drawn.items()}}


def _signal(task: str, spread: float, noise: float, n: int, freedom: int) -> Signal:
    from scipy.stats import f

    if noise == 0:
        ratio = float("inf") if spread > 0 else 0.0
        return Signal(task, spread, noise, n, freedom, ratio, ratio, ratio)
    quotient = (spread / noise) ** 2
    high = float(f.ppf(0.5 + LEVEL / 2, n - 1, freedom))
    low = float(f.ppf(0.5 - LEVEL / 2, n - 1, freedom))
    ratio, least, most = (float(np.sqrt(max(0.0, one - 1.0))) for one in (quotient, quotient / high, quotient / low))
    return Signal(task, spread, noise, n, freedom, ratio, least, most)


def _tables(trials: Sequence[Trial], weights: Mapping[str, float]) -> list[dict[int, float]]:
    """Return for each mixture that has several seeds its score by seed."""
    tables: dict[tuple[float, ...], dict[int, float]] = {}
    for trial in trials:
        value = _score(trial, weights)
        if value is not None:
            tables.setdefault(trial.weights, {})[trial.seed] = value
    return [table for table in tables.values() if len(table) > 1]


def _score(trial: Trial, weights: Mapping[str, float]) -> float | None:
    """Return the weighed sum of a trial's scores, None where one is missing or no number."""
    if not all(task in trial.scores for task, weight in weights.items() if weight > 0):
        return None
    total = objective(trial.scores, weights)
    return total if np.isfinite(total) else None
