"""Which tokens a trial reads: exact budget, exact shares everywhere, common random numbers, repetition."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openclimb.errors import InputError, SearchError
from openclimb.proxy.data import Reader, Tokens, batches, counts, open_tokens, order
from openclimb.workspace.files import write_json
from openclimb.workspace.trials import Trial

SEQUENCE = 8


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    rows = []
    for i, (name, n) in enumerate((("a", 400), ("b", 100))):
        np.arange(1000 * i, 1000 * i + n, dtype=np.uint16).tofile(tmp_path / f"{name}.bin")
        rows.append({"name": name, "file": f"{name}.bin", "n_tokens": n, "n_read": n})
    write_json(tmp_path / "domains.json", {"dtype": "uint16", "eos": 0, "vocab_size": 4000, "domains": rows})
    return open_tokens(tmp_path)


@pytest.mark.parametrize("left", [None, 150])
def test_fewer_tokens_than_were_packed_are_refused(left: int | None, tokens: Tokens, tmp_path: Path) -> None:
    if left is None:
        (tmp_path / "b.bin").unlink()
    else:
        (tmp_path / "b.bin").write_bytes((tmp_path / "b.bin").read_bytes()[:left])
    with pytest.raises(InputError, match=rf"/b\.bin: {100 - (left or 0) // 2} of 100 packed tokens cannot be read"):
        open_tokens(tmp_path)


def trial(*weights: float, seed: int = 0, budget: int = 50 * SEQUENCE) -> Trial:
    return Trial(1, "search", 0, ("a", "b"), weights, seed, budget, "", "", "")


def test_counts_are_exact_and_within_one_sequence_of_the_shares() -> None:
    weights = np.array([0.501, 0.299, 0.2])
    found = counts(weights, 97)
    assert found.sum() == 97
    assert np.abs(found - 97 * weights).max() < 1


def test_every_stretch_has_the_mixtures_shares() -> None:
    domains = order(np.array([60, 30, 10]), seed=3)
    for start in range(0, 80, 20):
        found = np.bincount(domains[start : start + 20], minlength=3) / 20
        assert np.abs(found - [0.6, 0.3, 0.1]).max() <= 0.05 + 1e-9


def test_the_budget_is_exact_and_a_target_follows_its_token(tokens: Tokens) -> None:
    reader = Reader(tokens, trial(0.7, 0.3), SEQUENCE)
    rows = reader.read(0, len(reader))
    assert rows.shape == (50, SEQUENCE + 1)
    assert (np.diff(rows, axis=1) == 1).all()
    assert Counter((rows[:, 0] >= 1000).tolist()) == {False: 35, True: 15}


def test_trials_of_a_seed_share_each_domains_sequences(tokens: Tokens) -> None:
    one, two = (Reader(tokens, trial(w, 1 - w), SEQUENCE) for w in (0.8, 0.4))
    first = [row.tolist() for row in one.read(0, 50) if row[0] < 1000]
    second = [row.tolist() for row in two.read(0, 50) if row[0] < 1000]
    assert first[: len(second)] == second
    other = [row.tolist() for row in Reader(tokens, trial(0.8, 0.2, seed=9), SEQUENCE).read(0, 50) if row[0] < 1000]
    assert other[:5] != first[:5]


def test_a_small_domain_is_repeated_whole_before_it_begins_again(tokens: Tokens) -> None:
    reader = Reader(tokens, trial(0.0, 1.0), SEQUENCE)
    starts = reader.read(0, 50)[:, 0].tolist()
    n = len(reader.orders[1])
    assert len(set(starts[:n])) == n
    assert starts[n : 2 * n] == starts[:n]


def test_a_seed_draws_which_sequences_a_trial_reads(tokens: Tokens) -> None:
    part = replace(tokens, n_read={"a": 5 * SEQUENCE, "b": 100})
    drawn = [{*Reader(part, trial(1.0, 0.0, seed=seed), SEQUENCE).read(0, 50)[:, 0].tolist()} for seed in range(20)]
    assert {len(starts) for starts in drawn} == {5}
    assert drawn[0] != drawn[1]
    assert len(set.union(*drawn)) > 80  # they begin anywhere: more places than 400 / 8
    again, other = (Reader(part, trial(w, 1 - w), SEQUENCE) for w in (0.9, 0.5))
    assert (again.orders[0] == other.orders[0]).all()


def test_every_stretch_of_a_domain_gives_its_share_from_the_beginning(tokens: Tokens) -> None:
    part = replace(tokens, n_read={"a": 40 * SEQUENCE, "b": 100})
    for seed in range(20):
        first = Reader(part, trial(1.0, 0.0, seed=seed), SEQUENCE).read(0, 8)[:, 0]
        assert np.abs(np.bincount(first // 100, minlength=4) - 2).max() <= 1  # quarters of the domain's 400 tokens


def test_a_domain_without_tokens_is_told(tokens: Tokens) -> None:
    with pytest.raises(SearchError, match="weighs 'c'"):
        Reader(tokens, replace(trial(0.5, 0.5), domains=("a", "c")), SEQUENCE)


@pytest.mark.parametrize("ahead", [0, 1, 3, 99])
def test_batches_read_ahead_are_the_same(tokens: Tokens, ahead: int) -> None:
    readers = [Reader(tokens, trial(weight, 1 - weight), SEQUENCE) for weight in (0.7, 0.2)]
    found = list(batches(readers, 8, 2, 7, ahead))
    assert [len(batch[0]) for batch in found] == [8, 8, 8, 8, 2]  # of 50 sequences, the first 16 left out
    for i, reader in enumerate(readers):
        np.testing.assert_array_equal(np.concatenate([batch[i] for batch in found]), reader.read(16, 50))


@pytest.mark.parametrize("ahead", [0, 2])
def test_only_batches_read_ahead_are_pinned(tokens: Tokens, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []

    def pin(batch: torch.Tensor) -> torch.Tensor:
        pinned.append(batch)
        return batch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    assert len(list(batches([Reader(tokens, trial(0.5, 0.5), SEQUENCE)], 8, 0, 3, ahead))) == 3
    assert len(pinned) == (3 if ahead else 0)
