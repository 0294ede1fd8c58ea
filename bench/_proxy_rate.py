"""How the best learning rate moves with the width, and where it lies for two of the dial's sizes.

Held-out losses at several rates, one seed.
"""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from openclimb.config.schema import ProxySettings
from openclimb.config.sizes import derived_settings
from openclimb.corpus.tokenizer import encode_batch, ends_of, load_tokenizer, train_tokenizer
from openclimb.engines.local import set_allocator
from openclimb.proxy.model import StackedDecoder
from openclimb.proxy.optimizer import schedule
from openclimb.proxy.stack.program import program_for
from openclimb.proxy.train import KEPT_BLOCK

VOCAB, DEPTH, SEQUENCE, BATCH = 2048, 2, 128, 4
WIDTHS = (64, 128, 256)
RATES = (1.25e-3, 2.5e-3, 5e-3, 1e-2)  # at width 64
HELDOUT = 200  # sequences
SIZES, SIZE_BUDGET = ("0.5M", "2M"), 1_000_000  # of `proxy.size`, with their own batch and vocabulary


def rate_rows(corpus: Path, quick: bool) -> list[dict[str, Any]]:
    """Return the held-out loss (nats a token) of each width, rule and rate; `reference` is the best of its rule."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    set_allocator(KEPT_BLOCK)
    widths, budget = (WIDTHS[:2], 50_000) if quick else (WIDTHS, 150_000)
    tokens = _tokens(corpus, 3 * budget, VOCAB)
    rows = []
    for width in widths:
        proxy = ProxySettings(
            width=width, depth=DEPTH, heads=width // 32, sequence=SEQUENCE, batch=BATCH, token_budget=budget
        )
        rules = {"rate as 1/width, embedding's the same": (64 / width, 0.0)}
        if width != 64:
            rules["one rate for all"] = (1.0, 1.0)
        for rule, (factor, embedding) in rules.items():
            losses = {rate: _loss(replace(proxy, learning_rate=rate * factor), tokens, embedding) for rate in RATES}
            rows += _rows(f"width {width}, {rule}, {{:g}}", losses)
    return rows


def size_rows(corpus: Path, quick: bool) -> list[dict[str, Any]]:
    """Return the held-out loss (nats a token) of sizes of the dial; `reference` is the best of the size."""
    rows = []
    for size in SIZES[:1] if quick else SIZES:
        settings = derived_settings(size)
        proxy = ProxySettings(**settings["proxy"], token_budget=50_000 if quick else SIZE_BUDGET)
        tokens = _tokens(corpus, 3 * proxy.token_budget, settings["tokens"]["vocab_size"])
        losses = {rate: _loss(replace(proxy, learning_rate=rate * 64 / proxy.width), tokens) for rate in (*RATES, 2e-2)}
        rows += _rows(f"size {size}, {{:g}} at width 64", losses)
    return rows


def _rows(case: str, losses: dict[float, float]) -> list[dict[str, Any]]:
    best = round(min(losses.values()), 4)
    return [
        {"case": case.format(rate), "metric": "held-out nats/token", "value": round(loss, 4), "reference": best}
        for rate, loss in losses.items()
    ]


def _tokens(corpus: Path, n: int, vocab_size: int) -> np.ndarray:
    lines = corpus.read_text(encoding="utf-8").splitlines()
    selected = np.random.default_rng(0).permutation(len(lines))
    texts = [json.loads(lines[i])["text"][:4000] for i in selected[:4000]]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        train_tokenizer(texts[:2000], vocab_size, path)
        tokenizer, end = load_tokenizer(path), ends_of(path).end
    ids: list[int] = []
    for i in range(0, len(texts), 200):
        for encoded in encode_batch(tokenizer, texts[i : i + 200]):
            ids += [*encoded, end]
        if len(ids) > n:
            break
    return np.array(ids, dtype=np.int64)


def _loss(proxy: ProxySettings, tokens: np.ndarray, embedding: float = 0.0) -> float:
    batch, length, vocab_size = proxy.batch, proxy.sequence, int(tokens.max()) + 1
    n_heldout = HELDOUT * length + 1
    program = program_for(StackedDecoder(proxy, vocab_size, [0]), proxy, "cpu")
    if embedding:  # one rate for all
        program.optimiser.factors = dict.fromkeys(program.optimiser.factors, embedding)
    starts = np.random.default_rng(0).permutation((len(tokens) - n_heldout - 1) // length) * length
    n_steps = proxy.token_budget // (batch * length)
    for step in range(n_steps):
        selected = starts[(np.arange(batch) + step * batch) % len(starts)]
        rows = tokens[selected[:, None] + np.arange(length + 1)]
        program.step(torch.from_numpy(rows)[None], proxy.learning_rate * schedule(step, n_steps, 0.05, 0.5))
    held = tokens[-n_heldout:]
    with torch.no_grad():
        inputs = torch.from_numpy(held[:-1].reshape(1, HELDOUT, length))
        logits = program.model.logits(program.model(inputs))[0]
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(held[1:])))
