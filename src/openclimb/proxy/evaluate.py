"""Scores a stack of proxies on packed items (bits per byte of the gold answer, accuracy, accuracy by length, margin),
and on held-out text.

Reads `tokens/tasks/*.npz` and `tokens/heldout.bin`. Items are batched by length and padded on the right; the options of
an item share the reading of its context.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openclimb.config.schema import TasksSettings
from openclimb.proxy.cpu.forward import ForwardPass
from openclimb.proxy.cpu.gradient import SAFE
from openclimb.proxy.model import StackedDecoder
from openclimb.proxy.shared_prefix import TRUNK, Batch, batches, rows_of
from openclimb.proxy.stack.memory import Reading, free_memory, plan_reading
from openclimb.tasks.items import HELDOUT, gold_pairs
from openclimb.workspace.files import read_json

ON_CPU = Reading(tokens=4096, logits=1 << 20)  # few enough to stay in its cache
# Tokens of a row, on any device: who sees whom is a square of them, a quarter of a GB for 8,192 and 64 GB for the
# 131,072 that some checkpoints read.
MOST_READ = 8192
LOG2E = 1.4426950408889634
HELDOUT_LENGTH = 2048  # most tokens a piece of held-out text: some checkpoints read far more at once


@dataclass(frozen=True)
class Result:
    """One model's scores: means by part and task, and arrays with one number an item."""

    means: dict[str, dict[str, dict[str, float]]]  # part → task → measure
    items: dict[str, NDArray[Any]]  # "<task>/<part>/<measure>"


def score_of(measures: Mapping[str, float], metric: str) -> float:
    """Return a task's score, higher is better: accuracy, margin, or minus bits per byte (always so for text)."""
    return -measures["bpb"] if metric == "bpb" or metric not in measures else measures[metric]


def evaluate(
    model: StackedDecoder, tokens: Path, tasks: TasksSettings, parts: tuple[str, ...], device: str
) -> list[Result]:
    """Return the scores of each model of a stack on the items of these parts."""
    results = [Result({"search": {}, "report": {}}, {}) for _ in range(model.n_models)]
    for path in sorted((tokens / "tasks").glob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            for part in parts:
                packed = {
                    name: stored[f"{part}/{name}"]
                    for name in ("tokens", "lengths", "contexts", "bytes", "chars", "item", "gold")
                }
                if part == "search" and tasks.metric == "bpb":
                    packed = gold_pairs(packed)
                if len(packed["gold"]):
                    logs = log_likelihoods(model, packed, model.longest, device)
                    for result, row in zip(results, logs, strict=True):
                        _add(result, path.stem, part, measure(row, packed))
    if "report" in parts:
        _add_heldout(model, tokens, results, device)
    return results


@torch.inference_mode()
def log_likelihoods(
    model: StackedDecoder, packed: Mapping[str, NDArray[Any]], longest: int, device: str
) -> NDArray[np.float64]:
    """Return the sum of the log-probabilities (nats) of each pair's continuation, shape (M, n_pairs).

    What the pairs of an item share is read once. A pair longer than `longest` tokens, or than MOST_READ, loses the
    beginning of its context; a longer continuation is read in windows (`branches.py`).
    """
    m, longest = model.n_models, min(longest, MOST_READ)
    read = _reads_on_cpu(model) if device == "cpu" else _reads_on_gpu(model, device)
    out = np.zeros((m, len(packed["lengths"])))
    room = ON_CPU if device == "cpu" else reading_of(model, longest, free_memory())
    for batch in batches(rows_of(packed, longest, MOST_READ), max(1, room.tokens // m)):
        # A state that predicts several tokens, as the last one of a shared context does, is scored once.
        places, states = np.unique(batch.sources, return_inverse=True)
        each = _gold_logs(model, read(batch, places), states, batch.targets, room.logits)
        for i in range(m):
            out[i] += np.bincount(batch.pairs, weights=each[i], minlength=out.shape[1])
    return out


def reading_of(model: StackedDecoder, longest: int, free: float) -> Reading:
    """Return what is read at once on a GPU with `free` bytes; `longest`: tokens of a row."""
    layer = cast("dict[str, Tensor]", model.layers[0])
    inner, hidden = layer["attention_out"].shape[1], layer["down"].shape[1]
    return plan_reading(model.embedding.shape[2], inner, hidden, longest, free)


def visible(branches: Tensor) -> Tensor:
    """Return which tokens of its row each token sees, (n, length, length), from the branches (n, length)."""
    seen, seeing = branches[:, None, :], branches[:, :, None]
    return _earlier(branches.shape[1], branches.device) & ((seen == TRUNK) | (seen == seeing))


def measure(logs: NDArray[np.float64], packed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return one number an item: bpb of the gold continuation and, where there are options, correct, correct_norm and

    margin: how many bits a byte the gold option is likelier than the best wrong one. `correct_norm` divides
    log-likelihoods by characters, as lm-evaluation-harness does. Options that tie share the point, so that no position
    is favoured.

    An item's bpb is its bits ÷ the mean bytes of a gold continuation, so that the mean over items is all bits ÷ all
    bytes: an answer of two bytes weighs no more than its two bytes. A plain mean of the items' own ratios is noisier.
    """
    item, gold = packed["item"], packed["gold"]
    first = np.searchsorted(item, np.arange(len(gold)))
    right = first + gold
    bits = -logs[right] * LOG2E
    found: dict[str, NDArray[Any]] = {"bpb": (bits / packed["bytes"][right].mean(dtype=np.float64)).astype(np.float32)}
    if len(item) > len(gold):
        for name, value in (("correct", logs), ("correct_norm", logs / packed["chars"])):
            best = np.full(len(gold), -np.inf)
            np.maximum.at(best, item, value)
            tied = np.bincount(item, weights=value == best[item], minlength=len(gold))
            found[name] = ((value[right] == best) / tied).astype(np.float32)
        likely = logs * LOG2E / packed["bytes"]
        wrong, rival = np.full(len(gold), -np.inf), np.ones(len(item), dtype=bool)
        rival[right] = False
        np.maximum.at(wrong, item[rival], likely[rival])
        wrong = np.where(np.isfinite(wrong), wrong, likely[right])  # an item with a single option has no margin
        found["margin"] = (likely[right] - wrong).astype(np.float32)
    return found


def _reads_on_cpu(model: StackedDecoder) -> Callable[[Batch, NDArray[np.int64]], Tensor]:
    """Return what reads a batch and gives the states (M, n, width) at sorted places (n,)."""
    forward = ForwardPass(model)

    def read(batch: Batch, places: NDArray[np.int64]) -> Tensor:
        length = batch.tokens.shape[1]
        seen = visible(torch.from_numpy(batch.branches)) if batch.branched else _earlier(length)[None]
        mask = torch.where(seen, 0.0, float("-inf"))
        return forward(torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions), mask, places)

    return read


def _reads_on_gpu(model: StackedDecoder, device: str) -> Callable[[Batch, NDArray[np.int64]], Tensor]:
    def read(batch: Batch, places: NDArray[np.int64]) -> Tensor:
        tokens = torch.from_numpy(batch.tokens).to(device).expand(model.n_models, -1, -1)
        positions = torch.from_numpy(batch.positions).to(device) if batch.branched else None
        mask = visible(torch.from_numpy(batch.branches).to(device)) if batch.branched else None
        with torch.autocast(device, torch.bfloat16):
            states: Tensor = model(tokens, positions, mask, torch.from_numpy(places).to(device))
        return states

    return read


def _earlier(length: int, device: torch.device | None = None) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def _gold_logs(
    model: StackedDecoder,
    hidden: Tensor,
    states: NDArray[np.int64],
    targets: NDArray[np.int64],
    most_logits: int,
) -> NDArray[np.float64]:
    """Return the log-probability (nats) of each target (n,) after its state, (M, n); `hidden`: (M, n_states, width)."""
    m = hidden.shape[0]
    order = np.argsort(states, kind="stable")
    block = max(1, most_logits // (m * model.embedding.shape[1]))
    out = np.empty((m, len(states)))
    for i in range(0, hidden.shape[1], block):
        some = hidden[:, i : i + block]
        logits = model.logits(some).float()
        begin, end = np.searchsorted(states[order], [i, i + block])
        rows = torch.from_numpy(states[order[begin:end]] - i).to(hidden.device)
        golds = torch.from_numpy(targets[order[begin:end]]).to(hidden.device)
        gold = logits[:, rows, golds]
        totals = logits.exp_().sum(2)  # half the time of a softmax, which looks for the largest first
        least, most = totals.aminmax()
        if least >= SAFE[0] and most <= SAFE[1]:  # false for what is not a number
            totals.log_()
        else:
            totals = model.logits(some).float().logsumexp(2)
        out[:, order[begin:end]] = (gold - totals[:, rows]).double().cpu().numpy()
    return out


def _add(result: Result, task: str, part: str, found: dict[str, NDArray[Any]]) -> None:
    names = {"bpb": "bpb", "correct": "accuracy", "correct_norm": "accuracy_norm", "margin": "margin"}
    means = {names[key]: float(values.mean(dtype=np.float64)) for key, values in found.items()}
    result.means[part][task] = {**means, "n": len(found["bpb"])}
    for key, values in found.items():
        result.items[f"{task}/{part}/{key}"] = values


def _add_heldout(model: StackedDecoder, tokens: Path, results: list[Result], device: str) -> None:
    """Score the held-out text in pieces of a few hundred tokens; its bits per byte are of the whole."""
    facts, data = read_json(tokens / "heldout.json"), read_json(tokens / "domains.json")
    array = np.fromfile(tokens / "heldout.bin", dtype=np.dtype(data["dtype"])).astype(np.int32)
    length = min(model.longest // 4, HELDOUT_LENGTH)
    n = (len(array) - 1) // length
    if n < 1:
        return
    pieces = np.lib.stride_tricks.sliding_window_view(array, length + 1)[::length][:n]
    packed = {
        "tokens": pieces.reshape(-1),
        "lengths": np.full(n, length + 1, dtype=np.int32),
        "contexts": np.ones(n, dtype=np.int32),
        "bytes": np.full(n, max(1.0, facts["n_bytes"] * length / len(array))),
        "chars": np.ones(n, dtype=np.int32),
        "item": np.arange(n, dtype=np.int32),
        "gold": np.zeros(n, dtype=np.int32),
    }
    for result, row in zip(results, log_likelihoods(model, packed, length, device), strict=True):
        _add(result, HELDOUT, "report", measure(row, packed))
