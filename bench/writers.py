"""What an export costs in each format, what verifying it costs, and what the test of its order lets through.

    python bench/writers.py --corpus corpus.jsonl [--every 20] [--tokens 4M] [--root FOLDER] [--before writers.json]

The corpus has the columns text and domain; its domains are weighed by a function, so that the search takes no time.
Rates stand beside a plain copy of the corpus by pyarrow and beside the tokenizer by itself, all in one process, on one
in four as many documents again. Memory is of exports of everything, of 10^5 and 10^6 documents of 400 characters.
For the order: how near a dataset comes to what is allowed, how often a random order of its documents goes beyond that,
and the smallest drift of the largest domain that is found, when its share rises evenly from the first to the last
stretch and that of the others falls. Writes bench/results/writers.json.
"""

import argparse
import itertools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

import openclimb
from _results import FOLDER, write_results
from _writers_rates import FEW, MANY, export_alone, plain_copy, rates, result, seconds_of, short_corpus
from openclimb.config.load import parse_count
from openclimb.config.registry import names
from openclimb.export.checks.spread import spread_of
from openclimb.export.verify import verify
from openclimb.progress import Progress
from openclimb.workspace.files import read_json
from openclimb.workspace.trials import Trial

RATED = 4  # times the documents and tokens of the formats' table, for rates
ORDERS = 300  # random orders of the documents
DRIFTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)  # of a share, from its mean to either end


def score(trial: Trial, _folder: Path) -> dict[str, float]:
    """Like some domains more than others: the answer is a mixture far from the natural one."""
    likes = zip(sorted(trial.mixture.as_dict().items()), itertools.count(1), strict=False)
    return {"task": sum(weight**0.5 / number for (_, weight), number in likes)}


def workspace(corpus: Path, every: int, tokens: int, root: Path) -> Any:
    """Return a workspace that was run to its end on one in `every` documents of the corpus."""
    root.mkdir(parents=True, exist_ok=True)
    part = root / "corpus.jsonl"
    with open(corpus, "rb") as source:
        part.write_bytes(b"".join(itertools.islice(source, 0, None, every)))
    opened = openclimb.init(
        root / "run",
        scale="demo",
        corpus={"paths": [str(part)], "domains": "column:domain"},
        objective={"kind": f"{Path(__file__).stem}:score"},
        target={"token_budget": tokens},
        search={"trials": [16, 8, 4], "low_fidelity": ""},
        selection={"finalists": 2, "seeds": 2},
        run={"workers": 1},
    )
    opened.run()
    return opened


def seconds_of_formats(opened: Any, tokens: int, root: Path) -> list[dict[str, Any]]:
    """Export and verify in each format, with one worker; return rows."""
    rows = []
    for format in names("writer"):
        out = root / format
        begun = time.perf_counter()
        facts = opened.export(tokens, out, format, shard_bytes=4_000_000)
        exported = time.perf_counter()
        found = verify(str(out), Progress())
        verified = time.perf_counter()
        size = sum(path.stat().st_size for path in (out / "data").rglob("*") if path.is_file())
        text = facts["text_bytes"]
        values = {
            "export, MB of text a second": text / (exported - begun) / 1e6,
            "verify, MB of text a second": text / (verified - exported) / 1e6,
            "bytes on disk a byte of text": size / text,
            "faults": len(found.faults),
        }
        print(f"{format:<10} " + ", ".join(f"{name} {value:.3g}" for name, value in values.items()), flush=True)
        rows += [{"case": format, "metric": name, "value": float(f"{value:.3g}")} for name, value in values.items()]
    return rows


def worst(domain: NDArray[np.int64], tokens: NDArray[np.int64]) -> float:
    """Return the largest distance of a part of the dataset from its share, in what is allowed."""
    return max(spread_of(domain == d, tokens).worst for d in np.unique(domain))


def limits_of_order(out: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return rows: of the dataset, of random orders, and of orders in which a domain drifts."""
    tables = [pq.read_table(path, columns=["domain", "tokens"]) for path in sorted((out / "data").iterdir())]
    labels = np.concatenate([table.column("domain").to_numpy() for table in tables])
    tokens = np.concatenate([table.column("tokens").to_numpy() for table in tables]).astype(np.int64)
    domain = np.unique(labels, return_inverse=True)[1]
    random = []
    for _ in range(ORDERS):
        order = rng.permutation(len(domain))
        random.append(worst(domain[order], tokens[order]))
    largest = int(np.bincount(domain, tokens).argmax())
    rows = [
        {
            "case": "the dataset",
            "metric": "largest distance, in what is allowed",
            "value": round(worst(domain, tokens), 3),
        },
        {"case": "random orders", "metric": "median of it", "value": round(float(np.median(random)), 3)},
        {"case": "random orders", "metric": "largest of it", "value": round(max(random), 3)},
        {"case": "random orders", "metric": f"beyond 1, of {ORDERS}", "value": sum(one > 1 for one in random)},
        {"case": "all", "metric": "documents", "value": len(domain)},
    ]
    for drift in DRIFTS:
        found = 0
        for _ in range(20):
            place = rng.random(len(domain))
            mine = domain == largest
            # a density of 1 + drift × (2 x - 1): its distribution function is inverted
            place[mine] = (drift - 1 + np.sqrt((1 - drift) ** 2 + 4 * drift * place[mine])) / (2 * drift)
            order = np.argsort(place)
            found += worst(domain[order], tokens[order]) > 1
        rows.append({"case": f"the largest domain drifts by {drift:.0%}", "metric": "found, of 20", "value": found})
    for row in rows:
        print(f"{row['case']}: {row['metric']} {row['value']}", flush=True)
    return rows


def cases(tokens: int) -> dict[str, dict[str, Any]]:
    """Return the exports whose rate is taken: what each is called, and what is asked for."""
    return {
        "parquet, by cluster": {"token_budget": None, "by_cluster": True},
        "jsonl.zst, by cluster": {"token_budget": None, "by_cluster": True, "format": "jsonl.zst"},
        "tokens, by cluster": {"token_budget": None, "by_cluster": True, "format": "tokens"},
        "parquet, mixture": {"token_budget": tokens, "format": "parquet"},
        "tokens, mixture": {"token_budget": tokens, "format": "tokens"},
    }


def memory(corpus: Path, root: Path) -> list[dict[str, Any]]:
    """Return rows: the most memory that exports of few documents and of many take, and the rate of those by cluster."""
    rows = []
    for n in (FEW, MANY):
        folder = root / f"short-{n}"
        folder.mkdir()
        short_corpus(corpus, n, folder / "all.jsonl")
        opened = workspace(folder / "all.jsonl", 1, 10 * n, folder)
        for name, tokens in (("by cluster", None), ("mixture", 10 * n)):
            peak, rate = export_alone(opened.workspace.root, folder / name, tokens)
            rows.append(result(f"parquet, {name}", f"MB of memory at most, {n:,} documents", peak))
            if tokens is None:
                seconds, n_bytes = seconds_of(lambda folder=folder: plain_copy(folder / "all.jsonl", folder / "copy"))
                what = f"MB of text a second ÷ copy, {n:,} documents"
                rows.append(result(f"parquet, {name}", what, rate, n_bytes / seconds / 1e6))
    return rows


def kept(before: Path) -> list[dict[str, Any]]:
    """Return the rates and the memory among earlier results, as rows that say so."""
    rows = read_json(before)["rows"]
    return [
        {**{name: one[name] for name in ("metric", "value", "reference")}, "case": f"before: {one['case']}"}
        for one in rows
        if "MB of text a second ÷" in one["metric"] or "MB of memory" in one["metric"]
    ]


def main() -> None:
    """Run, print, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--every", type=int, default=20, help="documents of which one is taken")
    parser.add_argument("--tokens", default="4M")
    parser.add_argument("--root", type=Path, help="folder to work in (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--before", type=Path, help="results of earlier code, whose rates are kept beside these")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp()) if options.root is None else options.root
    tokens = parse_count(options.tokens)
    try:
        opened = workspace(options.corpus, options.every, tokens, root)
        rows = seconds_of_formats(opened, tokens, root)
        rows += limits_of_order(root / "parquet", np.random.default_rng(0))
        more = root / "more"
        larger = workspace(options.corpus, max(1, options.every // RATED), RATED * tokens, more)
        rows += rates(larger, more, cases(RATED * tokens))
        rows += memory(options.corpus, root)
    finally:
        if options.root is None:
            shutil.rmtree(root)
    if options.before:
        rows = kept(options.before) + rows
    write_results("writers", rows, options.out)


if __name__ == "__main__":
    main()
