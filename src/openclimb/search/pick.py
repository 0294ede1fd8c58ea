"""The answer: which mixture, by how much it beats the natural and the uniform one, and how sure that is.

The mixture is chosen by what is believed of it on search items (`rounds.py`, `contest.py`) and judged on report items,
which nothing has seen before, by seeds that had no part in the choice among the finalists. Mixtures are trained with
the same seeds (common random numbers) and scored on the same items, so margins are taken seed by seed and item by item
(`statistics.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openclimb.errors import SearchError
from openclimb.mixture import Domain
from openclimb.search.best import outlook
from openclimb.search.contest import Contest, Standing, by_mixture, n_asked, stand, trials_of
from openclimb.search.least import least_sentence
from openclimb.search.loop import NORMAL_80, one_thread
from openclimb.search.measures import MEASURES, Items, ItemTable, item_table, objective_table, task_names
from openclimb.search.rounds import shortfall
from openclimb.search.statistics import Estimate, seed_noise, student
from openclimb.settings import Config
from openclimb.trials import Trial


@dataclass(frozen=True)
class Compared:
    """A mixture that was trained with several seeds, and its trials by seed."""

    name: str
    weights: tuple[float, ...]
    trials: tuple[Trial, ...]


@one_thread
def pick(
    told: Sequence[Trial],
    picked: Sequence[Trial],
    items: Items,
    domains: Sequence[Domain],
    contest: Contest,
    config: Config,
) -> dict[str, Any]:
    """Return the answer in the form of mixture/mixture.json.

    `told` are the search trials, `picked` the contest's trials with scores, `items` their per-item results. Trials that
    failed are absent: a mixture stands with the seeds it has. Raises SearchError when none is left.
    """
    standing = stand(contest, picked)
    compared, everything = group(contest, picked)
    comparison = Comparison(compared, everything, items, contest.share, config.tasks.metric)
    found = choose(contest, standing, picked, compared)
    row = contest.names.index(found.name)
    baselines = [mixture for mixture in compared if mixture.name in ("natural", "uniform") and mixture is not found]
    margins = {base.name: comparison.margin(found, base) for base in baselines}
    sure = all(len(mixture.trials) > 1 for mixture in compared)
    short = shortfalls(contest, picked)
    natural_reaches = short["natural"] <= short[found.name]
    believed, deviation = float(standing.belief.mean[row]), float(standing.belief.deviation[row])
    known = contest.history.counts
    failed = sum(config.search.trials) - len(told) + n_asked(contest, standing) - len(picked)
    return {
        "version": 2,
        **outlook(contest.history, contest.forecast, contest.weights[row], contest.reuse, config.target),
        "expected": believed,
        "interval_80": [believed - NORMAL_80 * deviation, believed + NORMAL_80 * deviation],
        "probability_best": standing.probability[row],
        "target": {"token_budget": config.target.token_budget, "max_repetitions": config.target.max_repetitions},
        "choice": found.name,
        "sentence": sentence(found, margins, sure, comparison.has_items, natural_reaches)
        + least_sentence(found.trials, config.tasks.at_least, comparison.has_items),
        "objective": {"metric": config.tasks.metric, "tasks": dict(contest.share)},
        "has_items": comparison.has_items,
        "mixtures": [comparison.row(mixture) for mixture in compared],
        "margins": {
            name: {"mean": margin.mean, "interval": margin.interval, "beyond_noise": sure and margin.low > 0}
            for name, margin in margins.items()
        },
        "rounds": round_rows(contest, standing),
        "contest": [
            {
                "name": name,
                "weights": dict(zip((d.name for d in domains), contest.weights[i].tolist(), strict=True)),
                "expected": float(standing.belief.mean[i]),
                "probability_best": standing.probability[i],
            }
            for i, name in enumerate(contest.names)
        ],
        "noise_floor": comparison.search_noise[0],
        "trials": {
            "search": len(told),
            "outside": known["trials"] - len(told),
            "old": known["old_trials"],
            "failed": max(0, failed),
            "pick": len(picked),
        },
        "tokens_trained": sum(trial.token_budget for trial in [*told, *picked]),
    }


def group(contest: Contest, picked: Sequence[Trial]) -> tuple[list[Compared], list[Compared]]:
    """Return the mixtures with trials of the claim, and all mixtures with trials of any kind, natural and uniform last.

    Raises SearchError when no trial of the claim has scores.
    """
    everything = [
        Compared(name, trials[0].weights, tuple(trials))
        for name, trials in zip(contest.names, trials_of(contest, picked), strict=True)
        if trials
    ]
    claimed = [
        Compared(one.name, one.weights, trials)
        for one in everything
        if (trials := tuple(trial for trial in one.trials if trial.seed in contest.claim_seeds))
    ]
    if not claimed:
        raise SearchError("no trial of the finalists has scores", "see failure.json of the last trials; then --retry")
    return claimed, everything


def choose(contest: Contest, standing: Standing, picked: Sequence[Trial], compared: Sequence[Compared]) -> Compared:
    """Return the mixture, of those with trials of the claim, that is believed the best; on a tie, the natural one.

    Those that reach the least scores of tasks stand before those that do not, which stand by how far they fall short.
    """
    rank, short = {"natural": 0, "uniform": 2}, shortfalls(contest, picked)

    def order(mixture: Compared) -> tuple[float, float, int]:
        believed = float(standing.belief.mean[contest.names.index(mixture.name)])
        return short[mixture.name], -believed, rank.get(mixture.name, 1)

    return min(compared, key=order)


def shortfalls(contest: Contest, picked: Sequence[Trial]) -> dict[str, float]:
    """Return by how much each mixture of the contest falls short of the least scores; infinite without scores."""
    tables = by_mixture(contest, picked)
    return {name: shortfall(table, contest.at_least) for name, table in zip(contest.names, tables, strict=True)}


def round_rows(contest: Contest, standing: Standing) -> list[dict[str, Any]]:
    """Return what each round came to, for mixture.json."""
    names = [contest.names[row] for row in contest.playing]
    rows, before = [], set(range(len(names)))
    for one in standing.rounds:
        rows.append(
            {
                "seed": one.seed,
                "expected": {names[i]: one.mean[i] for i in sorted(before)},
                "probability_best": {names[i]: one.probability[i] for i in sorted(before)},
                "dropped": [names[i] for i in sorted(before - set(one.left))],
                "left": [names[i] for i in one.left],
            }
        )
        before = set(one.left)
    return rows


class Comparison:
    """The mixtures of the claim with their scores by seed, and the noise pooled over all trials of the contest."""

    def __init__(
        self,
        compared: Sequence[Compared],
        everything: Sequence[Compared],
        items: Items,
        share: Mapping[str, float],
        metric: str,
    ) -> None:
        self.compared, self.everything, self.items, self.share = compared, everything, items, share
        self.search = {
            m.name: {t.seed: sum(share[task] * t.scores[task] for task in share) for t in m.trials} for m in everything
        }
        self.report = {
            m.name: {task: objective_table(m.trials, items, task, "report", metric) for task in share} for m in compared
        }
        self.by_seed = {name: _objective(self.report[name], share) for name in self.report}
        self.has_items = bool(task_names(items, "report")) and not all(
            name.endswith("/score") for one in items.values() for name in one
        )
        tables = [
            _objective({task: objective_table(m.trials, items, task, "report", metric) for task in share}, share)
            for m in everything
        ]
        self.search_noise = seed_noise(list(self.search.values()), paired=False)
        self.report_noise = seed_noise(tables, paired=False)
        self.paired_noise = seed_noise(tables, paired=True)

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
        search = [self.search[mixture.name][trial.seed] for trial in mixture.trials]
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
                others = [item_table(m.trials, self.items, task, "report", metric) for m in self.everything]
                noise, freedom = seed_noise([other.by_seed for other in others if other is not None], paired=False)
                parts = [(noise**2 / len(table.seeds), float(freedom)), _item_part(1.0, table.scores.mean(0))]
                estimate = student(float(table.scores.mean()), parts)
                rows[task][metric] = {"mean": estimate.mean, "interval": estimate.interval}
                rows[task]["n"] = table.scores.shape[1]
        return rows


def sentence(
    found: Compared, margins: Mapping[str, Estimate], sure: bool, has_items: bool = True, natural_reaches: bool = True
) -> str:
    """Return the answer in plain words. Trials that were scored elsewhere have no items.

    `natural_reaches`: the natural mixture falls short of tasks' least scores no more than the answer.
    """
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
    if not natural_reaches:
        return (
            f"{what.capitalize()} is given because it comes nearer to the least scores than the natural mixture, from "
            f"which it differs{on_report} by {numbers}."
        )
    if margin.high < 0:
        return (
            f"{what.capitalize()} does worse than the natural mixture{on_report}, by {numbers}, although it was "
            "believed the best: use the natural mixture."
        )
    return (
        f"Nothing beats the natural mixture beyond noise:{on_report} {what} differs from it by {numbers}. "
        "Both are given; the natural mixture is the safe choice."
    )


def _objective(tables: Mapping[str, ItemTable], share: Mapping[str, float]) -> dict[int, float]:
    """Return the objective by seed of one mixture's tables by task."""
    by_task = {task: table.by_seed for task, table in tables.items()}
    seeds = next(iter(by_task.values()))
    return {seed: sum(share[task] * by_task[task][seed] for task in share) for seed in seeds}


def _item_part(share: float, scores: Any) -> tuple[float, float]:
    """Return the variance that the choice of items gives share × mean(scores), and its degrees of freedom."""
    n = len(scores)
    return (share**2 * float(scores.var(ddof=1)) / n if n > 1 else 0.0), float(n - 1)
