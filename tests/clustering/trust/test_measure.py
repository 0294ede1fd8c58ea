"""Good clusters measure well, and bad ones that are planted are found: on real text with a static embedder, and on
vectors whose truth is known.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from openclimb.clustering.embed import load_embedder, vocabulary
from openclimb.clustering.kmeans import KMeans, assign, fit_kmeans
from openclimb.clustering.trust.measure import agreement_of_halves, intruder_test, measure_trust
from openclimb.clustering.trust.result import CHANCE, Trust, trust_warnings
from openclimb.config.schema import EmbedSettings

RUSSIAN = "Все люди рождаются свободными и равными в своем достоинстве и правах и наделены разумом и совестью".split()
GREEK = "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα προικισμένοι".split()


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def around(centres: NDArray[np.float64], n: int, spread: float, seed: int = 0) -> NDArray[np.float32]:
    """Return n unit vectors around centres (k, dim) in turn."""
    rng = np.random.default_rng(seed)
    return unit(centres[np.arange(n) % len(centres)] + spread * rng.standard_normal((n, centres.shape[1])))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_odd_one_is_found_where_clusters_are_apart() -> None:
    cluster = np.arange(300, dtype=np.int32) % 6
    found = intruder_test(np.eye(6, dtype=np.float32)[cluster], cluster, rng())
    assert found is not None
    assert found.rate == 1.0
    assert found.low > 0.99
    assert found.triples == 5000
    assert found.loosest_rate == 1.0


def test_the_odd_one_of_random_clusters_is_found_by_chance() -> None:
    vectors = around(np.eye(8), 4000, 0.2)
    cluster = np.random.default_rng(1).integers(8, size=4000).astype(np.int32)
    found = intruder_test(vectors, cluster, rng())
    assert found is not None
    assert found.low < CHANCE < found.high
    assert found.high - found.low < 0.03


def test_the_loosest_cluster_is_named() -> None:
    rows = np.arange(3000, dtype=np.int32)
    cluster = rows % 3
    vectors = np.eye(3)[cluster]
    vectors[cluster == 1] = np.random.default_rng(2).standard_normal((1000, 3))  # has no middle
    found = intruder_test(unit(vectors), cluster, rng())
    assert found is not None
    assert found.loosest == 1
    assert found.loosest_rate is not None
    assert found.loosest_rate < 0.6 < found.rate


@pytest.mark.parametrize("cluster", [np.zeros(50, np.int32), np.arange(50, dtype=np.int32)])
def test_there_are_no_triples_of_one_cluster_nor_of_single_documents(cluster: NDArray[np.int32]) -> None:
    assert intruder_test(around(np.eye(4), 50, 0.1), cluster, rng()) is None


def test_halves_agree_where_there_are_clusters_and_not_where_there_are_none() -> None:
    clear, n = agreement_of_halves(around(np.eye(8), 2000, 0.05), 8, 0)
    assert n == 2000
    assert clear == pytest.approx(1.0)
    none, _ = agreement_of_halves(unit(np.random.default_rng(3).standard_normal((2000, 64))), 8, 0)
    assert none is not None
    assert none < 0.2


def test_halves_that_are_too_small_are_not_compared() -> None:
    assert agreement_of_halves(around(np.eye(8), 31, 0.05), 8, 0)[0] is None


def trusted(texts: list[str], model: Path, k: int = 6) -> Trust:
    """Return the trust in k clusters of texts by a static model."""
    settings = EmbedSettings(model=str(model))
    order = np.random.default_rng(5).permutation(len(texts)).tolist()
    shuffled = [texts[i] for i in order]
    vectors = load_embedder(settings, Path())(shuffled)
    kmeans = fit_kmeans(vectors, k, 0)
    return measure_trust(vectors, kmeans, assign(vectors, kmeans.centroids)[0], shuffled, vocabulary(settings), 0)


@pytest.fixture(scope="module")
def english_model(texts: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model2vec folder that knows the words of the texts, and of other scripts the letters alone.

    A word's vector is random, but near that of its kind of text, as those of a real model are.
    """
    from model2vec import StaticModel
    from tokenizers import models, normalizers, pre_tokenizers

    kinds = sorted({kind for kind, _ in texts})
    normalizer, cutter = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    kind_of = {
        word: kinds.index(kind)
        for kind, text in texts
        for word, _ in cutter.pre_tokenize_str(normalizer.normalize_str(text))
    }
    letters = sorted(set("".join([*RUSSIAN, *GREEK]).lower()))
    entries = ["[PAD]", "[UNK]", *kind_of, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(entries)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, cutter
    vectors = np.random.default_rng(0).standard_normal((len(entries), 16))
    for i, kind in enumerate(kind_of.values()):
        vectors[2 + i, kind] += 3
    vectors[2 + len(kind_of) :] = 0.2 * vectors[2 + len(kind_of) :] + np.eye(16)[10]  # letters tell nothing apart
    folder = tmp_path_factory.mktemp("models") / "english"
    StaticModel(vectors.astype(np.float32), tokenizer, config={"normalize": False}).save_pretrained(str(folder))
    return folder


def test_real_text_that_the_embedder_knows_raises_no_warning(texts: list[tuple[str, str]], english_model: Path) -> None:
    found = trusted([text for _, text in texts], english_model, k=3)
    assert trust_warnings(found) == []
    assert found.agreement is not None
    assert found.agreement > 0.9
    assert found.unknown is not None
    assert found.unknown.documents == 0
    assert [one.name for one in found.scripts] == ["Latin"]


def test_languages_that_an_english_embedder_does_not_know_are_found(
    texts: list[tuple[str, str]], english_model: Path
) -> None:
    draw = np.random.default_rng(4)
    foreign = [" ".join(draw.choice(words, 40)) for words in (RUSSIAN, GREEK) for _ in range(30)]
    found = trusted([*(text for _, text in texts), *foreign], english_model, k=4)
    assert found.unknown is not None
    assert found.unknown.documents == 60
    assert found.unknown.in_home > 0.95
    assert {one.name for one in found.scripts} == {"Latin", "Cyrillic", "Greek"}
    warnings = "\n".join(trust_warnings(found))
    assert "14% of the documents have hardly a word that the embedder knows" in warnings
    assert "Greek (7.1%)" in warnings
    assert "Cyrillic (7.1%)" in warnings


def test_one_giant_cluster_is_found(english_model: Path, texts: list[tuple[str, str]]) -> None:
    draw = np.random.default_rng(6)
    alike = [" ".join(draw.choice(RUSSIAN, 40)) for _ in range(900)]
    found = trusted([*(text for _, text in texts[:90]), *alike], english_model, k=3)
    assert found.largest > 0.85
    assert any("one cluster holds" in warning for warning in trust_warnings(found))


def test_the_shares_are_those_of_the_whole_sample() -> None:
    vectors = around(np.eye(4), 400, 0.05)
    cluster, _ = assign(vectors[:100], np.eye(4, dtype=np.float32))
    kmeans = KMeans(np.eye(4, dtype=np.float32), np.array([700, 200, 90, 10]), 0.0)
    found = measure_trust(vectors, kmeans, cluster, ["a text"] * 100, None, 0)
    assert (found.largest, found.smallest, found.looked_at) == (0.7, 0.01, 100)
    assert found.unknown is None
    assert found.scripts == []


def test_the_same_sample_measures_the_same() -> None:
    vectors = around(np.eye(5), 1000, 0.5)
    kmeans = fit_kmeans(vectors, 5, 0)
    cluster, _ = assign(vectors, kmeans.centroids)
    first, second = (measure_trust(vectors, kmeans, cluster, ["a text"] * 1000, None, 7) for _ in range(2))
    assert first == second
