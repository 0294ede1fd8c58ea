"""Duplicates: what is found of planted ones, how fast beside the label pass, and the memory of 10^5 and 10^6 documents.

    python bench/dedup.py --corpus corpus.jsonl --model STATIC_MODEL [--documents 20000] [--seeds 5]

Planted: copies of real documents, put at random places: as they are, and changed in the ways of WAYS. Recall: of the
pairs whose Jaccard similarity, counted over all shingles, is at least .8, those of which the later document is left
out. Precision: of what is left out, the later documents of planted pairs and those with a counted similarity of at
least .7 to an earlier document. The corpus is labelled with ready-made domains, which needs no embedding.
Speed: documents a processor second of the label pass and the duplicates stage after it, with each corpus.dedup.
Memory: the stage alone, with made-up labels and signatures, one document in ten a copy; in a process of its own
with two workers. Writes bench/results/dedup.json.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from _results import write_results
from label import cut_corpus, prepare
from openclimb.clustering.fit import fit
from openclimb.clustering.label import label
from openclimb.config.schema import (
    ClustersSettings,
    CorpusSettings,
    EmbedSettings,
    QualitySettings,
    TokensSettings,
)
from openclimb.corpus.duplicates import read_positions
from openclimb.corpus.reading import units as corpus_units
from openclimb.corpus.reading.read import Unit, content_hash
from openclimb.corpus.reading.units import read_units, survey
from openclimb.engines.local import LocalEngine
from openclimb.progress import Progress
from openclimb.quality.duplicates import find_duplicates
from openclimb.quality.keys import form_of, keys_path, writing_keys
from openclimb.quality.minhash import shingles
from openclimb.workspace.context import StageContext

UNIT_BYTES, TURNS = 4_000_000, 3
SIMILAR, TRUE = 0.8, 0.7  # of planted pairs that are to be found; of documents that are rightly left out
MADE_UNIT = 20_000  # documents of a made-up unit
Pairs = list[tuple[str, int, int]]  # way, earlier document, later document


def substituted(share: float) -> Callable[[str, np.random.Generator], str]:
    """Return a way that replaces a share of the words."""

    def change(text: str, rng: np.random.Generator) -> str:
        words = text.split(" ")
        hits = rng.random(len(words)) < share
        return " ".join("zanzibar" if hit else word for hit, word in zip(hits, words, strict=True))

    return change


def cut_out(text: str, rng: np.random.Generator) -> str:
    """Return a text without a tenth of its words, in one passage."""
    words = text.split(" ")
    n = len(words) // 10
    begin = int(rng.integers(0, len(words) - n + 1))
    return " ".join([*words[:begin], *words[begin + n :]])


def framed(text: str, rng: np.random.Generator) -> str:
    """Return a text with other words before and behind it, a tenth in all."""
    n = len(text.split(" ")) // 20
    before, behind = (" ".join(f"menu{i}" for i in rng.integers(0, 10_000, n)) for _ in range(2))
    return f"{before}\n{text}\n{behind}"


def shouted(text: str, _: np.random.Generator) -> str:
    """Return a text in capitals, with other punctuation and spaces."""
    return re.sub(r"\s+", "  \n", re.sub(r"[.,;:?!]", " –", text.upper())) + " …"


WAYS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "exact": lambda text, _: text,
    "capitals, other punctuation": shouted,
    "1 % of words replaced": substituted(0.01),
    "2 % of words replaced": substituted(0.02),
    "a tenth cut out": cut_out,
    "a tenth added": framed,
}


def plant(texts: Sequence[str], n: int, rng: np.random.Generator) -> tuple[list[str], Pairs]:
    """Return the texts with n copies of each way among them, in random order, and the pairs by their places."""
    chosen = rng.choice(len(texts), n * len(WAYS), replace=False).tolist()
    ways = [way for way in WAYS for _ in range(n)]
    every = [*texts, *(WAYS[way](texts[i], rng) for way, i in zip(ways, chosen, strict=True))]
    order = rng.permutation(len(every))
    place = np.argsort(order)
    ends = [sorted((int(place[i]), int(place[len(texts) + j]))) for j, i in enumerate(chosen)]
    return [every[i] for i in order], [(way, *pair) for way, pair in zip(ways, ends, strict=True)]


class Similarity:
    """The Jaccard similarity of documents, counted over all their shingles."""

    def __init__(self, texts: Sequence[str]) -> None:
        hashes, starts = shingles(texts)
        owner = np.repeat(np.arange(len(texts)), np.diff(starts))
        order = np.lexsort((owner, hashes))
        hashes, owner = hashes[order], owner[order]
        first = np.append(True, (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1]))
        self.hashes, self.owner = hashes[first], owner[first]
        self.sizes = np.bincount(self.owner, minlength=len(texts))
        by_owner = np.argsort(self.owner, kind="stable")
        self.sets = np.split(self.hashes[by_owner], np.cumsum(self.sizes)[:-1])

    def pair(self, one: int, other: int) -> float:
        """Return the similarity of two documents."""
        both = len(np.intersect1d(self.sets[one], self.sets[other], assume_unique=True))
        return both / (self.sizes[one] + self.sizes[other] - both)

    def to_earlier(self, document: int) -> float:
        """Return the largest similarity of a document to one before it."""
        begin, end = (np.searchsorted(self.hashes, self.sets[document], side=side) for side in ("left", "right"))
        owners = np.concatenate([self.owner[a:b] for a, b in zip(begin, end, strict=True)])
        both = np.bincount(owners[owners < document], minlength=1)
        return float(np.max(both / (self.sizes[: len(both)] + self.sizes[document] - both), initial=0.0))


def left_out(texts: Sequence[str], dedup: str, clusters: Path, root: Path) -> set[int]:
    """Run the label pass and the stage over the texts; return the documents that are left out."""
    path = root / "docs.jsonl"
    lines = [json.dumps({"text": text, "domain": f"part {i % 2}"}) + "\n" for i, text in enumerate(texts)]
    path.write_text("".join(lines), encoding="utf-8")
    starts = np.cumsum([0, *(len(line) for line in lines)])  # ASCII
    settings = CorpusSettings(paths=(str(path),), domains="column:domain", dedup=dedup)
    corpus_units.UNIT_BYTES = UNIT_BYTES
    for name in ("corpus", "labels", "duplicates"):
        (root / name).mkdir()
    engine = LocalEngine(1)
    survey(StageContext(root / "corpus", engine, Progress()), settings)
    units = read_units(root / "corpus")
    if not clusters.exists():
        clusters.mkdir()
        context = StageContext(clusters, engine, Progress())
        fit(context, units, settings, EmbedSettings(), ClustersSettings(sample=2000), TokensSettings())
    run_once(units, settings, EmbedSettings(), clusters, root)
    positions = np.concatenate([read_positions(root / "duplicates", unit.number) for unit in units])
    return set(np.searchsorted(starts, positions).tolist())


def run_once(
    units: Sequence[Unit], settings: CorpusSettings, embed: EmbedSettings, clusters: Path, root: Path
) -> tuple[float, float]:
    """Label and find duplicates; return the processor seconds of both."""
    beside = root / "duplicates" if settings.dedup == "near" else None
    began = time.process_time()
    context = StageContext(root / "labels", LocalEngine(1), Progress())
    label(context, units, clusters, settings, embed, QualitySettings(), None, beside)
    middle = time.process_time()
    if settings.dedup != "none":
        find_duplicates(context.at(root / "duplicates"), units, root / "labels", settings)
    return middle - began, time.process_time() - middle


def quality_rows(texts: Sequence[str], n: int, seeds: int) -> list[dict[str, Any]]:
    """Return recall for each way and precision, over all seeds."""
    found: dict[str, list[bool]] = {way: [] for way in WAYS}
    some: dict[str, int] = dict.fromkeys(WAYS, 0)
    counts = {how: np.zeros(3) for how in ("exact", "near")}  # left out, rightly, planted
    lowest = 1.0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            planted, pairs = plant(texts, n, np.random.default_rng(seed))
            similarity = Similarity(planted)
            contents = [content_hash(text) for text in planted]
            before: dict[int, int] = {}
            copies = {i for i, content in enumerate(contents) if before.setdefault(content, i) != i}
            for how in counts:
                root = Path(folder) / f"{seed}-{how}"
                root.mkdir()
                gone = left_out(planted, how, Path(folder) / "clusters", root)
                if how == "exact":
                    counts[how] += [len(gone), len(gone & copies), len(copies)]
                    continue
                later = {pair[2] for pair in pairs}
                right = [i in later or similarity.to_earlier(i) >= TRUE for i in gone]
                rights = (len(gone), sum(right), len(later))
                counts[how] += rights
                lowest = min(lowest, rights[1] / rights[0])
                for way, one, other in pairs:
                    some[way] += 1
                    if similarity.pair(one, other) >= SIMILAR:
                        found[way].append(other in gone)
    exact = counts["exact"]
    case = f"{len(texts)} documents, {seeds} seeds"
    rows = [row(f"exact, {case}", "recall of all copies", exact[1] / exact[2])]
    rows.append(row(f"exact, {case}", "precision", exact[1] / exact[0]))
    for way, hits in found.items():
        of = f"near, {way}: {len(hits)} of {some[way]} planted are at least {SIMILAR} similar"
        rows.append(row(of, "recall", float(np.mean(hits))))
    every = [hit for hits in found.values() for hit in hits]
    rows.append(row(f"near, all of {len(every)} pairs, {case}", "recall", float(np.mean(every))))
    near = counts["near"]
    rows.append(row(f"near, {int(near[0])} left out, {int(near[2])} planted, {case}", "precision", near[1] / near[0]))
    rows.append(row(f"near, {case}", "precision of the worst seed", lowest))
    return rows


def row(case: str, metric: str, value: float) -> dict[str, Any]:
    """Return a row of the results."""
    return {"case": case, "metric": metric, "value": round(float(value), 5)}


def speed_rows(corpus: Path, model: str, n: int) -> list[dict[str, Any]]:
    """Return documents a processor second with each setting, in one process; the best of TURNS, turn about."""
    seconds: dict[str, list[tuple[float, float]]] = {"none": [], "exact": [], "near": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        n = cut_corpus(corpus, n, root / "cut.jsonl")
        config, units = prepare(root / "cut.jsonl", model, root, 1, 1 << 40)
        size = (root / "cut.jsonl").stat().st_size / n
        for turn in range(TURNS):
            for how in seconds:
                out = root / f"{turn}-{how}"
                for name in ("labels", "duplicates"):
                    (out / name).mkdir(parents=True)
                settings = replace(config.corpus, dedup=how)
                seconds[how].append(run_once(units, settings, config.embed, root / "clusters", out))
    best = {how: tuple(min(turn[i] for turn in turns) for i in (0, 1)) for how, turns in seconds.items()}
    case = f"{n} documents, {size:.0f} bytes each, one process"
    rows = [{"case": f"none, {case}", "metric": "documents a processor second", "value": round(n / best["none"][0], 1)}]
    for how in ("exact", "near"):
        rates = {"label pass": best[how][0], "label pass and stage": sum(best[how])}
        rows += [
            {
                "case": f"{how}, {what}, {case}",
                "metric": "documents a processor second; without looking",
                "value": round(n / rate, 1),
                "reference": rows[0]["value"],
            }
            for what, rate in rates.items()
        ]
    return rows


def make_up(folder: Path, n: int, dedup: str) -> list[Unit]:
    """Write labels and keys of n documents that nobody wrote; one in ten is a copy of one up to two units before."""
    form, rng, units = form_of(dedup), np.random.default_rng(0), []
    kept: list[tuple[Any, Any]] = []
    (folder / "labels").mkdir(parents=True)
    for number in range(-(-n // MADE_UNIT)):
        size = min(MADE_UNIT, n - number * MADE_UNIT)
        keys = rng.integers(0, 1 << 64, (size, form.keys), dtype=np.uint64)
        signatures = rng.integers(0, 256, (size, form.signature), dtype=np.uint8)
        for i in np.flatnonzero(rng.random(size) < 0.1).tolist() if kept else ():
            others = kept[int(rng.integers(0, len(kept)))]
            j = int(rng.integers(0, len(others[0])))
            keys[i], signatures[i] = others[0][j], others[1][j]
        kept = [*kept[-1:], (keys, signatures)]
        columns = {
            "position": np.arange(size),
            "cluster": rng.integers(0, 100, size).astype(np.int32),
            "source": pa.array([""] * size).dictionary_encode(),
            "tokens": rng.integers(50, 1000, size).astype(np.int32),
            "hash": keys[:, 0],
        }
        pq.write_table(pa.table(columns), folder / "labels" / f"unit-{number:05d}.parquet", compression="zstd")
        if dedup == "near":
            with writing_keys(keys_path(folder / "duplicates", form, number)) as add:
                add(keys, signatures)
        units.append(Unit(number, "", "made up", "jsonl", 0, 0, 0, 0, 0, ""))
    return units


def compare_made_up(folder: Path, n: int, dedup: str) -> None:
    """Find the duplicates of made-up documents, and print the seconds and the peaks of memory as JSON."""
    units = [Unit(i, "", "made up", "jsonl", 0, 0, 0, 0, 0, "") for i in range(-(-n // MADE_UNIT))]
    (folder / "duplicates").mkdir(exist_ok=True)
    began = time.perf_counter()
    engine = LocalEngine(2)
    context = StageContext(folder / "duplicates", engine, Progress())
    facts = find_duplicates(context, units, folder / "labels", CorpusSettings(dedup=dedup))
    seconds = time.perf_counter() - began
    engine.release()
    status = Path("/proc/self/status").read_text()  # getrusage begins with what the process before had
    driver = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({**facts, "seconds": seconds, "driver": driver * 1024, "worker": worker * 1024}))


def memory_rows() -> list[dict[str, Any]]:
    """Return the peaks and the seconds of the stage at 10^5 and 10^6 documents."""
    rows, before = [], dict[tuple[str, str], int]()
    for n in (10**5, 10**6):
        for dedup in ("exact", "near"):
            with tempfile.TemporaryDirectory() as folder:
                make_up(Path(folder), n, dedup)
                command = [sys.executable, __file__, "--compare", folder, str(n), dedup]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            said = json.loads(output.splitlines()[-1])
            case = f"{dedup}, {n} documents made up, {said['duplicates']} left out"
            for who in ("driver", "worker"):
                peak = {"case": case, "metric": f"peak resident bytes, {who}", "value": said[who]}
                rows.append(peak | ({"reference": before[dedup, who]} if (dedup, who) in before else {}))
                before[dedup, who] = said[who]
            rows.append({"case": f"{case}, two workers", "metric": "seconds", "value": round(said["seconds"], 1)})
    return rows


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--model", help="folder of a model2vec static model")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--planted", type=int, default=500, help="copies of each way")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--compare", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compare:
        folder, n, dedup = options.compare
        compare_made_up(Path(folder), int(n), dedup)
        return
    if not (options.corpus and options.model):
        parser.error("--corpus and --model are needed")
    with tempfile.TemporaryDirectory() as folder:
        cut_corpus(options.corpus, options.documents, Path(folder) / "cut.jsonl")
        texts = [json.loads(line)["text"] for line in (Path(folder) / "cut.jsonl").open(encoding="utf-8")]
    rows = quality_rows(texts, options.planted, options.seeds)
    rows += memory_rows()
    rows += speed_rows(options.corpus, options.model, options.documents // 2)
    for each in rows:
        reference = f"  against {each['reference']:,}" if each.get("reference") else ""
        print(f"{each['case']}: {each['metric']} {each['value']:,}{reference}")
    write_results("dedup", rows)


if __name__ == "__main__":
    main()
