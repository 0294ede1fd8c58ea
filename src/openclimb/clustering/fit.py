"""The clusters stage: from a uniform sample of documents to centroids, a tokenizer and what the report shows of them.

Reads a sample of the input. Writes `clusters/`: `centroids.npy` (k, dim), `embedder.npz` (hashing only),
`tokenizer.json`, `token_rates.json` (tokens a byte, by cluster; tokens around a document), `words.json` (top words, by
cluster), `sample.parquet` (one row a sampled document, of a large sample the first ones), `trust.json` (how far the
clusters can be trusted), `fit.json`. With ready-made domains there is nothing to cluster, and sources stand in the
clusters' place. Texts (`drawn/`) and vectors (`vectors.npy`) of the sample lie there while the stage works, so that
memory need not hold them.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.clustering.describe import flat_map, top_words
from openclimb.clustering.embed import fit_embedder, gpu_share, load_embedder, vocabulary
from openclimb.clustering.kmeans import KMeans, assign, choose_k, fit_kmeans
from openclimb.clustering.trust.measure import measure_trust
from openclimb.clustering.trust.result import trust_warnings, write_trust
from openclimb.config.schema import ClustersSettings, CorpusSettings, EmbedSettings, TokensSettings
from openclimb.corpus.reading.parse import HTML
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.sample import Block, Sample, SampledDocument, draw_sample
from openclimb.corpus.tokenizer import copy_tokenizer, encode_batch, ends_of, load_tokenizer, train_tokenizer
from openclimb.engines.engine import Engine, Resources
from openclimb.errors import InputError
from openclimb.progress import Progress
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic, write_json

BATCH = 512  # texts tokenised at once
VECTORS = "vectors.npy"
N_TOKENIZER_TEXTS = 10_000  # about 20 MB: more changes a vocabulary little
N_RATE_TEXTS = 2000  # in all clusters together, at least 50 a cluster
RATE_CHARS = 2000  # of a text that are counted
EXCERPT = 600  # characters of a sampled document that are kept for the report


def fit(
    context: StageContext,
    units: Sequence[Unit],
    corpus: CorpusSettings,
    embed: EmbedSettings,
    clusters: ClustersSettings,
    tokens: TokensSettings,
) -> dict[str, Any]:
    """Fit the clustering on a sample of `clusters.sample` documents and describe it; return the facts of the record.

    Raises InputError when the corpus has fewer documents than clusters, ConfigError for a model that cannot be loaded.
    """
    out, engine, progress, seed = context.folder, context.engine, context.progress, context.seed
    sample = draw_sample(units, corpus, clusters.sample, seed, engine, progress, out)
    if not len(sample):
        archives = f" (of WARC files: {HTML})" if any(unit.format.startswith("warc") for unit in units) else ""
        raise InputError("the corpus holds no readable document", f"check corpus.paths and corpus.text{archives}")
    shown = sample.shown
    texts = [document.text for document in shown]
    make_tokenizer(texts, tokens, out / "tokenizer.json", progress)
    n_documents = _estimate(sample, units, clusters.sample)
    facts: dict[str, Any] = {"n_sample": len(sample), "n_documents_estimate": n_documents}
    if corpus.domains:
        names = sorted({document.source for document in shown})
        place = {name: index for index, name in enumerate(names)}
        groups = np.array([place[document.source] for document in shown], dtype=np.int32)
        _describe(shown, groups, names, np.zeros(len(shown), np.float32), np.full((len(shown), 2), np.nan), True, out)
        facts["sources"] = len(names)
    else:
        facts |= _cluster(context, sample, texts, embed, clusters.k or choose_k(n_documents))
    shutil.rmtree(out / "drawn", ignore_errors=True)
    (out / VECTORS).unlink(missing_ok=True)
    write_json(out / "fit.json", facts)
    return {name: value for name, value in facts.items() if name != "sizes"}


def _cluster(context: StageContext, sample: Sample, texts: list[str], embed: EmbedSettings, k: int) -> dict[str, Any]:
    """Embed and cluster the sample, describe it, and say how far that can be trusted; `texts` are the first ones."""
    out, progress, seed = context.folder, context.progress, context.seed
    vectors = _embed_sample(sample, texts, embed, seed, out, context.engine, progress)
    progress.start(f"cluster into {k}")
    kmeans = fit_kmeans(vectors, k, seed)
    first = vectors[: len(texts)]
    found, distance = assign(first, kmeans.centroids)
    names = [str(cluster) for cluster in range(len(kmeans.centroids))]
    _describe(sample.shown, found, names, distance, flat_map(first, seed), False, out)
    _save_centroids(kmeans.centroids, out)
    facts = _kmeans_facts(kmeans, k)
    progress.finish(f"{facts['k']} clusters")
    progress.start("measure how far they can be trusted")
    trust = measure_trust(vectors, kmeans, found, texts, vocabulary(embed), seed)
    write_trust(out, trust)
    progress.finish()
    for warning in trust_warnings(trust):
        progress.note(f"take care: {warning}")
    return facts


def make_tokenizer(texts: Sequence[str], tokens: TokensSettings, path: Path, progress: Progress) -> None:
    """Copy the user's tokenizer to `path`, or train a byte-level BPE on the texts."""
    if path.is_file():
        return
    if tokens.tokenizer:
        given = Path(tokens.tokenizer).expanduser()
        ends_of(given)  # says what is wrong with it
        copy_tokenizer(given, path)
        return
    progress.start("train the tokenizer")
    train_tokenizer(texts[:N_TOKENIZER_TEXTS], tokens.vocab_size, path)
    progress.finish()


def token_rates(
    texts: Sequence[str], groups: NDArray[np.int32], n_groups: int, tokenizer: Path
) -> tuple[list[float], float]:
    """Return tokens a byte for each group and over all, by exact tokenisation of the first texts of each.

    A group without any text has the rate over all.
    """
    most = max(50, N_RATE_TEXTS // max(1, n_groups))
    seen = np.zeros(n_groups, dtype=np.int64)
    rows = []
    for row, group in enumerate(groups.tolist()):
        if seen[group] < most:
            seen[group] += 1
            rows.append(row)
    loaded = load_tokenizer(tokenizer)
    n_tokens, n_bytes = np.zeros(n_groups), np.zeros(n_groups)
    for begin in range(0, len(rows), BATCH):
        block = rows[begin : begin + BATCH]
        for row, ids in zip(block, encode_batch(loaded, [texts[row][:RATE_CHARS] for row in block]), strict=True):
            n_tokens[groups[row]] += len(ids)
            n_bytes[groups[row]] += len(texts[row][:RATE_CHARS].encode("utf-8", "replace"))
    overall = float(n_tokens.sum() / max(1.0, n_bytes.sum()))
    rates = np.where(n_bytes > 0, n_tokens / np.maximum(n_bytes, 1), overall)
    return rates.tolist(), overall


def _embed_sample(
    sample: Sample, texts: list[str], embed: EmbedSettings, seed: int, out: Path, engine: Engine, progress: Progress
) -> NDArray[np.float32]:
    """Return the vectors of the sample, (n, dim), in a file that is mapped into memory; `texts` are the first ones."""
    progress.start("embed the sample", len(sample), "documents")
    fit_embedder(embed, texts, seed, out)
    vectors: NDArray[np.float32] | None = None
    share = Resources(gpus=gpu_share(embed))
    for index, found in engine.map(partial(_embed_block, embed, out), sample.blocks, share, folder=out):
        if vectors is None:
            shape = (len(sample), found.shape[1])
            vectors = np.lib.format.open_memmap(out / VECTORS, "w+", np.float32, shape)
        vectors[sample.blocks[index].places] = found
        progress.advance(len(found))
    progress.finish()
    if vectors is None:
        raise InputError("the corpus holds no readable document", "check corpus.text")
    return vectors


def _embed_block(embed: EmbedSettings, folder: Path, block: Block) -> NDArray[np.float32]:
    return load_embedder(embed, folder)(block.texts())


def _describe(
    sample: Sequence[SampledDocument],
    groups: NDArray[np.int32],
    names: list[str],
    distance: NDArray[np.float32],
    places: NDArray[np.floating[Any]],
    ready_made: bool,
    out: Path,
) -> None:
    """Write words.json, token_rates.json and sample.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [document.text for document in sample]
    words = top_words(texts, groups.tolist(), len(names))
    write_json(out / "words.json", dict(zip(names, words, strict=True)))
    rates, overall = token_rates(texts, groups, len(names), out / "tokenizer.json")
    around = sum(map(len, ends_of(out / "tokenizer.json").around))
    write_json(
        out / "token_rates.json", {"overall": overall, "around": around, "rates": dict(zip(names, rates, strict=True))}
    )
    n_bytes = np.array([document.n_bytes for document in sample], dtype=np.int64)
    table = pa.table(
        {
            "unit": pa.array([document.unit for document in sample], pa.int32()),
            "position": pa.array([document.position for document in sample], pa.int64()),
            "id": pa.array([document.id for document in sample], pa.string()),
            "source": pa.array([document.source for document in sample], pa.string()),
            "cluster": np.full(len(sample), -1, np.int32) if ready_made else groups,
            "distance": distance,
            "n_bytes": n_bytes,
            "n_tokens": np.rint(n_bytes * np.array(rates)[groups]).astype(np.int64),
            "excerpt": pa.array([document.text[:EXCERPT] for document in sample], pa.string()),
            "x": places[:, 0].astype(np.float32),
            "y": places[:, 1].astype(np.float32),
        }
    )
    with atomic(out / "sample.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _save_centroids(centroids: NDArray[np.float32], out: Path) -> None:
    with atomic(out / "centroids.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, centroids, allow_pickle=False)


def _kmeans_facts(kmeans: KMeans, asked: int) -> dict[str, Any]:
    k, dim = kmeans.centroids.shape
    return {"k": k, "k_asked": asked, "dim": dim, "inertia": round(kmeans.inertia, 6), "sizes": kmeans.sizes.tolist()}


def _estimate(sample: Sample, units: Sequence[Unit], wanted: int) -> int:
    """Return about how many documents the corpus has: exact when the sample holds them all, else from the bytes."""
    if len(sample) < wanted:
        return len(sample)
    return max(len(sample), round(sum(unit.n_bytes for unit in units) / max(1.0, float(sample.n_bytes.mean()))))
