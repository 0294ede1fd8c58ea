"""Embedders: texts → unit vectors, shape (n, dim).

Three are built in: a model2vec static model (fast on a CPU), any sentence-transformers model, and hashing + SVD,
which is fitted on the corpus and needs no download. Any `package.module:function` that takes texts and gives vectors
serves as well. Reads and writes `clusters/embedder.npz` (hashing only).
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.registry import load, names
from openclimb.config.schema import EmbedSettings
from openclimb.errors import ConfigError, MissingDependency, OpenclimbError, WorkspaceError
from openclimb.quality.scorers import GPU_SHARE
from openclimb.remote_code import HUB_NAME, mapped_classes, remote_classes, stop_on_remote_code
from openclimb.workspace.files import atomic, file_stamps, fingerprint, folder_fingerprint

Vectors = NDArray[np.float32]  # shape (n, dim), rows of unit norm
Embedder = Callable[[Sequence[str]], Vectors]

MOST_CHARS = 2000  # of a document are embedded, from its start, unless `embed.max_tokens` says how much
TOKEN_CHARS = 16  # more characters a token than any text has, on average
BATCH = 256  # documents embedded at once
DIM = 256  # of the hashing embedder
STATIC_BATCH = 32  # a static model is no faster on more texts at once, and its tokens take much memory
N_FEATURES = 2**15  # of the hashing embedder: components take dim × 2^15 × 4 bytes in every process (34 MB at 256)
HUB_SECONDS = 10  # that the hub may take to answer
N_FIT_TEXTS = 20_000  # the hashing embedder is fitted on this many; more change its directions little
FIX = 'give a folder that exists, or embedder = "hashing", which needs no model'


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


def embedding_fingerprint(settings: EmbedSettings, folder: Path) -> str:
    """Return what stands for the vectors of an embedder: equal ones may be given to a head that was trained on them.

    `folder` holds what `fit_embedder` wrote; "" where the embedder is still to be fitted.
    """
    if settings.embedder == "hashing":
        fitted = folder_fingerprint(str(folder / "embedder.npz"))
        return fingerprint([settings.embedder, fitted]) if fitted else ""
    content = folder_fingerprint(settings.model) or settings.model
    return fingerprint([settings.embedder, content, settings.revision])


def gpu_share(settings: EmbedSettings) -> float:
    """Return the share of a GPU that a process with this embedder takes, where there is one; 0: it has no use for it.

    Four processes share one: a single one reads and scores half of the time (bench/gpu.py).
    """
    return 0.0 if settings.embedder in ("model2vec", "hashing") else GPU_SHARE


def vocabulary(settings: EmbedSettings) -> Path | None:
    """Return the tokenizer.json of the embedder's model on this machine; None where it has none that is known."""
    if settings.embedder not in ("model2vec", "sentence-transformers"):
        return None
    path = Path(settings.model).expanduser()
    folder = path if path.is_dir() else _cached(settings)
    return folder / "tokenizer.json" if folder and (folder / "tokenizer.json").is_file() else None


def _embed(encode: Callable[[Sequence[str]], Any], settings: EmbedSettings, texts: Sequence[str]) -> Vectors:
    most = settings.max_tokens * TOKEN_CHARS or MOST_CHARS
    cut = [text[:most] for text in texts]
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

    def load_static(name: str) -> Any:
        return StaticModel.from_pretrained(_pinned(settings, name), quantize_to="float32", force_download=False)

    model = _pretrained(settings, load_static)
    return partial(model.encode, use_multiprocessing=False, batch_size=STATIC_BATCH)


def transformer(settings: EmbedSettings, _folder: Path) -> Embedder:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingDependency("sentence-transformers", "pip install 'openclimb[embed]'") from None
    _stop_on_own_code(settings, _known_classes(settings))
    trusted, revision = settings.trust_remote_code, settings.revision or None
    model = _pretrained(settings, lambda name: SentenceTransformer(name, trust_remote_code=trusted, revision=revision))
    if settings.max_tokens:
        model.max_seq_length = settings.max_tokens
    return partial(model.encode, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)


def check_model(settings: EmbedSettings) -> None:
    """Raise ConfigError when there is no such folder, nor a model of that name in the hub's cache or on the hub, or
    when it brings code that may not run.

    Fetches nothing; asks the hub only for a model that is not in the cache.
    """
    name = settings.model
    _check_name(settings)
    if Path(name).expanduser().is_dir() or _cached(settings):
        classes = _known_classes(settings)
    else:
        from huggingface_hub import HfApi

        try:
            found = HfApi().model_info(name, revision=settings.revision or None, timeout=HUB_SECONDS)
        except Exception as error:  # network, authentication, name: the hub's client raises many kinds
            raise ConfigError(
                f"embed.model: '{name}' is not in the hub's cache and cannot be fetched from here: {_reason(error)}",
                FIX,
            ) from None
        classes = mapped_classes(found.config or {})
    if settings.embedder == "sentence-transformers":  # a static model has no code
        _stop_on_own_code(settings, classes)


def _stop_on_own_code(settings: EmbedSettings, classes: Sequence[str]) -> None:
    pin = "embed.revision to the commit that you read"
    stop_on_remote_code("embed.model", settings.model, classes, trusted=settings.trust_remote_code, pin=pin)


def _check_name(settings: EmbedSettings) -> None:
    """Raise ConfigError for a name that is neither a folder nor one that a hub can have."""
    is_folder = Path(settings.model).expanduser().is_dir()
    if not is_folder and not HUB_NAME.fullmatch(settings.model):
        raise ConfigError(f"embed.model: there is no folder '{settings.model}'", FIX)
    if is_folder and settings.revision:
        raise ConfigError(
            f"embed.revision is of a model on the hub, and '{settings.model}' is a folder",
            'set embed.revision = "", or give the name on the hub',
        )


def _cached(settings: EmbedSettings) -> Path | None:
    """Return the folder of the hub's cache that holds a model's files; None when it was never fetched."""
    from huggingface_hub import try_to_load_from_cache  # both libraries of models bring it

    found = try_to_load_from_cache(settings.model, "config.json", revision=settings.revision or None)
    return Path(found).parent if isinstance(found, str) else None


def _known_classes(settings: EmbedSettings) -> list[str]:
    """Return the classes in a model's own code, as its files on this machine name them; the hub is not asked."""
    _check_name(settings)
    path = Path(settings.model).expanduser()
    folder = path if path.is_dir() else _cached(settings)
    return remote_classes(folder) if folder else []


def _pinned(settings: EmbedSettings, name: str) -> str:
    """Return where the pinned revision of a hub's model is, fetched if need be; the name itself where none is given."""
    if not settings.revision:
        return name
    from huggingface_hub import snapshot_download

    return str(snapshot_download(name, revision=settings.revision))


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _pretrained(settings: EmbedSettings, load: Callable[[str], Any]) -> Any:
    _check_name(settings)
    name = settings.model
    path = Path(name).expanduser()
    quiet = [logging.getLogger(library) for library in ("transformers", "sentence_transformers", "model2vec")]
    levels = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.ERROR)  # their load reports would break the progress view
    try:
        return load(str(path) if path.is_dir() else name)
    except OpenclimbError:
        raise
    except Exception as error:  # each library and hub client has its own; all mean the same to the user
        if "trust_remote_code" in str(error):  # of the hub, and fetched only now
            _stop_on_own_code(settings, _known_classes(settings) or ["its own classes"])
        raise ConfigError(
            f"embed.model: cannot load '{name}' as a {settings.embedder} model: {_reason(error)}", FIX
        ) from error
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
