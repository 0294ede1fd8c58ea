"""Trains the proxies of one or more trials as one program, scores them and tells the scores.

Reads trials/NNNN/trial.json and `tokens/`. Writes trials/NNNN/train.jsonl, items.npz, model/ where it
is kept, and, last, scores.json.
An exact number of tokens, a finished schedule, fp32 on a CPU and bf16 on a GPU. On a CPU the same trial gives the same
bits.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openclimb.config import ProxySettings, TasksSettings
from openclimb.engine import set_allocator
from openclimb.errors import MissingDependency
from openclimb.proxy.batches import Reader, Tokens, open_tokens
from openclimb.proxy.evaluate import evaluate, score_of
from openclimb.proxy.llama import make_decoder, save_llama
from openclimb.proxy.model import StackedDecoder
from openclimb.trials import Trial, read_trial, tell
from openclimb.workspace import atomic, write_text

BETAS = (0.9, 0.95)
CLIP = 1.0  # largest norm of a model's gradient
LOG_LINES = 50  # of train.jsonl
KEPT_BLOCK = 1 << 30  # bytes: larger than any block of a step, so that memory is asked for once
GPU_SHARE = 0.6  # of free memory that a stack may fill


def plan_stack(device: str, stack: int, n_waiting: int, proxy: ProxySettings, tokens: Path) -> tuple[str, int]:
    """Return where to train ("cpu" or "cuda") and how many trials as one program."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device, 1  # one process a core beats a stack there
    if not torch.cuda.is_available():
        raise MissingDependency("a CUDA device", "set device = 'cpu' or 'auto' in [run]")
    vocab_size = open_tokens(tokens).vocab_size
    model = vocab_size * proxy.width + proxy.depth * 12 * proxy.width**2
    positions = proxy.batch * proxy.sequence
    activations = positions * (proxy.depth * proxy.width * 34 + vocab_size * 8)
    free, _ = torch.cuda.mem_get_info()
    return device, stack or max(1, min(n_waiting, int(GPU_SHARE * free / (16 * model + activations))))


def run_stack(
    folders: Sequence[Path],
    tokens_folder: Path,
    proxy: ProxySettings,
    tasks: TasksSettings,
    parts: tuple[str, ...],
    device: str,
    keep: bool = False,
) -> dict[Path, str]:
    """Train, score and tell the trials in these folders; return the message of each that failed.

    `parts`: which items are scored, "search" or "search" and "report". `keep`: the models are written too.
    """
    if device != "cpu":
        return _run(folders, tokens_folder, proxy, tasks, parts, device, keep)
    torch.set_num_threads(1)
    set_allocator(KEPT_BLOCK)
    torch.set_flush_denormal(True)  # products of denormals are many times slower
    try:
        return _run(folders, tokens_folder, proxy, tasks, parts, device, keep)
    finally:
        torch.set_flush_denormal(False)  # with one worker this is the process that also fits predictors


def _run(
    folders: Sequence[Path],
    tokens_folder: Path,
    proxy: ProxySettings,
    tasks: TasksSettings,
    parts: tuple[str, ...],
    device: str,
    keep: bool,
) -> dict[Path, str]:
    began = time.monotonic()
    trials = [read_trial(folder) for folder in folders]
    tokens = open_tokens(tokens_folder)
    model = make_decoder(proxy, tokens.vocab_size, [trial.seed for trial in trials]).to(device)
    losses, logs = train(model, trials, tokens, proxy, device)
    failed = {folder: _why(loss) for folder, loss in zip(folders, losses, strict=True) if not np.isfinite(loss)}
    results = evaluate(model, tokens_folder, tasks, parts, device)
    seconds = (time.monotonic() - began) / len(trials)
    for i, (folder, trial) in enumerate(zip(folders, trials, strict=True)):
        write_text(folder / "train.jsonl", "".join(json.dumps(row) + "\n" for row in logs[i]))
        if folder in failed:
            continue
        if keep:
            save_llama(model, i, folder / "model", tokens_folder / "tokenizer.json", proxy.checkpoint)
        with atomic(folder / "items.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, **results[i].items)  # type: ignore[arg-type]
        tell(
            folder,
            {
                "scores": {
                    task: score_of(measures, tasks.metric) for task, measures in results[i].means["search"].items()
                },
                **results[i].means,
                "tokens": trial.token_budget // proxy.sequence * proxy.sequence,
                "seconds": round(seconds, 3),
                "train_loss": losses[i],
                "device": device,
            },
        )
    return failed


def train(
    model: StackedDecoder, trials: Sequence[Trial], tokens: Tokens, proxy: ProxySettings, device: str
) -> tuple[list[float], list[list[dict[str, Any]]]]:
    """Train a stack on its trials' mixtures; return each model's last loss (nats a token) and its log rows."""
    readers = [Reader(tokens, trial, proxy.sequence) for trial in trials]
    n_sequences = len(readers[0])
    n_steps = -(-n_sequences // proxy.batch)
    decayed, free = model.matrices_and_norms()
    groups = [{"params": decayed, "weight_decay": proxy.weight_decay}, {"params": free, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=proxy.learning_rate, betas=BETAS, fused=True)
    logs: list[list[dict[str, Any]]] = [[] for _ in trials]
    last = [float("nan")] * len(trials)
    for step in range(n_steps):
        rows = [reader.read(step * proxy.batch, min((step + 1) * proxy.batch, n_sequences)) for reader in readers]
        batch = torch.from_numpy(np.stack(rows)).to(device, non_blocking=True)
        rate = proxy.learning_rate * schedule(step, n_steps, proxy.warmup, proxy.decay)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = stack_loss(model, batch)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        clip(list(model.parameters()))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % max(1, n_steps // LOG_LINES) == 0 or step == n_steps - 1:
            last = loss.detach().tolist()
            for i, value in enumerate(last):
                seen = min((step + 1) * proxy.batch, n_sequences) * proxy.sequence
                # No clock here: the log is part of what must be the same after a kill.
                logs[i].append({"step": step, "tokens": seen, "loss": _finite(value), "learning_rate": rate})
            if not any(np.isfinite(last)):
                break
    return last, logs


def stack_loss(model: StackedDecoder, batch: Tensor) -> Tensor:
    """Return each model's mean loss in nats a token, (M,), for tokens (M, batch, sequence + 1)."""
    hidden = model(batch[:, :, :-1])
    logits = model.logits(hidden)
    m, n, vocab_size = logits.shape
    targets = batch[:, :, 1:].reshape(m * n)
    each = nn.functional.cross_entropy(logits.view(m * n, vocab_size).float(), targets, reduction="none")
    return each.view(m, n).mean(1)


def clip(parameters: Sequence[Tensor]) -> None:
    """Scale each model's gradient down to a norm of at most `CLIP`."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0)
    scale = (CLIP / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))


def schedule(step: int, n_steps: int, warmup: float, decay: float) -> float:
    """Return the share of the peak rate at a step: a linear rise, a plateau, a linear fall that ends at zero."""
    rise = max(1.0, warmup * n_steps)
    fall = max(1.0, decay * n_steps)
    return min(1.0, (step + 1) / rise, (n_steps - step) / fall)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _why(loss: float) -> str:
    return f"the loss is {loss}: the learning rate may be too high (proxy.learning_rate)"
