"""Old trials in a new search: maps between domains, carried mixtures, levels, blocks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclimb.config.schema import ConstraintsSettings, SearchSettings, SelectionSettings
from openclimb.errors import ConfigError, InputError
from openclimb.mixture import Domain
from openclimb.search.acquisition.spec import make_spec
from openclimb.search.propose import diagnose, finalists, next_batch
from openclimb.search.selection.candidates import make_candidates, next_round
from openclimb.search.transfer.carry import GONE, OldTrial, level_shift, transfer_space
from openclimb.search.transfer.domain_map import (
    Clusters,
    Documents,
    DomainMap,
    by_centroids,
    by_documents,
    by_names,
    map_table,
    read_map,
    read_table,
)
from openclimb.search.transfer.frozen import frozen_group
from openclimb.testing.fixtures import make_domains, make_space, make_trial, smooth_trials
from openclimb.workspace.observations import TRANSFERRED, observed

SEARCH = SearchSettings()


def domains_of(**tokens: int) -> list[Domain]:
    return [Domain(name, n) for name, n in tokens.items()]


def old_trials(domains: list[Domain], n: int = 12, level: float = 0.0) -> list[OldTrial]:
    return [
        OldTrial("before", trial.number, 0, trial.weights, {k: v + level for k, v in trial.scores.items()})
        for trial in smooth_trials(domains, n)
    ]


def documents(rows: list[tuple[int, int, int]]) -> Documents:
    hashes, domains, tokens = zip(*rows, strict=True)
    return Documents(np.array(hashes, dtype=np.uint64), np.array(domains, np.int32), np.array(tokens, np.int64))


def test_the_map_by_documents_counts_tokens_of_shared_texts() -> None:
    old = documents([(1, 0, 30), (2, 0, 10), (3, 1, 20), (4, 1, 20), (5, -1, 99), (1, 1, 7)])
    new = documents([(1, 0, 60), (2, 1, 20), (3, 1, 40), (6, 1, 40), (5, 2, 50)])
    made, shared = by_documents(old, new, ["a", "b"], ["x", "y", "z"])
    assert made.forward == pytest.approx(np.array([[0.75, 0.25, 0.0], [0.0, 0.5, 0.0]]))  # of equal texts the first
    assert made.backward == pytest.approx(np.array([[1.0, 0.0], [0.2, 0.4], [0.0, 0.0]]))
    assert made.gone == pytest.approx([0.0, 0.5])
    assert shared == pytest.approx(60 / 80)


def test_the_map_by_centroids_leaves_what_is_far_without_a_counterpart() -> None:
    axis = np.eye(4, dtype=np.float32)
    near = axis[0] + 0.1 * axis[1]
    old = Clusters(axis[:3], np.array([0, 0, 1], np.int32), np.array([30, 10, 20]))
    new = Clusters(
        np.stack([near / np.linalg.norm(near), axis[3], axis[1]]), np.arange(3, dtype=np.int32), np.array([1, 1, 1])
    )
    made = by_centroids(old, new, 0.5, ["a", "b"], ["x", "y", "z"])
    assert made.forward == pytest.approx(np.array([[0.75, 0.0, 0.25], [0.0, 0.0, 0.0]]))
    assert made.backward == pytest.approx(np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
    assert made.gone == pytest.approx([0.0, 1.0])


def test_the_map_by_names_and_a_table(tmp_path: Path) -> None:
    old, new = domains_of(web=60, code=40, old=10), domains_of(web=80, python=10, rest=30)
    table = tmp_path / "map.csv"
    table.write_text("old, new, share\ncode, python, 0.25\ncode, rest, 0.7\nold,,1\n")
    found = read_map(table, ["web", "code", "old"], ["web", "python", "rest"])
    made = by_names(old, new, found)
    assert made.forward == pytest.approx(np.array([[1, 0, 0], [0, 0.25, 0.7], [0, 0, 0]]))
    assert made.untouched == {0: 0}
    (tmp_path / "made.csv").write_text(map_table(made))
    again = read_table(tmp_path / "made.csv", made.old, made.new)
    assert np.array_equal(again.forward, made.forward)
    assert np.array_equal(again.backward, made.backward)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("old,new\nweb,web\n", "no column 'share'"),
        ("old,new,share\nwep,web,1\n", "'wep' is no old domain (did you mean 'web'?)"),
        ("old,new,share\nweb,wep,1\n", "'wep' is no new domain (did you mean 'web'?)"),
        ("old,new,share\nweb,web,x\n", "'x' is no number from 0 to 1"),
        ("old,new,share\nweb,web,1.5\n", "'1.5' is no number from 0 to 1"),
        ("old,new,share\nweb,web,0.7\nweb,code,0.7\n", "sum to 1.4, more than 1"),
        ("old,new,share\nweb,web,0.7\nweb,web,0.3\n", "stands there twice"),
    ],
)
def test_a_table_that_does_not_fit_is_told(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_map(tmp_path / "map.csv", ["web", "code"], ["web", "code"])
    assert message in caught.value.message
    assert caught.value.fix


def test_a_table_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        read_map(tmp_path / "none.csv", ["a"], ["a"])
    (tmp_path / "map.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a CSV file"):
        read_map(tmp_path / "map.csv", ["a"], ["a"])


@st.composite
def overlaps(draw: st.DrawFn) -> DomainMap:
    """A map from tokens that old and new domains share, with some that are gone and some that are new."""
    n_old, n_new = draw(st.integers(1, 5)), draw(st.integers(2, 5))
    cell = st.one_of(st.just(0), st.integers(1, 1000))
    shared = np.array(draw(st.lists(cell, min_size=n_old * n_new, max_size=n_old * n_new)), dtype=float)
    shared = shared.reshape(n_old, n_new)
    gone = np.array(draw(st.lists(cell, min_size=n_old, max_size=n_old)), dtype=float)
    added = np.array(draw(st.lists(cell, min_size=n_new, max_size=n_new)), dtype=float)
    old, new = np.maximum(shared.sum(1) + gone, 1.0), np.maximum(shared.sum(0) + added, 1.0)
    names = [tuple(f"{side}-{i}" for i in range(n)) for side, n in (("old", n_old), ("new", n_new))]
    return DomainMap(names[0], names[1], shared / old[:, None], shared.T / new[:, None])


@settings(max_examples=60, deadline=None)
@given(overlaps(), st.integers(0, 1000))
def test_carried_mixtures_are_on_the_simplex(made: DomainMap, seed: int) -> None:
    rng = np.random.default_rng(seed)
    new = [Domain(name, int(n)) for name, n in zip(made.new, rng.integers(1, 100, len(made.new)), strict=True)]
    rows = rng.dirichlet(np.full(len(made.old), 0.7), 5)
    old = [OldTrial("before", i, 0, tuple(row), {"task": float(i)}) for i, row in enumerate(rows)]
    answer = np.full(len(made.old), 1.0 / len(made.old))
    for mode in ("free", "frozen"):
        space = transfer_space(old, made, answer, make_spec(new, SEARCH), mode)
        assert np.allclose(space.expand[[not d.name.startswith(GONE) for d in space.spec.domains]].sum(1), 1.0)
        for trial, blurred in zip(space.old, space.blurred, strict=True):
            assert min(trial.weights) >= 0.0
            assert sum(trial.weights) == pytest.approx(1.0)
            assert 0.0 <= blurred <= 1.0
    assert all(row.sum() + gone == pytest.approx(1.0) for row, gone in zip(made.forward, made.gone, strict=True))


def test_the_same_domains_carry_trials_as_they_are() -> None:
    domains = make_domains(4)
    old = old_trials(domains)
    space = transfer_space(old, by_names(domains, domains), np.full(4, 0.25), make_spec(domains, SEARCH))
    assert [trial.weights for trial in space.old] == [pytest.approx(trial.weights) for trial in old]
    assert [dict(trial.scores) for trial in space.old] == [dict(trial.scores) for trial in old]
    assert max(space.blurred) < 1e-12
    assert space.spec.domains == tuple(domains)


def test_a_split_blurs_nothing_and_a_join_by_how_far_it_was_from_the_tokens() -> None:
    apart, joined = domains_of(a=30, b=10, c=60), domains_of(ab=40, c=60)
    table = {"a": {"ab": 1.0}, "b": {"ab": 1.0}}
    made = by_names(apart, joined, table)
    rows = [(0.3, 0.1, 0.6), (0.0, 0.4, 0.6)]
    old = [OldTrial("before", i, 0, row, {"task": 1.0}) for i, row in enumerate(rows)]
    space = transfer_space(old, made, np.full(3, 1 / 3), make_spec(joined, SEARCH))
    assert [trial.weights for trial in space.old] == [pytest.approx((0.4, 0.6))] * 2
    assert space.blurred == pytest.approx((0.0, 0.3))
    back = by_names(joined, apart, {"ab": {"a": 0.75, "b": 0.25}})
    space = transfer_space(
        [OldTrial("before", 1, 0, (0.4, 0.6), {"task": 1.0})], back, np.ones(2) / 2, make_spec(apart, SEARCH)
    )
    assert space.old[0].weights == pytest.approx((0.3, 0.1, 0.6))
    assert space.blurred == pytest.approx((0.0,))


def test_what_is_gone_keeps_a_column_that_no_proposal_uses() -> None:
    before = make_domains(5)
    domains = before[:4]
    space = transfer_space(old_trials(before), by_names(before, domains), np.full(5, 0.2), make_spec(domains, SEARCH))
    assert space.spec.domains[-1] == Domain(GONE + before[4].name, 1, 0.0)
    assert space.old[0].weights == pytest.approx(old_trials(before)[0].weights)
    batch = next_batch(space.observations([]), space.spec, 6, 0, 0)
    assert not batch[:, -1].any()
    weights = space.expanded(batch)
    assert weights.shape == (6, 4)
    assert weights.sum(1) == pytest.approx(1.0)
    found = finalists(space.observations([]), space.spec, 2, 0)
    compared = space.expanded_finalists(found)
    assert [len(row) for _, row in compared] == [4] * 4
    assert dict(compared)["uniform"] == pytest.approx([0.25] * 4)


def test_the_first_batch_follows_the_old_trials_into_what_is_new() -> None:
    domains = make_domains(5)
    before = domains[:4]
    space = transfer_space(
        old_trials(before, 30), by_names(before, domains), np.full(4, 0.25), make_spec(domains, SEARCH)
    )
    batch = space.expanded(next_batch(space.observations([]), space.spec, 8, 0, 0))
    assert batch[:, 4].max() > 0.25  # no old trial can have explored it
    again = space.expanded(next_batch(space.observations([]), space.spec, 8, 0, 0))
    assert np.array_equal(batch, again)


def test_a_level_that_moved_is_found_and_taken_out() -> None:
    domains = make_domains(4)
    trials = smooth_trials(domains, 35)
    own = trials[30:]
    moved = [OldTrial("a", t.number, 0, t.weights, {k: v + 5.0 for k, v in t.scores.items()}) for t in trials[:30]]
    space = transfer_space(moved, by_names(domains, domains), np.ones(4), make_spec(domains, SEARCH))
    shift = level_shift(space.old, observed(own))
    assert shift == pytest.approx({"first": -5.0, "second": -5.0}, abs=0.1)
    carried = [one for one in space.observations(own) if one.source == TRANSFERRED]
    assert carried[0].scores["first"] == pytest.approx(trials[0].scores["first"], abs=0.1)
    assert level_shift(space.old[:1], observed(own[:1])).keys() == {"first", "second"}
    assert level_shift(space.old, []) == {}


def test_only_common_tasks_are_carried() -> None:
    domains = make_domains(3)
    made, even = by_names(domains, domains), np.full(3, 1 / 3)
    space = transfer_space(old_trials(domains), made, even, make_spec(domains, SEARCH))
    own = [make_trial(1, domains, [0.2, 0.3, 0.5], {"first": 0.5, "third": 0.1})]
    assert {tuple(one.scores) for one in space.observations(own) if one.source == TRANSFERRED} == {("first",)}
    alone = [make_trial(1, domains, [0.2, 0.3, 0.5], {"third": 0.1})]
    assert space.observations(alone) == observed(alone)
    named = transfer_space(old_trials(domains), made, even, make_spec(domains, SEARCH), named=("third",))
    assert named.observations([]) == []
    known = transfer_space(old_trials(domains), made, even, make_spec(domains, SEARCH), tasks=("second", "third"))
    assert {tuple(trial.scores) for trial in known.observations([])} == {("second",)}


def test_diagnostics_name_only_the_new_trials() -> None:
    domains = make_domains(4)
    space = transfer_space(old_trials(domains, 12), by_names(domains, domains), np.ones(4), make_spec(domains, SEARCH))
    own = smooth_trials(domains, 4, seed=3)
    found = diagnose(space.observations(own), space.spec, 0)
    assert found.trials == [1, 2, 3, 4]
    assert found.transferred == 12
    assert {row.trial for row in found.predictions} == {1, 2, 3, 4}
    assert found.best_measured == pytest.approx(max(np.mean(list(trial.scores.values())) for trial in own))
    assert space.old[2].name == "before 3"


def test_a_selection_believes_what_old_trials_say_of_any_mixture() -> None:
    before = domains_of(a=10, b=20, c=30, gone=15)
    domains = [*before[:3], Domain("d", 40)]
    own = smooth_trials(domains, 5, seed=3)
    by_old = old_trials(before, 30)
    completed = {}
    for mode in ("none", "free", "frozen"):
        space = (
            make_space(domains, SEARCH)
            if mode == "none"
            else transfer_space(by_old, by_names(before, domains), np.full(4, 0.25), make_spec(domains, SEARCH), mode)
        )
        found = finalists(space.observations(own), space.spec, 2, 0)
        compared = space.expanded_finalists(found)
        candidates = completed[mode] = make_candidates(own, space, compared, SelectionSettings(), 0)
        assert candidates.history.counts == {"trials": 5, "transferred": 0 if mode == "none" else 30}
        assert all(len(one.weights) == 4 for one in next_round(candidates, [], 3))
        assert candidates.weights[-2:] == pytest.approx(np.array([[0.1, 0.2, 0.3, 0.4], [0.25] * 4]))
        assert candidates.prior.mean == pytest.approx(
            candidates.predictor.predict(space.whole.reduced(candidates.weights))[0]
        )
    # the untouched domains' ratios in the natural mixture are not the group's: it is believed by every weight
    assert completed["frozen"].prior.mean[-2:] == pytest.approx(completed["free"].prior.mean[-2:])
    assert completed["frozen"].history.weights.shape[1] == 5
    assert completed["frozen"].weights[0, :3] == pytest.approx(np.full(3, completed["frozen"].weights[0, :3].mean()))


def test_without_old_trials_nothing_changes() -> None:
    domains = make_domains(4)
    trials = smooth_trials(domains, 6)
    space = make_space(domains, SEARCH)
    assert space.observations(trials) == observed(trials)


def test_trials_of_other_domains_are_still_refused() -> None:
    domains = make_domains(4)
    space = transfer_space(old_trials(domains), by_names(domains, domains), np.ones(4), make_spec(domains, SEARCH))
    strange = make_trial(1, make_domains(3), [0.2, 0.3, 0.5], {"first": 0.5})
    assert space.observations([strange])[0] == observed([strange])[0]


def test_a_frozen_group_keeps_the_ratios_of_the_old_answer() -> None:
    before = domains_of(a=10, b=20, c=30)
    domains = [*before[:2], Domain("c", 30, 0.4), Domain("d", 40)]
    answer = np.array([0.2, 0.2, 0.6])
    space = transfer_space(old_trials(before), by_names(before, domains), answer, make_spec(domains, SEARCH), "frozen")
    assert [domain.name for domain in space.spec.domains] == ["untouched", "d"]
    assert space.spec.domains[0].cap == pytest.approx(0.4 / 0.6)
    own = make_trial(1, domains, [0.1, 0.1, 0.3, 0.5], {"first": 1.0, "second": 1.0})
    assert space.observations([own])[0].weights == pytest.approx((0.5, 0.5))
    batch = space.expanded(next_batch(space.observations([own]), space.spec, 4, 0, 0))
    assert batch[:, :3] == pytest.approx(batch[:, :3].sum(1, keepdims=True) * answer)
    assert (batch[:, 3] < 1.0).any()
    assert (batch[:, 2] <= 0.4 + 1e-6).all()


def test_a_frozen_group_keeps_constraints_or_says_that_it_cannot() -> None:
    domains = domains_of(a=10, b=20, c=30, d=40)
    answer, inside = np.array([0.25, 0.75, 0.0]), {0: 0, 1: 1, 2: 2}

    def constraints_of(**constraints: object) -> ConstraintsSettings:
        kept = ConstraintsSettings(**constraints)  # type: ignore[arg-type]
        made = frozen_group(make_spec(domains, SEARCH, constraints=kept), inside, answer)
        assert made is not None
        return made.spec.constraints

    assert constraints_of(floor={"a": 0.1, "d": 0.2}).floor == pytest.approx({"untouched": 0.4, "d": 0.2})
    assert constraints_of(cap={"b": 0.6, "c": 0.1}).cap == pytest.approx({"untouched": 0.8})
    assert constraints_of(floor={"b": 0.3}, cap={"b": 0.3, "c": 0.0}).cap == pytest.approx({"untouched": 0.4})
    assert constraints_of(groups={"a+b+c": (0.1, 0.5)}).groups == {"untouched": (0.1, 0.5)}
    assert constraints_of(most_domains=3).most_domains == 2
    for constraints, message in (
        ({"floor": {"c": 0.1}}, "has no weight in the old answer"),
        ({"floor": {"a": 0.2}, "cap": {"b": 0.3}}, "need a weight of 0.8"),
        ({"groups": {"a+d": (0.1, 0.5)}}, "cuts through the untouched domains"),
        ({"most_domains": 1}, "more than most_domains = 1"),
    ):
        with pytest.raises(ConfigError) as caught:
            constraints_of(**constraints)
        assert message in caught.value.message
        assert "free" in caught.value.fix
    assert frozen_group(make_spec(domains, SEARCH), {0: 0}, answer) is None
    assert frozen_group(make_spec(domains, SEARCH), {i: i for i in range(4)}, np.full(4, 0.25)) is None
