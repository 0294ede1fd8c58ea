"""What an embedder costs and what its clusters are worth: documents a second, and agreement with hidden domains.

    python bench/embedders.py --corpus corpus.jsonl --static FOLDER --transformer FOLDER [--documents 4000] [--k 20]

One process, one thread. The transformer is the reference; NMI is the normalised mutual information of k-means clusters
with the `domain` column, mean over five seeds. Distilling the static model from the transformer is timed as well.
Writes bench/results/embedders.json.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
os.environ.update(THREADS)  # read when the libraries below are loaded

import numpy as np  # noqa: E402

from _results import write_results  # noqa: E402
from clusters import ours, read_documents  # noqa: E402
from openclimb.clustering.distill import distill  # noqa: E402
from openclimb.clustering.embed import fit_embedder, load_embedder  # noqa: E402
from openclimb.clustering.kmeans import assign  # noqa: E402
from openclimb.config.schema import EmbedSettings  # noqa: E402

SEEDS = 5


def measure(settings: EmbedSettings, texts: list[str], domains: list[str], k: int) -> tuple[float, float]:
    """Return (documents a second, NMI) of an embedder; fitting the hashing embedder is part of its time."""
    from sklearn.metrics import normalized_mutual_info_score

    with tempfile.TemporaryDirectory() as folder:
        if settings.embedder != "hashing":
            load_embedder(settings, Path(folder))(texts[:64])
        began = time.perf_counter()
        fit_embedder(settings, texts, 0, Path(folder))
        vectors = load_embedder(settings, Path(folder))(texts)
        seconds = time.perf_counter() - began
    found = [
        normalized_mutual_info_score(domains, assign(vectors, ours(vectors, k, seed).astype(np.float32))[0])
        for seed in range(SEEDS)
    ]
    return len(texts) / seconds, float(np.mean(found))


def main() -> None:
    """Measure the three embedders, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--static", required=True)
    parser.add_argument("--transformer", required=True)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--k", type=int, default=20)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    texts, domains = read_documents(options.corpus, options.documents)
    kinds = {
        "transformer": EmbedSettings(embedder="sentence-transformers", model=options.transformer),
        "static, distilled from it": EmbedSettings(embedder="model2vec", model=options.static),
        "hashing + SVD": EmbedSettings(embedder="hashing"),
    }
    found = {name: measure(settings, texts, domains, options.k) for name, settings in kinds.items()}
    rows = []
    for name, (speed, nmi) in found.items():
        reference = found["transformer"]
        rows.append(
            {
                "case": name,
                "metric": "documents a second",
                "value": round(speed, 1),
                "reference": round(reference[0], 1),
            }
        )
        rows.append(
            {
                "case": name,
                "metric": "NMI with hidden domains",
                "value": round(nmi, 4),
                "reference": round(reference[1], 4),
            }
        )
        print(f"{name:<28} {speed:9,.1f} documents a second   NMI {nmi:.3f}")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        distill(options.transformer, Path(folder) / "static")
        rows.append({"case": "distilling", "metric": "seconds", "value": round(time.perf_counter() - began, 1)})
    write_results("embedders", rows)


if __name__ == "__main__":
    main()
