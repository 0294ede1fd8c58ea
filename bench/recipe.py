"""Which recipe makes a proxy tell most for its seconds: initial scales, rates, batch, schedule, shape, optimiser.

    python bench/recipe.py --run WORKSPACE --cache FOLDER [--only NAME ...] [--mixtures 6] [--seeds 5] [--workers 2]

What is tried stands in bench/recipe.jsonl, a variant a line.

WORKSPACE has its `tokens/` (a finished demo, say); nothing is written there. Each variant trains the same mixtures
with the same seeds. The table gives, for each variant: processor seconds of a training run, held-out bits per byte
of models trained on the natural mixture, the objective (mean bits per byte of all tasks' search items), the spread of
the objective over mixtures, the sd over seeds of a paired difference between two mixtures, their ratio (signal to
noise), and the correlation of paired seeds; the JSON has both of each task too. FOLDER keeps each run's numbers: a
stopped sweep goes on. With --write it writes bench/results/NAME.json.
"""

import argparse
import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from _gpu_training import wait
from _recipe_model import Muon, VariantDecoder
from _results import write_results
from openclimb.config.schema import Config, ProxySettings
from openclimb.corpus.domains import read_domains
from openclimb.engines.local import set_allocator
from openclimb.mixture import natural, uniform
from openclimb.proxy import optimizer as optimise
from openclimb.proxy.cpu.products import bf16_products
from openclimb.proxy.data import Reader, batches, open_tokens
from openclimb.proxy.evaluate import evaluate
from openclimb.proxy.model import OURS, StackedDecoder
from openclimb.proxy.optimizer import DECAY, WARMUP, WEIGHT_DECAY, schedule
from openclimb.proxy.stack.program import RESIDENT, Program, cpu_room, program_for
from openclimb.proxy.train import AHEAD, KEPT_BLOCK
from openclimb.search.space.simplex import bounds, draw
from openclimb.workspace.files import fingerprint, read_json, write_json
from openclimb.workspace.records import Workspace
from openclimb.workspace.trials import Trial

COLUMNS = (  # of the table; means over tasks are geometric
    "heldout",
    "objective",
    "natural",
    "spread",
    "paired sd",
    "signal to noise",
    "correlation",
    "paired sd of a task",
    "signal to noise of a task",
    "the same, plain mean of items",
)


@dataclass(frozen=True)
class Variant:
    """What differs from the workspace's proxy. `proxy`: settings; the rest as named."""

    name: str
    rate: float = 1.0  # learning rate ÷ the workspace's
    batch: float = 1.0  # sequences a step ÷ the workspace's
    tokens: float = 1.0  # token budget ÷ the workspace's
    embedding: float = 0.02  # initial standard deviation
    outputs: float = 1.0  # initial scale of what blocks add, as a multiple of GPT-2's
    final: float = 1.0  # initial weight of the last norm
    proxy: dict[str, Any] = field(default_factory=dict)
    muon: float = 0.0  # rate of Muon's update ÷ AdamW's; 0: AdamW for all
    momentum: float = 0.95
    beta2: float = 0.99
    warmup: float = WARMUP
    decay: float = DECAY
    weight_decay: float = WEIGHT_DECAY
    average: float = 0.0  # share of the steps, at the end, whose weights are averaged
    qk_norm: bool = False
    soft_cap: float = 0.0
    autograd: bool = False
    bf16: bool = True  # products in bf16, where the processor has tiles for them
    hold_weights: bool = False  # initial weights of seed 0 for all seeds, to see what they are worth
    hold_data: bool = False  # documents and order of seed 0 for all seeds
    ours: bool = False  # the package's own initial weights
    embedding_rate: float = 0.0  # rate of the embedding ÷ that of hidden matrices; 0: the package's

    def settings(self, proxy: ProxySettings) -> ProxySettings:
        """Return the workspace's settings with what differs."""
        batch, budget = round(self.batch * proxy.batch), round(self.tokens * proxy.token_budget)
        scaled = {"learning_rate": self.rate * proxy.learning_rate, "batch": batch, "token_budget": budget}
        return replace(proxy, **{**scaled, **self.proxy})


BEFORE = Variant("before", rate=0.5, batch=0.5, beta2=0.95, bf16=False)  # the demo's until November 2026


def initialise(model: StackedDecoder, variant: Variant, seed: int) -> None:
    """Draw the embedding and what blocks add again, by the variant's scales."""
    draw_ = torch.Generator().manual_seed(seed + 7_000_003)
    depth = len(model.layers)
    with torch.no_grad():
        model.final_norm.fill_(variant.final)
        model.embedding.normal_(0.0, variant.embedding, generator=draw_)
        for layer in model.layers:
            for name in ("attention_out", "down"):
                scale = variant.outputs * (layer[name].shape[1] * 2 * depth) ** -0.5
                layer[name].normal_(0.0, 1.0, generator=draw_).mul_(scale)


def measured(folder: Path, config: Config, variant: Variant, weights: Sequence[float], seed: int) -> dict[str, Any]:
    """Train one proxy; return its seconds, search scores (bits per byte) by task and held-out bits per byte."""
    proxy = variant.settings(config.proxy)
    tokens = open_tokens(folder / "tokens")
    names = tuple(domain.name for domain in read_domains(folder / "domains"))
    trial = Trial(
        0, "search", 0, names, tuple(weights), 0 if variant.hold_data else seed, proxy.token_budget, "", "", ""
    )
    model, step, weights_of = stepper(variant, proxy, tokens.vocab_size, 0 if variant.hold_weights else seed)
    reader = Reader(tokens, trial, proxy.sequence)
    n_steps = -(-len(reader) // proxy.batch)
    total: list[torch.Tensor] = []
    n_averaged = 0
    began = time.process_time()
    for i, batch in enumerate(batches([reader], proxy.batch, 0, n_steps)):
        with bf16_products(variant.bf16):
            step(batch, proxy.learning_rate * schedule(i, n_steps, variant.warmup, variant.decay))
        if variant.average and i >= (1 - variant.average) * n_steps:
            n_averaged += 1
            now = weights_of()
            total = [a + b for a, b in zip(total, now, strict=True)] if total else [a.clone() for a in now]
    if total:
        for parameter, mean in zip(weights_of(), total, strict=True):
            parameter.copy_(mean / n_averaged)
    seconds = time.process_time() - began
    result = evaluate(model, folder / "tokens", config.tasks, ("search",), "cpu")[0]
    [held] = heldout(model, folder / "tokens")
    scores = {task: float(found["bpb"]) for task, found in result.means["search"].items()}
    evaluation = time.process_time() - began - seconds
    plain = {}
    for task in scores:
        with np.load(folder / "tokens" / "tasks" / f"{task}.npz", allow_pickle=False) as stored:
            item, gold = stored["search/item"], stored["search/gold"]
            n_bytes = stored["search/bytes"][np.searchsorted(item, np.arange(len(gold))) + gold].astype(np.float64)
        plain[task] = float((result.items[f"{task}/search/bpb"] * n_bytes.mean() / n_bytes).mean())
    return {"seconds": seconds, "evaluation": evaluation, "scores": scores, "plain": plain, "heldout": held}


def stepper(
    variant: Variant, proxy: ProxySettings, vocab_size: int, seed: int
) -> tuple[StackedDecoder, Callable[[torch.Tensor, float], Any], Callable[[], list[torch.Tensor]]]:
    """Return the model, its training step, and what gives its weights."""
    special = variant.qk_norm or variant.soft_cap or variant.autograd
    model = (VariantDecoder if special else StackedDecoder)(proxy, vocab_size, [seed])
    optimise.BETAS = (0.9, variant.beta2)
    optimise.WEIGHT_DECAY = variant.weight_decay
    if not variant.ours:
        initialise(model, variant, seed)
    program = Program(model, proxy, "cpu", "autograd") if special else program_for(model, proxy, "cpu")
    optimiser: Any = program.optimiser
    if variant.embedding_rate:
        optimiser.factors["embedding"] = variant.embedding_rate
    if variant.muon:
        optimiser = Muon(program.optimiser, model, variant.muon, variant.momentum)
    if isinstance(model, VariantDecoder):
        model.qk_norm, model.soft_cap = variant.qk_norm, variant.soft_cap
        return model, lambda batch, rate: model.learn(batch, optimiser, rate), lambda: flat(program)

    def step(batch: torch.Tensor, rate: float) -> None:
        program.gradient(batch)
        optimiser.step(rate)

    return model, step, lambda: flat(program)


def measured_together(
    folder: Path, config: Config, variant: Variant, runs: Sequence[tuple[tuple[float, ...], int]], device: str
) -> list[dict[str, Any]]:
    """Train the runs (weights, seed) as one stack on a GPU; return what `measured` does, seconds shared out.

    Not for variants with a forward pass, an optimiser, averages or held draws of their own.
    """
    if variant.qk_norm or variant.soft_cap or variant.muon or variant.average or variant.hold_data:
        raise ValueError(f"variant '{variant.name}' is for a CPU")
    proxy = variant.settings(config.proxy)
    tokens = open_tokens(folder / "tokens")
    names = tuple(domain.name for domain in read_domains(folder / "domains"))
    optimise.BETAS = (0.9, variant.beta2)
    optimise.WEIGHT_DECAY = variant.weight_decay
    seeds = [seed for _, seed in runs]
    model = StackedDecoder(proxy, tokens.vocab_size, seeds)
    if not variant.ours:
        for i, seed in enumerate(seeds):
            one = StackedDecoder(proxy, tokens.vocab_size, [seed])
            initialise(one, variant, seed)
            with torch.no_grad():
                for ours, theirs in zip(model.parameters(), one.parameters(), strict=True):
                    ours[i] = theirs[0]
    shape = replace(proxy, learning_rate=1.0, token_budget=1)  # what is compiled serves all variants of a shape
    room = cpu_room(proxy, len(runs))
    if device == "cuda":
        room = RESIDENT.room(shape, tokens.vocab_size, OURS, True, len(runs), exact=True)
    program = program_for(model, shape, device, room, print)
    factors = dict(program.optimiser.factors)
    if variant.embedding_rate:
        program.optimiser.factors["embedding"] = variant.embedding_rate
    readers = [
        Reader(tokens, Trial(0, "search", 0, names, weights, seed, proxy.token_budget, "", "", ""), proxy.sequence)
        for weights, seed in runs
    ]
    n_steps = -(-len(readers[0]) // proxy.batch)
    began = time.perf_counter()
    for i, batch in enumerate(batches(readers, proxy.batch, 0, n_steps, AHEAD)):
        program.step(batch.to(device, non_blocking=True), proxy.learning_rate * schedule(
            i, n_steps, variant.warmup, variant.decay
        ))  # fmt: skip
    wait(device)
    seconds = time.perf_counter() - began
    results = evaluate(program.model, folder / "tokens", config.tasks, ("search",), device)
    held = heldout(program.model, folder / "tokens", device)
    program.optimiser.factors.update(factors)
    found = []
    for result, loss in zip(results, held, strict=True):
        scores = {task: each["bpb"] for task, each in result.means["search"].items()}
        found.append({"seconds": seconds / len(runs), "scores": scores, "plain": scores, "heldout": loss})
    return found


def flat(program: Program) -> list[torch.Tensor]:
    return [each.detach() for each in program.optimiser.flat.values()]


@torch.no_grad()
def heldout(model: StackedDecoder, tokens: Path, device: str = "cpu") -> list[float]:
    """Return each model's bits per byte of the held-out text, in pieces of the model's own length."""
    facts = read_json(tokens / "heldout.json")
    dtype = read_json(tokens / "domains.json")["dtype"]
    ids = np.fromfile(tokens / "heldout.bin", dtype=dtype).astype(np.int64)
    m, length = model.n_models, model.longest // 4
    n = (len(ids) - 1) // length * length
    rows, gold = torch.from_numpy(ids[:n]).view(1, -1, length), torch.from_numpy(ids[1 : n + 1]).view(1, -1, length)
    nats = torch.zeros(m, device=device)
    for i in range(0, rows.shape[1], 16):
        logits = model.logits(model(rows[:, i : i + 16].to(device).expand(m, -1, -1)))
        for k, each in enumerate(logits):
            nats[k] += torch.nn.functional.cross_entropy(
                each, gold[0, i : i + 16].to(device).flatten(), reduction="sum"
            )
    return [nat / float(np.log(2)) / (facts["n_bytes"] * n / len(ids)) for nat in nats.tolist()]


def job(args: tuple[Path, Path, Config, Variant, tuple[float, ...], int]) -> None:
    """Measure one run where its numbers are not in the cache."""
    folder, path, config, variant, weights, seed = args
    if path.exists():
        return
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    set_allocator(KEPT_BLOCK)
    write_json(path, measured(folder, config, variant, weights, seed))


def by_task(each: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sd of a paired difference and the signal to noise of each task, of (mixtures, seeds, tasks)."""
    pairs = itertools.combinations(range(len(each)), 2)
    noise = np.sqrt(np.mean([(each[a] - each[b]).var(0, ddof=1) for a, b in pairs], axis=0))
    return noise, each.mean(1).std(0, ddof=1) / noise


def geometric(values: NDArray[np.float64]) -> float:
    return float(np.exp(np.log(values).mean()))


def summary(runs: Sequence[Sequence[dict[str, Any]]]) -> dict[str, float]:
    """Return the figures of one variant from its runs, mixtures × seeds (the natural mixture first)."""
    table = np.array([[np.mean(list(run["scores"].values())) for run in row] for row in runs])
    each = np.array([[list(run["scores"].values()) for run in row] for row in runs])
    pairs = [table[a] - table[b] for a, b in itertools.combinations(range(len(table)), 2)]
    noise = float(np.sqrt(np.mean([pair.var(ddof=1) for pair in pairs])))
    spread = float(np.sqrt(max(0.0, table.mean(1).var(ddof=1) - noise**2 / 2 / table.shape[1])))
    within = table - table.mean(1, keepdims=True)
    shared = float(np.corrcoef(within)[np.triu_indices(len(table), 1)].mean())
    noises, ratios = by_task(each)
    items = np.array([[list(run["plain"].values()) for run in row] for row in runs])
    tasks = list(runs[0][0]["scores"])
    return {
        "seconds": float(np.median([run["seconds"] for row in runs for run in row])),
        "heldout": float(np.mean([run["heldout"] for run in runs[0]])),
        "objective": float(table.mean()),
        "natural": float(table[0].mean()),
        "seed sd": float(np.sqrt(within.var(1).mean() * table.shape[1] / (table.shape[1] - 1))),
        "spread": spread,
        "paired sd": noise,
        "signal to noise": spread / noise if noise else float("nan"),
        "correlation": shared,
        "paired sd of a task": geometric(noises),
        "signal to noise of a task": geometric(ratios),
        "the same, plain mean of items": geometric(by_task(items)[1]),
        **{f"paired sd, {task}": float(value) for task, value in zip(tasks, noises, strict=True)},
        **{f"signal to noise, {task}": float(value) for task, value in zip(tasks, ratios, strict=True)},
    }


def mixtures_of(folder: Path, n: int) -> list[tuple[float, ...]]:
    """Return n spread mixtures: natural, uniform as near as caps let it, and draws under the caps."""
    domains = read_domains(folder / "domains")
    low, high = bounds(domains)
    drawn = draw(64, natural(domains), low, high, np.random.default_rng(0))
    found = [natural(domains), np.minimum(uniform(domains), high)]
    found[1] = found[1] / found[1].sum()
    while len(found) < n:  # the farthest of the draws each time, so that few mixtures span the region
        distance = np.min([np.abs(drawn - one).sum(1) for one in found], axis=0)
        found.append(drawn[distance.argsort()[len(drawn) * 3 // 4]])
    return [tuple(one.tolist()) for one in found[:n]]


def read_variants(path: Path) -> list[Variant]:
    """Return the variants of a file of JSON lines."""
    return [Variant(**json.loads(line)) for line in path.read_text().splitlines() if line.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--variants", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--mixtures", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", default="{}", help="JSON: settings of the proxy for all variants")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: a variant's runs as one stack")
    parser.add_argument("--write", default="", help="name of the results file")
    options = parser.parse_args()
    config = Workspace(options.run).config()
    config = replace(config, proxy=replace(config.proxy, **json.loads(options.set)))
    chosen = [one for one in read_variants(options.variants) if not options.only or one.name in options.only]
    mixtures = mixtures_of(options.run, options.mixtures)
    data = read_json(options.run / "tokens" / "record.json")["fingerprint"]
    options.cache.mkdir(parents=True, exist_ok=True)
    print(f"{'variant':<40}{'s':>6}" + "".join(f"{name[:11]:>12}" for name in COLUMNS))
    rows = []
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for variant in chosen:
            plain = asdict(Variant(variant.name))
            what = {key: value for key, value in asdict(variant).items() if value != plain[key]}
            keys = [
                [fingerprint([data, asdict(config.proxy), what, list(weights), seed]) for seed in range(options.seeds)]
                for weights in mixtures
            ]
            paths = [[options.cache / f"{key[:24]}.json" for key in row] for row in keys]
            jobs = [
                (options.run, paths[i][seed], config, variant, weights, seed)
                for seed in range(options.seeds)
                for i, weights in enumerate(mixtures)
            ]
            if options.device == "cuda":
                results = measured_together(
                    options.run, config, variant, [(each[4], each[5]) for each in jobs], options.device
                )
                for each, result in zip(jobs, results, strict=True):
                    write_json(each[1], result)
            else:
                pool.map(job, jobs, chunksize=1)
            found = summary([[read_json(path) for path in row] for row in paths])
            figures = "".join(f"{found[key]:12.4f}" for key in COLUMNS)
            print(f"{variant.name:<40}{found['seconds']:6.1f}{figures}", flush=True)
            rows += [{"case": variant.name, "metric": key, "value": round(value, 5)} for key, value in found.items()]
            if options.write:
                write_results(options.write, rows)


if __name__ == "__main__":
    main()
