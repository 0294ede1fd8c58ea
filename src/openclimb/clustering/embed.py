"""Embedders: texts → unit vectors, shape (n, dim).

Three are built in: a model2vec static model (fast on a CPU), any sentence-transformers model, and hashing + SVD,
which is fitted on the corpus and needs no download. Any `package.module:function` that takes texts and gives vectors
serves as well. Reads and writes `clusters/embedder.npz` (hashing only).
"""

import logging
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.registry import load, names
from openclimb.config.schema import EmbedSettings
from openclimb.errors import ConfigError, MissingDependency, OpenclimbError, WorkspaceError
from openclimb.workspace.files import atomic, file_stamps

Vectors = NDArray[np.float32]  # shape (n, dim), rows of unit norm
Embedder = Callable[[Sequence[str]], Vectors]

MOST_CHARS = 2000  # of a document are embedded, from its start
BATCH = 256  # documents embedded at once
DIM = 256  # of the hashing embedder
STATIC_BATCH = 32  # a static model is no faster on more texts at once, and its tokens take much memory
N_FEATURES = 2**15  # of the hashing embedder: components take dim × 2^15 × 4 bytes in every process (34 MB at 256)
HUB_SECONDS = 10  # that the hub may take to answer
N_FIT_TEXTS = 20_000  # the hashing embedder is fitted on this many; more change its directions little
FIX = 'give a folder that exists, or embedder = "hashing", which needs no model'
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def fit_embedder(settings: EmbedSettings, texts: Sequence[str], seed: int, out: Path) -> None:
    """Fit what there is to fit and write it to `out`; load a pretrained model once, so that its errors come now."""
    if settings.embedder == "hashing":
        fit_hashing([text[:MOST_CHARS] for text in texts[:N_FIT_TEXTS]], DIM, seed, out)
    else:
        load_embedder(settings, out)(texts[:1])


def load_embedder(settings: EmbedSettings, folder: Path) -> Embedder:
    """Return the embedder of the settings; `folder` holds what `fit_embedder` wrote. Kept in memory until the
    model's files change.

    Raises ConfigError when the model cannot be found or gives no vectors, MissingDependency when its library is absent.
    """
    return _load(settings, folder, (*file_stamps(str(folder / "embedder.npz")), *file_stamps(settings.model)))


@lru_cache(maxsize=2)
def _load(settings: EmbedSettings, folder: Path, _stamps: tuple[tuple[str, int, int], ...]) -> Embedder:
    encode = load("embedder", settings.embedder)
    if settings.embedder in names("embedder"):
        encode = encode(settings, folder)
    return partial(_embed, encode, settings)


def gpu_share(settings: EmbedSettings) -> float:
    """Return the share of a GPU that a process with this embedder takes, where there is one; 0: it has no use for it.

    Four processes share one: a single one reads and scores half of the time (bench/gpu.py).
    """
    return 0.0 if settings.embedder in ("model2vec", "hashing") else 0.25


def _embed(encode: Callable[[Sequence[str]], Any], settings: EmbedSettings, texts: Sequence[str]) -> Vectors:
    cut = [text[:MOST_CHARS] for text in texts]
    parts = [_checked(encode(cut[i : i + BATCH]), settings) for i in range(0, len(cut), BATCH)]
    return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def _checked(found: Any, settings: EmbedSettings) -> Vectors:
    vectors = np.asarray(found, dtype=np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ConfigError(
            f"the embedder '{settings.embedder}' gave an array of shape {vectors.shape}"
            + ("" if vectors.ndim != 2 else " with values that are not finite"),
            "it must give finite numbers of shape (texts, dimensions)",
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    # A text without any known token has the zero vector; it gets one direction, the same each time.
    return np.where(norms > 0, vectors / np.maximum(norms, 1e-30), np.float32(vectors.shape[1] ** -0.5)).astype(
        np.float32
    )


def static(settings: EmbedSettings, _folder: Path) -> Embedder:
    try:
        from model2vec import StaticModel
    except ImportError:
        raise MissingDependency("model2vec", "pip install 'openclimb[embed]'") from None
    model = _pretrained(
        settings, lambda name: StaticModel.from_pretrained(name, quantize_to="float32", force_download=False)
    )
    return partial(model.encode, use_multiprocessing=False, batch_size=STATIC_BATCH)


def transformer(settings: EmbedSettings, _folder: Path) -> Embedder:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingDependency("sentence-transformers", "pip install 'openclimb[embed]'") from None
    model = _pretrained(settings, SentenceTransformer)
    return partial(model.encode, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)


def check_model(settings: EmbedSettings) -> None:
    """Raise ConfigError when there is no such folder, nor a model of that name in the hub's cache or on the hub.

    Fetches nothing; asks the hub only for a model that is not in the cache.
    """
    name = settings.model
    if Path(name).expanduser().is_dir():
        return
    if not HUB_NAME.fullmatch(name):
        raise ConfigError(f"embed.model: there is no folder '{name}'", FIX)
    from huggingface_hub import HfApi, try_to_load_from_cache  # both libraries of models bring it

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except Exception as error:  # network, authentication, name: the hub's client raises many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"embed.model: '{name}' is not in the hub's cache and cannot be fetched from here: {reason}", FIX
        ) from None


def _pretrained(settings: EmbedSettings, load: Callable[[str], Any]) -> Any:
    name = settings.model
    path = Path(name).expanduser()
    if not path.is_dir() and not HUB_NAME.fullmatch(name):
        raise ConfigError(f"embed.model: there is no folder '{name}'", FIX)
    quiet = [logging.getLogger(library) for library in ("transformers", "sentence_transformers", "model2vec")]
    levels = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.ERROR)  # their load reports would break the progress view
    try:
        return load(str(path) if path.is_dir() else name)
    except OpenclimbError:
        raise
    except Exception as error:  # each library and hub client has its own; all mean the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"embed.model: cannot load '{name}' as a {settings.embedder} model: {reason}", FIX) from error
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)


def _hashed(texts: Sequence[str]) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=N_FEATURES, alternate_sign=False, norm=None, dtype=np.float32).transform(texts)


def _weighted(counts: Any, idf: NDArray[np.float32]) -> Any:
    """Return TF-IDF with sublinear term frequency, rows of unit norm."""
    from sklearn.preprocessing import normalize

    weighted = counts.copy()
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices]
    return normalize(weighted, copy=False)


def fit_hashing(texts: Sequence[str], dim: int, seed: int, out: Path) -> None:
    """Fit hashing → TF-IDF → truncated SVD (latent semantic analysis) and write `embedder.npz`: idf, components."""
    from sklearn.utils.extmath import randomized_svd

    counts = _hashed(texts)
    seen = np.bincount(counts.indices, minlength=N_FEATURES)
    idf = (np.log((1 + len(texts)) / (1 + seen)) + 1).astype(np.float32)
    n_components = max(1, min(dim, len(texts) - 1))
    _, _, components = randomized_svd(_weighted(counts, idf), n_components, random_state=seed)
    with atomic(out / "embedder.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, idf=idf, components=components.astype(np.float32))


def hashing(_settings: EmbedSettings, folder: Path) -> Embedder:
    path = folder / "embedder.npz"
    if not path.is_file():
        raise WorkspaceError(f"{path} is missing", "run the stage that makes it: climb run")
    with np.load(path, allow_pickle=False) as arrays:
        idf, components = arrays["idf"], arrays["components"]

    def encode(texts: Sequence[str]) -> Vectors:
        return np.asarray(_weighted(_hashed(texts), idf) @ components.T, dtype=np.float32)

    return encode
