"""What a corpus of 10^5 to 10^9 documents takes before any text is embedded: the memory and time of the driver.

    python bench/scale.py [--most 9] [--folder DIR]

A file system made for it holds 10,000 short documents in each file, 100,000 files for 10^9 documents, and gives their
bytes when they are read. The real survey, sample (1 document in 100), labels, domains, tokens' choice of units, records
and `climb plan` run over it. One thing is not real: labelling a unit takes one of 4 labelled before, by a hard link.
Each size runs in a process of its own, which also does what workers would. Seconds are of the processor; memory is the
most in RAM in each part without pages of mapped files. Writes bench/results/scale.json.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import numpy as np

import openclimb
from _results import write_results
from openclimb.cli.planning import plan
from openclimb.clustering import label as labelling
from openclimb.clustering.domains import make_domains
from openclimb.clustering.fit import fit
from openclimb.corpus.domains import read_domains
from openclimb.corpus.pack import HELDOUT_TOKENS, least_tokens, units_read
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.reading.units import read_units, survey
from openclimb.corpus.sample import draw_sample
from openclimb.corpus.select_documents import DocumentChoice
from openclimb.engines.local import LocalEngine
from openclimb.progress import Progress
from openclimb.recipes import current_recipes
from openclimb.workspace.context import StageContext

A_FILE = 10_000  # documents
TEMPLATES = 4  # units that are labelled; a file has at most 65,000 hard links
SHARE = 100  # one document in so many is drawn
FITTED = 2000  # documents of the clusters that stand in the labels
MEMORY_BAR, SAMPLE_BAR = 1e9, 4e9  # bytes: of the driver, and while 10 million documents are drawn

Result = TypeVar("Result")


def text() -> bytes:
    """Return the lines of a file: 10,000 documents of about 200 bytes, of 30 kinds with words of their own."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(A_FILE):
        words = " ".join(f"w{i % 30:02d}x{word}" for word in rng.integers(0, 100, 25))
        lines.append(json.dumps({"text": f"{i} {words}"}))
    return ("\n".join(lines) + "\n").encode()


class Shards(fsspec.AbstractFileSystem):
    """A store whose folder `shards://N` has N files of the same lines."""

    protocol = "shards"
    content = b""

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        folder = self._strip_protocol(path)
        names = [f"{folder}/part-{i:06d}.jsonl" for i in range(int(folder))]
        return [self.info(name) for name in names] if detail else names

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        if "/" in name:
            return {"name": name, "type": "file", "size": len(self.content), "ETag": name}
        return {"name": name, "type": "directory", "size": 0}

    def _open(self, *_: Any, **__: Any) -> Any:
        return io.BytesIO(self.content)


class Peak:
    """The most memory of this process since the last look, bytes that are no mapped file's."""

    def __init__(self) -> None:
        self.most = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, anonymous())
            time.sleep(0.02)

    def take(self) -> int:
        """Return it, and begin anew."""
        most, self.most = max(self.most, anonymous()), 0
        return most


def anonymous() -> int:
    """Return the bytes in RAM that are no file's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1000 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def linked(work: Any, unit: Unit) -> labelling.Done:
    """Stand in for the labelling of a unit: link one that was labelled."""
    source = work.out.parent / "templates" / f"{unit.number % TEMPLATES}.parquet"
    os.link(source, work.out / f"unit-{unit.number:05d}.parquet")
    return labelling.Done(A_FILE, [])


def measure(n_documents: int, root: Path) -> list[dict[str, Any]]:
    """Run the parts over so many documents; return a row for each: part, seconds, bytes."""
    Shards.content = text()
    fsspec.register_implementation("shards", Shards, clobber=True)
    settings = {
        "corpus": {"paths": [f"shards://{n_documents // A_FILE}"]},
        "embed": {"embedder": "hashing"},
        "clusters": {"sample": FITTED, "k": 40},
        "domains": {"merge_to": 12},
        "tokens": {"vocab_size": 400},
        "target": {"token_budget": 40 * n_documents},
        "proxy": {"token_budget": max(60_000, n_documents // 100)},
        "objective": {"kind": "command", "command": ["true"]},
    }
    workspace = openclimb.init(root, **settings).workspace
    config = workspace.config()
    recipes = current_recipes(workspace, config)
    engine = LocalEngine(1)  # in this process: what workers take does not grow with the corpus
    context = StageContext(root, engine, Progress(), 0)
    peak, rows = Peak(), []

    def part(name: str, work: Callable[[], Result]) -> Result:
        began = time.process_time()
        peak.take()
        result = work()
        rows.append({"part": name, "seconds": time.process_time() - began, "bytes": peak.take()})
        said = f"{n_documents:>13,} {name:<26} {rows[-1]['seconds']:8.1f} s {rows[-1]['bytes'] / 1e6:7.0f} MB"
        print(said, file=sys.stderr, flush=True)
        return result

    corpus = part("survey", lambda: workspace.make(recipes["corpus"], context, survey, config.corpus))
    units = part("read units", lambda: read_units(corpus, config.corpus))
    n = n_documents // SHARE
    drawn = part("sample", lambda: draw_sample(units, config.corpus, n, 0, engine, Progress(), root))
    assert len(drawn) == n
    del drawn
    shutil.rmtree(root / "drawn")
    fitted = (units[:TEMPLATES], config.corpus, config.embed, config.clusters, config.tokens)
    clusters = workspace.make(recipes["clusters"], context, fit, *fitted)
    _make_templates(root, context, units, clusters, config)
    labels = part(
        "labels' bookkeeping",
        lambda: workspace.make(
            recipes["labels"], context, labelling.label, units, clusters, config.corpus, config.embed, config.quality
        ),
    )
    least = least_tokens(config.proxy, config.target)
    inputs = (clusters, labels, config.domains, config.target, least)
    domains = part("domains", lambda: workspace.make(recipes["domains"], context, make_domains, *inputs))
    weighed = read_domains(domains)
    choice = DocumentChoice(labels, domains, config.tokens.heldout, 0, (1.0,) * (len(weighed) + 1))
    needed = np.array([*(config.proxy.token_budget for _ in weighed), HELDOUT_TOKENS])
    held = np.zeros((2, len(needed)))
    part("units that packing reads", lambda: units_read(units, choice, needed, held, context))
    part("plan", lambda: plan(root))
    return rows


def _make_templates(root: Path, context: StageContext, units: list[Unit], clusters: Path, config: Any) -> None:
    """Label the first units as a run would, and have further ones link to them."""
    made = root / "first"
    inputs = (units[:TEMPLATES], clusters, config.corpus, config.embed, config.quality)
    labelling.label(context.at(made), *inputs)
    (root / "templates").mkdir()
    for number in range(TEMPLATES):
        source = made / f"unit-{number % len(units[:TEMPLATES]):05d}.parquet"
        shutil.copy(source, root / "templates" / f"{number}.parquet")
    labelling._label_unit = linked


def main() -> None:
    """Run each size in a process of its own, print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=9, help="power of ten of the largest corpus")
    parser.add_argument("--folder", help="where the workspaces lie meanwhile")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.measure:
            found = measure(options.measure, Path(folder) / "run")
            print(json.dumps(found))
            return
    rows = []
    before: dict[str, float] = {}
    for power in range(5, options.most + 1):
        command = [sys.executable, __file__, "--measure", str(10**power)]
        command += ["--folder", options.folder] if options.folder else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        for row in json.loads(done.stdout.splitlines()[-1]):
            name, bar = row["part"], SAMPLE_BAR if row["part"] == "sample" else MEMORY_BAR
            case = f"10^{power} documents, {10**power // A_FILE} units"
            rows.append({"case": case, "metric": f"{name}: bytes", "value": row["bytes"], "reference": bar})
            seconds = {"case": case, "metric": f"{name}: seconds", "value": round(row["seconds"], 2)}
            rows.append(seconds | ({"reference": round(before[name], 2)} if name in before else {}))
            before[name] = row["seconds"]
    if options.most == 9:
        write_results("scale", rows)


if __name__ == "__main__":
    main()
