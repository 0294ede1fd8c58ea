"""Shared contexts: every pair scores as if it were read alone, and what is shared is read once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from openclimb.corpus.tokenize import train_tokenizer
from openclimb.proxy import evaluate
from openclimb.proxy.branches import batches, rows_of
from openclimb.proxy.evaluate import log_likelihoods
from openclimb.proxy.model import Form, Rope, StackedDecoder
from openclimb.proxy.tasks import read_items, tokenised
from openclimb.settings import ProxySettings

PROXY = ProxySettings(width=32, depth=2, heads=4, sequence=32)
VOCAB = 300
TEXT = "The quick brown fox jumps over the lazy dog; Ann met Bea and she was glad."
ROWS = [
    {"context": "The quick brown", "options": [" fox", " fox jumps", " fox jumps over", " dog"], "gold": 1},  # prefixes
    {"contexts": ["Ann met Bea and Ann", "Ann met Bea and Bea"], "continuation": " was glad.", "gold": 0},
    {"contexts": ["Ann met", "The quick"], "continuation": " fox", "gold": 0},  # nothing shared but the start
    {"context": "", "options": [TEXT, "x"], "gold": 0},
    {"context": "The lazy dog " * 6, "options": [" jumps", " was glad", "; she"], "gold": 2},
    {"context": "The same", "options": [" option", " option"], "gold": 0},
    {"text": TEXT},
]


@pytest.fixture
def packed(tmp_path: Path) -> dict[str, np.ndarray]:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS * 3))
    train_tokenizer([TEXT] * 5, VOCAB, tmp_path / "tokenizer.json")
    return tokenised(read_items(str(tmp_path / "t.jsonl")), tmp_path / "tokenizer.json")


def one_by_one(model: StackedDecoder, packed: dict[str, np.ndarray], longest: int) -> list[float]:
    found = []
    spans = np.split(packed["tokens"], np.cumsum(packed["lengths"])[:-1])
    for span, context in zip(spans, packed["contexts"], strict=True):
        kept = span[-longest - 1 :]
        n = max(1, len(kept) - (len(span) - context))
        row = torch.from_numpy(kept.astype(np.int64))[None, None]
        with torch.inference_mode():
            logs = model.logits(model(row[:, :, :-1]))[0].double().log_softmax(-1)
        found.append(float(logs[torch.arange(len(kept) - 1), row[0, 0, 1:]][n - 1 :].sum()))
    return found


@pytest.mark.parametrize("form", [Form(), Form(groups=2, head=16, tied=False, rope=Rope(5e5))], ids=["ours", "grouped"])
@pytest.mark.parametrize("longest", [128, 12])
def test_every_pair_scores_as_if_it_were_read_alone(
    packed: dict[str, np.ndarray], form: Form, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evaluate.BATCH_TOKENS, "cpu", 2 * 100)  # several batches, each with padding
    monkeypatch.setitem(evaluate.MOST_LOGITS, "cpu", 7 * 2 * VOCAB)  # several blocks of states
    stack = StackedDecoder(PROXY, VOCAB, [0, 1], form)
    found = log_likelihoods(stack, packed, longest, "cpu")
    for i, seed in enumerate((0, 1)):
        alone = one_by_one(StackedDecoder(PROXY, VOCAB, [seed], form), packed, longest)
        np.testing.assert_allclose(found[i], alone, atol=1e-5 * np.abs(alone).max())


def test_what_a_gpu_runs_gives_nearly_the_same(packed: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    stack = StackedDecoder(PROXY, VOCAB, [0, 1])
    exact = log_likelihoods(stack, packed, 128, "cpu")
    monkeypatch.setattr(evaluate, "_reads_on_cpu", lambda model: evaluate._reads_on_gpu(model, "cpu"))
    found = log_likelihoods(stack, packed, 128, "cpu")
    assert not np.array_equal(found, exact)  # bf16
    np.testing.assert_allclose(found, exact, rtol=5e-3)


def test_what_options_share_is_read_once(packed: dict[str, np.ndarray]) -> None:
    rows = rows_of(packed, 128)
    assert len(rows.lengths) == len(packed["gold"])
    assert len(rows.tokens) == rows.lengths.sum() < 0.75 * (packed["lengths"] - 1).sum()
    same = rows.lengths[5]  # two options that are alike add nothing to one
    assert same == packed["lengths"][packed["item"] == 5][0] - 1
    expected = packed["lengths"] - packed["contexts"]
    assert np.bincount(rows.pairs).tolist() == expected.tolist()


def test_batches_hold_every_row_once_and_keep_to_their_size(packed: dict[str, np.ndarray]) -> None:
    rows = rows_of(packed, 128)
    found = list(batches(rows, 120))
    assert sum(len(batch.tokens) for batch in found) == len(rows.lengths)
    assert all(batch.tokens.size <= 120 or len(batch.tokens) == 1 for batch in found)
    assert {batch.branched for batch in found} == {True, False}
