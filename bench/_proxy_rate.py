"""How the best learning rate moves with the width: held-out losses of three widths at several rates, one seed."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from openclimb.corpus.tokenize import encode_batch, end_id, load_tokenizer, train_tokenizer
from openclimb.engine import set_allocator
from openclimb.proxy.model import StackedDecoder
from openclimb.proxy.optimise import schedule
from openclimb.proxy.program import program_for
from openclimb.proxy.train import KEPT_BLOCK
from openclimb.settings import ProxySettings

VOCAB, DEPTH, SEQUENCE, BATCH = 2048, 2, 128, 4
WIDTHS = (64, 128, 256)
RATES = (1.25e-3, 2.5e-3, 5e-3, 1e-2)  # at width 64
HELDOUT = 200  # sequences


def rate_rows(corpus: Path, quick: bool) -> list[dict[str, Any]]:
    """Return the held-out loss (nats a token) of each width, rule and rate; `reference` is the best of its rule."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    set_allocator(KEPT_BLOCK)
    widths, budget = (WIDTHS[:2], 50_000) if quick else (WIDTHS, 150_000)
    tokens = _tokens(corpus, 3 * budget)
    rows = []
    for width in widths:
        proxy = ProxySettings(
            width=width, depth=DEPTH, heads=width // 32, sequence=SEQUENCE, batch=BATCH, token_budget=budget
        )
        rules = {"rate as 1/width, embedding's the same": (64 / width, 0.0)}
        if width != 64:
            rules["one rate for all"] = (1.0, 1.0)
        for rule, (factor, embedding) in rules.items():
            losses = {
                rate: _loss(replace(proxy, learning_rate=rate * factor, embedding_rate=embedding), tokens)
                for rate in RATES
            }
            best = round(min(losses.values()), 4)
            rows += [
                {
                    "case": f"width {width}, {rule}, {rate:g}",
                    "metric": "held-out nats/token",
                    "value": round(loss, 4),
                    "reference": best,
                }
                for rate, loss in losses.items()
            ]
    return rows


def _tokens(corpus: Path, n: int) -> np.ndarray:
    lines = corpus.read_text(encoding="utf-8").splitlines()
    picked = np.random.default_rng(0).permutation(len(lines))
    texts = [json.loads(lines[i])["text"][:4000] for i in picked[:4000]]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        train_tokenizer(texts[:2000], VOCAB, path)
        tokenizer = load_tokenizer(path)
    ids: list[int] = []
    for i in range(0, len(texts), 200):
        for encoded in encode_batch(tokenizer, texts[i : i + 200]):
            ids += [*encoded, end_id(tokenizer)]
        if len(ids) > n:
            break
    return np.array(ids, dtype=np.int64)


def _loss(proxy: ProxySettings, tokens: np.ndarray) -> float:
    n_heldout = HELDOUT * SEQUENCE + 1
    program = program_for(StackedDecoder(proxy, VOCAB, [0]), proxy, "cpu", False)
    starts = np.random.default_rng(0).permutation((len(tokens) - n_heldout - 1) // SEQUENCE) * SEQUENCE
    n_steps = proxy.token_budget // (BATCH * SEQUENCE)
    for step in range(n_steps):
        picked = starts[(np.arange(BATCH) + step * BATCH) % len(starts)]
        rows = tokens[picked[:, None] + np.arange(SEQUENCE + 1)]
        program.step(torch.from_numpy(rows)[None], proxy.learning_rate * schedule(step, n_steps, 0.05, 0.5))
    held = tokens[-n_heldout:]
    with torch.no_grad():
        inputs = torch.from_numpy(held[:-1].reshape(1, HELDOUT, SEQUENCE))
        logits = program.model.logits(program.model(inputs))[0]
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(held[1:])))
