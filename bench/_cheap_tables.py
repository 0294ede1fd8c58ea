"""What `cheap.py` makes of scores.

Rank correlations with standard errors, and what cheap scores are worth in trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from openclimb.search.history import History
from openclimb.search.predictors.low_fidelity import LowFidelity
from openclimb.search.predictors.objective import fit_objective
from openclimb.workspace.observations import OWN

Floats = NDArray[np.float64]

N_FULL = (4, 8, 12, 16, 24, 32)  # full trials that a prediction learns from
N_SPLITS = 20
LEAST_HELD = 6


def ranks(cheap: Floats, full: Floats, tasks: Sequence[str], case: str) -> list[dict[str, Any]]:
    """Return the Spearman correlation of scores (n, n_tasks) by task and of their mean, each with a jackknife error."""
    cheap, full = (np.column_stack([table, table.mean(1)]) for table in (cheap, full))
    rows = []
    for j, task in enumerate((*tasks, "objective")):
        value = _spearman(cheap[:, j], full[:, j])
        left = [_spearman(*(np.delete(table[:, j], i) for table in (cheap, full))) for i in range(len(full))]
        error = float(np.sqrt((len(left) - 1) * np.var(left)))
        label = f"rank correlation with full trials, {len(full)} mixtures, {task}"
        rows += [
            {"case": case, "metric": label, "value": round(value, 3)},
            {"case": case, "metric": f"its standard error, {task}", "value": round(error, 3)},
        ]
    return rows


def replaced(
    weights: Floats,
    scores: Floats,
    truth: Floats,
    tasks: tuple[str, ...],
    low_fidelity: Mapping[str, LowFidelity],
    sizes: Sequence[int] = N_FULL,
    splits: int = N_SPLITS,
) -> list[dict[str, Any]]:
    """Return how well predictions from a few of the trials (n, n_tasks) rank the others, without and with each hint.

    Errors are in spreads of the objective over the mixtures; `truth` (n, n_tasks) is what is compared with.
    """
    objective = truth.mean(1)
    share = np.full(len(tasks), 1.0 / len(tasks))
    rows = []
    for n in (n for n in sizes if n <= len(weights) - LEAST_HELD):
        found: dict[str, list[tuple[float, float]]] = {}
        for split in range(splits):
            order = np.random.default_rng(split).permutation(len(weights))
            learnt, held = order[:n], order[n:]
            history = History(weights[learnt], scores[learnt], tasks, share, tuple(range(n)), (OWN,) * n)
            for name, cheap in (("no hint", None), *low_fidelity.items()):
                guess = fit_objective(replace(history, low_fidelity=cheap), "auto").predict(weights[held])[0]
                error = np.abs(guess - objective[held]).mean() / objective.std()
                found.setdefault(name, []).append((_spearman(guess, objective[held]), float(error)))
        without = np.mean(found["no hint"], axis=0)
        for name, pairs in found.items():
            for metric, value, reference in zip(
                ("rank correlation", "mean error in spreads"), np.mean(pairs, axis=0), without, strict=True
            ):
                label = f"{metric} of other mixtures from {n} full trials"
                row = {"case": name, "metric": label, "value": round(float(value), 3)}
                rows.append(row if name == "no hint" else {**row, "reference": round(float(reference), 3)})
    return rows


def _spearman(a: Floats, b: Floats) -> float:
    return float(spearmanr(a, b).statistic)
