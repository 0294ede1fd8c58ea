"""Shared contexts: every pair scores as if it were read alone, and what is shared is read once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from openclimb.config.schema import ProxySettings
from openclimb.corpus.tokenizer import train_tokenizer
from openclimb.proxy import evaluate
from openclimb.proxy.evaluate import log_likelihoods, measure
from openclimb.proxy.model import Form, Rope, StackedDecoder
from openclimb.proxy.shared_prefix import batches, rows_of
from openclimb.proxy.stack.memory import Reading
from openclimb.tasks.items import read_items, tokenised
from openclimb.testing.models import drawn_decoder

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


def windows_of(span: list[int], context: int, longest: int) -> list[tuple[list[int], int]]:
    """What is read for a pair, and how many tokens at its end are scored, by plain loops."""
    if len(span) - context <= longest:
        return [(span[-longest - 1 :], len(span) - context)]
    found, done = [], context
    while done < len(span):
        n = min(longest, len(span) - done)
        found.append((span[done + n - longest - 1 : done + n], n))
        done += n
    return found


def one_by_one(model: StackedDecoder, packed: dict[str, np.ndarray], longest: int) -> list[float]:
    found = []
    spans = np.split(packed["tokens"], np.cumsum(packed["lengths"])[:-1])
    for span, context in zip(spans, packed["contexts"].tolist(), strict=True):
        total = 0.0
        for kept, n in windows_of(span.tolist(), context, longest):
            row = torch.tensor(kept)[None, None]
            with torch.inference_mode():
                logs = model.logits(model(row[:, :, :-1]))[0].double().log_softmax(-1)
            total += float(logs[torch.arange(len(kept) - 1), row[0, 0, 1:]][-n:].sum())
        found.append(total)
    return found


@pytest.mark.parametrize("form", [Form(), Form(groups=2, head=16, tied=False, rope=Rope(5e5))], ids=["ours", "grouped"])
@pytest.mark.parametrize("longest", [128, 12, 3])
def test_every_pair_scores_as_if_it_were_read_alone(
    packed: dict[str, np.ndarray], form: Form, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # several batches, each with padding, and several blocks of states
    monkeypatch.setattr(evaluate, "ON_CPU", Reading(tokens=2 * 100, logits=7 * 2 * VOCAB))
    monkeypatch.setattr(evaluate, "MOST_READ", 34)  # one item is read pair by pair
    stack = drawn_decoder(PROXY, VOCAB, [0, 1], form)
    found = log_likelihoods(stack, packed, longest, "cpu")
    for i, seed in enumerate((0, 1)):
        alone = one_by_one(drawn_decoder(PROXY, VOCAB, [seed], form), packed, longest)
        np.testing.assert_allclose(found[i], alone, atol=1e-5 * np.abs(alone).max())


def test_what_a_gpu_runs_gives_nearly_the_same(packed: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    stack = drawn_decoder(PROXY, VOCAB, [0, 1])
    exact = log_likelihoods(stack, packed, 128, "cpu")
    monkeypatch.setattr(evaluate, "_reads_on_cpu", lambda model: evaluate._reads_on_gpu(model, "cpu"))
    found = log_likelihoods(stack, packed, 128, "cpu")
    assert not np.array_equal(found, exact)  # bf16
    np.testing.assert_allclose(found, exact, rtol=5e-3)


def test_what_options_share_is_read_once(packed: dict[str, np.ndarray]) -> None:
    rows = rows_of(packed, 128, 8192)
    assert len(rows.lengths) == len(packed["gold"])
    assert len(rows.tokens) == rows.lengths.sum() < 0.75 * (packed["lengths"] - 1).sum()
    same = rows.lengths[5]  # two options that are alike add nothing to one
    assert same == packed["lengths"][packed["item"] == 5][0] - 1
    expected = packed["lengths"] - packed["contexts"]
    assert np.bincount(rows.pairs).tolist() == expected.tolist()


def test_batches_hold_every_row_once_and_keep_to_their_size(packed: dict[str, np.ndarray]) -> None:
    rows = rows_of(packed, 128, 8192)
    found = list(batches(rows, 120))
    assert sum(len(batch.tokens) for batch in found) == len(rows.lengths)
    assert all(batch.tokens.size <= 120 or len(batch.tokens) == 1 for batch in found)
    assert {batch.branched for batch in found} == {True, False}


def packed_pair(tokens: list[int], context: int) -> dict[str, np.ndarray]:
    one = {"tokens": tokens, "lengths": [len(tokens)], "contexts": [context], "item": [0], "gold": [0]}
    return {name: np.array(values, dtype=np.int32) for name, values in one.items()}


def read_and_scored(packed: dict[str, np.ndarray], longest: int) -> list[tuple[list[int], list[int]]]:
    """The inputs of each row and what it scores."""
    rows = rows_of(packed, longest, 8192)
    inputs = np.split(rows.tokens, np.cumsum(rows.lengths)[:-1])
    scored = np.split(rows.targets, np.cumsum(rows.n_scored)[:-1])
    sources = np.split(rows.sources, np.cumsum(rows.n_scored)[:-1])
    assert set(rows.pairs.tolist()) == {0}
    for read, n, at in zip(inputs, rows.n_scored, sources, strict=True):
        assert at.tolist() == list(range(len(read) - n, len(read)))  # the last states predict
    return [(read.tolist(), targets.tolist()) for read, targets in zip(inputs, scored, strict=True)]


def test_a_long_text_is_read_in_the_windows_of_the_harness() -> None:
    # As lm_eval.utils.get_rolling_token_windows(range(1, 8), 0, 3, 1) and make_disjoint_window give them.
    windows = [([0, 1, 2], [1, 2, 3]), ([3, 4, 5], [4, 5, 6]), ([4, 5, 6], [7])]
    assert read_and_scored(packed_pair(list(range(8)), 1), 3) == windows
    assert read_and_scored(packed_pair(list(range(7)), 1), 3) == windows[:2]
    assert read_and_scored(packed_pair(list(range(4)), 1), 3) == windows[:1]
    assert read_and_scored(packed_pair([9, 8, *range(8)], 3), 3) == windows  # the end of a context as the start token
    assert read_and_scored(packed_pair(list(range(8)), 6), 3) == [([4, 5, 6], [6, 7])]  # only the context is too long


@pytest.mark.parametrize("longest", [1, 2, 3, 12, 30])
def test_every_token_is_scored_once_and_rows_are_no_longer_than_asked_for(
    packed: dict[str, np.ndarray], longest: int
) -> None:
    rows = rows_of(packed, longest, longest)
    assert rows.lengths.max() <= longest
    assert rows.positions.max() < longest
    assert np.bincount(rows.pairs).tolist() == (packed["lengths"] - packed["contexts"]).tolist()
    batched = [batch.pairs for batch in batches(rows, 50)]
    assert np.bincount(np.concatenate(batched)).tolist() == np.bincount(rows.pairs).tolist()


def test_a_long_text_has_about_the_bits_per_byte_of_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_tokenizer([TEXT] * 5, VOCAB, tmp_path / "tokenizer.json")
    parts = [f"{word} {TEXT}" for word in TEXT.split() * 4]
    found = []
    for name, texts in (("whole", ["".join(parts)]), ("parts", parts)):
        (tmp_path / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        items = tokenised(read_items(str(tmp_path / name)), tmp_path / "tokenizer.json")
        monkeypatch.setattr(evaluate, "MOST_READ", 64)
        logs = log_likelihoods(drawn_decoder(PROXY, VOCAB, [0]), items, 128, "cpu")[0]
        found.append(measure(logs, items)["bpb"].mean())
        monkeypatch.setattr(evaluate, "MOST_READ", 12)
        shorter = log_likelihoods(drawn_decoder(PROXY, VOCAB, [0]), items, 128, "cpu")[0]
        np.testing.assert_array_equal(shorter, log_likelihoods(drawn_decoder(PROXY, VOCAB, [0]), items, 12, "cpu")[0])
        assert not np.array_equal(shorter, logs)
    assert found[0] == pytest.approx(found[1], rel=0.03)
