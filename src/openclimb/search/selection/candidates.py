"""The candidates for the answer: which trials decide between them, and which then measure what the answer is worth.

First the finalists, the natural and the uniform mixture are measured in rounds (`halving.py`). The one that is left is
the answer. Then it, the natural and the uniform mixture are measured with further seeds. These decide nothing: what is
claimed of the answer rests on them alone. Every function here follows from the completed trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from openclimb import seeds
from openclimb.config.schema import SelectionSettings
from openclimb.mixture import Weights
from openclimb.search.history import History, read_history
from openclimb.search.predictors.objective import ObjectivePredictor, fit_objective
from openclimb.search.propose import one_thread
from openclimb.search.selection.halving import (
    UNIFORM_SEEDS,
    Posterior,
    Prior,
    Round,
    Table,
    finished,
    objectives,
    play,
    posterior_of,
    shortfall,
)
from openclimb.search.space.search_space import SearchSpace
from openclimb.workspace.trials import Proposal, Trial

SAME = 1e-9  # mixtures that differ by less are one


@dataclass(frozen=True, eq=False)
class Candidates:
    """Mixtures that are measured again, what the search predicts of them, and how one is selected."""

    names: tuple[str, ...]  # finalist-1, …; natural and uniform last
    roles: tuple[str, ...]
    weights: Weights  # (n, n_domains)
    playing: tuple[int, ...]  # all rows, the finalists first; one that equals a baseline has the baseline's name
    space: SearchSpace  # reads the mixtures as `history` and `predictor` do
    history: History
    predictor: ObjectivePredictor
    prior: Prior
    share: Mapping[str, float]  # task → weight in the objective
    thresholds: Mapping[str, float]
    settings: SelectionSettings
    seed: int

    def decided(self) -> "Candidates":
        """Return them with nothing to decide: the first is the answer, the others are measured beside it."""
        return replace(self, playing=self.playing[:1])

    @property
    def round_seeds(self) -> tuple[int, ...]:
        """Seeds of the rounds, in order."""
        return tuple(seeds.rounds(self.seed, self.settings.seeds))

    @property
    def confirmation_seeds(self) -> tuple[int, ...]:
        """Seeds that only the claim uses."""
        return tuple(seeds.confirmation(self.seed, self.settings.seeds))


@dataclass(frozen=True, eq=False)
class Standing:
    """What the trials so far say: the rounds, the row that is ahead, and what is believed of every mixture."""

    rounds: tuple[Round, ...]  # mixtures by their place in `Candidates.playing`
    ahead: int  # row of the mixture that the rounds left: the answer
    posterior: Posterior
    probability: tuple[float, ...]  # of being the best of all candidates


@one_thread
def make_candidates(
    completed: Sequence[Trial],
    space: SearchSpace,
    compared: Sequence[tuple[str, tuple[float, ...]]],
    settings: SelectionSettings,
    seed: int,
) -> Candidates:
    """Return the candidates among mixtures over all domains, (role, weights) each: see `search.propose.finalists`.

    What is believed of them before it begins is the prediction by `completed` and the old trials.
    """
    names: list[str] = []
    roles: list[str] = []
    rows: list[tuple[float, ...]] = []
    playing: list[str] = []
    baselines: list[tuple[str, tuple[float, ...]]] = []
    for role, weights in compared:
        if role != "finalist" and not _among(weights, baselines):  # domains of one size: natural is uniform
            baselines.append((role, weights))
    for role, weights in [one for one in compared if one[0] == "finalist"]:
        same = _among(weights, baselines)
        if not same:
            names.append(f"finalist-{len(names) + 1}")
            roles.append(role)
            rows.append(weights)
        playing.append(same[0] if same else names[-1])
    names += [role for role, _ in baselines]
    playing += [role for role, _ in baselines]
    roles += [role for role, _ in baselines]
    all_weights = np.array([*rows, *(row for _, row in baselines)])
    whole = space.whole
    history = read_history(whole.observations(completed), whole.spec.domains, whole.spec.task_weights)
    predictor = fit_objective(history, whole.spec.predictor)
    mean, deviation = predictor.true_score(whole.reduced(all_weights))
    return Candidates(
        tuple(names),
        tuple(roles),
        all_weights,
        tuple(names.index(name) for name in dict.fromkeys(playing)),
        whole,
        history,
        predictor,
        Prior(mean, deviation, predictor.objective_noise),
        dict(zip(history.tasks, history.importance.tolist(), strict=True)),
        whole.spec.thresholds,
        settings,
        seed,
    )


def _among(weights: tuple[float, ...], named: Sequence[tuple[str, tuple[float, ...]]]) -> list[str]:
    """Return the names of the mixtures that are this one."""
    return [name for name, other in named if np.allclose(other, weights, rtol=0, atol=SAME)]


def next_round(candidates: Candidates, selected: Sequence[Trial], iteration: int) -> list[Proposal]:
    """Return the trials of the next round, or none when the rounds are over.

    `selected` are those with scores so far.
    """
    standing = stand(candidates, selected)
    played = len(standing.rounds)
    if finished(standing.rounds, len(candidates.round_seeds)) or len(candidates.playing) == 1:
        return []
    left = standing.rounds[-1].left if standing.rounds else range(len(candidates.playing))
    return [
        _proposal(candidates, candidates.playing[i], candidates.round_seeds[played], iteration) for i in sorted(left)
    ]


def confirmation(candidates: Candidates, selected: Sequence[Trial], iteration: int) -> list[Proposal]:
    """Return the trials of the mixture that the rounds left and of the baselines, with seeds that no round had.

    The uniform mixture, unless it is the answer, has at most UNIFORM_SEEDS of them.
    """
    rows = _confirmed(candidates, stand(candidates, selected).ahead)
    return [
        _proposal(candidates, row, seed, iteration)
        for number, seed in enumerate(candidates.confirmation_seeds)
        for row, n_seeds in rows.items()
        if number < n_seeds
    ]


def _confirmed(candidates: Candidates, ahead: int) -> dict[int, int]:
    """Return the rows that the claim measures, the answer first, and with how many seeds."""
    baselines = [row for row, role in enumerate(candidates.roles) if role != "finalist"]
    few = min(UNIFORM_SEEDS, candidates.settings.seeds)
    return {
        row: few if candidates.roles[row] == "uniform" and row != ahead else candidates.settings.seeds
        for row in (ahead, *baselines)
    }


@one_thread
def stand(candidates: Candidates, selected: Sequence[Trial]) -> Standing:
    """Return what is known by the trials with scores so far."""
    tables = by_mixture(candidates, selected)
    playing = list(candidates.playing)
    prior = candidates.prior
    rounds = play(
        Prior(prior.mean[playing], prior.deviation[playing], prior.noise),
        [tables[row] for row in playing],
        candidates.round_seeds,
        candidates.share,
        candidates.thresholds,
        candidates.settings.sure,
        candidates.seed,
    )
    posterior = posterior_of(prior, objectives(tables, candidates.share))
    short = np.array([shortfall(table, candidates.thresholds) if table else 0.0 for table in tables])
    probability = posterior.best(
        seeds.stream(candidates.seed, "halving", len(candidates.round_seeds)), short <= short.min()
    )
    ahead = playing[rounds[-1].left[0]] if rounds else playing[0]
    return Standing(tuple(rounds), ahead, posterior, tuple(probability.tolist()))


def by_mixture(candidates: Candidates, selected: Sequence[Trial]) -> list[Table]:
    """Return each mixture's scores by seed and task, in the order of the candidates."""
    return [{trial.seed: trial.scores for trial in trials} for trials in trials_of(candidates, selected)]


def trials_of(candidates: Candidates, selected: Sequence[Trial]) -> list[list[Trial]]:
    """Return each mixture's trials by seed, in the order of the candidates."""
    found: list[list[Trial]] = [[] for _ in candidates.names]
    for trial in sorted(selected, key=lambda trial: trial.seed):
        distance = np.abs(candidates.weights - np.array(trial.weights)).max(1)
        if distance.min() <= SAME:
            found[int(distance.argmin())].append(trial)
    return found


def n_asked(candidates: Candidates, standing: Standing) -> int:
    """Return how many trials the selection asked for."""
    left = [len(candidates.playing), *(len(one.left) for one in standing.rounds)]
    return sum(left[: len(standing.rounds)]) + sum(_confirmed(candidates, standing.ahead).values())


def _proposal(candidates: Candidates, row: int, seed: int, iteration: int) -> Proposal:
    role = candidates.roles[row]
    return Proposal(role, iteration, tuple(candidates.weights[row].tolist()), seed, role)
