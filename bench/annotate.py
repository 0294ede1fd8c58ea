"""What `climb annotate` adds to a language model: labels a second, CPU time a label, memory.

    python bench/annotate.py

The endpoint is a process of its own on this machine that rates by a rule after a fixed time (`openclimb.testing`), so
that the ideal is known: concurrency ÷ seconds. Each case is the client alone, in a process of its own, on texts of
2,000 characters; the server's core is the machine's other one. Then 10⁵ labels of a workspace with made-up documents,
with the draw, the log and the record: peak memory of the process. Writes bench/results/annotate.json.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import openclimb
from _results import write_results
from openclimb.quality.annotation.budget import Limits, Tokens
from openclimb.quality.annotation.endpoint import Client, Endpoint
from openclimb.quality.annotation.replies import Answer
from openclimb.quality.annotation.rubric import open_rubric
from openclimb.testing.endpoint import Rules, rule_endpoint

SECONDS = (0.02, 1.0)  # that an answer takes
CONCURRENCY = (1, 16, 128)
CASE_SECONDS, MOST = 8.0, 20_000  # a case lasts about so long at its ideal rate, with so many labels at most
WORDS = "the river of song means that because king and poem value offer how it is when two people speak".split()
MEMORY = (10_000, 100_000)  # labels of a workspace


def serve(seconds: float, ready: Any, stop: Any) -> None:
    """Run the endpoint until `stop` is set; its address goes to `ready`."""
    with rule_endpoint(Rules(seconds=seconds)) as server:
        ready.put(server.url)
        stop.wait()


class Serving:
    """An endpoint in a process of its own while the block runs."""

    def __init__(self, seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.ready, self.stop = context.Queue(), context.Event()
        self.process = context.Process(target=serve, args=(seconds, self.ready, self.stop), daemon=True)

    def __enter__(self) -> str:
        self.process.start()
        return str(self.ready.get(timeout=60))

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.process.join()


def made_up(n: int, n_chars: int = 2000) -> list[str]:
    """Return n different texts of so many characters."""
    rng = np.random.default_rng(0)
    words = np.array(WORDS)
    return [f"{i} " + " ".join(words[rng.integers(0, len(words), n_chars // 4)])[:n_chars] for i in range(n)]


def one_case(url: str, concurrency: int, n: int) -> dict[str, float]:
    """Return labels a second and CPU seconds a label of a client that has all texts in memory."""
    texts, answers = made_up(min(n, 500)), list[Answer]()
    with tempfile.TemporaryDirectory() as folder:
        rubric = open_rubric(Path(folder))
    client = Client(Endpoint(url, "rules", concurrency), rubric, Limits(), print)
    began, cpu = time.monotonic(), time.process_time()
    client.label(((i, texts[i % len(texts)]) for i in range(n)), Tokens(), lambda _, answer: answers.append(answer))
    seconds, spent = time.monotonic() - began, time.process_time() - cpu
    if any(answer.scores is None for answer in answers) or len(answers) != n:
        raise RuntimeError("a label is missing")
    return {"rate": n / seconds, "cpu": spent / n}


def workspace_peak(url: str, n: int, corpus: Path) -> float:
    """Return the most MB that the process of `annotate` held for n labels."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        openclimb.init(root, scale="demo", corpus={"paths": [str(corpus)]}, run={"workers": 1})
        openclimb.open(root).annotate(n, endpoint=Endpoint(url, "rules", 128))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def in_process(what: str, *arguments: Any) -> Any:
    """Return the result of a function of this file in a fresh process."""
    words = [sys.executable, __file__, "--call", json.dumps([what, *map(str, arguments)])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def call(name: str, *arguments: str) -> Any:
    """Do what `in_process` asked for."""
    if name == "case":
        return one_case(arguments[0], int(arguments[1]), int(arguments[2]))
    return workspace_peak(arguments[0], int(arguments[1]), Path(arguments[2]))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        print(json.dumps(call(*json.loads(options.call))))
        return
    rows: list[dict[str, Any]] = []
    for row in (*rate_rows(), *memory_rows()):
        print(f"{row['case']}: {row['metric']} {row['value']} {row.get('reference', '')}", flush=True)
        rows.append(row)
    write_results("annotate", rows)


def rate_rows() -> Iterator[dict[str, Any]]:
    """Yield labels a second beside the ideal, and CPU time a label, for each latency and concurrency."""
    for seconds in SECONDS:
        with Serving(seconds) as url:
            for concurrency in CONCURRENCY:
                ideal = concurrency / seconds
                n = int(min(MOST, max(3 * concurrency, CASE_SECONDS * ideal)))
                found = in_process("case", url, concurrency, n)
                case = f"{concurrency} at once, {seconds:g} s an answer, {n} documents"
                rate = round(found["rate"], 2)
                yield {"case": case, "metric": "labels a second; the ideal", "value": rate, "reference": ideal}
                yield {"case": case, "metric": "CPU ms a label", "value": round(1000 * found["cpu"], 3)}


def memory_rows() -> Iterator[dict[str, Any]]:
    """Yield the peak of memory for each number of labels."""
    with tempfile.TemporaryDirectory() as folder, Serving(0.0) as url:
        corpus = Path(folder) / "docs.jsonl"
        with open(corpus, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in made_up(max(MEMORY) + 1000, 1500))
        for n in MEMORY:
            peak = round(in_process("peak", url, n, corpus))
            yield {"case": f"{n} labels of a workspace", "metric": "peak MB of the process", "value": peak}


if __name__ == "__main__":
    main()
