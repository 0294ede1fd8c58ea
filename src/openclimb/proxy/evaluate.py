"""Scores a stack of proxies on packed items: bits per byte of the gold answer, accuracy, accuracy by length; and
held-out text.

Reads `tokens/tasks/*.npz` and `tokens/heldout.bin`. Items are batched by length and padded on the right.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openclimb.config import TasksSettings
from openclimb.proxy.model import StackedDecoder
from openclimb.workspace import read_json

BATCH_TOKENS = 16_384  # padded tokens scored at once, for each model
LOG2E = 1.4426950408889634
HELDOUT = "heldout"


@dataclass(frozen=True)
class Result:
    """One model's scores: means by part and task, and arrays with one number an item."""

    means: dict[str, dict[str, dict[str, float]]]  # part → task → measure
    items: dict[str, NDArray[Any]]  # "<task>/<part>/<measure>"


def score_of(measures: Mapping[str, float], metric: str) -> float:
    """Return a task's score, higher is better: accuracy, or minus bits per byte (always so for text)."""
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
                    for name in ("tokens", "lengths", "contexts", "bytes", "item", "gold")
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

    A pair longer than `longest` loses the beginning of its context.
    """
    m = model.n_models
    out = np.zeros((m, len(packed["lengths"])))
    starts = np.concatenate([[0], np.cumsum(packed["lengths"])])
    lengths = np.minimum(packed["lengths"], longest + 1)
    for rows in _batches(lengths):
        width = int(lengths[rows].max())
        block = np.zeros((len(rows), width), dtype=np.int64)
        scored = np.zeros((len(rows), width - 1), dtype=bool)
        for i, row in enumerate(rows):
            n = lengths[row]
            block[i, :n] = packed["tokens"][starts[row + 1] - n : starts[row + 1]]
            kept = packed["lengths"][row] - packed["contexts"][row]  # tokens of the continuation
            scored[i, max(0, n - 1 - kept) : n - 1] = True
        tokens = torch.from_numpy(block).to(device).expand(m, -1, -1)
        mask = torch.from_numpy(scored).to(device).flatten()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            hidden = model(tokens[:, :, :-1])[:, mask]
        each = _gold_logs(model, hidden, tokens[:, :, 1:].reshape(m, -1)[:, mask])
        pair = np.repeat(rows, scored.sum(1))
        for i in range(m):
            out[i] += np.bincount(pair, weights=each[i].cpu().numpy(), minlength=out.shape[1])
    return out


def gold_pairs(packed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the items with their right option alone: all that bits per byte need, and a quarter of the work."""
    right = np.searchsorted(packed["item"], np.arange(len(packed["gold"]))) + packed["gold"]
    starts = np.cumsum(packed["lengths"]) - packed["lengths"]
    lengths = packed["lengths"][right]
    spans = [packed["tokens"][start : start + n] for start, n in zip(starts[right], lengths, strict=True)]
    return {
        "tokens": np.concatenate(spans) if spans else packed["tokens"][:0],
        "lengths": lengths,
        "contexts": packed["contexts"][right],
        "bytes": packed["bytes"][right],
        "item": np.arange(len(right), dtype=np.int32),
        "gold": np.zeros(len(right), dtype=np.int32),
    }


def measure(logs: NDArray[np.float64], packed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return one number an item: bpb of the gold continuation and, where there are options, correct and correct_norm.

    Options that tie share the point, so that no position is favoured.
    """
    item, gold = packed["item"], packed["gold"]
    first = np.searchsorted(item, np.arange(len(gold)))
    right = first + gold
    found: dict[str, NDArray[Any]] = {"bpb": (-logs[right] * LOG2E / packed["bytes"][right]).astype(np.float32)}
    if len(item) > len(gold):
        for name, value in (("correct", logs), ("correct_norm", logs / packed["bytes"])):
            best = np.full(len(gold), -np.inf)
            np.maximum.at(best, item, value)
            tied = np.bincount(item, weights=value == best[item], minlength=len(gold))
            found[name] = ((value[right] == best) / tied).astype(np.float32)
    return found


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield row numbers, near lengths together, so that little is padded."""
    rows = np.argsort(lengths, kind="stable")
    begin = 0
    while begin < len(rows):
        n = max(1, BATCH_TOKENS // int(lengths[rows[begin]]))
        while n > 1 and n * int(lengths[rows[min(len(rows), begin + n) - 1]]) > BATCH_TOKENS:
            n = n * 3 // 4
        yield rows[begin : begin + n]
        begin += n


def _gold_logs(model: StackedDecoder, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability (nats) of each target (M, n) after each hidden state (M, n, width)."""
    parts = []
    for i in range(0, hidden.shape[1], 4096):
        states, golds = hidden[:, i : i + 4096], targets[:, i : i + 4096]
        logits = model.logits(states).float()
        parts.append(logits.gather(2, golds[:, :, None])[:, :, 0] - logits.logsumexp(2))
    return torch.cat(parts, 1)


def _add(result: Result, task: str, part: str, found: dict[str, NDArray[Any]]) -> None:
    names = {"bpb": "bpb", "correct": "accuracy", "correct_norm": "accuracy_norm"}
    means = {names[key]: float(values.mean(dtype=np.float64)) for key, values in found.items()}
    result.means[part][task] = {**means, "n": len(found["bpb"])}
    for key, values in found.items():
        result.items[f"{task}/{part}/{key}"] = values


def _add_heldout(model: StackedDecoder, tokens: Path, results: list[Result], device: str) -> None:
    """Score the held-out text in pieces of a few hundred tokens; its bits per byte are of the whole."""
    facts, data = read_json(tokens / "heldout.json"), read_json(tokens / "domains.json")
    array = np.fromfile(tokens / "heldout.bin", dtype=np.dtype(data["dtype"])).astype(np.int32)
    length = model.longest // 4
    n = (len(array) - 1) // length
    if n < 1:
        return
    pieces = np.lib.stride_tricks.sliding_window_view(array, length + 1)[::length][:n]
    packed = {
        "tokens": pieces.reshape(-1),
        "lengths": np.full(n, length + 1, dtype=np.int32),
        "contexts": np.ones(n, dtype=np.int32),
        "bytes": np.full(n, max(1.0, facts["n_bytes"] * length / len(array))),
        "item": np.arange(n, dtype=np.int32),
        "gold": np.zeros(n, dtype=np.int32),
    }
    for result, row in zip(results, log_likelihoods(model, packed, length, device), strict=True):
        _add(result, HELDOUT, "report", measure(row, packed))
