"""How fast an export is beside what it cannot do without, and whether its memory grows with the corpus."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openclimb
from openclimb.corpus.tokenizer import encode_batch, load_tokenizer

BLOCK = 16_000_000  # bytes of JSON lines that the plain copy reads at once
BATCH = 256  # documents tokenised at once
SHORT = 400  # characters of a document where their number is what grows
FEW, MANY = 10**5, 10**6

Row = dict[str, Any]


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long work() takes, and what it returns."""
    begun = time.perf_counter()
    found = work()
    return time.perf_counter() - begun, found


def plain_copy(source: Path, out: Path) -> int:
    """Copy a file of JSON lines to Parquet with pyarrow alone, in one thread; return the bytes of text."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    n_bytes = 0
    reader = pj.open_json(source, read_options=pj.ReadOptions(use_threads=False, block_size=BLOCK))
    with pq.ParquetWriter(out, reader.schema, compression="zstd") as writer:
        for batch in reader:
            n_bytes += pc.sum(pc.binary_length(batch.column("text"))).as_py()
            writer.write_batch(batch, row_group_size=4096)
    return n_bytes


def bare_tokenizer(source: Path, tokenizer: Path) -> int:
    """Tokenise all texts of a file of JSON lines in one thread; return their bytes, read beforehand."""
    loaded = load_tokenizer(tokenizer)
    n_bytes = 0
    for texts in _batches(source):
        n_bytes += sum(len(text.encode()) for text in texts)
        encode_batch(loaded, texts)
    return n_bytes


def _batches(source: Path) -> Iterator[list[str]]:
    batch: list[str] = []
    with open(source, encoding="utf-8") as file:
        for line in file:
            batch.append(json.loads(line)["text"])
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def rates(opened: Any, root: Path, cases: dict[str, dict[str, Any]]) -> list[Row]:
    """Export each case {name: arguments of export} with one worker; return rows beside the copy and the tokenizer.

    The corpus is one file of JSON lines, `root`/corpus.jsonl, of which the exports hold all but the held-out documents.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    source = root / "corpus.jsonl"
    copied, n_bytes = seconds_of(lambda: plain_copy(source, root / "copy.parquet"))
    counted, _ = seconds_of(lambda: bare_tokenizer(source, opened.workspace.root / "tokens" / "tokenizer.json"))
    bare = {"copy": n_bytes / copied / 1e6, "tokenizer": n_bytes / counted / 1e6}
    bare["copy and tokenizer"] = 1 / (1 / bare["copy"] + 1 / bare["tokenizer"])
    rows = [result(name, "MB of text a second", value) for name, value in bare.items()]
    for name, arguments in cases.items():
        seconds, facts = seconds_of(lambda arguments=arguments, name=name: opened.export(out=root / name, **arguments))
        rate = facts["text_bytes"] / seconds / 1e6
        rows += [result(name, f"MB of text a second ÷ {beside}", rate, value) for beside, value in bare.items()]
    return rows


def result(case: str, metric: str, value: float, reference: float | None = None) -> Row:
    """Return a row of results, and print it."""
    found = {"case": case, "metric": metric, "value": float(f"{value:.3g}")}
    ratio = "" if reference is None else f" of {reference:.3g}: {value / reference:.1%}"
    print(f"{case}: {metric}: {value:.3g}{ratio}", flush=True)
    return found if reference is None else {**found, "reference": float(f"{reference:.3g}")}


def short_corpus(source: Path, n: int, out: Path) -> None:
    """Write `n` documents of at most `SHORT` characters: pieces of the texts of a file of JSON lines."""
    written = 0
    with open(out, "w", encoding="utf-8") as target:
        while written < n:
            with open(source, encoding="utf-8") as file:
                for line in file:
                    document = json.loads(line)
                    text = document["text"]
                    for i in range(0, min(len(text), 8 * SHORT), SHORT):
                        piece = {"text": f"{written} {text[i : i + SHORT]}", "domain": document["domain"]}
                        target.write(json.dumps(piece) + "\n")
                        written += 1
                        if written == n:
                            return


def export_alone(run: Path, out: Path, tokens: int | None) -> tuple[float, float]:
    """Return the most memory in MB that an export of `tokens`, or by cluster, takes in a process of its own, and the
    MB of text a second that it writes.
    """
    command = [sys.executable, __file__, str(run), str(out), str(tokens or 0)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rate, peak = map(float, done.stdout.splitlines()[-2:])
    return peak, rate


def _export_and_print(run: str, out: str, tokens: int) -> None:
    more = {} if tokens else {"by_cluster": True}
    seconds, facts = seconds_of(lambda: openclimb.open(run).export(tokens or None, out, **more))
    status = Path("/proc/self/status").read_text()  # getrusage has the parent's memory in it, where that was more
    peak = float(status.partition("VmHWM:")[2].split()[0]) / 1000
    print(facts["text_bytes"] / seconds / 1e6)
    print(peak)


if __name__ == "__main__":
    _export_and_print(sys.argv[1], sys.argv[2], int(sys.argv[3]))
