"""The label pass against the bare embedder on the same texts, and its memory as the corpus grows.

    python bench/label.py --corpus corpus.jsonl --model STATIC_MODEL [--documents 40000] [--memory]

Speed: documents a second of `label()` (reading, embedding, nearest centroid, scores, hash, writing) and of the embedder
alone on the same texts, cut alike and held in memory, each in the same number of processes; turn about, best of three.
`--memory`: the most resident memory of any one process, for the first 5,000 documents and for the whole corpus.
Writes bench/results/label.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from _results import write_results
from openclimb.clustering.embed import load_embedder
from openclimb.clustering.fit import fit
from openclimb.clustering.label import label
from openclimb.config.scales import preset
from openclimb.config.schema import Config, EmbedSettings
from openclimb.corpus.reading import units as corpus_units
from openclimb.corpus.reading.units import read_units, survey
from openclimb.engines.local import LocalEngine
from openclimb.progress import PlainProgress, Progress
from openclimb.workspace.context import StageContext

SMALL, TURNS = 5000, 3


def cut_corpus(corpus: Path, n: int, out: Path) -> int:
    """Write n lines, evenly from the corpus (all, when there are fewer); return how many there are."""
    with open(corpus, "rb") as file:
        total = sum(1 for _ in file)
    n = min(n, total)
    with open(corpus, "rb") as file, open(out, "wb") as kept:
        kept.writelines(line for i, line in enumerate(file) if (i + 1) * n // total > i * n // total)
    return n


def prepare(corpus: Path, model: str, root: Path, workers: int, unit_bytes: int) -> tuple[Config, list[Any]]:
    """Survey the corpus and fit clusters on a sample of it, in `root`; return the settings and units."""
    corpus_units.UNIT_BYTES = unit_bytes
    config = preset("laptop")
    config = replace(
        config,
        corpus=replace(config.corpus, paths=(str(corpus),)),
        embed=replace(config.embed, model=model),
        clusters=replace(config.clusters, sample=5000, k=64),
    )
    for name in ("corpus", "clusters"):
        (root / name).mkdir(parents=True, exist_ok=True)
    survey(StageContext(root / "corpus", LocalEngine(1), Progress()), config.corpus)
    units = read_units(root / "corpus")
    if not (root / "clusters" / "fit.json").exists():
        context = StageContext(root / "clusters", LocalEngine(workers), Progress())
        fit(context, units, config.corpus, config.embed, config.clusters, config.tokens)
    return config, units


def label_once(config: Config, units: list[Any], root: Path, engine: LocalEngine) -> float:
    """Label all units in a fresh folder; return the seconds."""
    with tempfile.TemporaryDirectory(dir=root) as out:
        began = time.perf_counter()
        progress = PlainProgress() if len(units) > 3 else Progress()
        context = StageContext(Path(out), engine, progress)
        label(context, units, root / "clusters", config.corpus, config.embed, config.quality)
        return time.perf_counter() - began


def embed_block(embed: EmbedSettings, texts: list[str]) -> int:
    """Embed texts; what the bare embedder does in a process."""
    return len(load_embedder(embed, Path())(texts))


def embed_once(embed: EmbedSettings, blocks: list[list[str]], engine: LocalEngine) -> float:
    """Embed all blocks in the processes that label; return the seconds."""
    began = time.perf_counter()
    for _ in engine.map(partial(embed_block, embed), blocks):
        pass
    return time.perf_counter() - began


def speed_rows(corpus: Path, model: str, n: int, workers: int) -> list[dict[str, Any]]:
    """Return the documents a second of both, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        n = cut_corpus(corpus, n, root / "cut.jsonl")
        size_mb = (root / "cut.jsonl").stat().st_size / 1e6
        config, units = prepare(
            root / "cut.jsonl", model, root, workers, max(1, int(size_mb / (4 * workers))) * 1_000_000
        )
        with open(root / "cut.jsonl", encoding="utf-8") as file:
            texts = [json.loads(line)["text"] for line in file]
        size = -(-n // len(units))
        blocks = [texts[i : i + size] for i in range(0, n, size)]  # as many as there are units
        seconds: dict[str, list[float]] = {"bare embedder": [], "label pass": []}
        engine = LocalEngine(workers)
        for _ in range(TURNS):  # the first also starts the processes and loads the model
            seconds["bare embedder"].append(embed_once(config.embed, blocks, engine))
            seconds["label pass"].append(label_once(config, units, root, engine))
    bare, whole = (n / min(seconds[name]) for name in ("bare embedder", "label pass"))
    case = f"{n} documents, {workers} processes"
    return [
        {
            "case": f"label pass, {case}",
            "metric": "documents a second",
            "value": round(whole, 1),
            "reference": round(bare, 1),
        }
    ]


def peak_of(command: list[str]) -> tuple[int, int]:
    """Run a command; return the most resident memory of one process of its tree, and of the tree, bytes."""
    process = subprocess.Popen(command)
    most_one = most_all = 0
    ended = threading.Event()
    threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
    while not ended.wait(0.1):
        sizes = [resident(pid) for pid in tree(process.pid)]
        most_one, most_all = max([most_one, *sizes]), max(most_all, sum(sizes))
    if process.returncode:
        raise SystemExit("the label pass failed")
    return most_one, most_all


def tree(root: int) -> list[int]:
    """Return the process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
            parents.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def resident(pid: int) -> int:
    """Return a process's private and shared resident memory in bytes, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def memory_rows(corpus: Path, model: str, workers: int) -> list[dict[str, Any]]:
    """Return the peaks for the small part and the whole of the corpus, at the default size of units.

    The small part is cut into smaller units, so that both are labelled by the same number of processes.
    """
    peaks: dict[int, tuple[int, int]] = {}
    seconds: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for n in (SMALL, 10**12):
            part = root / f"{n}"
            part.mkdir()
            found = cut_corpus(corpus, n, part / "cut.jsonl")
            unit_bytes = 64_000_000 if n > SMALL else 2_000_000
            prepare(part / "cut.jsonl", model, part, workers, unit_bytes)
            began = time.perf_counter()
            command = [sys.executable, __file__, "--only-label", str(part), "--corpus", str(part / "cut.jsonl")]
            command += ["--model", model, "--workers", str(workers), "--unit-bytes", str(unit_bytes)]
            peaks[found] = peak_of(command)
            seconds[found] = time.perf_counter() - began
    small, large = sorted(peaks)
    rows = [
        {
            "case": f"{large} documents against {small}",
            "metric": metric,
            "value": peaks[large][i],
            "reference": peaks[small][i],
        }
        for i, metric in enumerate(("peak resident bytes, largest process", "peak resident bytes, all processes"))
    ]
    return [*rows, {"case": f"{large} documents", "metric": "seconds", "value": round(seconds[large], 1)}]


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", required=True, help="folder of a model2vec static model")
    parser.add_argument("--documents", type=int, default=40_000, help="documents of the speed test")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="measure memory too; labels the whole corpus")
    parser.add_argument("--only-label", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--unit-bytes", type=int, default=64_000_000, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_label:
        config, units = prepare(options.corpus, options.model, options.only_label, options.workers, options.unit_bytes)
        label_once(config, units, options.only_label, LocalEngine(options.workers))
        return
    rows = speed_rows(options.corpus, options.model, options.documents, options.workers)
    if options.memory:
        rows += memory_rows(options.corpus, options.model, options.workers)
    for row in rows:
        reference = row.get("reference")
        ratio = f"  against {reference:,}: {row['value'] / reference:.3f}" if reference else ""
        print(f"{row['case']}: {row['metric']} {row['value']:,}{ratio}")
    write_results("label", rows)


if __name__ == "__main__":
    main()
