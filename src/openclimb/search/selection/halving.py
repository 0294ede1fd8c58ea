"""Finalists and baselines measured in rounds: sequential halving under what is believed of each.

A round gives every mixture that is left one fresh seed, the same for all. What is believed of a mixture is its
prediction with the calibrated deviation, brought up to date by the scores; a seed's luck is common to the mixtures of a
round, so only differences within a round count. After each round the worse half goes; it ends when one is sure enough
to be the best, or after as many rounds as `selection.seeds`. Everything follows from the scores, so that a killed run
comes to the same rounds. Sequential halving: Karnin, Koren and Somekh 2013.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb import seeds
from openclimb.config.schema import SelectionSettings
from openclimb.stats.noise import seed_noise
from openclimb.stats.objective import objective

Floats = NDArray[np.float64]
Table = Mapping[int, Mapping[str, float]]  # seed → score by task: the trials of one mixture

DRAWS = 20_000  # of the scores, for the probability of being best: its standard error is at most .0035
NOISE_TRUST = 4.0  # degrees of freedom that the predictor's noise is worth beside that of the rounds
FEWEST = 2  # mixtures that go on until one of them is sure
BASELINES = 2  # natural and uniform
UNIFORM_SEEDS = 3  # at most so many confirmation seeds for uniform: they are worth less than the others'


@dataclass(frozen=True)
class Prior:
    """What the predictor says of some mixtures before they are measured again."""

    mean: Floats  # (n,) of the objective
    deviation: Floats  # (n,) of the objective itself, without the noise of a trial
    noise: float  # standard deviation of a trial's score over seeds


@dataclass(frozen=True)
class Posterior:
    """What is believed of the objective of some mixtures: a Student distribution of several variables."""

    mean: Floats  # (n,)
    covariance: Floats  # (n, n)
    freedom: float

    @property
    def deviation(self) -> Floats:
        """Standard deviation (n,)."""
        return np.sqrt(np.diag(self.covariance))

    def best(self, rng: Generator, among: NDArray[np.bool_] | None = None) -> Floats:
        """Return the probability (n,) of each to be the best of those that `among` (n,) marks, by DRAWS draws."""
        among = np.ones(len(self.mean), dtype=bool) if among is None else among
        root = np.linalg.cholesky(self.covariance)
        normal = rng.standard_normal((DRAWS, len(self.mean))) @ root.T
        drawn = self.mean + normal / np.sqrt(rng.chisquare(self.freedom, (DRAWS, 1)) / self.freedom)
        winner = np.where(among, drawn, -np.inf).argmax(1)
        return np.bincount(winner, minlength=len(self.mean)) / DRAWS


@dataclass(frozen=True)
class Round:
    """What one round came to: the mixtures by their number, 0 first."""

    seed: int
    measured: tuple[int, ...]
    mean: tuple[float, ...]  # of all mixtures, as believed after the round
    probability: tuple[float, ...]  # of being the best of all mixtures
    left: tuple[int, ...]  # those that go on, the best first
    over: bool  # one mixture is sure enough to be the best, or is the only one left


def posterior_of(prior: Prior, scores: Sequence[Mapping[int, float]]) -> Posterior:
    """Return what is believed of mixtures after their `scores` by seed.

    score = mixture + seed + noise, with the prior on mixtures, nothing known of seeds, and one noise for all. Its
    variance is that of the prior, worth NOISE_TRUST degrees of freedom, and that of the scores, pooled.
    """
    found, freedom = seed_noise([table for table in scores if table], paired=True)
    variance = (NOISE_TRUST * prior.noise**2 + freedom * found**2) / (NOISE_TRUST + freedom)
    variance = max(variance, 1e-18)
    trust = 1.0 / np.maximum(prior.deviation, 1e-9) ** 2
    precision, weighed = np.diag(trust), trust * prior.mean
    for seed in sorted({seed for table in scores for seed in table}):
        there = np.array([seed in table for table in scores], dtype=np.float64)
        values = np.array([table.get(seed, 0.0) for table in scores])
        precision = precision + (np.diag(there) - np.outer(there, there) / there.sum()) / variance
        weighed = weighed + there * (values - values.sum() / there.sum()) / variance
    covariance: Floats = np.linalg.inv(precision).astype(np.float64)
    mean: Floats = covariance @ weighed
    return Posterior(mean, covariance, NOISE_TRUST + freedom)


def play(
    prior: Prior,
    tables: Sequence[Table],
    round_seeds: Sequence[int],
    share: Mapping[str, float],
    thresholds: Mapping[str, float],
    sure: float,
    seed: int,
) -> list[Round]:
    """Return the rounds that the mixtures' trials so far make up.

    `tables` are the mixtures' scores by seed and task, `round_seeds` those of the rounds, `share` the weights of
    the tasks in the objective, `seed` that of the draws. A mixture that falls short of `thresholds` stands behind
    those that do not. A round that no trial came back from is not played.
    """
    left = tuple(range(len(tables)))
    rounds: list[Round] = []
    for number, fresh in enumerate(round_seeds):
        measured = tuple(i for i in left if fresh in tables[i])
        if not measured or finished(rounds, len(round_seeds)):
            break
        so_far = [{s: table[s] for s in round_seeds[: number + 1] if s in table} for table in tables]
        posterior = posterior_of(prior, objectives(so_far, share))
        short = np.array([shortfall(table, thresholds) for table in so_far])
        probability = posterior.best(seeds.stream(seed, "halving", number), short <= short.min())
        order = sorted((i for i in left if so_far[i]), key=lambda i: (short[i], -posterior.mean[i], i))
        kept = tuple(order[: max(FEWEST, (len(left) + 1) // 2)])
        rounds.append(
            Round(
                fresh,
                measured,
                tuple(posterior.mean.tolist()),
                tuple(probability.tolist()),
                kept,
                bool(probability[kept[0]] >= sure) or len(kept) == 1,
            )
        )
        left = kept
    return rounds


def finished(rounds: Sequence[Round], most: int) -> bool:
    """Whether no further round is due: one is sure or alone, or there were as many as may be."""
    return bool(rounds) and (rounds[-1].over or len(rounds) >= most)


def most_batches(settings: SelectionSettings) -> list[int]:
    """Return the trials of each batch, at most: of each round, and last of the claim, which measures the best mixture
    and the baselines with fresh seeds.
    """
    n, batches = settings.finalists + BASELINES, []
    for _ in range(settings.seeds):
        batches.append(n)
        n = max(min(n, FEWEST), (n + 1) // 2)
    return [*batches, 2 * settings.seeds + min(UNIFORM_SEEDS, settings.seeds)]


def most_trials(settings: SelectionSettings) -> int:
    """Return the most trials that the rounds, and then the claim of the best mixture and the baselines, take."""
    return sum(most_batches(settings))


def objectives(tables: Sequence[Table], share: Mapping[str, float]) -> list[dict[int, float]]:
    """Return the objective of each mixture by seed."""
    return [{seed: objective(scores, share) for seed, scores in table.items()} for table in tables]


def shortfall(table: Table, thresholds: Mapping[str, float]) -> float:
    """Return by how much the mean scores over seeds fall short of the thresholds, summed over tasks.

    Infinite without scores.
    """
    if not table:
        return float("inf")
    means = {task: float(np.mean([scores[task] for scores in table.values()])) for task in thresholds}
    return sum(max(0.0, least - means[task]) for task, least in thresholds.items())
