"""Which documents a dataset of a token budget holds, how often, and in which of its shards each copy lies.

Every document has a place in its domain's order (64 uniform bits, `document_order`). A domain is read in that order
again and again until its quota is met; a copy's place in the dataset is its share of the quota. So each domain is
spread evenly over the whole dataset, copies of a document lie as far apart as they can, and where a copy goes follows
from the document alone: any worker finds the rows of its shard without holding the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

N_BUCKETS = 1 << 12  # of a domain's order, whose tokens are counted together
SHIFT = np.uint64(52)  # order → bucket
WINDOW = 1000  # documents among which the last ones are chosen so that a quota is met


@dataclass
class Counts:
    """Exact tokens and documents of each domain by bucket of the order, shape (n_domains, N_BUCKETS), and its bytes."""

    tokens: NDArray[np.int64]
    documents: NDArray[np.int64]
    n_bytes: NDArray[np.int64]  # (n_domains,), of text

    @classmethod
    def empty(cls, n_domains: int) -> "Counts":
        """Return counts of nothing."""
        shape = (n_domains, N_BUCKETS)
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(n_domains, np.int64))

    def add(
        self,
        domain: NDArray[np.int16],
        order: NDArray[np.uint64],
        tokens: NDArray[np.int32],
        n_bytes: NDArray[np.int32],
    ) -> None:
        """Add rows, one a document."""
        bucket = (order >> SHIFT).astype(np.int64)
        np.add.at(self.tokens, (domain, bucket), tokens)
        np.add.at(self.documents, (domain, bucket), 1)
        np.add.at(self.n_bytes, domain, n_bytes)


@dataclass
class DomainPlan:
    """How one domain fills its quota: whole rounds, then the documents before `cut`, then those in `extras`."""

    quota: int  # tokens
    rounds: int = 0
    cut_bucket: int = 0  # documents in lower buckets are read once more
    extras: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))  # orders, sorted
    before: NDArray[np.float64] = field(default_factory=lambda: np.zeros(N_BUCKETS + 1))  # tokens before each bucket

    def places(self, order: NDArray[np.uint64], round_number: int) -> NDArray[np.float64]:
        """Return where copies lie in the dataset, 0 to 1, for documents with these orders."""
        bucket = (order >> SHIFT).astype(np.int64)
        within = (order & np.uint64((1 << 52) - 1)).astype(np.float64) / 2.0**52
        tokens = self.before[bucket] + within * (self.before[bucket + 1] - self.before[bucket])
        return np.asarray((round_number * self.before[-1] + tokens) / max(1, self.quota), dtype=np.float64)

    def copies(self, order: NDArray[np.uint64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float64]]]:
        """Yield for each round its number, and indices and places of the documents with these orders that it holds."""
        last = (order >> SHIFT).astype(np.int64) < self.cut_bucket
        last |= np.isin(order, self.extras)
        for number in range(self.rounds + 1 if self.quota else 0):
            mine = np.flatnonzero(last) if number == self.rounds else np.arange(len(order))
            if len(mine):
                yield number, mine, self.places(order[mine], number)


def quotas(weights: Sequence[float], token_budget: int) -> list[int]:
    """Return each domain's tokens: the weights times the budget, rounded so that they sum to the budget."""
    exact = np.asarray(weights, dtype=np.float64) * token_budget
    whole = np.floor(exact).astype(np.int64)
    short = token_budget - int(whole.sum())
    whole[np.argsort(-(exact - whole), kind="stable")[:short]] += 1
    return [int(n) for n in whole]


def plan_domain(quota: int, tokens: NDArray[np.int64], whole: bool) -> DomainPlan:
    """Return a domain's plan but for its last documents: `tokens` (N_BUCKETS,) are exact counts by bucket.

    `whole` says that every document of the domain was counted; else the domain is read less than once.
    """
    before = np.concatenate([[0], np.cumsum(tokens)]).astype(np.float64)
    total = int(before[-1])
    rounds = quota // total if whole and total else 0
    rest = quota - rounds * total
    cut = int(np.searchsorted(before, rest, side="right")) - 1  # the bucket in which the rest is met
    return DomainPlan(quota, rounds, min(cut, N_BUCKETS), before=before)


def window(plan: DomainPlan, documents: NDArray[np.int64]) -> tuple[int, int]:
    """Return the buckets [first, last) whose documents are looked at to meet the quota: about `WINDOW` documents."""
    seen = np.cumsum(documents[plan.cut_bucket :])
    enough = int(np.searchsorted(seen, WINDOW)) + 1
    return plan.cut_bucket, min(N_BUCKETS, plan.cut_bucket + enough)


def choose_extras(plan: DomainPlan, order: NDArray[np.uint64], tokens: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the orders of the window's documents that are read once more, so that the quota is met most nearly.

    In order, every document that still fits; at the end one that is too long, if that comes nearer.
    """
    rest = plan.quota - plan.rounds * int(plan.before[-1]) - int(plan.before[plan.cut_bucket])
    chosen: list[int] = []
    left: list[tuple[int, int]] = []
    for key, n in sorted(zip(order.tolist(), tokens.tolist(), strict=True)):
        if n <= rest:
            chosen.append(key)
            rest -= n
        else:
            left.append((n, key))
    if left and min(left)[0] - rest < rest:
        chosen.append(min(left)[1])
    return np.array(sorted(chosen), dtype=np.uint64)


def interleave(domain: NDArray[np.int16], place: NDArray[np.float64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order of a shard's rows in which every stretch is the mixture.

    Each domain is laid evenly over the shard: a row stands where the middle of its tokens stands among its domain's.
    """
    middle = np.empty(len(domain), dtype=np.float64)
    for d in np.unique(domain):
        mine = np.flatnonzero(domain == d)
        mine = mine[np.argsort(place[mine], kind="stable")]
        ends = np.cumsum(tokens[mine])
        middle[mine] = (ends - tokens[mine] / 2) / ends[-1]
    return np.lexsort((place, domain, middle))
