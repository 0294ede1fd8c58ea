"""Agreement of the clusters with the hidden source domains, and their speed, against scikit-learn's k-means; and what
the measures of trust say of good clusters and of bad ones that were planted.

    python bench/clusters.py --corpus corpus.jsonl --model STATIC_MODEL [--documents 30000] [--k 20] [--seeds 5]
        [--part kmeans|trust] [--catalogues /usr/share/locale]

kmeans: both cluster the same vectors of documents drawn evenly from the corpus. NMI is the normalised mutual
information with the documents' `domain` column, mean over seeds; inertia the mean squared distance to the nearest unit
centroid. trust: see _clusters_trust.py; other languages come from the system's message catalogues.
Writes bench/results/clusters.json; rows of a part that does not run stay.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from _clusters_trust import trust_rows
from _results import FOLDER, write_results
from openclimb.clustering.embed import load_embedder, vocabulary
from openclimb.clustering.kmeans import assign, fit_kmeans
from openclimb.config.schema import EmbedSettings
from openclimb.workspace.files import read_json


def read_documents(corpus: Path, n: int) -> tuple[list[str], list[str]]:
    """Return texts and hidden domains of n documents, evenly from the corpus."""
    with open(corpus, "rb") as file:
        total = sum(1 for _ in file)
    with open(corpus, "rb") as file:  # a line where i · n ÷ total passes a whole number: n of them, over the whole file
        rows = [json.loads(line) for i, line in enumerate(file) if (i + 1) * n // total > i * n // total]
    return [row["text"] for row in rows], [row["domain"] for row in rows]


def ours(vectors: Any, k: int, seed: int) -> Any:
    """Return the unit centroids of our k-means with its default settings."""
    return fit_kmeans(vectors, k, seed).centroids


def sklearns(vectors: Any, k: int, seed: int) -> Any:
    """Return the unit centroids of scikit-learn's k-means with its default settings."""
    from sklearn.cluster import KMeans

    centroids = KMeans(k, random_state=seed).fit(vectors).cluster_centers_
    return centroids / np.linalg.norm(centroids, axis=1, keepdims=True)


def measure(
    fit: Callable[[Any, int, int], Any], vectors: Any, domains: list[str], k: int, seeds: int
) -> dict[str, float]:
    """Return NMI, inertia and seconds, mean over seeds, after a short warm-up."""
    from sklearn.metrics import normalized_mutual_info_score

    fit(vectors[:1000], k, 0)
    rows = []
    for seed in range(seeds):
        began = time.perf_counter()
        centroids = fit(vectors, k, seed)
        seconds = time.perf_counter() - began
        cluster, distance = assign(vectors, centroids.astype(np.float32))
        rows.append((normalized_mutual_info_score(domains, cluster), float(np.mean(distance**2)), seconds))
    nmi, inertia, seconds = np.mean(rows, axis=0)
    return {
        "NMI with hidden domains": nmi,
        "NMI sd over seeds": np.std(rows, axis=0)[0],
        "inertia": inertia,
        "seconds": seconds,
    }


def kmeans_rows(vectors: Any, domains: list[str], k: int, seeds: int) -> list[dict[str, Any]]:
    """Return the rows of our k-means against scikit-learn's."""
    case = f"k-means, K = {k}, {len(domains)} documents, {len(set(domains))} domains, against scikit-learn"
    found, reference = (measure(fit, vectors, domains, k, seeds) for fit in (ours, sklearns))
    return [
        {"case": case, "metric": metric, "value": round(value, 4), "reference": round(reference[metric], 4)}
        for metric, value in found.items()
    ]


def main() -> None:
    """Measure the parts, print their rows, write them beside those of a part that did not run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", required=True, help="folder of a model2vec static model")
    parser.add_argument("--documents", type=int, default=30_000)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part", choices=("kmeans", "trust"), default="")
    parser.add_argument("--catalogues", type=Path, default=Path("/usr/share/locale"), help="LANGUAGE/LC_MESSAGES/*.mo")
    options = parser.parse_args()
    texts, domains = read_documents(options.corpus, options.documents)
    settings = EmbedSettings(model=options.model)
    embed = load_embedder(settings, Path())
    rows: list[dict[str, Any]] = []
    if options.part != "trust":
        rows += kmeans_rows(embed(texts), domains, options.k, options.seeds)
    known = vocabulary(settings)
    if options.part != "kmeans" and known:
        order = np.random.default_rng(0).permutation(len(texts)).tolist()
        rows += trust_rows([texts[i] for i in order], embed, known, options.catalogues, options.k)
    for row in rows:
        print(f"{row['case']} | {row['metric']}: {row['value']} ({row['reference']})")
    before = FOLDER / "clusters.json"
    measured = {row["case"] for row in rows}
    kept = read_json(before)["rows"] if options.part and before.is_file() else []
    write_results("clusters", [*(row for row in kept if row["case"] not in measured), *rows])


if __name__ == "__main__":
    main()
