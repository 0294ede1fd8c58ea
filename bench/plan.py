"""The rates that `climb plan` counts with, of one core of this machine, by processor time.

    python bench/plan.py --corpus FILES --model STATIC_MODEL

Processor time of one thread, and the least of some repeats: other work on the machine counts less than in seconds of a
clock, but it does count, so let there be none. FILES are documents as `corpus.paths` takes them. The rates stand in
src/openclimb/planning/rates.py, beside those of other benches. Writes bench/results/plan.json.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # libraries read these when they load
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np  # noqa: E402
import torch  # noqa: E402

from _results import write_results  # noqa: E402
from openclimb.clustering.describe import CHARS_READ, flat_map, top_words  # noqa: E402
from openclimb.clustering.embed import MOST_CHARS, fit_embedder, load_embedder  # noqa: E402
from openclimb.clustering.fit import fit, make_tokenizer  # noqa: E402
from openclimb.clustering.kmeans import FIRST_ROUNDS, ROUNDS, STARTS, fit_kmeans  # noqa: E402
from openclimb.clustering.label import label  # noqa: E402
from openclimb.clustering.totals import add_up  # noqa: E402
from openclimb.config.scales import preset  # noqa: E402
from openclimb.config.schema import EmbedSettings, ProxySettings  # noqa: E402
from openclimb.config.sizes import derived_settings  # noqa: E402
from openclimb.corpus.reading.parse import Document  # noqa: E402
from openclimb.corpus.reading.read import read_unit  # noqa: E402
from openclimb.corpus.reading.units import read_units, survey  # noqa: E402
from openclimb.corpus.sample import KEPT_CHARS  # noqa: E402
from openclimb.corpus.tokenizer import encode_batch, load_tokenizer  # noqa: E402
from openclimb.engines.local import LocalEngine, set_allocator  # noqa: E402
from openclimb.planning.machine import calibrate  # noqa: E402
from openclimb.planning.work import Proxy, proxy_of  # noqa: E402
from openclimb.progress import Progress  # noqa: E402
from openclimb.proxy.cpu.products import bf16_products, has_tiles  # noqa: E402
from openclimb.proxy.evaluate import log_likelihoods  # noqa: E402
from openclimb.proxy.model import StackedDecoder  # noqa: E402
from openclimb.proxy.stack.program import program_for  # noqa: E402
from openclimb.proxy.train import KEPT_BLOCK  # noqa: E402
from openclimb.workspace.context import StageContext  # noqa: E402

TURNS, CLUSTERS = 2, 24
SIZES = ("1M", "5M")  # of `proxy.size`, beside the scales' own
MOST_TOKENS = 1 << 12  # of a step
CONTEXT, ANSWER = 60, 20  # tokens of an item that is scored


def least(work: Callable[[], Any], turns: int = TURNS) -> float:
    """Return the processor seconds of a call, the least of some."""
    found = []
    for _ in range(turns):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


Rows = list[dict[str, Any]]


def add(rows: Rows, case: str, metric: str, value: float) -> None:
    """Keep and print a row, in four digits."""
    row = {"case": case, "metric": metric, "value": float(f"{value:.4g}"), "reference": None, "ratio": None}
    rows.append(row)
    print(f"{case:<40} {metric:<44} {value:>12,.4g}", flush=True)


def text_rows(files: list[str], model: str, root: Path, rows: Rows) -> None:
    """Measure what is done with documents: read, embed, label, tokenise, cluster, describe."""
    config = preset("demo")
    corpus = replace(config.corpus, paths=tuple(files))
    embed = EmbedSettings("model2vec", model)
    for name in ("corpus", "clusters", "hashing", "labels"):
        (root / name).mkdir()
    context = StageContext(root / "corpus", LocalEngine(1), Progress())
    survey(context, corpus)
    units = read_units(root / "corpus")

    def read(share: int) -> list[Document]:
        found = [one for unit in units for one in read_unit(unit, corpus, lambda place: place % share == 0)]
        return [one for one in found if isinstance(one, Document)]

    documents = read(1)
    texts = [document.text for document in documents]
    n_bytes = sum(len(text.encode()) for text in texts)
    n_chars = sum(min(MOST_CHARS, len(text)) for text in texts)
    every = "bytes of text a second"
    add(rows, "read", every, n_bytes / least(lambda: read(1)))
    add(rows, "pass over", every, n_bytes / least(lambda: read(len(texts))))
    encode = load_embedder(embed, root)
    embedding = least(lambda: encode(texts))
    add(rows, "embed, model2vec", "characters a second", n_chars / embedding)
    hashing = EmbedSettings("hashing", "")
    add(
        rows,
        "fit hashing",
        "characters a second",
        n_chars / least(lambda: fit_embedder(hashing, texts, 0, root / "hashing"), 1),
    )
    by_hash = load_embedder(hashing, root / "hashing")
    add(rows, "embed, hashing", "characters a second", n_chars / least(lambda: by_hash(texts), 1))
    began = time.process_time()
    make_tokenizer([text[:KEPT_CHARS] for text in texts], config.tokens, root / "tokenizer.json", Progress())
    n_kept = sum(len(text[:KEPT_CHARS].encode()) for text in texts[:10_000])
    add(rows, "fit the tokenizer", every, n_kept / (time.process_time() - began))
    fit(context.at(root / "clusters"), units, corpus, embed, replace(config.clusters, sample=len(texts)), config.tokens)

    def label_all() -> None:
        shutil.rmtree(root / "labels")
        (root / "labels").mkdir()
        label(context.at(root / "labels"), units, root / "clusters", corpus, embed, config.quality)

    add(rows, "read, score and write labels", every, n_bytes / (least(label_all) - embedding))
    add(rows, "sum the labels", "documents a second", len(texts) / least(lambda: add_up(root / "labels", 24)))
    size = sum(path.stat().st_size for path in (root / "labels").glob("*.parquet")) / len(texts)
    add(rows, "labels", "bytes a document", size)
    tokenizer = load_tokenizer(root / "clusters" / "tokenizer.json")
    blocks = [texts[i : i + 256] for i in range(0, len(texts), 256)]
    add(rows, "tokenise", every, n_bytes / least(lambda: [encode_batch(tokenizer, block) for block in blocks]))
    vectors = encode(texts)
    pairs = len(texts) * CLUSTERS * (STARTS * FIRST_ROUNDS + ROUNDS)
    seconds = least(lambda: fit_kmeans(vectors, CLUSTERS, 0))
    add(rows, f"k-means, {vectors.shape[1]} dimensions", "products of vectors a second, all rounds", pairs / seconds)
    groups = np.arange(len(texts)) % CLUSTERS
    n_read = sum(min(CHARS_READ, len(text)) for text in texts)
    add(rows, "words of clusters", "characters a second", n_read / least(lambda: top_words(texts, groups, CLUSTERS)))
    add(rows, "map of 1,500 documents", "seconds", least(lambda: flat_map(vectors, 0), 1))


def proxy_rows(name: str, proxy: Proxy, rows: Rows) -> None:
    """Measure training steps, and the scoring of items, of one proxy."""
    vocab_size = proxy.vocab_size
    most = max(1, MOST_TOKENS // proxy.settings.sequence)
    shape = replace(proxy.settings, batch=min(proxy.settings.batch, most))
    set_allocator(KEPT_BLOCK)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    draw = torch.Generator().manual_seed(0)
    program = program_for(StackedDecoder(shape, vocab_size, [0]), shape, "cpu")
    batch = torch.randint(0, vocab_size, (1, shape.batch, shape.sequence + 1), generator=draw)
    flops = shape.batch * shape.sequence * proxy.training_flops
    n_steps = max(1, min(20, round(1e11 / flops)))
    for low in (False, True) if has_tiles() else (False,):
        with bf16_products(low):
            program.step(batch, 1e-3)
            seconds = least(lambda: [program.step(batch, 1e-3) for _ in range(n_steps)]) / n_steps
        add(rows, f"train {name}, {'bf16' if low else 'fp32'}", "FLOP/s", flops / seconds)
    n_items = max(8, round(min(300.0, 300 * 3e5 / (shape.width**2 * shape.depth))))
    length = CONTEXT + ANSWER
    packed = {
        "tokens": np.random.default_rng(0).integers(1, vocab_size, n_items * length).astype(np.int32),
        "lengths": np.full(n_items, length, dtype=np.int32),
        "contexts": np.full(n_items, CONTEXT, dtype=np.int32),
        "item": np.arange(n_items, dtype=np.int32),
        "gold": np.zeros(n_items, dtype=np.int32),
    }
    model = program.model
    seconds = least(lambda: log_likelihoods(model, packed, model.longest, "cpu"))
    add(rows, f"score {name}", "FLOP/s", n_items * proxy.reading_flops(CONTEXT, ANSWER) / seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", required=True)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    rows: Rows = []
    found = calibrate()
    add(rows, "calibration: a matrix product in fp32", "FLOP/s", found.products)
    add(rows, "calibration: words counted in a text", "bytes a second", found.text)
    with tempfile.TemporaryDirectory() as folder:
        text_rows(options.corpus, options.model, Path(folder), rows)
    for scale in ("demo", "laptop"):
        proxy_rows(scale, proxy_of(preset(scale), preset(scale).proxy), rows)
    for size in SIZES:
        derived = derived_settings(size)
        settings = ProxySettings(**derived["proxy"])
        proxy_rows(size, proxy_of(preset("laptop"), settings, derived["tokens"]["vocab_size"]), rows)
    write_results("plan", rows)


if __name__ == "__main__":
    main()
