"""The plan of a dataset: quotas that sum, every copy in one shard, stretches that are the mixture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclimb.export.assembly.deals import Places
from openclimb.export.assembly.plan import (
    N_BUCKETS,
    SHIFT,
    Counts,
    choose_extras,
    interleave,
    plan_domain,
    quotas,
    window,
)


def _documents(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    order = rng.integers(0, 2**64, n, dtype=np.uint64)
    return order, rng.integers(20, 900, n).astype(np.int32)


def _planned(order: np.ndarray, tokens: np.ndarray, quota: int):
    counts = Counts.empty(1)
    counts.add(np.zeros(len(order), np.int16), order, tokens, 3 * tokens)
    assert counts.n_bytes.tolist() == [3 * tokens.sum()]
    plan = plan_domain(quota, counts.tokens[0], whole=True)
    first, last = window(plan, counts.documents[0])
    bucket = (order >> SHIFT).astype(np.int64)
    inside = (bucket >= first) & (bucket < last)
    plan.extras = choose_extras(plan, order[inside], tokens[inside])
    return plan


@given(st.lists(st.floats(0.0, 1.0, allow_subnormal=False), min_size=1, max_size=40), st.integers(1, 10**12))
def test_quotas_sum_to_the_budget_and_follow_the_weights(raw: list[float], budget: int) -> None:
    weights = (np.array(raw) + 1e-6) / (np.array(raw) + 1e-6).sum()
    found = quotas(weights.tolist(), budget)
    assert sum(found) == budget
    assert np.abs(np.array(found) - weights * budget).max() <= 1 + 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.floats(0.05, 4.5), st.integers(1, 9), st.integers(0, 99))
def test_a_domain_meets_its_quota_and_every_copy_lies_in_one_shard(
    n: int, rounds: float, shards: int, seed: int
) -> None:
    order, tokens = _documents(n, seed)
    quota = max(1, int(rounds * tokens.sum()))
    plan = _planned(order, tokens, quota)
    taken = np.zeros(n, dtype=int)
    total = 0
    held = np.zeros(shards)
    for number, mine, place in plan.copies(order):
        assert place == pytest.approx(plan.places(order[mine], number))
        assert (place >= 0).all()
        taken[mine] += 1
        total += int(tokens[mine].sum())
        np.add.at(held, Places((0,), (shards,), shards).shards(0, place), tokens[mine])
    assert held.sum() == total
    assert np.abs(held - quota / shards).max() <= max(4 * tokens.max(), 0.4 * quota / shards) or n < 100
    assert abs(total - quota) <= tokens.max() / 2
    assert taken.max() - taken.min() <= 1
    assert abs(total - quota) <= max(20, 0.01 * quota) or n < 100


def test_the_first_documents_of_a_small_budget_are_among_those_of_a_larger_one() -> None:
    order, tokens = _documents(500, 3)

    def held(quota: int) -> set[int]:
        return {int(i) for _, mine, _ in _planned(order, tokens, quota).copies(order) for i in mine}

    small, large = held(int(tokens.sum() * 0.2)), held(int(tokens.sum() * 0.7))
    assert len(small - large) <= 2  # of the last few that meet the quota


def test_every_stretch_of_a_shard_is_the_mixture() -> None:
    rng = np.random.default_rng(0)
    domain = rng.choice(3, 6000, p=[0.7, 0.25, 0.05]).astype(np.int16)
    tokens = rng.integers(50, 500, 6000)
    rows = interleave(domain, rng.random(6000), tokens)
    assert sorted(rows.tolist()) == list(range(6000))
    whole = np.bincount(domain, weights=tokens) / tokens.sum()
    for stretch in np.array_split(rows, 20):
        share = np.bincount(domain[stretch], weights=tokens[stretch], minlength=3) / tokens[stretch].sum()
        assert share == pytest.approx(whole, abs=0.01)


def test_copies_of_a_document_lie_as_far_apart_as_they_can() -> None:
    order, tokens = _documents(300, 1)
    plan = _planned(order, tokens, 3 * int(tokens.sum()))
    gaps = plan.places(order, 1) - plan.places(order, 0)
    assert gaps == pytest.approx(np.full(300, 1 / 3), abs=1e-9)
    assert plan.before.shape == (N_BUCKETS + 1,)
