"""The answer: which mixture, by how much it beats the natural and the uniform one, and how sure that is.

The mixture is chosen by its mean over seeds on search items and judged on report items, which nothing has seen before.
Mixtures are trained with the same seeds (common random numbers) and scored on the same items, so margins are taken seed
by seed and item by item (`statistics.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openclimb.config import Config, ConstraintsSettings
from openclimb.errors import SearchError
from openclimb.mixture import Domain, effective_domains, natural, repetitions
from openclimb.search.baselines import natural_mixture, uniform_mixture
from openclimb.search.history import importance
from openclimb.search.least import least_sentence, shortfall
from openclimb.search.measures import MEASURES, Items, item_table, objective_table, task_names
from openclimb.search.required import required_of
from openclimb.search.statistics import Estimate, seed_noise, student
from openclimb.trials import Trial


@dataclass(frozen=True)
class Compared:
    """A mixture that was trained with several seeds, and its trials by seed."""

    name: str
    weights: tuple[float, ...]
    trials: tuple[Trial, ...]


def pick(
    told: Sequence[Trial], picked: Sequence[Trial], items: Items, domains: Sequence[Domain], config: Config
) -> dict[str, Any]:
    """Return the answer in the form of mixture/mixture.json.

    `told` are the search trials, `picked` the trials of the finalists and baselines with scores, `items` their per-item
    results. Trials that failed are absent: a mixture stands with the seeds it has. Raises SearchError when none is
    left.
    """
    compared = group(picked, domains, config.constraints)
    tasks = sorted({task for trial in picked for task in trial.scores})
    goal = required_of(config).task_weights(config.tasks.weights)
    share = dict(zip(tasks, importance(tasks, goal).tolist(), strict=True))
    comparison = Comparison(compared, items, share, config.tasks.metric, config.tasks.at_least)
    found = comparison.best()
    baselines = [mixture for mixture in compared if mixture.name in ("natural", "uniform") and mixture is not found]
    margins = {base.name: comparison.margin(found, base) for base in baselines}
    sure = all(len(mixture.trials) > 1 for mixture in compared)
    return {
        "version": 1,
        "domains": _domain_rows(found, domains, config.target.token_budget),
        "effective_domains": effective_domains(np.array(found.weights)),
        "target": {"token_budget": config.target.token_budget, "max_repetitions": config.target.max_repetitions},
        "choice": found.name,
        "sentence": sentence(found, margins, sure, comparison.has_items)
        + least_sentence(found.trials, config.tasks.at_least),
        "objective": {"metric": config.tasks.metric, "tasks": share},
        "mixtures": [comparison.row(mixture) for mixture in compared],
        "margins": {
            name: {"mean": margin.mean, "interval": margin.interval, "beyond_noise": sure and margin.low > 0}
            for name, margin in margins.items()
        },
        "noise_floor": comparison.search_noise[0],
        "trials": {"search": len(told), "failed": _failed(told, picked, config), "pick": len(picked)},
        "tokens_trained": sum(trial.token_budget for trial in [*told, *picked]),
    }


def group(
    picked: Sequence[Trial], domains: Sequence[Domain], constraints: ConstraintsSettings | None = None
) -> list[Compared]:
    """Return the mixtures that were trained again: finalist-1, … in order of trial number, then the baselines.

    A baseline is known by its weights: a finalist that equals it shares its trials.
    """
    if not picked:
        raise SearchError("no trial of the finalists has scores", "see the failure.json files of the last trials")
    baselines = {"natural": natural_mixture(domains, constraints), "uniform": uniform_mixture(domains, constraints)}
    rows: dict[tuple[float, ...], list[Trial]] = {}
    for trial in sorted(picked, key=lambda trial: trial.number):
        rows.setdefault(trial.weights, []).append(trial)
    compared, found = [], 0
    for weights, trials in rows.items():
        name = next((name for name, row in baselines.items() if np.allclose(row, weights, rtol=0, atol=1e-9)), "")
        if not name:
            found += 1
            name = f"finalist-{found}"
        compared.append(Compared(name, weights, tuple(sorted(trials, key=lambda trial: trial.seed))))
    return sorted(compared, key=lambda mixture: (mixture.name == "uniform", mixture.name == "natural"))


class Comparison:
    """The compared mixtures with their scores by seed and the noise pooled over them."""

    def __init__(
        self,
        compared: Sequence[Compared],
        items: Items,
        share: Mapping[str, float],
        metric: str,
        at_least: Mapping[str, float],
    ) -> None:
        self.at_least = at_least
        self.compared, self.items, self.share = compared, items, share
        self.search = {
            m.name: {t.seed: sum(share[task] * t.scores[task] for task in share) for t in m.trials} for m in compared
        }
        self.report = {
            m.name: {task: objective_table(m.trials, items, task, "report", metric) for task in share} for m in compared
        }
        self.by_seed = {
            m.name: {
                t.seed: sum(share[k] * table.by_seed[t.seed] for k, table in self.report[m.name].items())
                for t in m.trials
            }
            for m in compared
        }
        self.has_items = bool(task_names(items, "report")) and not all(
            name.endswith("/score") for one in items.values() for name in one
        )
        self.search_noise = seed_noise(list(self.search.values()), paired=False)
        self.report_noise = seed_noise(list(self.by_seed.values()), paired=False)
        self.paired_noise = seed_noise(list(self.by_seed.values()), paired=True)

    def best(self) -> Compared:
        """Return the mixture with the best mean on search items; on a tie, the natural one, then the first found.

        Those that reach the least scores of tasks stand before those that do not, which stand by how far they fall
        short.
        """
        rank = {"natural": 0, "uniform": 2}

        def order(mixture: Compared) -> tuple[float, float, int, str]:
            short = shortfall(mixture.trials, self.at_least)
            mean = float(np.mean(list(self.search[mixture.name].values())))
            return short, -mean, rank.get(mixture.name, 1), mixture.name

        return min(self.compared, key=order)

    def margin(self, found: Compared, base: Compared) -> Estimate:
        """Return found minus base on report items, over the seeds that both have (all seeds where they share none)."""
        ours, theirs = self.by_seed[found.name], self.by_seed[base.name]
        shared = sorted(set(ours) & set(theirs))
        noise, freedom = self.paired_noise if shared else self.report_noise
        used = [shared, shared] if shared else [sorted(ours), sorted(theirs)]
        mean = float(np.mean([ours[s] for s in used[0]]) - np.mean([theirs[s] for s in used[1]]))
        if found.name == base.name:
            return Estimate(0.0, 0.0, 0.0)
        parts = [(noise**2 / len(used[0]) + noise**2 / len(used[1]), float(freedom))]
        for task, share in self.share.items():
            pair = [self.report[m.name][task] for m in (found, base)]
            kept = [
                table.scores[[table.seeds.index(seed) for seed in seeds]]
                for table, seeds in zip(pair, used, strict=True)
            ]
            differences = kept[0].mean(0) - kept[1].mean(0)
            parts.append(_item_part(share, differences))
        return student(mean, parts)

    def row(self, mixture: Compared) -> dict[str, Any]:
        """Return a mixture's entry in mixture.json."""
        search = list(self.search[mixture.name].values())
        error = self.search_noise[0] / np.sqrt(len(search)) if self.search_noise[1] else 0.0
        return {
            "name": mixture.name,
            "weights": mixture.trials[0].mixture.as_dict(),
            "trials": [trial.number for trial in mixture.trials],
            "seeds": [trial.seed for trial in mixture.trials],
            "search": {"mean": float(np.mean(search)), "standard_error": float(error)},
            "report": {**self._report(mixture), "tasks": self._tasks(mixture)},
        }

    def _report(self, mixture: Compared) -> dict[str, Any]:
        values = list(self.by_seed[mixture.name].values())
        noise, freedom = self.report_noise
        parts = [(noise**2 / len(values), float(freedom))]
        parts += [
            _item_part(share, self.report[mixture.name][task].scores.mean(0)) for task, share in self.share.items()
        ]
        estimate = student(float(np.mean(values)), parts)
        return {"mean": estimate.mean, "interval": estimate.interval}

    def _tasks(self, mixture: Compared) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for task in task_names(self.items, "report"):
            rows[task] = {}
            for metric in MEASURES:
                table = item_table(mixture.trials, self.items, task, "report", metric)
                if table is None:
                    continue
                others = [item_table(m.trials, self.items, task, "report", metric) for m in self.compared]
                noise, freedom = seed_noise([other.by_seed for other in others if other is not None], paired=False)
                parts = [(noise**2 / len(table.seeds), float(freedom)), _item_part(1.0, table.scores.mean(0))]
                estimate = student(float(table.scores.mean()), parts)
                rows[task][metric] = {"mean": estimate.mean, "interval": estimate.interval}
                rows[task]["n"] = table.scores.shape[1]
        return rows


def sentence(found: Compared, margins: Mapping[str, Estimate], sure: bool, has_items: bool = True) -> str:
    """Return the answer in plain words. Trials that were scored elsewhere have no items."""
    where, on_report = (" on the search items", " on report items") if has_items else ("", "")
    if found.name == "natural":
        return f"No other mixture did better than the natural mixture{where}: use the natural mixture."
    what = "the uniform mixture" if found.name == "uniform" else "the found mixture"
    if "natural" not in margins:
        return f"{what.capitalize()} was best{where}; the natural mixture has no scores to compare it with."
    margin = margins["natural"]
    numbers = f"{margin.mean:+.4f} (95 % interval {margin.low:+.4f} to {margin.high:+.4f}, {len(found.trials)} seeds)"
    if sure and margin.low > 0:
        return f"{what.capitalize()} beats the natural mixture{on_report} by {numbers}."
    if not sure:
        return (
            f"{what.capitalize()} differs from the natural mixture by {numbers}, "
            "but one seed cannot tell that from noise."
        )
    return (
        f"Nothing beats the natural mixture beyond noise:{on_report} {what} differs from it by {numbers}. "
        "Both are given; the natural mixture is the safe choice."
    )


def _item_part(share: float, scores: Any) -> tuple[float, float]:
    """Return the variance that the choice of items gives share × mean(scores), and its degrees of freedom."""
    n = len(scores)
    return (share**2 * float(scores.var(ddof=1)) / n if n > 1 else 0.0), float(n - 1)


def _failed(told: Sequence[Trial], picked: Sequence[Trial], config: Config) -> int:
    asked = sum(config.search.trials) + (config.pick.finalists + 2) * config.pick.seeds
    return max(0, asked - len(told) - len(picked))


def _domain_rows(found: Compared, domains: Sequence[Domain], token_budget: int) -> list[dict[str, Any]]:
    share = natural(domains)
    weight = found.trials[0].mixture.as_dict()
    times = repetitions(np.array([weight[d.name] for d in domains]), [d.n_tokens for d in domains], token_budget)
    return [
        {
            "name": domain.name,
            "tokens": domain.n_tokens,
            "natural": float(share[i]),
            "cap": domain.cap,
            "weight": weight[domain.name],
            "repetitions": float(times[i]),
            "words": list(domain.words),
        }
        for i, domain in enumerate(domains)
    ]
