"""How fast proxies train, and how a learning rate carries over from one width to another.

    python bench/proxy.py [--quick] [--part cpu|share|bf16|rate|all] [--corpus corpus.jsonl]

cpu: tokens a second on all cores against a plain transformers Llama loop and one like nanoGPT's, in turns; each in the
way it is fastest (a process a core with one thread, or one process with all threads); by processor time, so that
other work on the machine does not count. Ours multiplies in bf16 where the processor has tiles for it, as in a trial;
each of the others does so in one of its ways. share: the time that the same matrix products take by themselves ÷ the
time of a training step, in fp32. bf16: a step in fp32 ÷ one in bf16, also of larger sizes. rate (needs --corpus): the
held-out loss of three widths at several rates. What is measured on a GPU is in bench/gpu.py. Writes
bench/results/proxy.json; parts that did not run keep their rows.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch

from _results import FOLDER, write_results
from openclimb.config.scales import preset
from openclimb.config.schema import ProxySettings
from openclimb.config.sizes import derived_settings
from openclimb.engines.local import n_cores, set_allocator
from openclimb.proxy.cpu.products import bf16_products
from openclimb.proxy.model import StackedDecoder
from openclimb.proxy.stack.program import program_for
from openclimb.proxy.train import KEPT_BLOCK

SHAPES = {scale: (preset(scale).proxy, preset(scale).tokens.vocab_size) for scale in ("demo", "laptop")}
STACK = 4
SIZES = ("5M", "20M")  # of `proxy.size`, for the part bf16
MOST_TOKENS = 1 << 12  # of a step there
# name → (whose step, threads of a process, models stacked, products in bf16 where there are tiles)
WAYS = {
    "ours": ("ours", 1, 1, True),
    "ours, in fp32": ("ours", 1, 1, False),
    f"ours, {STACK} stacked": ("ours", 1, STACK, True),
    "ours, all threads": ("ours", 0, 1, True),
    "transformers": ("transformers", 1, 1, False),
    "transformers, in bf16": ("transformers", 1, 1, True),
    "transformers, all threads": ("transformers", 0, 1, False),
    "nanoGPT-like": ("nanoGPT-like", 1, 1, False),
    "nanoGPT-like, in bf16": ("nanoGPT-like", 1, 1, True),
    "nanoGPT-like, all threads": ("nanoGPT-like", 0, 1, False),
}


def tokens_of(proxy: ProxySettings, vocab_size: int, n_models: int) -> list[torch.Tensor]:
    """Return batches of random tokens, (n_models, batch, sequence + 1) each."""
    draw = torch.Generator().manual_seed(0)
    shape = (n_models, proxy.batch, proxy.sequence + 1)
    return [torch.randint(0, vocab_size, shape, generator=draw) for _ in range(8)]


def step_of(kind: str, proxy: ProxySettings, vocab_size: int, n_models: int) -> Callable[[torch.Tensor], Any]:
    """Return one training step on the CPU."""
    if kind != "ours":
        from _proxy_rivals import llama_model, llama_step, nano_step

        if kind == "transformers":
            theirs = llama_step(llama_model(proxy, vocab_size), proxy)
        else:
            theirs = nano_step(proxy, vocab_size)
        return lambda batch: theirs(batch[0])
    set_allocator(KEPT_BLOCK)
    torch.set_flush_denormal(True)
    program = program_for(StackedDecoder(proxy, vocab_size, range(n_models)), proxy, "cpu")
    return lambda batch: program.step(batch, 1e-3)


def work(ours: bool, scale: str, pipe: Connection) -> None:
    """In a process of its own: train in the way and for the seconds that the pipe says; answer with tokens a second."""
    proxy, vocab_size = SHAPES[scale]
    steps = {}
    for name, (kind, _, n_models, _) in WAYS.items():
        if (kind == "ours") == ours:
            batches = tokens_of(proxy, vocab_size, n_models)
            steps[name] = (step_of(kind, proxy, vocab_size, n_models), batches)
            for batch in batches[:3]:
                steps[name][0](batch)
    pipe.send(0.0)
    while asked := pipe.recv():
        name, seconds = asked
        threads, n_models, low = WAYS[name][1] or n_cores(), *WAYS[name][2:]
        torch.set_num_threads(threads)
        step, batches = steps[name]
        began, mine, n = time.perf_counter(), time.process_time(), 0
        with bf16_products(low):
            while n < 4 or time.perf_counter() - began < seconds:
                step(batches[n % len(batches)])
                n += 1
        used = (time.process_time() - mine) / threads  # other work on the machine does not count
        pipe.send(n * n_models * proxy.batch * proxy.sequence / used)


def cpu(scale: str, turns: int, seconds: float) -> list[dict[str, Any]]:
    """Return rows of tokens a second on all cores, all ways in turns: a process a core, or one with all threads."""
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[bool, list[Connection]] = {True: [], False: []}
    processes = []
    for ours, mine in pipes.items():  # apart, since our allocator's settings hold for a whole process
        for _ in range(n_cores()):
            here, there = spawn.Pipe()
            processes.append(spawn.Process(target=work, args=(ours, scale, there), daemon=True))
            processes[-1].start()
            mine.append(here)
    for pipe in (pipe for mine in pipes.values() for pipe in mine):
        pipe.recv()
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(turns):
        for name, (kind, threads, *_) in WAYS.items():
            used = pipes[kind == "ours"][: n_cores() if threads else 1]
            for pipe in used:
                pipe.send((name, seconds))
            rates[name].append(sum(pipe.recv() for pipe in used))
    for pipe in (pipe for mine in pipes.values() for pipe in mine):
        pipe.send(None)
    for process in processes:
        process.join()
    return cpu_rows(scale, rates)


def cpu_rows(scale: str, rates: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return medians, and the ratio of ours to each rival's better way: the median over the turns."""
    found = {name: median(values) for name, values in rates.items()}
    rows = []
    for rival in ("transformers", "nanoGPT-like"):
        best = max((name for name in rates if name.startswith(rival)), key=lambda name: found[name])
        ratio = median(ours / theirs for ours, theirs in zip(rates["ours"], rates[best], strict=True))
        case = f"{scale}: against {best}" + ("" if "threads" in best else ", one thread a core")
        rows.append(row(case, "tokens/s", round(found["ours"]), round(found[best]), ratio))
    return [*rows, *(row(f"{scale}: {name}", "tokens/s", round(found[name]), round(found["ours"])) for name in WAYS)]


def row(case: str, metric: str, value: Any, reference: Any = None, ratio: float | None = None) -> dict[str, Any]:
    made = {"case": case, "metric": metric, "value": value, "reference": reference}
    return made if ratio is None else {**made, "ratio": round(ratio, 3)}


def products(proxy: ProxySettings, vocab_size: int) -> list[tuple[int, int, int, int]]:
    """Return the matrix products of one step as (how many at once, rows, inner, columns), forward and backward."""
    n, w, hidden = proxy.batch * proxy.sequence, proxy.width, 8 * round(proxy.width * 8 / 3 / 8)
    forward = [(1, n, w, vocab_size)]
    heads, head = proxy.batch * proxy.heads, w // proxy.heads
    for _ in range(proxy.depth):
        forward += [(1, n, w, 3 * w), (1, n, w, w), (1, n, w, 2 * hidden), (1, n, hidden, w)]
        forward += [(heads, proxy.sequence, head, proxy.sequence), (heads, proxy.sequence, proxy.sequence, head)]
    backward = [product for b, i, j, k in forward for product in ((b, i, k, j), (b, j, i, k))]
    return forward + backward


def share(scale: str, turns: int) -> list[dict[str, Any]]:
    """Return the share of a step's time that its matrix products take by themselves, one thread, in turns."""
    torch.set_num_threads(1)
    proxy, vocab_size = SHAPES[scale]
    step, batches = step_of("ours", proxy, vocab_size, 1), tokens_of(proxy, vocab_size, 1)
    pairs = [(torch.randn(b, i, j), torch.randn(b, j, k)) for b, i, j, k in products(proxy, vocab_size)]
    outs = [torch.empty(b, i, k) for b, i, _, k in products(proxy, vocab_size)]
    flops = sum(2 * b * i * j * k for b, i, j, k in products(proxy, vocab_size))
    steps, plain = [], []
    for turn in range(turns + 3):
        # Blocks of steps: a single one between the products would find their numbers in the cache, not its own.
        began = time.thread_time()
        for i in range(8):
            step(batches[(turn + i) % 8])
        middle = time.thread_time()
        for _ in range(8):
            for (a, b), out in zip(pairs, outs, strict=True):
                torch.bmm(a, b, out=out)
        steps.append((middle - began) / 8)
        plain.append((time.thread_time() - middle) / 8)
    steps, plain = steps[3:], plain[3:]
    ratio = median(one / other for one, other in zip(plain, steps, strict=True))
    rate = flops / median(plain) / 1e9
    milliseconds = [round(median(times) * 1e3, 3) for times in (plain, steps)]
    return [
        row(f"{scale}: matrix products, share of a step", "ms", milliseconds[0], milliseconds[1], ratio),
        row(f"{scale}: matrix products by themselves, one core", "GFLOP/s", round(rate, 1)),
    ]


def bf16(turns: int) -> list[dict[str, Any]]:
    """Return the processor time of a step with products in bf16, that in fp32, and the ratio, one thread, in turns."""
    torch.set_num_threads(1)
    sizes = {size: derived_settings(size) for size in SIZES}
    shapes = {size: (ProxySettings(**found["proxy"]), found["tokens"]["vocab_size"]) for size, found in sizes.items()}
    rows = []
    for name, (proxy, vocab_size) in {**SHAPES, **shapes}.items():
        cut = replace(proxy, batch=min(proxy.batch, MOST_TOKENS // proxy.sequence))
        step, batches = step_of("ours", cut, vocab_size, 1), tokens_of(cut, vocab_size, 1)
        times: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(turns + 1):
            for low, found in times.items():
                with bf16_products(low) as can:
                    if low and not can:
                        return rows  # no tiles here
                    step(batches[turn % 8])  # the caches are as this way leaves them
                    began = time.thread_time()
                    step(batches[(turn + 1) % 8])
                    found.append(time.thread_time() - began)
        fast, plain = times[True][1:], times[False][1:]
        ratio = median(one / other for one, other in zip(plain, fast, strict=True))
        milliseconds = [round(median(some) * 1e3, 2) for some in (fast, plain)]
        rows.append(row(f"{name}: a step with products in bf16, in fp32", "ms", *milliseconds, ratio))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("cpu", "share", "bf16", "rate", "all"), default="all")
    parser.add_argument("--corpus", default="", help="JSONL with the column text, for the part rate")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    turns, seconds = (3, 0.5) if options.quick else (9, 2.0)
    rows: list[dict[str, Any]] = []
    for scale in SHAPES:
        if options.part in ("share", "all"):
            rows += share(scale, turns * 3)
        if options.part in ("cpu", "all"):
            rows += cpu(scale, turns, seconds)
    if options.part in ("bf16", "all"):
        rows += bf16(turns)
    if options.corpus and options.part in ("rate", "all"):
        from _proxy_rate import rate_rows, size_rows

        rows += rate_rows(Path(options.corpus), options.quick) + size_rows(Path(options.corpus), options.quick)
    for one in rows:
        ratio = one.get("ratio") or (one["value"] / one["reference"] if one["reference"] else float("nan"))
        print(f"{one['case']:<58} {one['metric']:<9} {one['value']:>12,} {one['reference'] or '':>12} {ratio:8.2f}")
    write_results("proxy", with_earlier(rows))


def with_earlier(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return these rows and those of earlier runs whose case is not among them."""
    path = FOLDER / "proxy.json"
    earlier = json.loads(path.read_text())["rows"] if path.is_file() else []
    known = {one["case"] for one in rows}
    return [*rows, *(one for one in earlier if one["case"] not in known)]


if __name__ == "__main__":
    main()
