"""Which learning rates suit a size: multiples of the dial's rate × rates of the embedding, one stack a size.

    python bench/rates.py [SIZE:SECONDS[:SEQUENCES_A_STEP] ...] [--text corpus.jsonl.zst] [--device cuda] [--out FOLDER]

All models of a size begin with the same weights and read the same text, as many steps as fit into SECONDS, with the
whole schedule. The embedding's rate at width w is (w / 64)^e times that of the hidden matrices, for several e. The
table has the held-out loss (nats a token) of each pair, and of the recipe before decision 0014. Without `--text` it
reads the source files of the Python packages that are installed.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _gpu_text import documents, encoded
from _gpu_training import batch_of, into_rows, sized, start, wait
from _results import FOLDER, write_results
from openclimb.corpus.tokenizer import train_tokenizer
from openclimb.proxy.model import StackedDecoder
from openclimb.proxy.optimizer import BASE_WIDTH, BETAS, EPSILON, Optimiser, clip, schedule

MULTIPLES = (0.25, 0.5, 1.0, 2.0)
EXPONENTS = (0.0, 0.5, 1.0)
HELD = 64  # rows of held-out text


class Rates:
    """AdamW steps with rates of each model's own: `multiples` of the rate, `embedding` times that for the embedding."""

    def __init__(self, optimiser: Optimiser, multiples: list[float], embedding: list[float]) -> None:
        self.optimiser, self.multiples, self.embedding = optimiser, multiples, embedding

    @torch.no_grad()
    def step(self, rate: float) -> None:
        held = self.optimiser
        clip(held.gradients)
        held.done += 1
        for (kind, flat), gradient in zip(held.flat.items(), held.gradients, strict=True):
            for i, multiple in enumerate(self.multiples):
                factor = self.embedding[i] if kind in ("embedding", "output") else held.factors[kind]
                torch._fused_adamw_(
                    [flat[i]], [gradient[i]], [held.means[kind][i]], [held.squares[kind][i]], [], [held.done],
                    lr=multiple * rate * factor, beta1=BETAS[0], beta2=BETAS[1],
                    weight_decay=held.decays[kind], eps=EPSILON, amsgrad=False, maximize=False,
                )  # fmt: skip


def sweep(size: str, seconds: float, batch: int, texts: list[str], tiny: bool, device: str) -> list[dict[str, Any]]:
    """Train the grid of one size; print and return its rows."""
    proxy, vocab_size = sized(tiny, size)
    proxy = type(proxy)(**{**vars(proxy), "batch": batch or proxy.batch})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        train_tokenizer(texts[: 1 + len(texts) // 8], vocab_size, path)
        rows = into_rows(encoded(texts, path), proxy.sequence)
    held, rows = rows[:HELD], rows[HELD:]
    grid = [(multiple, exponent) for multiple in MULTIPLES for exponent in EXPONENTS]
    program = start(proxy, vocab_size, len(grid), device)
    width = proxy.width / BASE_WIDTH
    rates = Rates(program.optimiser, [m for m, _ in grid], [width**e for _, e in grid])
    many = (len(grid), -1, -1)
    for i in range(3):
        began = time.perf_counter()
        program.gradient(batch_of(rows, proxy.batch, i).to(device).expand(*many))
        rates.step(0.0)
        wait(device)
        step = time.perf_counter() - began
    n_steps = max(4, int(seconds / step))
    program.take(StackedDecoder(proxy, vocab_size, [0] * len(grid)))
    for i in range(n_steps):
        program.gradient(batch_of(rows, proxy.batch, i).to(device).expand(*many))
        rates.step(proxy.learning_rate * schedule(i, n_steps))
    losses = program.gradient(batch_of(held, len(held), 0).to(device).expand(*many)).tolist()
    read = n_steps * proxy.batch * proxy.sequence
    case = f"{size}, {proxy.batch * proxy.sequence:,} tokens a step, {n_steps} steps"
    print(f"{case}; {read / rows.numel():.1f} times the text; held-out nats a token", flush=True)
    print("rate ×    " + "".join(f"  (w/64)^{e:<6g}" for e in EXPONENTS))
    for i, multiple in enumerate(MULTIPLES):
        some = losses[i * len(EXPONENTS) : (i + 1) * len(EXPONENTS)]
        print(f"{multiple:<10g}" + "".join(f"{loss:>15.4f}" for loss in some), flush=True)
    found = [{"case": case, "metric": "tokens read ÷ tokens at hand", "value": round(read / rows.numel(), 3)}]
    for (multiple, exponent), loss in zip(grid, losses, strict=True):
        which = f"{multiple:g} × {proxy.learning_rate:g}, embedding × (w / 64)^{exponent:g}"
        found.append({"case": f"{case}: {which}", "metric": "held-out nats/token", "value": round(loss, 4)})
    return found


def read_texts(path: Path) -> Iterator[str]:
    """Yield the documents of a JSONL file, compressed or not."""
    import zstandard

    with open(path, "rb") as raw:
        stream = zstandard.ZstdDecompressor().stream_reader(raw) if path.suffix == ".zst" else raw
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            yield json.loads(line)["text"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=["5M:20", "20M:60", "62M:100:64"])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="the same code in its smallest sizes")
    parser.add_argument("--out", type=Path, help="folder for rates.json (default: bench/results)")
    options = parser.parse_args()
    if options.text:
        texts = list(read_texts(options.text))
    else:
        texts = list(documents("packages", 60_000 if options.tiny else 60_000_000))
    np.random.default_rng(0).shuffle(texts)
    rows: list[dict[str, Any]] = []
    for each in options.sizes:
        size, seconds, *batch = each.split(":")
        rows += sweep(size, float(seconds), int(batch[0]) if batch else 0, texts, options.tiny, options.device)
        if not options.tiny:
            write_results("rates", rows, options.out or FOLDER)


if __name__ == "__main__":
    main()
