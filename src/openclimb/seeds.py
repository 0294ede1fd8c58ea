"""Every random stream of a workspace, derived from its one seed. No other file adds a number to a seed.

Trials: the search's have the workspace's seed, so that their mixtures are compared with the same initial weights and
documents; rounds and confirmation follow with fresh seeds, and replicates and targets begin far above them.
"""

import numpy as np
from numpy.random import Generator

STREAMS = {  # what a draw is for → its number; an iteration's draws have the iteration's
    "finalists": 10_000,
    "halving": 20_000,
    "confirmation": 30_000,
    "front": 30_000,
    "low_fidelity": 40_000,
    "trust": 50_000,
    "curves": 60_000,
    "answer": 1000,  # of a baseline
}
AGAIN = 100_000  # between the seeds of one mixture that is asked for again and again: above all others
REPLICATES = 1000
TARGETS = 2000


def proposals(seed: int, iteration: int) -> Generator:
    """Return the stream of an iteration's proposals."""
    return np.random.default_rng([seed, iteration])


def stream(seed: int, what: str, *parts: int) -> Generator:
    """Return the stream of one kind of draw, by a name in STREAMS."""
    return np.random.default_rng([seed, STREAMS[what], *parts])


def rounds(seed: int, n: int) -> range:
    """Return the seeds of n rounds of successive halving."""
    return range(seed + 1, seed + 1 + n)


def confirmation(seed: int, n: int) -> range:
    """Return the n seeds that confirm the selected mixture: none that selected it."""
    return range(seed + 1 + n, seed + 1 + 2 * n)


def replicates(seed: int, n: int) -> range:
    """Return the seeds of n replicates of the natural mixture, which measure the noise."""
    return range(seed + REPLICATES, seed + REPLICATES + n)


def targets(seed: int, n: int) -> range:
    """Return the n seeds of targets and their proxies: no trial judges its own choice."""
    return range(seed + TARGETS, seed + TARGETS + n)


def again(seed: int, times: int) -> int:
    """Return the seed of a mixture that was asked for so many times before."""
    return seed + AGAIN * times
