"""Mixture analysis: weights by iteration, and domains beside the tasks that they are like."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from openclimb.clustering import similarity
from openclimb.report.facts import Facts
from openclimb.stats.compare import rank_correlation


@dataclass(frozen=True)
class Weights:
    """Weights by column of a chart, and the domains of their rows, the largest of the last column last."""

    domains: list[str]
    columns: dict[str, list[float]]


def weights_by_iteration(facts: Facts) -> Weights | None:
    """Return the natural weights, the mean of each iteration's mixtures and those found; None before any iteration."""
    trials = [trial for trial in facts.trials if trial.role == "search"]
    if not trials:
        return None
    names = list(trials[0].domains)
    natural = {row["name"]: float(row["share"]) for row in facts.domains}
    natural = natural or ({row.name: row.natural for row in facts.answer.domains} if facts.answer else {})
    columns: dict[str, Mapping[str, float]] = {"natural": natural} if natural else {}
    for iteration in sorted({trial.iteration for trial in trials}):
        mine = [trial.mixture.as_dict() for trial in trials if trial.iteration == iteration]
        columns[f"iteration {iteration + 1}"] = {
            name: float(np.mean([weights.get(name, 0.0) for weights in mine])) for name in names
        }
    if facts.answer:
        columns["found"] = facts.answer.weights
    last = list(columns.values())[-1]
    order = sorted(names, key=lambda name: last.get(name, 0.0))
    return Weights(order, {title: [weights.get(name, 0.0) for name in order] for title, weights in columns.items()})


def similarity_table(facts: Facts) -> dict[str, Any]:
    """Return how like each task every domain is beside its weight and worth, {} where nobody compared them.

    `tasks`; `rows`: {"name", "weight", "natural", "loss", "cosines", "nearest"}, the last two by task, "nearest" where
    no domain is more alike; `correlations`: for what the mixture made of the domains, Spearman's correlation of it and
    each task's cosines.
    """
    if not facts.similarity:
        return {}
    tasks = [name for name in facts.similarity[0] if name != similarity.NAME]
    cosines = {row[similarity.NAME]: [float(row[task]) for task in tasks] for row in facts.similarity}
    answer = {row.name: row for row in (facts.answer.domains if facts.answer else [])}
    most = np.max(list(cosines.values()), axis=0)
    rows = [
        {
            "name": name,
            "weight": answer[name].weight if name in answer else None,
            "natural": answer[name].natural if name in answer else None,
            "loss": answer[name].loss if name in answer and answer[name].moved else None,
            "cosines": values,
            "nearest": [value == top for value, top in zip(values, most.tolist(), strict=True)],
        }
        for name, values in cosines.items()
    ]
    ratio = {name: row.weight / row.natural for name, row in answer.items() if row.natural > 0}
    worth = {name: row.loss for name, row in answer.items() if row.moved > 0}
    kinds = {"weight ÷ natural": ratio, "loss of moving 5 points": worth} if answer else {}
    correlations = {
        f"rank correlation with {label}": [
            rank_correlation({name: values[i] for name, values in cosines.items()}, kind) for i in range(len(tasks))
        ]
        for label, kind in kinds.items()
    }
    weight = {name: row.weight for name, row in answer.items()}
    rows.sort(key=lambda row: -weight.get(str(row["name"]), 0.0))
    return {"tasks": tasks, "rows": rows, "correlations": correlations}
