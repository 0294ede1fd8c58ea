"""Processor seconds to one held-out loss: our recipe, the one before it, and a plain transformers loop.

    python bench/to_loss.py --run WORKSPACE [--seeds 3]

WORKSPACE has its `tokens/` (a finished demo, say); nothing is written there. All train on its natural mixture, for its
shape of proxy. transformers' LlamaForCausalLM has its own initial weights and AdamW, with our schedule, and the best of
RATES; the recipe before has its own scales, batch and rate. Both multiply in fp32, ours as in a trial: in bf16 where
the processor has tiles for it. Ours trains with ever larger budgets; the seconds at which it reaches the other's final
loss are interpolated on a log scale. One thread; processor time. Writes bench/results/to_loss.json.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _proxy_rivals import llama_model, llama_step
from _results import write_results
from openclimb.config.schema import ProxySettings
from openclimb.corpus.domains import read_domains
from openclimb.engines.local import set_allocator
from openclimb.mixture import natural
from openclimb.proxy.cpu.products import bf16_products
from openclimb.proxy.data import Reader, batches, open_tokens
from openclimb.proxy.optimizer import schedule
from openclimb.proxy.train import KEPT_BLOCK
from openclimb.workspace.files import read_json
from openclimb.workspace.records import Workspace
from openclimb.workspace.trials import Trial
from recipe import BEFORE, Variant, heldout, stepper

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
SHARES = (0.06, 0.1, 0.16, 0.25, 0.4, 0.6, 1.0)  # of the budget


def ours(run: Path, variant: Variant, proxy: ProxySettings, seed: int) -> tuple[float, float]:
    """Return processor seconds and held-out bits per byte of one run of a recipe."""
    tokens = open_tokens(run / "tokens")
    proxy = variant.settings(proxy)
    model, step, _ = stepper(variant, proxy, tokens.vocab_size, seed)
    return trained(run, proxy, seed, step, variant.bf16), heldout(model, run / "tokens")


def theirs(run: Path, proxy: ProxySettings, rate: float, seed: int) -> tuple[float, float]:
    """Return the same of the plain loop."""
    torch.manual_seed(seed)
    vocab_size = open_tokens(run / "tokens").vocab_size
    model = llama_model(proxy, vocab_size)
    step = llama_step(model, proxy)
    seconds = trained(run, replace(proxy, learning_rate=rate), seed, lambda batch, now: step(batch[0], now))
    facts, dtype = (read_json(run / "tokens" / name) for name in ("heldout.json", "domains.json"))
    ids = torch.from_numpy(np.fromfile(run / "tokens" / "heldout.bin", dtype["dtype"]).astype(np.int64))
    n = (len(ids) - 1) // proxy.sequence * proxy.sequence
    nats = 0.0
    with torch.no_grad():
        for begin in range(0, n, proxy.sequence):
            logits = model(input_ids=ids[begin : begin + proxy.sequence][None]).logits[0]
            gold = ids[begin + 1 : begin + proxy.sequence + 1]
            nats += float(torch.nn.functional.cross_entropy(logits, gold, reduction="sum"))
    return seconds, nats / np.log(2) / (facts["n_bytes"] * n / len(ids))


def trained(run: Path, proxy: ProxySettings, seed: int, step: Any, low: bool = False) -> float:
    """Train on the natural mixture, with products in bf16 where that is wanted; return the processor seconds."""
    domains = read_domains(run / "domains")
    names, weights = tuple(domain.name for domain in domains), tuple(natural(domains).tolist())
    trial = Trial(0, "search", 0, names, weights, seed, proxy.token_budget, "", "", "")
    reader = Reader(open_tokens(run / "tokens"), trial, proxy.sequence)
    n_steps = -(-len(reader) // proxy.batch)
    began = time.process_time()
    with bf16_products(low):
        for i, batch in enumerate(batches([reader], proxy.batch, 0, n_steps)):
            step(batch, proxy.learning_rate * schedule(i, n_steps))
    return time.process_time() - began


def seconds_to(loss: float, curve: list[tuple[float, float]]) -> float:
    """Return the seconds at which a curve of (seconds, loss) reaches a loss; infinite where it never does."""
    curve = sorted(curve)
    for (t0, l0), (t1, l1) in zip(curve, curve[1:], strict=False):
        if l0 >= loss >= l1:
            share = (l0 - loss) / (l0 - l1) if l0 > l1 else 0.0
            return float(np.exp(np.log(t0) + share * (np.log(t1) - np.log(t0))))
    return curve[0][0] if curve[0][1] <= loss else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    set_allocator(KEPT_BLOCK)
    proxy = Workspace(options.run).config().proxy
    now, rows = Variant("ours", ours=True), []
    for seed in range(options.seeds):
        budgets = [round(share * proxy.token_budget) for share in SHARES]
        curve = [ours(options.run, now, replace(proxy, token_budget=budget), seed) for budget in budgets]
        rivals = {"before": ours(options.run, BEFORE, proxy, seed)}
        plain = {rate: theirs(options.run, proxy, rate, seed) for rate in RATES}
        best = min(plain, key=lambda rate: plain[rate][1])
        rivals["transformers"] = plain[best]
        for name, (seconds, loss) in rivals.items():
            ratio = seconds / seconds_to(loss, curve)
            rate = f" (rate {best:g})" if name == "transformers" else ""
            print(
                f"seed {seed}: {name}{rate} {seconds:.1f} s, {loss:.4f} bits a byte; ours is {ratio:.2f} times as fast"
            )
            rows.append(
                {"case": f"{name}, seed {seed}", "metric": "times as fast to its loss", "value": round(ratio, 3)}
            )
            rows.append({"case": f"{name}, seed {seed}", "metric": "held-out bits per byte", "value": round(loss, 4)})
        rows.append({"case": f"ours, seed {seed}", "metric": "held-out bits per byte", "value": round(curve[-1][1], 4)})
    write_results("to_loss", rows)


if __name__ == "__main__":
    main()
