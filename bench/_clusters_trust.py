"""What the measures of trust say of good clusters and of bad ones that were planted: rows of bench/clusters.py."""

import gettext
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.clustering.kmeans import KMeans, Vectors, assign, choose_k, fit_kmeans
from openclimb.clustering.trust.measure import HARDLY, agreement_of_halves, measure_trust
from openclimb.clustering.trust.result import Trust, trust_warnings
from openclimb.clustering.trust.vocabulary import known_share

LANGUAGES = "de fr es it pl cs fi hu tr vi ru uk el he ar zh_CN ja ko th hi".split()
CHARS = 800  # of a document of messages
LEAST = 40  # characters of a message: shorter ones are labels
PLANTED = 0.2  # of the documents are of other languages
GIANT = 0.92  # of the documents are alike
DRAWS = 5  # of halves
MANY = 40  # documents a cluster: too few

Encode = Callable[[Sequence[str]], Vectors]


def trust_rows(texts: list[str], embed: Encode, vocabulary: Path, catalogues: Path, k: int) -> list[dict[str, Any]]:
    """Return the rows of all cases; texts in random order, `catalogues` a folder LANGUAGE/LC_MESSAGES/*.mo."""
    vectors = embed(texts)
    good = _fitted("good clusters", texts, vectors, vocabulary, k)
    more = _fitted("good clusters", texts, vectors, vocabulary, choose_k(len(texts)))
    many = _fitted("too many clusters", texts, vectors, vocabulary, len(texts) // MANY)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(vectors.shape).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    alike = vectors.copy()
    some = rng.random(len(texts)) < GIANT
    alike[some] = vectors[0] + 0.3 * noise[some]
    alike /= np.linalg.norm(alike, axis=1, keepdims=True)
    spread = [agreement_of_halves(vectors[rng.permutation(len(vectors))], k, 0)[0] or 0.0 for _ in range(DRAWS)]
    rows = [
        *good,
        _row(f"good clusters, K = {k}", f"agreement of halves, least of {DRAWS} draws", min(spread), max(spread)),
        *more,
        *many,
        *_fitted("vectors without structure", texts, noise, vocabulary, k),
        *_random("random clusters", texts, vectors, vocabulary, k),
        *_fitted(f"{GIANT:.0%} of the documents alike", texts, alike, vocabulary, k),
    ]
    foreign = {language: list(documents(catalogues / language, 400)) for language in LANGUAGES}
    english = list(documents(catalogues / "de", 400, english=True))
    mixed = _mixed(texts, [text for found in foreign.values() for text in found], rng)
    rows += _fitted(f"{PLANTED:.0%} in {len(LANGUAGES)} other languages", mixed, embed(mixed), vocabulary, k)
    for name, found in {"the corpus": texts[:3000], "en": english, **foreign}.items():
        shares = known_share(found, vocabulary)
        rows += [
            _row("words known", f"{name}: documents with hardly a known word", float(np.mean(shares < HARDLY))),
            _row("words known", f"{name}: median share of letters in known words", float(np.nanmedian(shares))),
        ]
    return rows


def documents(folder: Path, n: int, *, english: bool = False) -> Iterator[str]:
    """Yield n documents made of the sentences of a language's message catalogues, or of their English originals."""
    kept: list[str] = []
    for path in sorted((folder / "LC_MESSAGES").glob("[!i]*.mo")):  # iso_*: names of countries, no sentences
        with open(path, "rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        for original, translation in catalogue.items():
            if isinstance(original, str) and len(original) >= LEAST and translation != original:
                kept.append(original if english else translation)
            if sum(map(len, kept)) >= CHARS:
                yield "\n".join(kept)
                kept, n = [], n - 1
            if not n:
                return


def _mixed(texts: list[str], foreign: list[str], rng: np.random.Generator) -> list[str]:
    """Return as many texts, of which a part is of other languages."""
    chosen = rng.choice(len(foreign), int(PLANTED * len(texts)), replace=True)
    mixed = [*(foreign[i] for i in chosen.tolist()), *texts[len(chosen) :]]
    return [mixed[i] for i in rng.permutation(len(mixed)).tolist()]


def _fitted(case: str, texts: list[str], vectors: Vectors, vocabulary: Path, k: int) -> list[dict[str, Any]]:
    began = time.perf_counter()
    kmeans = fit_kmeans(vectors, k, 0)
    fit_seconds = time.perf_counter() - began
    cluster, _ = assign(vectors, kmeans.centroids)
    began = time.perf_counter()
    trust = measure_trust(vectors, kmeans, cluster, texts, vocabulary, 0)
    seconds = time.perf_counter() - began
    rows = _rows(f"{case}, K = {k}", trust)
    return [*rows, _row(f"{case}, K = {k}", "seconds, against k-means alone", seconds, fit_seconds)]


def _random(case: str, texts: list[str], vectors: Vectors, vocabulary: Path, k: int) -> list[dict[str, Any]]:
    """Return the rows of clusters that documents were drawn into, whatever they are."""
    cluster = np.random.default_rng(1).integers(k, size=len(texts)).astype(np.int32)
    kmeans = KMeans(np.zeros((k, vectors.shape[1]), np.float32), np.bincount(cluster, minlength=k), 0.0)
    rows = _rows(f"{case}, K = {k}", measure_trust(vectors, kmeans, cluster, texts, vocabulary, 0))
    return [row for row in rows if "halves" not in row["metric"]]  # which do not see these clusters


def _rows(case: str, trust: Trust) -> list[dict[str, Any]]:
    found: dict[str, Any] = {
        "smallest share": trust.smallest,
        "largest share": trust.largest,
        "agreement of halves": trust.agreement,
    }
    if trust.intruder:
        found |= {
            "intruder found": trust.intruder.rate,
            "intruder found, low": trust.intruder.low,
            "intruder found, high": trust.intruder.high,
            "intruder found, loosest cluster": trust.intruder.loosest_rate,
        }
    if trust.unknown:
        found |= {"hardly a known word": trust.unknown.share, "of these in one cluster": trust.unknown.in_home}
    rows = [_row(case, metric, value) for metric, value in found.items() if value is not None]
    for one in trust.scripts:
        rows.append(_row(case, f"{one.name}: in one cluster ({one.share:.1%} of all)", one.in_home))
        rows.append(_row(case, f"{one.name}: share of that cluster", one.of_home))
    return [*rows, _row(case, "warnings", len(trust_warnings(trust)))]


def _row(case: str, metric: str, value: float, reference: float | None = None) -> dict[str, Any]:
    shown = None if reference is None else round(reference, 4)
    return {"case": case, "metric": metric, "value": round(float(value), 4), "reference": shown}
