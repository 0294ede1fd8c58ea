"""The answer: which mixture, by how much it beats the natural and the uniform one, and how sure that is.

The mixture, natural and uniform among the candidates, is chosen by the rounds on search items (`halving.py`,
`candidates.py`). It is judged on report items, which nothing has seen before, by seeds that had no part in the choice.
Mixtures are trained with the same seeds (common random numbers) and scored on the same items, so margins are taken seed
by seed and item by item (`confirm.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from openclimb.config.schema import Config
from openclimb.errors import SearchError
from openclimb.mixture import Domain
from openclimb.search.acquisition.thresholds import threshold_sentence
from openclimb.search.propose import NORMAL_80, one_thread
from openclimb.search.selection.best import outlook
from openclimb.search.selection.candidates import Candidates, Standing, by_mixture, n_asked, stand, trials_of
from openclimb.search.selection.confirm import Compared, Confirmation
from openclimb.search.selection.halving import shortfall
from openclimb.stats.compare import Margin, correct
from openclimb.stats.multiple import HOLM
from openclimb.tasks.measures import Items
from openclimb.workspace.results import Answer, CandidateRow, Objective, Round, SignalRow, Target
from openclimb.workspace.trials import Trial


@one_thread
def select(
    completed: Sequence[Trial],
    selected: Sequence[Trial],
    items: Items,
    domains: Sequence[Domain],
    candidates: Candidates,
    config: Config,
    signal: Sequence[SignalRow] = (),
) -> Answer:
    """Return the answer.

    `completed` are the search's trials, `selected` those of the candidates, `items` their per-item results. Trials that
    failed are absent: a mixture stands with the seeds it has. Raises SearchError when none is left.
    """
    standing = stand(candidates, selected)
    compared, rest = group(candidates, selected)
    confirmation = Confirmation(compared, rest, items, dict(candidates.share), config.tasks.metric, candidates.seed)
    found = choose(candidates, standing, compared)
    row = candidates.names.index(found.name)
    baselines = [mixture for mixture in compared if mixture.name in ("natural", "uniform") and mixture is not found]
    margins = correct({base.name: confirmation.margin(found, base) for base in baselines})
    short = shortfalls(candidates, selected)
    natural_reaches = short["natural"] <= short[found.name]
    now = outlook(candidates.history, candidates.predictor, candidates.weights[row], candidates.space, config.target)
    believed, deviation = float(standing.posterior.mean[row]), float(standing.posterior.deviation[row])
    known = candidates.history.counts
    failed = sum(config.search.trials) - len(completed) + n_asked(candidates, standing) - len(selected)
    believed_80 = [believed - NORMAL_80 * deviation, believed + NORMAL_80 * deviation]
    return Answer(
        **vars(replace(now, expected=believed, interval_80=believed_80)),
        probability_best=standing.probability[row],
        target=Target(config.target.token_budget, config.target.max_repetitions),
        choice=found.name,
        sentence=sentence(found, margins, confirmation.has_items, natural_reaches)
        + threshold_sentence(found.trials, config.tasks.thresholds, confirmation.has_items),
        objective=Objective(config.tasks.metric, dict(candidates.share)),
        has_items=confirmation.has_items,
        mixtures=[confirmation.row(mixture) for mixture in compared],
        margins={name: margin.row() for name, margin in margins.items()},
        rounds=round_rows(candidates, standing),
        candidates=[
            CandidateRow(
                name,
                dict(zip((d.name for d in domains), candidates.weights[i].tolist(), strict=True)),
                float(standing.posterior.mean[i]),
                standing.probability[i],
            )
            for i, name in enumerate(candidates.names)
        ],
        noise_floor=confirmation.search_noise[0],
        trials={
            "search": len(completed),
            "external": known["trials"] - len(completed),
            "transferred": known["transferred"],
            "failed": max(0, failed),
            "selection": len(selected),
        },
        tokens_trained=sum(trial.token_budget for trial in [*completed, *selected]),
        signal=list(signal),
    )


def group(candidates: Candidates, selected: Sequence[Trial]) -> tuple[list[Compared], list[Compared]]:
    """Return the mixtures with their trials of the claim, and those with their trials of the rounds.

    Raises SearchError when no trial of the claim has scores.
    """
    confirmed: list[Compared] = []
    rest: list[Compared] = []
    for name, trials in zip(candidates.names, trials_of(candidates, selected), strict=True):
        for there, grouped in ((True, confirmed), (False, rest)):
            some = tuple(trial for trial in trials if (trial.seed in candidates.confirmation_seeds) == there)
            if some:
                grouped.append(Compared(name, some[0].weights, some))
    if not confirmed:
        raise SearchError("no trial of the finalists has scores", "see failure.json of the last trials; then --retry")
    return confirmed, rest


def choose(candidates: Candidates, standing: Standing, compared: Sequence[Compared]) -> Compared:
    """Return the mixture that the rounds left, whatever the claim's trials say of it.

    Where none of its trials of the claim has scores, the natural mixture, or else the uniform one.
    """
    there = {mixture.name: mixture for mixture in compared}
    return there.get(candidates.names[standing.ahead]) or there.get("natural") or compared[-1]


def shortfalls(candidates: Candidates, selected: Sequence[Trial]) -> dict[str, float]:
    """Return by how much each mixture falls short of the thresholds; infinite without scores."""
    tables = by_mixture(candidates, selected)
    return {name: shortfall(table, candidates.thresholds) for name, table in zip(candidates.names, tables, strict=True)}


def round_rows(candidates: Candidates, standing: Standing) -> list[Round]:
    """Return what each round came to."""
    names = [candidates.names[row] for row in candidates.playing]
    rows, before = [], set(range(len(names)))
    for one in standing.rounds:
        rows.append(
            Round(
                seed=one.seed,
                expected={names[i]: one.mean[i] for i in sorted(before)},
                probability_best={names[i]: one.probability[i] for i in sorted(before)},
                dropped=[names[i] for i in sorted(before - set(one.left))],
                left=[names[i] for i in one.left],
            )
        )
        before = set(one.left)
    return rows


def sentence(
    found: Compared, margins: Mapping[str, Margin], has_items: bool = True, natural_reaches: bool = True
) -> str:
    """Return the answer in plain words. Trials that were scored elsewhere have no items.

    `natural_reaches`: the natural mixture falls short of tasks' thresholds no more than the answer.
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
            f"{what.capitalize()} is given because it comes nearer to the thresholds than the natural mixture, from "
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
