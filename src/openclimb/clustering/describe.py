"""What a class of documents is about: class-based TF-IDF words, names made of them, a flat map."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"[^\W\d_]{3,}")
CHARS_READ = 2500  # of a document: enough to know it by, and long documents do not speak for their class alone
MAP_SIZE = 1500  # documents on the map: t-SNE of so many takes seconds


def top_words(texts: Iterable[str], classes: Iterable[int], n_classes: int, n: int = 12) -> list[list[str]]:
    """Return each class's most telling words, best first (class-based TF-IDF: Grootendorst 2022, arXiv 2203.05794).

    A word weighs tf · log(1 + A / f): tf its share of the class's words, f its count in all classes, A the mean count
    of words a class.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    counts: list[Counter[str]] = [Counter() for _ in range(n_classes)]
    for text, found in zip(texts, classes, strict=True):
        words = set(WORD.findall(text[:CHARS_READ].lower()))
        counts[found].update(words - ENGLISH_STOP_WORDS)  # once a document: one odd text is not its class
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    mean = total.total() / max(1, sum(bool(count) for count in counts))
    return [_best(count, total, mean, n) for count in counts]


def _best(count: Counter[str], total: Counter[str], mean: float, n: int) -> list[str]:
    least = 2 if count and max(count.values()) > 2 else 1  # what only one document says does not tell its class
    weights = {word: times * np.log1p(mean / total[word]) for word, times in count.items() if times >= least}
    return sorted(weights, key=lambda word: (-weights[word], word))[:n]


def domain_names(words: Sequence[Sequence[str]], n_words: int = 3) -> list[str]:
    """Return short distinct names made of top words: lower-case ASCII letters, digits and hyphens."""
    names: list[str] = []
    for index, found in enumerate(words):
        plain = [word for word in found if re.fullmatch(r"[a-z]+", word)]
        distinct = [word for word, before in zip(plain, [None, *plain], strict=False) if not _alike(word, before)]
        name = "-".join(distinct[:n_words]) or f"domain-{index}"
        while name in names:
            extra = [word for word in distinct[n_words:] if f"{name}-{word}" not in names]
            name = f"{name}-{extra[0]}" if extra else f"{name}-{index}"
        names.append(name)
    return names


def _alike(word: str, before: str | None) -> bool:
    return before is not None and (word.startswith(before) or before.startswith(word))


def flat_map(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return places on a map, shape (n, 2): t-SNE, 0 to 1 each way; NaN for vectors beyond the first `MAP_SIZE`."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    places = np.full((len(vectors), 2), np.nan, dtype=np.float32)
    some = vectors[:MAP_SIZE].astype(np.float64)
    n = len(some)
    with threadpool_limits(1):  # sums by several threads differ from run to run
        left, singular, _ = np.linalg.svd(some - some.mean(axis=0), full_matrices=False)
        near = np.pad(left * singular, ((0, 0), (0, 1)))[:, :30]
        flat = near[:, :2]
        if n > 4 and singular[0] > 1e-9:  # else there is nothing to spread out
            start = 1e-4 * flat / flat[:, 0].std()
            perplexity = min(30.0, (n - 1) / 3)
            flat = TSNE(2, perplexity=perplexity, init=start, max_iter=400, random_state=seed).fit_transform(near)
    span = np.maximum(flat.max(axis=0) - flat.min(axis=0), 1e-12)
    places[:n] = (flat - flat.min(axis=0)) / span
    return places
