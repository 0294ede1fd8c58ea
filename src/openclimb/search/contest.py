"""The contest of the finalists: which trials decide it, round by round, and which then say what the answer is worth.

First the finalists, the natural and the uniform mixture are measured in rounds (`rounds.py`). The one that is left is
the answer. Then it, the natural and the uniform mixture are measured with further seeds. These decide nothing: what is
claimed of the answer rests on them alone. Every function here follows from the told trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from openclimb.mixture import Weights
from openclimb.search.forecast import Forecast, fit_forecast
from openclimb.search.history import History, read_history
from openclimb.search.loop import one_thread
from openclimb.search.reuse import Reuse
from openclimb.search.rounds import (
    Belief,
    Prior,
    Round,
    Table,
    believe,
    finished,
    objectives,
    play,
    shortfall,
)
from openclimb.settings import PickSettings, SearchSettings
from openclimb.trials import Proposal, Trial

DRAW = 20_000  # stands for "the finalists" in the seed of a draw
SAME = 1e-9  # mixtures that differ by less are one


@dataclass(frozen=True, eq=False)
class Contest:
    """The mixtures of a contest, what the search says of them, and how it is played."""

    names: tuple[str, ...]  # finalist-1, …; natural and uniform last
    roles: tuple[str, ...]
    weights: Weights  # (n, n_domains)
    playing: tuple[int, ...]  # all rows, the finalists first; one that equals a baseline has the baseline's name
    reuse: Reuse  # reads the mixtures as `history` and `forecast` do
    history: History
    forecast: Forecast
    prior: Prior
    share: Mapping[str, float]  # task → weight in the objective
    at_least: Mapping[str, float]
    pick: PickSettings
    seed: int

    @property
    def round_seeds(self) -> tuple[int, ...]:
        """Seeds of the rounds, in order."""
        return tuple(self.seed + 1 + number for number in range(self.pick.seeds))

    @property
    def claim_seeds(self) -> tuple[int, ...]:
        """Seeds that only the claim uses."""
        return tuple(self.seed + 1 + self.pick.seeds + number for number in range(self.pick.seeds))


@dataclass(frozen=True, eq=False)
class Standing:
    """What the trials so far say: the rounds, the row that is ahead, and what is believed of every mixture."""

    rounds: tuple[Round, ...]  # mixtures by their place in `Contest.playing`
    ahead: int  # row of the mixture that the rounds left: the answer
    belief: Belief
    probability: tuple[float, ...]  # of being the best of all mixtures of the contest


@one_thread
def open_contest(
    told: Sequence[Trial],
    reuse: Reuse,
    compared: Sequence[tuple[str, tuple[float, ...]]],
    search: SearchSettings,
    pick: PickSettings,
    task_weights: Mapping[str, float],
    at_least: Mapping[str, float],
    seed: int,
) -> Contest:
    """Return the contest of mixtures over all domains, (role, weights) each: see `search.loop.finalists`.

    What is believed of them before it begins is the forecast by `told` and the old trials.
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
    whole = reuse.whole
    history = read_history(whole.informed(told), whole.searched, task_weights)
    forecast = fit_forecast(history, search.predictor)
    mean, deviation = forecast.true_score(whole.reduced(all_weights))
    return Contest(
        tuple(names),
        tuple(roles),
        all_weights,
        tuple(names.index(name) for name in dict.fromkeys(playing)),
        whole,
        history,
        forecast,
        Prior(mean, deviation, forecast.objective_noise),
        dict(zip(history.tasks, history.importance.tolist(), strict=True)),
        at_least,
        pick,
        seed,
    )


def _among(weights: tuple[float, ...], named: Sequence[tuple[str, tuple[float, ...]]]) -> list[str]:
    """Return the names of the mixtures that are this one."""
    return [name for name, other in named if np.allclose(other, weights, rtol=0, atol=SAME)]


def next_round(contest: Contest, picked: Sequence[Trial], iteration: int) -> list[Proposal]:
    """Return the trials of the next round, or none when the rounds are over. `picked` are those with scores so far."""
    standing = stand(contest, picked)
    played = len(standing.rounds)
    if finished(standing.rounds, len(contest.round_seeds)) or len(contest.playing) == 1:
        return []
    left = standing.rounds[-1].left if standing.rounds else range(len(contest.playing))
    return [_proposal(contest, contest.playing[i], contest.round_seeds[played], iteration) for i in sorted(left)]


def claim(contest: Contest, picked: Sequence[Trial], iteration: int) -> list[Proposal]:
    """Return the trials of the mixture that the rounds left and of the baselines, with seeds that no round had.

    The uniform mixture, unless it is the answer, has `pick.uniform_seeds` of them.
    """
    rows = _claimed(contest, stand(contest, picked).ahead)
    return [
        _proposal(contest, row, seed, iteration)
        for number, seed in enumerate(contest.claim_seeds)
        for row, n_seeds in rows.items()
        if number < n_seeds
    ]


def _claimed(contest: Contest, ahead: int) -> dict[int, int]:
    """Return the rows that the claim measures, the answer first, and with how many seeds."""
    baselines = [row for row, role in enumerate(contest.roles) if role != "finalist"]
    few = min(contest.pick.uniform_seeds, contest.pick.seeds)
    return {
        row: few if contest.roles[row] == "uniform" and row != ahead else contest.pick.seeds
        for row in (ahead, *baselines)
    }


@one_thread
def stand(contest: Contest, picked: Sequence[Trial]) -> Standing:
    """Return how the contest stands by the trials with scores so far."""
    tables = by_mixture(contest, picked)
    playing = list(contest.playing)
    prior = contest.prior
    key = (contest.seed, DRAW)
    rounds = play(
        Prior(prior.mean[playing], prior.deviation[playing], prior.noise),
        [tables[row] for row in playing],
        contest.round_seeds,
        contest.share,
        contest.at_least,
        contest.pick.sure,
        key,
    )
    belief = believe(prior, objectives(tables, contest.share))
    short = np.array([shortfall(table, contest.at_least) if table else 0.0 for table in tables])
    probability = belief.best(np.random.default_rng([*key, len(contest.round_seeds)]), short <= short.min())
    ahead = playing[rounds[-1].left[0]] if rounds else playing[0]
    return Standing(tuple(rounds), ahead, belief, tuple(probability.tolist()))


def by_mixture(contest: Contest, picked: Sequence[Trial]) -> list[Table]:
    """Return each mixture's scores by seed and task, in the order of the contest."""
    return [{trial.seed: trial.scores for trial in trials} for trials in trials_of(contest, picked)]


def trials_of(contest: Contest, picked: Sequence[Trial]) -> list[list[Trial]]:
    """Return each mixture's trials by seed, in the order of the contest."""
    found: list[list[Trial]] = [[] for _ in contest.names]
    for trial in sorted(picked, key=lambda trial: trial.seed):
        distance = np.abs(contest.weights - np.array(trial.weights)).max(1)
        if distance.min() <= SAME:
            found[int(distance.argmin())].append(trial)
    return found


def n_asked(contest: Contest, standing: Standing) -> int:
    """Return how many trials the contest asked for."""
    left = [len(contest.playing), *(len(one.left) for one in standing.rounds)]
    return sum(left[: len(standing.rounds)]) + sum(_claimed(contest, standing.ahead).values())


def _proposal(contest: Contest, row: int, seed: int, iteration: int) -> Proposal:
    role = contest.roles[row]
    return Proposal(role, iteration, tuple(contest.weights[row].tolist()), seed, role)
