"""DoReMi: excess loss counts, not loss; weights on the simplex; the same seed gives the same bits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openclimb.baselines import doremi as module
from openclimb.baselines.doremi import doremi, reweighed
from openclimb.config.schema import ProxySettings
from openclimb.errors import SearchError
from openclimb.proxy.data import open_tokens
from openclimb.workspace.files import write_json

PROXY = ProxySettings(width=32, depth=1, heads=2, sequence=32, batch=8, learning_rate=1e-2)
NAMES = ("noise", "known", "learnable")
VOCAB = 64
BUDGET = 32 * 8 * 90
NATURAL = (0.2, 0.1, 0.7)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Three domains: tokens at random, one token again and again, and a walk that must be learnt."""
    rng = np.random.default_rng(0)
    n = 20_000
    table = rng.integers(0, VOCAB, (VOCAB, 2))
    walk = np.zeros(n, dtype=np.int64)
    turns = rng.integers(0, 2, n)
    for i in range(1, n):
        walk[i] = table[walk[i - 1], turns[i]]
    arrays = {"noise": rng.integers(0, VOCAB, n), "known": np.full(n, 7), "learnable": walk}
    for name, array in arrays.items():
        array.astype(np.uint16).tofile(tmp_path / f"{name}.bin")
    rows = [{"name": name, "file": f"{name}.bin", "n_tokens": n, "n_read": n} for name in NAMES]
    write_json(tmp_path / "domains.json", {"dtype": "uint16", "eos": 0, "vocab_size": VOCAB, "domains": rows})
    return tmp_path


def test_noise_and_what_is_learnt_already_do_not_take_all_weight(tokens: Path) -> None:
    found = doremi(tokens, NAMES, NATURAL, PROXY, BUDGET, 1)
    weights = dict(zip(NAMES, found.weights, strict=True))
    assert sum(found.weights) == pytest.approx(1.0)
    assert min(found.weights) > 0
    assert weights["learnable"] > weights["noise"]
    assert weights["learnable"] > weights["known"]
    assert weights["noise"] < 0.5
    assert found.tokens == 2 * BUDGET
    assert all(value >= 0 for value in found.excess)


@pytest.mark.parametrize("n_domains", [1, 2, 3])
def test_every_batch_sees_every_domain_equally_often(tokens: Path, n_domains: int) -> None:
    for batch in (1, 2, 8):
        asked = replace(PROXY, batch=batch, token_budget=32 * 100)
        proxy = module.whole_batches(asked, n_domains)
        assert asked.token_budget - n_domains * 32 < proxy.token_budget <= asked.token_budget
        run = module._Run(open_tokens(tokens), NAMES[:n_domains], [1 / n_domains] * n_domains, proxy, 3, "cpu")
        seen = [np.bincount(domains, minlength=n_domains) for *_, domains in run]
        assert all((counts == counts[0]).all() and counts[0] > 0 for counts in seen)
        assert sum(counts.sum() for counts in seen) == len(run.reader)
        assert max(counts.sum() for counts in seen) == proxy.batch < batch + n_domains


def test_the_same_seed_gives_the_same_bits_and_another_others(tokens: Path) -> None:
    first, again, other = (doremi(tokens, NAMES, NATURAL, PROXY, BUDGET // 6, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.weights != other.weights


def test_a_batch_in_slices_of_one_row_gives_the_same(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_step() -> tuple[torch.Tensor, list[torch.Tensor], list[int]]:
        run = module._Run(open_tokens(tokens), NAMES, NATURAL, replace(PROXY, token_budget=BUDGET), 1, "cpu")
        rows: list[int] = []
        run.model.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[1]))
        _, batch, _ = next(iter(run))
        losses = run.losses(batch)
        run.learn(batch, torch.linspace(0.05, 0.2, len(batch)))
        return losses, [parameter.grad for parameter in run.model.parameters()], rows

    whole, whole_gradients, all_rows = one_step()
    weights = doremi(tokens, NAMES, NATURAL, PROXY, BUDGET // 6, 1).weights
    monkeypatch.setattr(module, "HEAD_FLOATS", VOCAB * PROXY.sequence)
    sliced, sliced_gradients, single = one_step()
    assert (set(all_rows), set(single)) == ({PROXY.batch}, {1})  # so many logits, and no more, are there at once
    torch.testing.assert_close(sliced, whole, rtol=1e-5, atol=1e-5)
    for one, other in zip(sliced_gradients, whole_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert doremi(tokens, NAMES, NATURAL, PROXY, BUDGET // 6, 1).weights == pytest.approx(weights, rel=1e-3)


def test_a_loss_that_is_no_number_is_told(tokens: Path) -> None:
    with pytest.raises(SearchError, match="loss of DoReMi"):
        doremi(tokens, NAMES, NATURAL, replace(PROXY, learning_rate=1e30), BUDGET // 6, 1)


def test_a_step_follows_the_excess_and_stays_on_the_simplex() -> None:
    alpha = np.full(4, 0.25)
    assert np.allclose(reweighed(alpha, np.full(4, 0.3)), alpha)
    grown = reweighed(alpha, np.array([np.log(2.0), 0.0, 0.0, 0.0]))
    assert grown == pytest.approx(0.999 * np.array([0.4, 0.2, 0.2, 0.2]) + 0.001 / 4)
    far = reweighed(np.array([1.0, 0.0, 0.0, 0.0]), np.array([1000.0, 0.0, 0.0, 0.0]))
    assert far.sum() == pytest.approx(1.0)
    assert far.min() == pytest.approx(0.001 / 4)
