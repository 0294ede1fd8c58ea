"""Looking for items of tasks in a corpus: what it finds of planted ones, and how fast beside the label pass.

    python bench/contamination.py --corpus corpus.jsonl --tasks 'TASKS/*.jsonl' --model STATIC_MODEL

Planted: items of every task, put into real documents at hash-chosen places: as they are; in capitals with other
punctuation; a long one with its middle word changed. Recall: documents and items that are found. Precision: of what is
found, what is planted or is seen to stand in the document by a plain search for its words, without hashes or an index.
Speed: documents a second, in one process, processor time: the label pass without looking, and the looking alone.
By chance: how often the last n words of an item, n as in a short item, stand in documents where nothing is planted.
Writes bench/results/contamination.json.
"""

import argparse
import json
import re
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from _results import write_results
from label import cut_corpus, label_once, prepare
from openclimb.config.schema import TasksSettings
from openclimb.engines.local import LocalEngine
from openclimb.quality import ngrams
from openclimb.quality.contamination import item_text
from openclimb.quality.ngrams import LEAST_WORDS, N_WORDS, Index
from openclimb.tasks.items import read_items, task_files

BATCH, TURNS = 256, 3
LONG = 2 * N_WORDS + 1  # words of an item that keeps a whole run when its middle word changes
CHANCE = (5, 6, 7, 8, 10, 12)  # words of short items


def plain_words(text: str) -> list[str]:
    """Return the words of a text, by a regular expression: what the index is judged by."""
    found = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).lower())
    return [word for word in found if word not in ("question", "answer")]


def shouted(text: str, _: np.random.Generator) -> str:
    """Return a text in capitals, with other punctuation and spaces."""
    return re.sub(r"\s+", "  \n", re.sub(r"[.,;:?!]", " –", text.upper())) + " …"


def changed(text: str, _: np.random.Generator) -> str:
    """Return a text with another word in its middle."""
    words = text.split(" ")
    return " ".join([*words[: len(words) // 2], "zanzibar", *words[len(words) // 2 + 1 :]])


WAYS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "as it is": lambda text, _: text,
    "capitals, other punctuation": shouted,
    "a long one, a word changed": changed,
}


def plant(texts: Sequence[str], items: Sequence[str], n: int, rng: np.random.Generator) -> tuple[list[str], list[Any]]:
    """Return the texts with n items planted in as many of them for each way, and (way, text, item) of each."""
    texts, planted = list(texts), []
    n_words = np.array([len(plain_words(item)) for item in items])
    places = iter(rng.permutation(len(texts))[: n * len(WAYS)].tolist())
    for way, write in WAYS.items():
        fit = np.flatnonzero(n_words >= (LONG if write is changed else LEAST_WORDS))
        for item in rng.choice(fit, n, replace=False).tolist():
            place = next(places)
            cut = int(rng.integers(0, len(texts[place]) + 1))
            texts[place] = f"{texts[place][:cut]}\n{write(items[item], rng)}\n{texts[place][cut:]}"
            planted.append((way, place, item))
    return texts, planted


def found_in(index: Index, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield (text, item) for what the index finds."""
    for begin in range(0, len(texts), BATCH):
        text, run = index.find(texts[begin : begin + BATCH])
        at, item = index.items_of(run)
        yield from zip((begin + text[at]).tolist(), item.tolist(), strict=True)


def stands(item: str, text: str) -> bool:
    """Return whether a run of an item's words stands in a text, by a plain search."""
    words, there = plain_words(item), f" {' '.join(plain_words(text))} "
    size = min(N_WORDS, len(words))
    return any(f" {' '.join(words[i : i + size])} " in there for i in range(len(words) - size + 1))


def recall_rows(items: Sequence[str], texts: Sequence[str], n: int) -> list[dict[str, Any]]:
    """Return recall for each way of planting, and precision over all that was found."""
    texts, planted = plant(texts, items, n, np.random.default_rng(0))
    pairs = set(found_in(Index.of(items), texts))
    rows = []
    for way in WAYS:
        mine = [(place, item) for of, place, item in planted if of == way]
        hit = {place for place, _ in pairs}
        rows.append(row(way, "recall of documents", np.mean([place in hit for place, _ in mine]), n=n))
        rows.append(row(way, "recall of items", np.mean([pair in pairs for pair in mine]), n=n))
    known = {(place, item) for _, place, item in planted}
    true = {pair for pair in pairs if pair in known or stands(items[pair[1]], texts[pair[0]])}
    case = f"all of {len(texts)} documents, {len(known)} planted"
    rows.append(row(case, "precision of items in documents", len(true) / len(pairs)))
    rows.append(row(case, "precision of documents", len({p for p, _ in true}) / len({p for p, _ in pairs})))
    extra = {place for place, _ in pairs} - {place for place, _ in known}
    rows.append(row(case, "other documents, in which items stand", len(extra)))
    return rows


def row(case: str, metric: str, value: float, **more: int) -> dict[str, Any]:
    """Return a row of the results."""
    what = ", ".join(f"{n} planted" for n in more.values())
    return {"case": f"{case}, {what}" if what else case, "metric": metric, "value": round(float(value), 6)}


def chance_rows(items: Sequence[str], texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the share of items whose last n words stand somewhere in the texts."""
    words = [plain_words(item) for item in items]
    least, rows = ngrams.LEAST_WORDS, []
    try:
        for n in CHANCE:
            ngrams.LEAST_WORDS = min(n, least)
            index = Index.of([" ".join(some[-n:]) for some in words if len(some) > n])
            found = {item for _, item in found_in(index, texts)}
            case = f"{len(index.n_runs)} ends of items in {len(texts)} documents"
            rows.append(row(case, f"share found, {n} words", len(found) / len(index.n_runs)))
    finally:
        ngrams.LEAST_WORDS = least
    return rows


def speed_rows(corpus: Path, model: str, index: Index, n: int) -> list[dict[str, Any]]:
    """Return the documents a second of looking, beside those of the label pass without it, in one process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        n = cut_corpus(corpus, n, root / "cut.jsonl")
        config, units = prepare(root / "cut.jsonl", model, root, 1, 1 << 40)
        texts = [json.loads(line)["text"] for line in (root / "cut.jsonl").open(encoding="utf-8")]
        seconds: dict[str, list[float]] = {"label": [], "look": []}
        for _ in range(TURNS):
            for what, work in (
                ("label", lambda: label_once(config, units, root, LocalEngine(1))),
                ("look", lambda: sum(1 for _ in found_in(index, texts))),
            ):
                began = time.process_time()
                work()
                seconds[what].append(time.process_time() - began)
    look, label = (round(n / min(seconds[what]), 1) for what in ("look", "label"))
    case = f"{n} documents, {sum(map(len, texts)) / n:.0f} characters each, {len(index.hashes)} runs, one process"
    return [{"case": case, "metric": "documents a processor second; the label pass", "value": look, "reference": label}]


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tasks", required=True, help="task files")
    parser.add_argument("--model", required=True, help="folder of a model2vec static model")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--planted", type=int, default=1000, help="items of each way")
    options = parser.parse_args()
    files = task_files(TasksSettings(paths=(options.tasks,)))
    items = [item_text(item) for path in files.values() for item in read_items(path)]
    with tempfile.TemporaryDirectory() as folder:
        cut_corpus(options.corpus, options.documents, Path(folder) / "cut.jsonl")
        texts = [json.loads(line)["text"] for line in (Path(folder) / "cut.jsonl").open(encoding="utf-8")]
    rows = speed_rows(options.corpus, options.model, Index.of(items), options.documents)
    rows += recall_rows(items, texts, options.planted)
    rows += chance_rows(items, texts)
    for each in rows:
        reference = f"  against {each['reference']:,}" if each.get("reference") else ""
        print(f"{each['case']}: {each['metric']} {each['value']:,}{reference}")
    write_results("contamination", rows)


if __name__ == "__main__":
    main()
