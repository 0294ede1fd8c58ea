"""Evaluation beside lm-evaluation-harness: the same checkpoint, the same items, the same answers, and how fast.

    python bench/evaluate.py --tasks TASKS [--quick]

TASKS: folder with arc_easy.jsonl and others, as `climb tasks` makes them. Trains a proxy of the demo's shape for a few
steps, writes it as a Hugging Face folder, and scores the items with ours, with transformers pair by pair, and with
`lm_eval.simple_evaluate` on a local task file that asks the same. One thread each, and that thread's seconds, so that
other work on the machine does not count. Needs the extra `eval` for the harness; without it compares with transformers
only. Writes bench/results/evaluate.json (not with --quick).
"""

import argparse
import importlib.util
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _results import write_results
from openclimb.config.scales import preset
from openclimb.config.schema import ProxySettings
from openclimb.corpus.tokenizer import encode_batch, load_tokenizer, train_tokenizer
from openclimb.engines.local import set_allocator
from openclimb.proxy.cpu.gradient import Gradient
from openclimb.proxy.evaluate import log_likelihoods, measure
from openclimb.proxy.hf_io import make_decoder, save_llama
from openclimb.proxy.model import StackedDecoder
from openclimb.proxy.train import KEPT_BLOCK
from openclimb.tasks.items import read_items, tokenised

HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None
BATCH_SIZES = (16, 64)  # of the harness; its default, 1, is slower on all of these
STACK = 8
TRIES = 5  # each is timed so often, the harness with each batch size; the best counts
SHAPES = {
    "demo": (preset("demo").proxy, preset("demo").tokens.vocab_size),
    "laptop": (preset("laptop").proxy, preset("laptop").tokens.vocab_size),
}
YAML = """task: local
dataset_path: json
dataset_kwargs:
  data_files: {data}
output_type: multiple_choice
test_split: train
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: gold
target_delimiter: " "
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="few items, one task, nothing written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    set_allocator(KEPT_BLOCK)  # as a trial does; the harness has the good of it too
    logging.disable(logging.WARNING)
    if not HAS_HARNESS:
        print("lm_eval is not installed (pip install 'openclimb[eval]'): compared with transformers only")
    cases = [("arc_easy", "demo", 200), ("sciq", "demo", 200), ("hellaswag", "demo", 200), ("arc_easy", "laptop", 200)]
    if options.quick:
        cases = [("arc_easy", "demo", 40)]
    rows: list[dict[str, Any]] = []
    for task, shape, n in cases:
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(options.tasks / f"{task}.jsonl", shape, n, Path(folder))
    for row in rows:
        reference = "" if row["reference"] is None else f"{row['reference']:.6g}"
        print(f"{row['case']:<28} {row['metric']:<58} {row['value']:>12.6g} {reference:>12}")
    if not options.quick:
        write_results("evaluate", rows)


def compare(path: Path, shape: str, n: int, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of one task and shape: n items of its report part."""
    proxy, vocab_size = SHAPES[shape]
    lines = path.read_text().splitlines(keepends=True)
    (folder / "some.jsonl").write_text("".join(lines[:n]))
    train_tokenizer(lines, vocab_size, folder / "tokenizer.json")
    model = warmed(proxy, lines, folder)
    save_llama(model, 0, folder / "model", folder / "tokenizer.json")
    settings = ProxySettings(checkpoint=str(folder / "model"), sequence=proxy.sequence)

    def once() -> dict[str, Any]:
        return score(make_decoder(settings, 0, [0]), folder)

    ours = timed(once)
    logs, packed = ours["result"]
    case = f"{path.stem}, {shape}, {n} items"
    base = {"bench": "evaluate", "case": case}
    theirs, seconds = transformers_logs(folder / "model", packed)
    rows = [
        {
            **base,
            "metric": "log-likelihoods: largest difference from transformers (nats)",
            "value": apart(logs, theirs),
        },
        {**base, "metric": "scoring seconds, ours; transformers pair by pair", "value": ours["scoring"]},
    ]
    rows[-1]["reference"] = seconds
    if HAS_HARNESS:
        rows += harness_rows(base, folder, once, logs, packed)
    stack = make_decoder(settings, 0, [0] * STACK)
    many = timed(lambda: score(stack, folder))
    rows.append(
        {**base, "metric": f"scoring seconds, {STACK} models at once; one after the other", "value": many["scoring"]}
    )
    rows[-1]["reference"] = STACK * ours["scoring"]
    return [{"reference": None, **row} for row in rows]


def warmed(proxy: ProxySettings, lines: list[str], folder: Path) -> StackedDecoder:
    """Return a model that has learned a little, so that its answers are not all alike."""
    torch.manual_seed(0)
    text = "\n".join(" ".join([raw["context"], *raw["options"]]) for raw in map(json.loads, lines[:1000]))
    ids = encode_batch(load_tokenizer(folder / "tokenizer.json"), [text])[0]
    data = torch.tensor(ids[: len(ids) // (proxy.sequence + 1) * (proxy.sequence + 1)]).view(-1, proxy.sequence + 1)
    model = StackedDecoder(proxy, load_tokenizer(folder / "tokenizer.json").get_vocab_size(), [0])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    gradient = Gradient(model, 4, proxy.sequence)
    for _ in range(60 if proxy.width < 200 else 3):
        gradient(data[torch.randint(0, len(data), (4,))][None])
        optimiser.step()
    return model


def score(model: StackedDecoder, folder: Path) -> dict[str, Any]:
    """Return log-likelihoods of the items with the packed arrays and the seconds: tokenising and scoring, as theirs."""
    items = read_items(str(folder / "some.jsonl"))
    began = time.process_time()
    packed = tokenised(items, folder / "tokenizer.json")
    logs = log_likelihoods(model, packed, model.longest, "cpu")
    return {"result": (logs[0], packed), "scoring": time.process_time() - began}


def timed(work: Callable[[], dict[str, Any]], tries: int = TRIES) -> dict[str, Any]:
    """Return the fastest of a few goes, with the seconds of the whole."""
    found = []
    for _ in range(tries):
        began = time.process_time()
        result = work()
        found.append({**result, "whole": time.process_time() - began})
    return {**found[0], **{key: min(one[key] for one in found) for key in ("scoring", "whole")}}


def transformers_logs(folder: Path, packed: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    """Return the log-likelihood of each pair by transformers, one by one, and the seconds."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    longest = model.config.max_position_embeddings
    began = time.process_time()
    found = []
    for span, context in zip(
        np.split(packed["tokens"], np.cumsum(packed["lengths"])[:-1]), packed["contexts"], strict=True
    ):
        tokens = torch.from_numpy(span[-longest - 1 :].astype(np.int64))[None]
        first = max(1, tokens.shape[1] - (len(span) - context))
        with torch.inference_mode():
            logs = model(tokens[:, :-1]).logits[0].log_softmax(-1)
        found.append(float(logs[torch.arange(tokens.shape[1] - 1), tokens[0, 1:]][first - 1 :].sum()))
    return np.array(found), time.process_time() - began


def harness_rows(
    base: dict[str, str],
    folder: Path,
    once: Callable[[], dict[str, Any]],
    logs: np.ndarray,
    packed: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return how we agree with lm-evaluation-harness, and how long it takes at its fastest batch size.

    Ours (`once`) and the harness take turns, so that what else the machine does is the same for both.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    raw = [json.loads(line) for line in (folder / "some.jsonl").read_text().splitlines()]
    rows = [{**row, "options": [option.removeprefix(" ") for option in row["options"]]} for row in raw]
    (folder / "data.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "local.yaml").write_text(YAML.format(data=folder / "data.json"))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    fastest: dict[str, Any] = {}
    turns = []
    for batch_size in BATCH_SIZES * TRIES:
        model = Timed(HFLM(pretrained=str(folder / "model"), device="cpu", batch_size=batch_size))
        began = time.process_time()
        found = simple_evaluate(
            model.inner, tasks=["local"], task_manager=manager, bootstrap_iters=0, log_samples=True, verbosity="ERROR"
        )
        whole = time.process_time() - began
        if not fastest or model.seconds < fastest["scoring"]:
            fastest = {"found": found, "scoring": model.seconds, "whole": whole, "batch_size": batch_size}
        turns.append(timed(once, 1))
    ours = {key: min(turn[key] for turn in turns) for key in ("scoring", "whole")}
    samples = sorted(fastest["found"]["samples"]["local"], key=lambda sample: sample["doc_id"])
    theirs = np.array([float(pair[0]) for sample in samples for pair in sample["filtered_resps"]])
    results = fastest["found"]["results"]["local"]
    mine = {name: float(values.mean(dtype=np.float64)) for name, values in measure(logs, packed).items()}
    size = f"harness at its fastest batch size, {fastest['batch_size']}"
    found_rows: list[dict[str, Any]] = [
        {**base, "metric": "log-likelihoods: largest difference from the harness (nats)", "value": apart(logs, theirs)}
    ]
    for metric, value, reference in (
        ("accuracy, ours; harness", mine["correct"], results["acc,none"]),
        ("accuracy by length, ours; harness", mine["correct_norm"], results["acc_norm,none"]),
        (f"scoring seconds, ours; {size}", ours["scoring"], fastest["scoring"]),
        ("whole seconds, ours; harness", ours["whole"], fastest["whole"]),
    ):
        found_rows.append({**base, "metric": metric, "value": value, "reference": reference})
    speed = {"value": fastest["scoring"] / ours["scoring"], "reference": 5.0}
    found_rows.append({**base, "metric": "times faster than the harness (scoring); the bar", **speed})
    return found_rows


class Timed:
    """The harness's model, with the seconds that its log-likelihoods take (tokenising and scoring)."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.seconds = inner, 0.0
        score = inner.loglikelihood

        def measured(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            result = score(*args, **kwargs)
            self.seconds += time.process_time() - began
            return result

        inner.loglikelihood = measured


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference between two sets of log-likelihoods."""
    return float(np.abs(np.asarray(ours) - theirs).max())


if __name__ == "__main__":
    main()
