"""Scores: log-likelihoods as computed one by one, ties shared, padding and stacking without effect."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from openclimb.config.schema import ProxySettings
from openclimb.corpus.tokenizer import train_tokenizer
from openclimb.proxy import evaluate
from openclimb.proxy.evaluate import log_likelihoods, measure, reading_of, score_of
from openclimb.proxy.model import StackedDecoder
from openclimb.proxy.stack.memory import Reading, plan_reading
from openclimb.tasks.items import gold_pairs, read_items, tokenised
from openclimb.testing.models import drawn_decoder

PROXY = ProxySettings(width=32, depth=1, heads=2, sequence=32)
VOCAB = 300


@pytest.fixture
def packed(tmp_path: Path) -> dict[str, np.ndarray]:
    rows = [
        {"context": "The quick " * (1 + i % 4), "options": ["brown fox", "lazy dog and more", "x"], "gold": i % 3}
        for i in range(12)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_tokenizer(["The quick brown fox jumps over the lazy dog"] * 5, VOCAB, tmp_path / "tokenizer.json")
    return tokenised(read_items(str(tmp_path / "t.jsonl")), tmp_path / "tokenizer.json")


def one_by_one(model: StackedDecoder, packed: dict[str, np.ndarray]) -> list[float]:
    found = []
    for tokens, n in zip(
        np.split(packed["tokens"], np.cumsum(packed["lengths"])[:-1]), packed["contexts"], strict=True
    ):
        row = torch.from_numpy(tokens.astype(np.int64))[None, None]
        with torch.inference_mode():
            logs = model.logits(model(row[:, :, :-1]))[0].log_softmax(-1)
        found.append(float(logs[torch.arange(len(tokens) - 1), row[0, 0, 1:]][n - 1 :].sum()))
    return found


def test_log_likelihoods_are_those_of_each_pair_alone(
    packed: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "ON_CPU", Reading(tokens=64, logits=1 << 20))  # several batches, each with padding
    stack = drawn_decoder(PROXY, VOCAB, [0, 1])
    found = log_likelihoods(stack, packed, 128, "cpu")
    for i, seed in enumerate((0, 1)):
        np.testing.assert_allclose(found[i], one_by_one(drawn_decoder(PROXY, VOCAB, [seed]), packed), atol=1e-3)


def test_what_a_gpu_reads_at_once_follows_from_the_model() -> None:
    width, hidden = PROXY.width, 8 * round(PROXY.width * 8 / 3 / 8)
    stack = drawn_decoder(PROXY, VOCAB, [0, 1])
    assert reading_of(stack, 128, 1e8) == plan_reading(width, width, hidden, 128, 1e8)


@pytest.mark.parametrize("size", [300.0, 3000.0])
def test_logits_out_of_the_range_of_exponentials_are_scored_too(packed: dict[str, np.ndarray], size: float) -> None:
    model = drawn_decoder(PROXY, VOCAB, [0])
    with torch.no_grad():
        model.final_norm.mul_(size)
    found = log_likelihoods(model, packed, 128, "cpu")[0]
    np.testing.assert_allclose(found, one_by_one(model, packed), rtol=1e-4)


def test_neighbours_do_not_change_a_models_bits(packed: dict[str, np.ndarray]) -> None:
    alone = log_likelihoods(drawn_decoder(PROXY, VOCAB, [7]), packed, 128, "cpu")[0]
    stack = log_likelihoods(drawn_decoder(PROXY, VOCAB, [0, 7, 3]), packed, 128, "cpu")
    assert stack[1].tobytes() == alone.tobytes()


def test_a_pair_that_is_too_long_loses_the_beginning_of_its_context(packed: dict[str, np.ndarray]) -> None:
    model = drawn_decoder(PROXY, VOCAB, [0])
    longest = int(packed["lengths"].max()) - 3
    found = log_likelihoods(model, packed, longest, "cpu")[0]
    fits = packed["lengths"] <= longest + 1
    np.testing.assert_allclose(found[fits], np.array(one_by_one(model, packed))[fits], atol=1e-3)
    assert np.isfinite(found).all()


def test_scoring_the_right_option_alone_gives_the_same_bits_per_byte(packed: dict[str, np.ndarray]) -> None:
    model = drawn_decoder(PROXY, VOCAB, [0])
    alone = gold_pairs(packed)
    every = measure(log_likelihoods(model, packed, 128, "cpu")[0], packed)
    gold = measure(log_likelihoods(model, alone, 128, "cpu")[0], alone)
    np.testing.assert_allclose(gold["bpb"], every["bpb"], rtol=1e-4)
    assert set(gold) == {"bpb"}


def test_measures_by_hand_and_ties_share_the_point() -> None:
    packed = {
        "item": np.array([0, 0, 1, 1, 1]),
        "gold": np.array([1, 2]),
        "bytes": np.array([2, 4, 2, 2, 2]),
        "chars": np.array([1, 4, 2, 2, 2]),
    }
    found = measure(np.array([-1.0, -2.0, -3.0, -3.0, -3.0]), packed)
    np.testing.assert_allclose(found["bpb"], [2 / np.log(2) / 3, 3 / np.log(2) / 3], rtol=1e-6)  # 3 bytes on average
    assert found["bpb"].mean() == pytest.approx((2 + 3) / np.log(2) / (4 + 2))  # all bits ÷ all bytes
    np.testing.assert_allclose(found["correct"], [0, 1 / 3])
    np.testing.assert_allclose(found["correct_norm"], [1, 1 / 3])
    np.testing.assert_allclose(found["margin"], [0.0, 0.0], atol=1e-7)
    surer = measure(np.array([-1.0, -1.0, -3.0, -2.0, -1.0]), packed)
    np.testing.assert_allclose(surer["margin"], [0.25 / np.log(2), 0.5 / np.log(2)], rtol=1e-6)


def test_an_item_with_a_single_option_has_no_margin() -> None:
    ones = np.ones(3)
    packed = {"item": np.array([0, 1, 1]), "gold": np.array([0, 1]), "bytes": ones, "chars": ones}
    np.testing.assert_allclose(measure(np.array([-1.0, -3.0, -2.0]), packed)["margin"], [0, 1 / np.log(2)], rtol=1e-6)


def test_a_score_is_higher_when_better() -> None:
    measures = {"bpb": 1.5, "accuracy": 0.4, "accuracy_norm": 0.3, "margin": -0.2}
    assert score_of(measures, "bpb") == -1.5
    assert score_of(measures, "accuracy_norm") == 0.3
    assert score_of(measures, "margin") == -0.2
    assert score_of({"bpb": 2.0}, "accuracy") == -2.0
