"""The clusters stage on small real text: kinds of text become clusters, and the files tell what they hold."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from openclimb.clustering import describe
from openclimb.clustering.embed import DIM
from openclimb.clustering.fit import fit, token_rates
from openclimb.config.schema import ClustersSettings, CorpusSettings, EmbedSettings, TokensSettings
from openclimb.corpus.tokenizer import encode_batch, load_tokenizer
from openclimb.engines.local import LocalEngine
from openclimb.errors import ConfigError, InputError
from openclimb.progress import Progress
from openclimb.testing.fixtures import survey_pieces
from openclimb.workspace.context import StageContext

EMBED = EmbedSettings(embedder="hashing")
TOKENS = TokensSettings(vocab_size=400)
SILENT = Progress()


def fitted(corpus_file: Path, root: Path, workers: int = 1, embed: EmbedSettings = EMBED, **clusters: int) -> Path:
    """Fit the corpus in a fresh folder."""
    corpus = CorpusSettings(paths=(str(corpus_file),))
    units = survey_pieces(corpus, root / "corpus", 3)
    (root / "clusters").mkdir()
    settings = ClustersSettings(**clusters)
    fit(StageContext(root / "clusters", LocalEngine(workers), SILENT), units, corpus, embed, settings, TOKENS)
    return root / "clusters"


def test_kinds_of_text_become_clusters(corpus_file: Path, texts: list[tuple[str, str]], tmp_path: Path) -> None:
    folder = fitted(corpus_file, tmp_path, k=3)
    centroids = np.load(folder / "centroids.npy", allow_pickle=False)
    assert centroids.shape == (3, DIM)
    kind_of = {text[:600]: kind for kind, text in texts}
    sample = pq.read_table(folder / "sample.parquet").to_pylist()
    pairs = Counter((kind_of[row["excerpt"]], row["cluster"]) for row in sample)
    assert len(sample) == len(texts)
    cluster = dict(pair for pair, _ in pairs.most_common(3))
    assert set(cluster.values()) == {0, 1, 2}  # each kind has its own cluster
    assert sum(n for _, n in pairs.most_common(3)) > 0.95 * len(texts)
    words = json.loads((folder / "words.json").read_text())
    assert "letter" in words[str(cluster["names"])][:3]
    assert "self" in words[str(cluster["code"])][:3]
    facts = json.loads((folder / "fit.json").read_text())
    assert facts["k"] == 3
    assert sum(facts["sizes"]) == facts["n_sample"] == facts["n_documents_estimate"] == len(texts)
    mapped = [row for row in sample if row["x"] == row["x"]]
    assert len(mapped) == describe.MAP_SIZE
    assert all(0 <= row["x"] <= 1 and 0 <= row["y"] <= 1 for row in mapped)


def test_workers_change_nothing_and_a_second_time_gives_the_same(corpus_file: Path, tmp_path: Path) -> None:
    one = fitted(corpus_file, tmp_path / "one", 1, k=5)
    two = fitted(corpus_file, tmp_path / "two", 2, k=5)
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_the_number_of_clusters_follows_from_the_corpus(corpus_file: Path, tmp_path: Path) -> None:
    facts = json.loads((fitted(corpus_file, tmp_path) / "fit.json").read_text())
    assert facts["k_asked"] == 14  # 2 · 360^(1/3)


def test_token_rates_are_exact_for_each_group(corpus_file: Path, texts: list[tuple[str, str]], tmp_path: Path) -> None:
    path = fitted(corpus_file, tmp_path, k=3) / "tokenizer.json"
    some = [text for _, text in texts[:30]]
    groups = np.array([i % 3 for i in range(30)], dtype=np.int32)
    rates, overall = token_rates(some, groups, 4, path)
    counts = [len(ids) for ids in encode_batch(load_tokenizer(path), some)]
    for group in range(3):
        assert rates[group] == pytest.approx(sum(counts[group::3]) / sum(len(t.encode()) for t in some[group::3]))
    assert rates[3] == overall
    assert min(rates) <= overall <= max(rates)


def test_the_users_tokenizer_is_copied(corpus_file: Path, tmp_path: Path) -> None:
    trained = fitted(corpus_file, tmp_path / "one", k=3) / "tokenizer.json"
    corpus = CorpusSettings(paths=(str(corpus_file),))
    units = survey_pieces(corpus, tmp_path / "corpus")
    tokens = TokensSettings(tokenizer=str(trained))
    fit(StageContext(tmp_path, LocalEngine(1), SILENT), units, corpus, EMBED, ClustersSettings(k=3), tokens)
    assert (tmp_path / "tokenizer.json").read_bytes() == trained.read_bytes()


def test_fewer_documents_than_clusters_stops_the_fit(corpus_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="360 documents are fewer than 400 clusters"):
        fitted(corpus_file, tmp_path, k=400)


def test_a_sample_smaller_than_the_clusters_is_told(corpus_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="20 documents are fewer than 30 clusters") as caught:
        fitted(corpus_file, tmp_path, k=30, sample=20)
    assert "clusters.sample" in caught.value.fix


def test_a_missing_model_stops_the_fit(corpus_file: Path, tmp_path: Path) -> None:
    missing = replace(EMBED, embedder="model2vec", model=str(tmp_path / "no-model"))
    with pytest.raises(ConfigError, match="there is no folder"):
        fitted(corpus_file, tmp_path, embed=missing, k=3)


def test_a_corpus_of_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(InputError, match="no readable document"):
        fitted(tmp_path / "docs.jsonl", tmp_path / "run", k=3)
