"""Which tokens a trial reads, and in which order: exact budget, exact shares, common random numbers.

The j-th sequence that a trial reads of a domain is the same in every trial of a seed, whatever the mixture. The seed
also draws which of the domain's packed sequences these are, as many as make the target's repetitions; a domain that is
read more often than that begins again, as the target run would repeat it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openclimb.corpus.packed import read_packed
from openclimb.errors import SearchError
from openclimb.workspace.trials import Trial

GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are spread evenly however many are taken (Weyl 1916)


@dataclass(frozen=True)
class Tokens:
    """The packed domains of a workspace, memory-mapped; `n_read`: different tokens of each that one trial reads."""

    arrays: dict[str, NDArray[Any]]
    n_read: dict[str, int]
    vocab_size: int
    end: int


def open_tokens(folder: Path) -> Tokens:
    """Open `tokens/` for reading. Raises InputError for a domain of which fewer tokens are there than were packed."""
    facts = read_packed(folder)
    dtype = np.dtype(facts["dtype"])
    arrays: dict[str, NDArray[Any]] = {
        row["name"]: np.memmap(folder / Path(row["file"]).name, dtype, "r") for row in facts["domains"]
    }
    n_read = {row["name"]: row["n_read"] for row in facts["domains"]}
    return Tokens(arrays, n_read, facts["vocab_size"], facts["eos"])


def counts(weights: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Return how many of n sequences each domain gives: largest remainders, so within one of n × weight."""
    exact = np.asarray(weights) * n
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: n - int(whole.sum())]] += 1
    return whole


def order(n_of: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the domain of each sequence of a run, interleaved evenly: every stretch has the mixture's shares.

    The j-th of a domain's n sequences stands at time (j + u) / n with a u of its own, from the seed and the domain.
    """
    times = [
        (np.arange(n) + np.random.default_rng([seed, domain]).random()) / max(1, n)
        for domain, n in enumerate(n_of.tolist())
    ]
    domains = np.repeat(np.arange(len(n_of)), n_of)
    return domains[np.argsort(np.concatenate(times), kind="stable")]


class Reader:
    """The sequences of one trial, in order."""

    def __init__(self, tokens: Tokens, trial: Trial, sequence: int) -> None:
        missing = [name for name in trial.domains if name not in tokens.arrays]
        if missing:
            raise SearchError(
                f"trial {trial.number} weighs '{missing[0]}', which has no tokens", "make a new workspace"
            )
        self.sequence = sequence
        self.arrays = [tokens.arrays[name] for name in trial.domains]
        self.domains = order(counts(np.array(trial.weights), trial.token_budget // sequence), trial.seed)
        ranks = np.zeros(len(self.domains), dtype=np.int64)
        for domain in range(len(self.arrays)):
            mine = self.domains == domain
            ranks[mine] = np.arange(np.count_nonzero(mine))
        self.ranks = ranks
        self.orders = [
            self._drawn(tokens.arrays[name], tokens.n_read[name], [trial.seed, 1 + i])
            for i, name in enumerate(trial.domains)
        ]

    def __len__(self) -> int:
        return len(self.domains)

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return sequences start…stop with the token after each, shape (stop − start, sequence + 1)."""
        rows = np.empty((stop - start, self.sequence + 1), dtype=np.int64)
        for i, (domain, rank) in enumerate(zip(self.domains[start:stop], self.ranks[start:stop], strict=True)):
            starts = self.orders[domain]
            begin = starts[rank % len(starts)]
            rows[i] = self.arrays[domain][begin : begin + self.sequence + 1]
        return rows

    def _drawn(self, array: NDArray[Any], n_read: int, seed: list[int]) -> NDArray[np.int64]:
        """Return where the sequences that the seed draws begin, in its order.

        They hold `n_read` tokens, one from each of as many equal stretches of the array, and multiples of the golden
        ratio say in which order: whatever part of them a mixture reads, and whenever, every document gives its share.
        The first place that could be drawn lies anywhere in the first sequence's.
        """
        rng = np.random.default_rng(seed)
        spare = len(array) - 1 - self.sequence
        first = int(rng.integers(0, min(self.sequence, spare + 1)))
        starts = np.arange(first, spare + 1, self.sequence, dtype=np.int64)
        n = min(len(starts), max(1, n_read // self.sequence))
        edges = np.arange(n + 1) * len(starts) // n
        drawn = starts[rng.integers(edges[:-1], edges[1:])]
        return drawn[np.argsort(np.argsort((np.arange(n) * GOLDEN + rng.random()) % 1.0))]


def batches(readers: Sequence[Reader], batch: int, first: int, stop: int, ahead: int = 0) -> Iterator[Tensor]:
    """Yield the tokens of steps first…stop, (M, at most batch, sequence + 1); only a run's last step has fewer rows.

    With `ahead`, which is for a GPU, a thread reads so many batches before they are asked for, into memory that the GPU
    copies from without waiting.
    """
    n = len(readers[0])

    def read(step: int) -> Tensor:
        rows = [reader.read(step * batch, min((step + 1) * batch, n)) for reader in readers]
        tokens = torch.from_numpy(np.stack(rows))
        return tokens.pin_memory() if ahead and torch.cuda.is_available() else tokens

    if not ahead:
        yield from map(read, range(first, stop))
        return
    with ThreadPoolExecutor(1, "batches") as thread:
        waiting: list[Future[Tensor]] = []
        for step in range(first, stop):
            waiting.append(thread.submit(read, step))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
