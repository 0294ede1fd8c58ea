"""Trains the proxies of one or more trials as one program and scores them.

Reads trials/NNNN/trial.json and `tokens/`. Writes train.jsonl, items.npz and model/, where it is kept, in the
trial's folder; on the way state.safetensors, from which a killed trial goes on.
An exact number of tokens, a finished schedule. Products are in bf16 on a GPU and on a CPU with tiles for them, else in
fp32; a CPU scores in fp32. On one kind of CPU the same trial gives the same bits, also when it was killed and went on.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openclimb.config.schema import ProxySettings, RunSettings, TasksSettings
from openclimb.engines import interruption
from openclimb.engines.interruption import Interrupted
from openclimb.engines.local import set_allocator
from openclimb.errors import MissingDependency
from openclimb.progress import silent
from openclimb.proxy.checkpoint import find_checkpoint, read_checkpoint
from openclimb.proxy.cpu.products import bf16_products, has_tiles
from openclimb.proxy.data import Reader, Tokens, batches, open_tokens
from openclimb.proxy.evaluate import evaluate, score_of
from openclimb.proxy.hf_io import make_decoder, save_llama
from openclimb.proxy.model import OURS
from openclimb.proxy.optimizer import schedule
from openclimb.proxy.stack.memory import Room, in_rooms
from openclimb.proxy.stack.program import RESIDENT, Program, cpu_room, program_for
from openclimb.proxy.state import About, Pace, read_state, remove_state, save_state
from openclimb.workspace.files import atomic, write_text
from openclimb.workspace.trials import Outcome, Trial, read_trial

LOG_LINES = 50  # of train.jsonl
KEPT_BLOCK = 1 << 30  # bytes: larger than any block of a step, so that memory is asked for once
AHEAD = 4  # batches that are read before a GPU asks for them


def plan_stack(device: str, n_waiting: int, proxy: ProxySettings, tokens: Path) -> tuple[str, int]:
    """Return where to train ("cpu" or "cuda") and how many trials as one program: a power of two."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device, 1  # one process a core beats a stack there
    if not torch.cuda.is_available():
        raise MissingDependency("a CUDA device", "set device = 'cpu' or 'auto' in [run]")
    return device, _planned(proxy, tokens, 1 << (n_waiting - 1).bit_length()).stack


def _planned(proxy: ProxySettings, tokens: Path, wanted: int, exact: bool = False) -> Room:
    vocab_size, form = open_tokens(tokens).vocab_size, OURS
    if proxy.checkpoint:
        found = read_checkpoint(find_checkpoint(proxy.checkpoint))
        vocab_size, form = found.vocab_size, found.form
    return RESIDENT.room(proxy, vocab_size, form, True, wanted, exact)


@dataclass(frozen=True)
class Job:
    """What all trials of a search share: where their tokens are, the proxy, what is scored, and where it runs."""

    tokens: Path
    proxy: ProxySettings
    tasks: TasksSettings
    parts: tuple[str, ...]  # items that are scored: "search" or "search" and "report"
    device: str  # "cpu" or "cuda"
    where: RunSettings = field(default_factory=RunSettings)
    until: float = 1.0  # share of the steps; below 1 trials stop there with their state, and the next call goes on
    note: Callable[[str], None] = silent  # is given what a person should know
    stack: int = 0  # models of the stack, filled up with copies of the last trial; 0: one a folder, as many as fit


def run_stack(folders: Sequence[Path], job: Job) -> dict[Path, Outcome]:
    """Train and score the trials in these folders; return what became of each.

    A stack is halved where memory runs out.
    """
    size = job.stack or len(folders)
    if job.device != "cpu":
        return _run_in_rooms(folders, job, _planned(job.proxy, job.tokens, size, exact=job.stack > 0))
    torch.set_num_threads(1)
    set_allocator(KEPT_BLOCK)
    torch.set_flush_denormal(True)  # products of denormals are many times slower
    try:
        return _run_in_rooms(folders, job, cpu_room(job.proxy, size))
    finally:
        torch.set_flush_denormal(False)  # with one worker this is the process that also fits predictors


def _run_in_rooms(folders: Sequence[Path], job: Job, room: Room) -> dict[Path, Outcome]:
    def shrunk(before: Room, after: Room) -> None:
        RESIDENT.shrink(job.proxy, before, after)
        job.note(
            f"{before.stack} proxies at once with {before.rows} sequences each do not fit into memory: "
            f"going on with {after.stack} and {after.rows}"
        )

    return in_rooms(folders, room, lambda part, room: _run(part, job, room), shrunk)


def _run(folders: Sequence[Path], job: Job, room: Room) -> dict[Path, Outcome]:
    began = time.monotonic()
    proxy, where = job.proxy, job.where
    trials = [read_trial(folder) for folder in folders]
    stack = [*trials, *trials[-1:] * (room.stack - len(trials))]
    tokens = open_tokens(job.tokens)
    model = make_decoder(proxy, tokens.vocab_size, [trial.seed for trial in stack])
    program = program_for(model, proxy, job.device, room, job.note)
    training = Training(program, stack, tokens, proxy)
    training.resume(folders)

    def save() -> None:
        training.save(folders, trials)

    n_bytes = 12 * len(folders) * sum(parameter[0].numel() for parameter in program.model.parameters())
    pace = Pace(n_bytes, where.save_seconds)
    try:
        with bf16_products(job.device == "cpu" and where.bf16):
            training.advance(round(job.until * training.n_steps), pace, save)
        if job.until == 1 or training.lost:
            return _outcomes(folders, trials, job, training, began)
    except Interrupted:
        if training.step and not training.lost:
            save()
        raise
    save()
    return {}


def _outcomes(
    folders: Sequence[Path], trials: Sequence[Trial], job: Job, training: "Training", began: float
) -> dict[Path, Outcome]:
    """Score the trained models and write what their trials leave; return what became of each."""
    model, proxy, where = training.program.model, job.proxy, job.where
    results = evaluate(model, job.tokens, job.tasks, job.parts, job.device)
    seconds = (time.monotonic() - began) / len(trials)
    keep = where.keep_models == "all" or (where.keep_models == "finalists" and "report" in job.parts)
    found = {}
    for i, (folder, trial) in enumerate(zip(folders, trials, strict=True)):
        write_text(folder / "train.jsonl", "".join(json.dumps(row) + "\n" for row in training.logs[i]))
        loss = training.last[i]
        if not np.isfinite(loss):
            found[folder] = Outcome(
                failure=f"the loss is {loss}: the learning rate may be too high (proxy.learning_rate)"
            )
            remove_state(folder)
            continue
        if keep:
            save_llama(model, i, folder / "model", job.tokens / "tokenizer.json", proxy.checkpoint)
        with atomic(folder / "items.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, **results[i].items)  # type: ignore[arg-type]
        found[folder] = Outcome(
            {
                "scores": {
                    task: score_of(measures, job.tasks.metric) for task, measures in results[i].means["search"].items()
                },
                **results[i].means,
                "tokens": trial.token_budget // proxy.sequence * proxy.sequence,
                "seconds": round(seconds, 3),
                "train_loss": loss,
                "device": job.device,
                "products": "bf16" if job.device != "cpu" or (where.bf16 and has_tiles()) else "fp32",
            }
        )
    return found


class Training:
    """A stack of trials on its way to their token budget: the step, the last losses (nats a token) and the log rows."""

    def __init__(self, program: Program, trials: Sequence[Trial], tokens: Tokens, proxy: ProxySettings) -> None:
        self.program, self.proxy = program, proxy
        self.identities = [trial.identity for trial in trials]
        self.readers = [Reader(tokens, trial, proxy.sequence) for trial in trials]
        self.n_sequences = len(self.readers[0])
        self.n_steps = -(-self.n_sequences // proxy.batch)
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

    def advance(self, stop: int, pace: Pace | None = None, save: Callable[[], None] = lambda: None) -> None:
        """Train to the step `stop`; call `save` at its pace. Ends early when no model's loss is a number.

        Raises Interrupted between two steps when a signal asks to stop.
        """
        with interruption.postponed():
            self._advance(stop, pace, save)

    def _advance(self, stop: int, pace: Pace | None, save: Callable[[], None]) -> None:
        ahead = 0 if self.program.device == "cpu" else AHEAD
        for batch in batches(self.readers, self.proxy.batch, self.step, stop, ahead):
            interruption.check()
            rate = self.proxy.learning_rate * schedule(self.step, self.n_steps)
            losses = self.program.step(batch.to(self.program.device, non_blocking=True), rate)
            self.step += 1
            if (self.step - 1) % max(1, self.n_steps // LOG_LINES) == 0 or self.step == self.n_steps:
                self._note(losses, rate)
                if self.lost:
                    return
            if pace and self.step < self.n_steps and pace.due():
                pace.write(save)

    def save(self, folders: Sequence[Path], trials: Sequence[Trial]) -> None:
        """Write the state of these trials, the first of the stack."""
        for i, (folder, trial) in enumerate(zip(folders, trials, strict=True)):
            about = About(trial.identity, self.step, _finite(self.last[i]), self.logs[i])
            save_state(folder, self.program.optimiser.state(i), about)

    def resume(self, folders: Sequence[Path]) -> None:
        """Go on from the states of these trials, the first of the stack, where all have one of the same step."""
        states, found = list[dict[str, Tensor]](), list[About]()
        for folder, identity in zip(folders, self.identities, strict=False):
            state = read_state(folder)
            if state is None or state[0].identity != identity or (found and found[0].step != state[0].step):
                return
            found.append(state[0])
            states.append(state[1])
        spare = len(self.readers) - len(folders)
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


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
