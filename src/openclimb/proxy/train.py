"""Trains the proxies of one or more trials as one program, scores them and tells the scores.

Reads trials/NNNN/trial.json and `tokens/`. Writes trials/NNNN/train.jsonl, early.json, items.npz, model/ where it is
kept, and, last, scores.json; on the way state.safetensors, from which a killed trial goes on.
An exact number of tokens, a finished schedule, fp32 on a CPU and bf16 on a GPU. On a CPU the same trial gives the same
bits, also when it was killed and went on.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openclimb.early import EarlyScores, write_early
from openclimb.engine import set_allocator
from openclimb.errors import MissingDependency
from openclimb.proxy.batches import Reader, Tokens, batches, open_tokens
from openclimb.proxy.evaluate import Result, evaluate, score_of
from openclimb.proxy.llama import make_decoder, save_llama
from openclimb.proxy.optimise import schedule
from openclimb.proxy.program import POSITIONS, Program, program_for
from openclimb.proxy.state import About, read_about, read_tensors, remove_state, save_state
from openclimb.settings import ProxySettings, RunSettings, TasksSettings
from openclimb.trials import Trial, read_trial, tell
from openclimb.workspace import atomic, write_text

HERE = RunSettings()
LOG_LINES = 50  # of train.jsonl
KEPT_BLOCK = 1 << 30  # bytes: larger than any block of a step, so that memory is asked for once
GPU_SHARE = 0.6  # of free memory that a stack may fill
AHEAD = 4  # batches that are read before a GPU asks for them


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
    positions = min(proxy.batch * proxy.sequence, POSITIONS[device])
    activations = positions * proxy.depth * proxy.width * 34
    free, _ = torch.cuda.mem_get_info()
    free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # kept by PyTorch, and used again
    return device, stack or stack_size(n_waiting, int(GPU_SHARE * free / (16 * model + activations)))


def stack_size(n_waiting: int, most: int) -> int:
    """Return how many trials to stack where `most` fit: a power of two, so that few sizes are compiled."""
    enough = 1 << (n_waiting - 1).bit_length()
    return min(enough, 1 << (max(1, most).bit_length() - 1))


def run_stack(
    folders: Sequence[Path],
    tokens_folder: Path,
    proxy: ProxySettings,
    tasks: TasksSettings,
    parts: tuple[str, ...],
    device: str,
    where: RunSettings = HERE,
    size: int = 0,
    until: float = 1.0,
) -> dict[Path, str]:
    """Train, score and tell the trials in these folders; return the message of each that failed.

    `parts`: which items are scored, "search" or "search" and "report". `size`: models of the stack, filled up with
    copies of the last trial. With `until` below 1 the trials stop after that share of their steps, with their state
    and their early scores, and are not told; the next call goes on from there.
    """
    if device != "cpu":
        return _run(folders, tokens_folder, proxy, tasks, parts, device, where, size, until)
    torch.set_num_threads(1)
    set_allocator(KEPT_BLOCK)
    torch.set_flush_denormal(True)  # products of denormals are many times slower
    try:
        return _run(folders, tokens_folder, proxy, tasks, parts, device, where, size, until)
    finally:
        torch.set_flush_denormal(False)  # with one worker this is the process that also fits predictors


def _run(
    folders: Sequence[Path],
    tokens_folder: Path,
    proxy: ProxySettings,
    tasks: TasksSettings,
    parts: tuple[str, ...],
    device: str,
    where: RunSettings,
    size: int,
    until: float,
) -> dict[Path, str]:
    began = time.monotonic()
    trials = [read_trial(folder) for folder in folders]
    stack = [*trials, *trials[-1:] * (size - len(trials))]
    tokens = open_tokens(tokens_folder)
    model = make_decoder(proxy, tokens.vocab_size, [trial.seed for trial in stack])
    program = program_for(model, proxy, device, where.compile)
    training = Training(program, stack, tokens, proxy)
    training.resume(folders)

    def save() -> None:
        training.save(folders, trials)

    for stop in training.stops(until):
        training.advance(stop, where.save_seconds, save)
        if training.lost:
            break
        if stop in training.early:
            _score_early(training, folders, tokens_folder, tasks)
    if until < 1 and not training.lost:
        save()
        return {}
    results = evaluate(program.model, tokens_folder, tasks, parts, device)
    seconds = (time.monotonic() - began) / len(trials)
    keep = where.keep_models == "all" or (where.keep_models == "finalists" and "report" in parts)
    failed = {}
    for i, (folder, trial) in enumerate(zip(folders, trials, strict=True)):
        write_text(folder / "train.jsonl", "".join(json.dumps(row) + "\n" for row in training.logs[i]))
        loss = training.last[i]
        if np.isfinite(loss):
            if keep:
                save_llama(program.model, i, folder / "model", tokens_folder / "tokenizer.json", proxy.checkpoint)
            with atomic(folder / "items.npz") as temporary, open(temporary, "wb") as file:
                np.savez(file, **results[i].items)  # type: ignore[arg-type]
            told = {
                "scores": _search_scores(results[i], tasks),
                **results[i].means,
                "tokens": trial.token_budget // proxy.sequence * proxy.sequence,
                "seconds": round(seconds, 3),
                "train_loss": loss,
                "device": device,
            }
            tell(folder, told)
        else:
            failed[folder] = f"the loss is {loss}: the learning rate may be too high (proxy.learning_rate)"
        remove_state(folder)
    return failed


def _score_early(training: "Training", folders: Sequence[Path], tokens_folder: Path, tasks: TasksSettings) -> None:
    program = training.program
    results = evaluate(program.model, tokens_folder, tasks, ("search",), program.device)
    for folder, result in zip(folders, results, strict=False):
        scores = _search_scores(result, tasks)
        if np.isfinite(list(scores.values())).all():  # a model that went astray is no reason to stop the others
            write_early(folder, EarlyScores(training.tokens, scores))


class Training:
    """A stack of trials on its way to their token budget: the step, the last losses (nats a token) and the log rows."""

    def __init__(self, program: Program, trials: Sequence[Trial], tokens: Tokens, proxy: ProxySettings) -> None:
        self.program, self.proxy = program, proxy
        self.identities = [trial.identity for trial in trials]
        self.readers = [Reader(tokens, trial, proxy.sequence) for trial in trials]
        self.n_sequences = len(self.readers[0])
        self.n_steps = -(-self.n_sequences // proxy.batch)
        self.early = {max(1, round(share * self.n_steps)) for share in proxy.early}
        self.step = 0
        self.last = [float("nan")] * len(trials)
        self.logs: list[list[dict[str, Any]]] = [[] for _ in trials]

    @property
    def tokens(self) -> int:
        """Tokens that each model has read."""
        return min(self.step * self.proxy.batch, self.n_sequences) * self.proxy.sequence

    @property
    def lost(self) -> bool:
        """Whether no model's last loss is a number."""
        return bool(self.step) and not any(np.isfinite(self.last))

    def stops(self, until: float = 1.0) -> list[int]:
        """Return the steps, from here to that share of the run, at which something is to be done."""
        end = round(until * self.n_steps)
        return sorted(step for step in {*self.early, end} if self.step < step <= end)

    def advance(self, stop: int, save_seconds: float = math.inf, save: Callable[[], None] = lambda: None) -> None:
        """Train to the step `stop`; call `save` now and then. Ends early when no model's loss is a number."""
        saved = time.monotonic()
        ahead = 0 if self.program.device == "cpu" else AHEAD
        for batch in batches(self.readers, self.proxy.batch, self.step, stop, ahead):
            rate = self.proxy.learning_rate * schedule(self.step, self.n_steps, self.proxy.warmup, self.proxy.decay)
            losses = self.program.step(batch.to(self.program.device, non_blocking=True), rate)
            self.step += 1
            if (self.step - 1) % max(1, self.n_steps // LOG_LINES) == 0 or self.step == self.n_steps:
                self._note(losses, rate)
                if self.lost:
                    return
            if time.monotonic() - saved >= save_seconds and self.step < self.n_steps:
                save()
                saved = time.monotonic()

    def save(self, folders: Sequence[Path], trials: Sequence[Trial]) -> None:
        """Write the state of these trials, the first of the stack."""
        for i, (folder, trial) in enumerate(zip(folders, trials, strict=True)):
            about = About(trial.identity, self.step, _finite(self.last[i]), self.logs[i])
            save_state(folder, self.program.optimiser.state(i), about)

    def resume(self, folders: Sequence[Path]) -> None:
        """Go on from the states of these trials, the first of the stack, where all have one of the same step."""
        abouts = [read_about(folder) for folder in folders]
        found = [
            about for about, name in zip(abouts, self.identities, strict=False) if about and about.identity == name
        ]
        if len(found) < len(folders) or len({about.step for about in found}) > 1:
            return
        spare = len(self.readers) - len(folders)
        states = [read_tensors(folder) for folder in folders]
        self.step = found[0].step
        self.program.optimiser.load([*states, *states[-1:] * spare], self.step)
        for i, about in enumerate([*found, *found[-1:] * spare]):
            self.logs[i] = list(about.log)
            self.last[i] = float("nan") if about.last is None else about.last

    def _note(self, losses: Tensor, rate: float) -> None:
        self.last = losses.tolist()
        for log, value in zip(self.logs, self.last, strict=True):
            # No clock here: the log is part of what must be the same after a kill.
            log.append({"step": self.step - 1, "tokens": self.tokens, "loss": _finite(value), "learning_rate": rate})


def _search_scores(result: Result, tasks: TasksSettings) -> dict[str, float]:
    return {task: score_of(measures, tasks.metric) for task, measures in result.means["search"].items()}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
