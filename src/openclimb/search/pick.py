"""The answer: which mixture, by how much it beats the natural and the uniform one, and how sure that is.

The mixture, natural and uniform among the candidates, is chosen by the rounds on search items (`rounds.py`,
`contest.py`). It is judged on report items, which nothing has seen before, by seeds that had no part in the choice.
Mixtures are trained with the same seeds (common random numbers) and scored on the same items, so margins are taken seed
by seed and item by item (`confirmation.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from openclimb.errors import SearchError
from openclimb.mixture import Domain
from openclimb.search.best import outlook
from openclimb.search.confirmation import Compared, Comparison
from openclimb.search.contest import Contest, Standing, by_mixture, n_asked, stand, trials_of
from openclimb.search.least import least_sentence
from openclimb.search.loop import NORMAL_80, one_thread
from openclimb.search.measures import Items
from openclimb.search.rounds import shortfall
from openclimb.settings import Config
from openclimb.stats.intervals import Estimate
from openclimb.stats.multiple import HOLM, holm, significant
from openclimb.trials import Trial


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
    compared, rest = group(contest, picked)
    comparison = Comparison(compared, rest, items, contest.share, config.tasks.metric, contest.seed)
    found = choose(contest, standing, compared)
    row = contest.names.index(found.name)
    baselines = [mixture for mixture in compared if mixture.name in ("natural", "uniform") and mixture is not found]
    margins = correct({base.name: margin_of(comparison, found, base) for base in baselines})
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
        "sentence": sentence(found, margins, comparison.has_items, natural_reaches)
        + least_sentence(found.trials, config.tasks.at_least, comparison.has_items),
        "objective": {"metric": config.tasks.metric, "tasks": dict(contest.share)},
        "has_items": comparison.has_items,
        "mixtures": [comparison.row(mixture) for mixture in compared],
        "margins": {name: margin.as_dict() for name, margin in margins.items()},
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
    """Return the mixtures with their trials of the claim, and those with their trials of the rounds.

    Raises SearchError when no trial of the claim has scores.
    """
    claimed: list[Compared] = []
    rest: list[Compared] = []
    for name, trials in zip(contest.names, trials_of(contest, picked), strict=True):
        for there, grouped in ((True, claimed), (False, rest)):
            some = tuple(trial for trial in trials if (trial.seed in contest.claim_seeds) == there)
            if some:
                grouped.append(Compared(name, some[0].weights, some))
    if not claimed:
        raise SearchError("no trial of the finalists has scores", "see failure.json of the last trials; then --retry")
    return claimed, rest


def choose(contest: Contest, standing: Standing, compared: Sequence[Compared]) -> Compared:
    """Return the mixture that the rounds left, whatever the claim's trials say of it.

    Where none of its trials of the claim has scores, the natural mixture, or else the uniform one.
    """
    there = {mixture.name: mixture for mixture in compared}
    return there.get(contest.names[standing.ahead]) or there.get("natural") or compared[-1]


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


@dataclass(frozen=True)
class Margin:
    """The answer minus a baseline, on report items by the claim's seeds."""

    estimate: Estimate
    seeds: int  # of the one that has fewer
    adjusted: float = 1.0  # p-value after Holm, over the comparisons of the answer

    @property
    def better(self) -> bool:
        """Whether the answer is better, significantly."""
        return self.estimate.mean > 0 and significant(self.adjusted)

    @property
    def worse(self) -> bool:
        """Whether the answer is worse, significantly."""
        return self.estimate.mean < 0 and significant(self.adjusted)

    def as_dict(self) -> dict[str, Any]:
        """Return the margin's entry in mixture.json."""
        return {
            "mean": self.estimate.mean,
            "interval": self.estimate.interval,
            "p": self.estimate.p,
            "p_holm": self.adjusted,
            "beyond_noise": self.better,
        }

    def __str__(self) -> str:
        low, high = self.estimate.interval
        return f"{self.estimate.mean:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, {self.seeds} seeds)"


def margin_of(comparison: Comparison, found: Compared, base: Compared) -> Margin:
    """Return the answer's margin over a baseline, not yet corrected. One seed claims nothing: its p-value is 1."""
    fewest = min(len(found.trials), len(base.trials))
    estimate = comparison.margin(found, base)
    return Margin(estimate if fewest > 1 else replace(estimate, p=1.0), fewest)


def correct(margins: Mapping[str, Margin]) -> dict[str, Margin]:
    """Return the margins with p-values adjusted by Holm for their number."""
    adjusted = holm([margin.estimate.p for margin in margins.values()])
    return {name: replace(one, adjusted=p) for (name, one), p in zip(margins.items(), adjusted, strict=True)}


def sentence(
    found: Compared, margins: Mapping[str, Margin], has_items: bool = True, natural_reaches: bool = True
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
    margin, uniform = margins["natural"], margins.get("uniform")
    if margin.seeds < 2:
        return (
            f"{what.capitalize()} differs from the natural mixture by {margin}, "
            "but one seed cannot tell that from noise."
        )
    if margin.better:
        return f"{what.capitalize()} beats the natural mixture{on_report} by {margin}{_beside(uniform)}."
    if not natural_reaches:
        return (
            f"{what.capitalize()} is given because it comes nearer to the least scores than the natural mixture, from "
            f"which it differs{on_report} by {margin}."
        )
    if margin.worse:
        return (
            f"{what.capitalize()} does worse than the natural mixture{on_report}, by {margin}, although it was "
            "believed the best: use the natural mixture."
        )
    return (
        f"Nothing beats the natural mixture beyond noise:{on_report} {what} differs from it by {margin}, not "
        "significant. Both are given; the natural mixture is the safe choice."
    )


def _beside(uniform: Margin | None) -> str:
    """Return how the sentence goes on that says that the answer beats the natural mixture."""
    if uniform is None:
        return f", {HOLM.removesuffix(' after Holm')}"
    if uniform.better:
        return f" and the uniform mixture by {uniform}, both {HOLM}"
    if uniform.worse:
        return f", {HOLM}; it does worse than the uniform mixture, by {uniform}"
    return f", {HOLM}; from the uniform mixture it differs by {uniform}, not significant"
