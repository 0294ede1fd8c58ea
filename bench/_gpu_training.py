"""What is measured of training on a GPU: agreement with the CPU, stacks, the largest proxies, learning rates."""

import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from _gpu_text import documents, encoded, write_tokens
from openclimb.config.schema import ProxySettings, RunSettings, TasksSettings
from openclimb.config.sizes import n_parameters, shape_of, vocabulary_of
from openclimb.corpus.tokenizer import train_tokenizer
from openclimb.proxy.model import OURS, StackedDecoder
from openclimb.proxy.optimizer import schedule
from openclimb.proxy.stack.memory import Room, need_of, planned_bytes
from openclimb.proxy.stack.program import RESIDENT, Program, cpu_room, program_for
from openclimb.proxy.train import Job, run_stack
from openclimb.workspace.trials import Proposal, ask, trial_folder

if TYPE_CHECKING:
    from gpu import Report

TINY = ProxySettings(width=16, depth=1, heads=2, sequence=16, batch=4, token_budget=16 * 80, learning_rate=1e-2)
TINY_VOCAB = 300
STACK = 64
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40": 181e12, "4090": 165e12}  # dense bf16, data sheets


@dataclass(frozen=True)
class Rate:
    """How fast a stack trains: tokens a second, seconds to the end of the first step, peak and planned bytes."""

    tokens: float
    first: float
    peak: int
    planned: float
    room: Room
    how: str


def sized(tiny: bool, size: str) -> tuple[ProxySettings, int]:
    """Return the proxy of a size of the dial and its vocabulary; tiny ones for a try."""
    return (TINY, TINY_VOCAB) if tiny else (ProxySettings(**shape_of(size)), vocabulary_of(size))


def start(proxy: ProxySettings, vocab_size: int, n_models: int, device: str) -> Program:
    """Return the program that trains so many models, as trials get it."""
    room = cpu_room(proxy, n_models)
    if device == "cuda":
        room = RESIDENT.room(proxy, vocab_size, OURS, True, n_models, exact=True)
    return program_for(StackedDecoder(proxy, vocab_size, range(n_models)), proxy, device, room, print)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def rate(proxy: ProxySettings, vocab_size: int, n_models: int, device: str, seconds: float) -> Rate:
    """Return how fast so many models train, on random tokens, for about so many seconds after the first steps."""
    program = start(proxy, vocab_size, n_models, device)
    draw = torch.Generator().manual_seed(0)
    shape = (n_models, proxy.batch, proxy.sequence + 1)
    batches = [torch.randint(0, vocab_size, shape, generator=draw).to(device) for _ in range(4)]
    times = []
    for i in range(3):  # the first compiles, the second asks for the last of the memory
        began = time.perf_counter()
        program.step(batches[i], 1e-3)
        wait(device)
        times.append(time.perf_counter() - began)
    n_steps = max(2, int(seconds / times[-1]))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for i in range(n_steps):
        program.step(batches[i % 4], 1e-3)
    wait(device)
    tokens = n_steps * n_models * proxy.batch * proxy.sequence / (time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    need = need_of(proxy, vocab_size, compiled=program.how == "compiled")
    planned = planned_bytes(need, program.room, proxy.sequence, vocab_size)
    return Rate(tokens, times[0], peak, planned, program.room, program.how)


def agreement(report: "Report") -> None:
    """Train one trial on the CPU (fp32) and on the GPU (bf16): losses on the way, scores of its tasks."""
    proxy, vocab_size = sized(report.tiny, "1M")
    proxy = proxy if report.tiny else replace(proxy, token_budget=100_000)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = write_tokens(root / "tokens", 60_000 if report.tiny else 2_000_000, vocab_size)
        losses, scores = {}, {}
        for i, device in enumerate(("cpu", report.device)):
            [trial] = ask(root / f"{i}", [Proposal("search", 0, (0.5, 0.5), 0, "climb")], names, {
                "token_budget": proxy.token_budget
            }, "data")  # fmt: skip
            path = trial_folder(root / f"{i}", trial.number)
            outcome = run_stack(
                [path],
                Job(root / "tokens", proxy, TasksSettings(), ("search",), device, RunSettings(bf16=False), note=print),
            )[path]
            if outcome.failure:
                raise RuntimeError(f"on {device}: {outcome.failure}")
            rows = [json.loads(line) for line in (path / "train.jsonl").read_text().splitlines()]
            losses[i], scores[i] = np.array([row["loss"] for row in rows]), dict(outcome.told["scores"])
    report.row("last loss, GPU against CPU", "nats/token", float(losses[1][-1]), float(losses[0][-1]))
    report.row("largest difference of a loss", "nats/token", round(float(np.abs(losses[1] - losses[0]).max()), 5))
    for task, score in scores[1].items():
        report.row(f"score of {task}, GPU against CPU", "-bits/byte", score, scores[0][task])


def stacked(report: "Report") -> None:
    """Compare 64 models as one program with one after the other. Bar: 8 times the tokens a second."""
    for size in ("1M", "5M"):
        proxy, vocab_size = sized(report.tiny, size)
        one = rate(proxy, vocab_size, 1, report.device, 0.2 if report.tiny else 3.0)
        many = rate(proxy, vocab_size, 4 if report.tiny else STACK, report.device, 0.2 if report.tiny else 4.0)
        report.row(f"{size}, {many.room.stack} against one by one", "tokens/s", round(many.tokens), round(one.tokens))
        add_memory(report, size, many)


def single(report: "Report") -> None:
    """Train 62M and 350M alone. Bars: .40 and .45 of the card's peak (model FLOPs)."""
    for size in ("62M", "350M"):
        proxy, vocab_size = sized(report.tiny, size)
        found = rate(proxy, vocab_size, 1, report.device, 0.2 if report.tiny else 6.0)
        flops = 6 * n_parameters(proxy.width, proxy.depth, vocab_size)
        flops += 12 * proxy.depth * proxy.width * proxy.sequence  # attention, as Chowdhery et al. 2022 count it
        report.row(f"{size}, training", "tokens/s", round(found.tokens))
        report.row(f"{size}, model FLOP utilisation", "FLOP/s", found.tokens * flops, peak())
        add_memory(report, size, found)


def add_memory(report: "Report", size: str, found: Rate) -> None:
    report.row(f"{size}, peak against planned", "bytes", found.peak, round(found.planned))
    report.row(f"{size}, rows a pass ({found.how})", "sequences a model", found.room.rows)
    report.row(f"{size}, first step, compilation included", "seconds", round(found.first, 1))


def peak() -> float | None:
    """Return the card's dense bf16 FLOP/s by its data sheet, None where it is not known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((value for key, value in PEAKS.items() if key in name), None)


def rates(report: "Report") -> None:
    """Train 62M on the machine's source files at several multiples of the dial's rate, 0.26M tokens a step.

    As many steps as fit into the part's time, the same for each rate, with the whole schedule; the held-out loss.
    """
    proxy, vocab_size = sized(report.tiny, "62M")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        texts = list(documents("packages", 60_000 if report.tiny else 24_000_000))
        train_tokenizer(texts[: len(texts) // 8], vocab_size, path)
        rows = into_rows(encoded(texts, path), proxy.sequence)
    n_held = min(proxy.batch, len(rows) // 4)
    held, rows = rows[:n_held], rows[n_held:]
    multiples = (0.25, 0.5, 1)
    program = start(proxy, vocab_size, 1, report.device)
    for i in range(3):
        began = time.perf_counter()
        program.step(batch_of(rows, proxy.batch, i).to(report.device), 0.0)
        wait(report.device)
        step = time.perf_counter() - began
    most = 4 if report.tiny else 400
    n_steps = max(2, min(most, int((report.left - 15) / (step * len(multiples)))))
    report.row("a step", "tokens", proxy.batch * proxy.sequence)
    report.row("steps of each rate", "steps", n_steps)
    report.row("tokens at hand", "tokens", rows.numel())
    for multiple in multiples:
        program.take(StackedDecoder(proxy, vocab_size, [0]))
        for i in range(n_steps):
            now = multiple * proxy.learning_rate * schedule(i, n_steps, 0.1, 0.5)
            program.step(batch_of(rows, proxy.batch, i).to(report.device), now)
        loss = float(program.gradient(batch_of(held, n_held, 0).to(report.device)))
        report.row(f"62M at {multiple} × {proxy.learning_rate:g}", "held-out nats/token", round(loss, 4))


def into_rows(tokens: np.ndarray, sequence: int) -> torch.Tensor:
    """Return tokens as shuffled rows (n, sequence + 1)."""
    n = len(tokens) // (sequence + 1)
    rows = tokens[: n * (sequence + 1)].reshape(n, -1).astype(np.int64)
    return torch.from_numpy(rows[np.random.default_rng(0).permutation(n)])


def batch_of(rows: torch.Tensor, batch: int, step: int) -> torch.Tensor:
    """Return the tokens (1, batch, sequence + 1) of a step; what is read up begins again."""
    selected = (torch.arange(batch) + step * batch) % len(rows)
    return rows[selected][None]
