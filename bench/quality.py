"""The data side from end to end: a language model's labels, students, pruning, the search, on the demo's real text.

    python bench/quality.py --demo FOLDER [--labels 1500] [--root RUN]

FOLDER is that of `make demo`. The language model is `openclimb.testing.endpoint`, which rates by a rule, 20 ms an
answer, and of ten requests fails one (429, 500, a dropped connection, half an answer, in turn). What is measured: every
label paid once; how the students rank all documents and clusters against the rule; whether the clusters that a quantile
prunes are those that the rule has lowest; the answer; seconds of each step. Writes bench/results/quality.json.
"""

import argparse
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import openclimb
from _results import write_results
from openclimb.cli.main import main as climb
from openclimb.corpus.reading.parse import Document
from openclimb.corpus.reading.read import read_unit
from openclimb.corpus.reading.units import read_units
from openclimb.quality.student import MOST_CHARS
from openclimb.quality.training.agreement import spearman
from openclimb.testing.endpoint import Rules, rule_endpoint, rule_scores
from openclimb.workspace.files import read_json
from openclimb.workspace.tables import read_rows

FAULTS = ("429", "500", "drop", "malformed")
EVERY = 10  # of so many requests one fails
PRUNED = 0.25  # of the clusters, by the student of SCALE
SCALE = "informational_value"


def fault(number: int, _text: str) -> str:
    """Return how a request fails, "" for one that does not."""
    return FAULTS[number // EVERY % len(FAULTS)] if number % EVERY == EVERY - 1 else ""


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Keep how long a step takes."""
    began = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - began, 1)


def done(*words: str) -> None:
    """Run a command. Raises RuntimeError where it fails."""
    if climb(list(words)):
        raise RuntimeError(f"climb {words[0]} failed")


def by_rule(root: Path) -> list[tuple[int, int, int]]:
    """Return (unit, position, the rule's score of SCALE) of every document, by what a student reads of it."""
    config = openclimb.open(root).config
    found = []
    for unit in read_units(root / "corpus", config.corpus, config.tokens.tokenizer):
        items = [item for item in read_unit(unit, config.corpus) if isinstance(item, Document)]
        found += [(unit.number, item.position, rule_scores(item.text[:MOST_CHARS])[SCALE]) for item in items]
    return found


def ranked(root: Path) -> list[dict[str, Any]]:
    """Return how the student of SCALE ranks documents and clusters against the rule, and what pruning took."""
    rule = {(unit, position): score for unit, position, score in by_rule(root)}
    rows = []
    for path in sorted((root / "labels").glob("unit-*.parquet")):
        table = pq.read_table(path, columns=["position", "cluster", SCALE, "tokens"])
        unit = int(path.stem.removeprefix("unit-"))
        columns = (table.column(name).to_pylist() for name in table.column_names)
        rows += [(rule[unit, at], cluster, score, n) for at, cluster, score, n in zip(*columns, strict=True)]
    truth, cluster, score, tokens = (np.array(column) for column in zip(*rows, strict=True))
    n_tokens = np.bincount(cluster, tokens)
    means = {
        name: np.bincount(cluster, values * tokens) / np.maximum(n_tokens, 1)
        for name, values in (("rule", truth), ("student", score))
    }
    gone = np.array([row["domain"] == "" for row in read_rows(root / "domains" / "clusters.csv")])
    lowest = np.argsort(means["rule"], kind="stable")[: gone.sum()]
    case = f"student of {SCALE}, {len(rows)} documents, {len(gone)} clusters"
    return [
        {"case": case, "metric": "rank correlation with the rule, documents", "value": spearman(truth, score)},
        {"case": case, "metric": "rank correlation with the rule, clusters", "value": spearman(*means.values())},
        {"case": case, "metric": "clusters pruned, and lowest by the rule", "value": int(gone[lowest].sum()),
         "reference": int(gone.sum())},
    ]  # fmt: skip


def whole(demo: Path, root: Path, n_labels: int) -> list[dict[str, Any]]:
    """Do everything in a fresh workspace and return the rows."""
    seconds: dict[str, float] = {}
    files = [str(demo / "corpus" / "part-*"), "--tasks", str(demo / "tasks" / "*.jsonl")]
    sets = [f"embed.model={demo / 'embedder'}", f"domains.prune_quantile={{ {SCALE} = {PRUNED} }}"]
    done("init", str(root), "--corpus", *files, "--scale", "demo", *(w for one in sets for w in ("--set", one)))
    with rule_endpoint(Rules(seconds=0.02, fault=fault)) as server, timed(seconds, "annotate"):
        done("annotate", str(root), "-n", str(n_labels), "--endpoint", server.url, "--model", "rules", "--quiet")
    facts = read_json(root / "annotations" / "record.json")["facts"]
    answered = facts["labels"] + sum(facts["failed"].values())
    with timed(seconds, "train-quality"):
        done("train-quality", str(root), "--quiet")
    students = read_json(root / "students" / "record.json")["facts"]["students"]
    settings = root / "climb.toml"
    text, n = re.subn(r"(?m)^scorers = .*$", 'scorers = ["students"]', settings.read_text(encoding="utf-8"))
    assert n == 1
    settings.write_text(text, encoding="utf-8")
    with timed(seconds, "run"):
        done("run", str(root), "--quiet")
    answer = openclimb.open(root).mixture()
    margin = answer.margins["natural"]
    print(answer.sentence)
    case = f"{n_labels} labels, one request in {EVERY} failing"
    rows: list[dict[str, Any]] = [
        {"case": case, "metric": "labels", "value": facts["labels"], "reference": n_labels},
        {"case": case, "metric": "answers given", "value": server.seen.documents.total(), "reference": answered},
        {"case": case, "metric": "students kept, of five scales", "value": len(students)},
        *ranked(root),
        {"case": "answer", "metric": "bits a byte over natural", "value": round(margin.mean, 4)},
        {"case": "answer", "metric": "p-value after Holm", "value": round(margin.p_holm, 5)},
    ]
    return [*rows, *({"case": step, "metric": "seconds", "value": value} for step, value in seconds.items())]


def main() -> None:
    """Measure, print the rows and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--labels", type=int, default=1500)
    parser.add_argument("--root", type=Path, help="default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = whole(options.demo.absolute(), options.root or Path(folder) / "run", options.labels)
    for row in rows:
        print(f"{row['case']:<60} {row['metric']:<48} {row['value']:>10.5g} {row.get('reference', '')}")
    write_results("quality", rows)


if __name__ == "__main__":
    main()
