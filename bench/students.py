"""Students of labels that follow from a known rule with noise: how they rank, what training takes, what scoring costs.

    python bench/students.py --corpus corpus.jsonl --model STATIC_MODEL [--labels 10000 100000] [--made-up 1000000]

The rule counts words of explanation and science among the first words of a text; a label is its rank among the texts
as a number from 0 to 5, plus noise of .7, rounded. Each kind of student is trained by `climb train-quality` in two
processes, and ranks documents that have no label against the rule without noise. `--made-up`: labels of texts made of
pieces of the corpus, 600 characters each, for memory and time. Scoring: documents a second of the label pass in one
process, with each scorer in place of the heuristics; a classifier has MiniLM's shape and random weights.
Writes bench/results/students.json.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

import openclimb
from _results import write_results
from label import cut_corpus, label_once, peak_of, prepare
from openclimb.clustering.embed import load_embedder
from openclimb.config.schema import EmbedSettings, QualitySettings
from openclimb.engines.local import LocalEngine
from openclimb.quality.scorers import Place, load_scorers
from openclimb.quality.student import KINDS, MOST_CHARS
from openclimb.quality.training.agreement import spearman

WORDS = frozenset(
    "because therefore thus theory result results study research method evidence process system between example "
    "explain cause effect law history science energy function called known found different form number".split()
)
NOISE, HELD_OUT, PIECE = 0.7, 5000, 600
SCORED, CLASSIFIED = 4000, 100  # documents of the label pass


def rule(texts: list[str]) -> np.ndarray:
    """Return the rank of each text by the share of WORDS, as a number from 0 to 5."""
    shares = []
    for text in texts:
        words = text[:MOST_CHARS].lower().split()
        shares.append(sum(word.strip(".,;:") in WORDS for word in words) / max(1, len(words)))
    return np.asarray(5 * rankdata(shares) / len(shares))


def made_up(corpus: Path, n: int) -> Iterator[str]:
    """Yield texts that are two pieces of documents each."""
    rng = np.random.default_rng(1)
    with open(corpus, encoding="utf-8") as file:
        pool = [json.loads(line)["text"][:20_000] for line, _ in zip(file, range(20_000), strict=False)]
    for _ in range(n):
        pieces = []
        for document in rng.integers(0, len(pool), 2):
            text = pool[document]
            begin = int(rng.integers(0, max(1, len(text) - PIECE // 2)))
            pieces.append(text[begin : begin + PIECE // 2])
        yield " ".join(pieces)


def write_labels(texts: list[str], path: Path) -> None:
    """Write a label a text."""
    noise = np.random.default_rng(0).normal(0, NOISE, len(texts))
    labels = np.clip(np.rint(rule(texts) + noise), 0, 5).astype(int).tolist()
    with path.open("w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"text": text, "scores": {"rule": label}}) + "\n"
            for text, label in zip(texts, labels, strict=True)
        )


def workspace(root: Path, corpus: Path, model: str) -> Path:
    """Return a new workspace whose embedder is the model."""
    openclimb.init(root, corpus={"paths": [str(corpus)]}, embed={"model": model}, run={"workers": 2})
    return root


def train(root: Path, labels: Path, kind: str) -> tuple[float, int, int]:
    """Train one kind in a process of its own; return seconds and the peaks of one process and of all, in bytes."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "openclimb.cli.main", "train-quality", str(root), "--labels", str(labels)]
    one, all_of_them = peak_of([*command, "--student", kind, "--quiet"])
    return time.perf_counter() - began, one, all_of_them


def training_rows(case: str, labels: Path, held_out: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what training each kind takes, and how it ranks texts without a label."""
    rows = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            root = workspace(Path(folder) / "run", args.corpus, args.model)
            seconds, one, everything = train(root, labels, kind)
            vectors = load_embedder(EmbedSettings(model=args.model), Path())(held_out)
            (scorer,) = load_scorers(QualitySettings(("students",)), Place(root))
            found = spearman(rule(held_out), scorer(held_out, vectors)[:, 0].astype(np.float64))
            (told,) = json.loads((root / "students" / "report.json").read_text())["scales"][0]["students"]
        name = f"{case}, {kind}"
        rows += [
            {"case": name, "metric": "rank correlation with the rule, texts without labels", "value": round(found, 4)},
            {"case": name, "metric": "rank correlation with labels, by folds", "value": told["rank_correlation"]},
            {"case": name, "metric": "seconds of training with folds, two processes", "value": round(seconds, 1)},
            {"case": name, "metric": "peak resident bytes, largest process", "value": one},
            {"case": name, "metric": "peak resident bytes, all processes", "value": everything},
        ]
        print("\n".join(f"{row['case']}: {row['metric']} {row['value']:,}" for row in rows[-5:]), flush=True)
    return rows


def write_classifier(folder: Path) -> Path:
    """Write a classifier of MiniLM's shape with one output and random weights."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    words += [word for word in WORDS if len(word) > 1]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(str(folder))
    shape = {"num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536, "num_labels": 1}
    BertForSequenceClassification(BertConfig(30_522, 384, **shape)).save_pretrained(str(folder))
    return folder


def scoring_rows(labels: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the documents a second of the label pass with each scorer, beside the heuristics, and a head's alone."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rates = {}
        for n in (SCORED, CLASSIFIED):
            root = workspace(Path(folder) / f"{n}", args.corpus, args.model)
            cut_corpus(args.corpus, n, root / "cut.jsonl")
            config, units = prepare(root / "cut.jsonl", args.model, root, 1, 1 << 40)
            names = {"heuristics": "heuristics"}
            if n == SCORED:
                for kind in KINDS:
                    other = workspace(Path(folder) / kind, args.corpus, args.model)
                    train(other, labels, kind)
                    names[f"students, {kind}"] = f"students:{other}"
            else:
                names["transformers, MiniLM's shape"] = f"transformers:{write_classifier(Path(folder) / 'model')}"
            engine = LocalEngine(1)
            for _ in range(3):  # the first also starts the process and loads models
                for title, name in names.items():
                    one = replace(config, quality=QualitySettings((name,)))
                    seconds = label_once(one, units, root, engine)
                    rates[n, title] = max(rates.get((n, title), 0.0), n / seconds)
            engine.release()
        for (n, title), rate in rates.items():
            case, reference = f"label pass, {n} documents, one process: {title}", round(rates[n, "heuristics"], 1)
            rows.append({"case": case, "metric": "documents a second", "value": round(rate, 1), "reference": reference})
        (scorer,) = load_scorers(QualitySettings((f"students:{Path(folder) / 'head'}",)))
        vectors = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
        began = time.perf_counter()
        for _ in range(100):
            scorer([""] * 256, vectors)
        rate = 25_600 / (time.perf_counter() - began)
        rows.append({"case": "a head on given vectors", "metric": "documents a second", "value": round(rate)})
    for row in rows:
        print(f"{row['case']}: {row['value']:,} a second", flush=True)
    return rows


def main() -> None:
    """Measure, print, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", required=True, help="folder of a model2vec static model")
    parser.add_argument("--labels", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--made-up", type=int, default=1_000_000, help="0: none")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.jsonl"
        for n in args.labels:
            cut_corpus(args.corpus, n + HELD_OUT, Path(folder) / "cut.jsonl")
            with (Path(folder) / "cut.jsonl").open(encoding="utf-8") as file:
                texts = [json.loads(line)["text"] for line in file]
            order = np.random.default_rng(2).permutation(len(texts))
            held_out = [texts[i] for i in order[:HELD_OUT]]
            write_labels([texts[i] for i in order[HELD_OUT:]], path)
            rows += training_rows(f"{n} labels of real texts", path, held_out, args)
            if n == min(args.labels):
                rows += scoring_rows(path, args)
        if args.made_up:
            texts = list(made_up(args.corpus, args.made_up + HELD_OUT))
            held_out = texts[:HELD_OUT]
            write_labels(texts[HELD_OUT:], path)
            del texts
            rows += training_rows(f"{args.made_up} labels of made-up texts", path, held_out, args)
    write_results("students", rows)


if __name__ == "__main__":
    main()
