"""Same trials, settings and seed: the same proposals, finalists and answers, whatever the order of tells and domains.

Under any constraints, and for trials that say little: none, one, the same again, constant or missing scores, fewer
trials than domains. (Draws, caps alone and running trials: test_region, test_propose, test_running.)
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_region import holds, problems
from trial_rows import make_trial, smooth_trials

from openclimb.errors import SearchError
from openclimb.mixture import Domain
from openclimb.search import baselines
from openclimb.search.answers import ANSWERS, answer_of
from openclimb.search.design import Aim
from openclimb.search.loop import finalists, next_batch
from openclimb.search.propose import PROPOSERS
from openclimb.search.required import Required
from openclimb.settings import ConstraintsSettings, PickSettings, SearchSettings
from openclimb.trials import Trial

TOLD = ("nothing", "one", "smooth", "constant", "missing", "duplicates", "crowded")
Problem = tuple[list[Domain], ConstraintsSettings]


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    """The recipe and RegMix predict 100,000 draws; a thousand show the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "DRAWS", 1000)
        patch.setattr(baselines, "CHUNK", 500)
        yield


def told_trials(kind: str, domains: list[Domain], seed: int) -> list[Trial]:
    """Return trials of a kind in TOLD."""
    rng = np.random.default_rng(seed)
    trials = smooth_trials(domains, 24 if kind == "crowded" else 1 if kind == "one" else int(rng.integers(2, 8)), seed)
    if kind == "nothing":
        return []
    if kind == "constant":
        return [dataclasses.replace(trial, scores={"first": 0.5, "second": 0.5}) for trial in trials]
    if kind == "missing":
        hidden = [{"first": np.nan}, {"second": np.nan}, {"first": np.nan, "second": np.nan}, {}]
        return [
            dataclasses.replace(trial, scores={**trial.scores, **hidden[i % len(hidden)]})
            for i, trial in enumerate(trials)
        ]
    if kind == "duplicates":
        again = [make_trial(50 + t.number, domains, t.weights, dict(t.scores), seed=1) for t in trials]
        return [*trials, *again, *(dataclasses.replace(trial, number=90 + trial.number) for trial in trials)]
    return trials


def turned(trials: list[Trial], domains: list[Domain], seed: int) -> tuple[list[Trial], list[Domain], np.ndarray]:
    """Return the same trials told in another order, the same domains in another order, and that order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(domains))
    return [trials[i] for i in rng.permutation(len(trials))], [domains[i] for i in order], order


cases = {
    "problem": problems(),
    "kind": st.sampled_from(TOLD),
    "seed": st.integers(0, 2**31),
}


@pytest.mark.parametrize("name", [name for name in PROPOSERS if name != "pareto"])  # that one needs two goals
@settings(max_examples=8, deadline=None)
@given(**cases, n=st.integers(1, 5))
def test_proposals(name: str, problem: Problem, kind: str, seed: int, n: int) -> None:
    domains, constraints = problem
    search, required = SearchSettings(proposer=name, predictor="gp"), Required(constraints)
    trials = told_trials(kind, domains, seed)
    weights = next_batch(trials, domains, n, 1, search, {}, seed, required)
    assert weights.shape == (n, len(domains))
    holds(weights, domains, constraints)
    shuffled, moved, order = turned(trials, domains, seed)
    assert np.array_equal(next_batch(shuffled, moved, n, 1, search, {}, seed, required), weights[:, order])


@settings(max_examples=4, deadline=None)
@given(**cases)
def test_finalists(problem: Problem, kind: str, seed: int) -> None:
    domains, constraints = problem
    search, required, pick = SearchSettings(predictor="gp"), Required(constraints), PickSettings(finalists=2)
    trials = told_trials(kind, domains, seed)
    if not trials:
        with pytest.raises(SearchError, match="no trial"):
            finalists(trials, domains, search, pick, {}, seed, required)
        return
    rows = finalists(trials, domains, search, pick, {}, seed, required)
    holds(np.array([row for _, row in rows]), domains, constraints)
    shuffled, moved, order = turned(trials, domains, seed)
    again = finalists(shuffled, moved, search, pick, {}, seed, required)
    assert again == [(role, tuple(row[i] for i in order)) for role, row in rows]


@pytest.mark.parametrize("name", ANSWERS)
@settings(max_examples=8, deadline=None)
@given(**cases)
def test_answers(name: str, problem: Problem, kind: str, seed: int) -> None:
    domains, constraints = problem
    aim = Aim("gp", required=Required(constraints))
    trials = told_trials(kind, domains, seed)

    def answer(told: list[Trial], among: list[Domain]) -> np.ndarray | str:
        try:
            return answer_of(name, told, among, np.random.default_rng(seed), aim)
        except SearchError as error:
            return error.message

    found = answer(trials, domains)
    shuffled, moved, order = turned(trials, domains, seed)
    again = answer(shuffled, moved)
    if isinstance(found, str):
        assert again == found
        scored = any(np.isfinite(list(trial.scores.values())).all() for trial in trials)
        assert not scored or name in ("best_of_n", "regmix", "paper")  # the trees of a few trials are refused
        return
    holds(found[None], domains, constraints)
    assert np.array_equal(again, found[order])
