"""Clusters become domains: pruned with a reason, merged by nearness, named, capped; nothing is deleted."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openclimb.clustering.domains import make_domains
from openclimb.config.schema import DomainsSettings, TargetSettings
from openclimb.corpus.domains import read_assignment, read_domains
from openclimb.engines.local import LocalEngine
from openclimb.errors import ConfigError, DomainError
from openclimb.progress import Progress
from openclimb.workspace.context import StageContext
from openclimb.workspace.tables import read_rows

# Six clusters in three directions, two near each other in each.
ANGLES = np.deg2rad([0, 8, 90, 98, 200, 208])
CENTROIDS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
WORDS = ("sheep wool", "sheep goat", "engine steam", "engine rail", "poem rhyme", "poem verse")
TOKENS = (1000, 800, 600, 400, 300, 100)
SCORES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
ALL = DomainsSettings(merge_to=3, min_share=0.0)
TARGET = TargetSettings(token_budget=3200, max_repetitions=4)


def write_stages(
    root: Path, sources: Sequence[str] = (), tokens: Sequence[int] = TOKENS, distance: Sequence[float] = ()
) -> tuple[Path, Path]:
    """Write finished clusters and labels: ten documents a cluster in two units, the tenth a copy of the ninth."""
    clusters, labels = root / "clusters", root / "labels"
    clusters.mkdir(parents=True)
    labels.mkdir()
    owner = np.repeat(np.arange(len(tokens)), 10)
    names = list(sources) or [str(i) for i in range(len(tokens))]
    excerpts = [f"{WORDS[i % 6]} and more" for i in owner]
    sample = {"cluster": np.full(len(owner), -1) if sources else owner, "source": [names[i] for i in owner]}
    pq.write_table(pa.table({**sample, "excerpt": excerpts}), clusters / "sample.parquet")
    (clusters / "words.json").write_text(json.dumps({name: WORDS[i % 6].split() for i, name in enumerate(names)}))
    if not sources:
        np.save(clusters / "centroids.npy", CENTROIDS)
    hashes = np.arange(len(owner), dtype=np.uint64)
    hashes[9::10] = hashes[8::10]
    table = pa.table(
        {
            "position": np.arange(len(owner)),
            "cluster": (np.full(len(owner), -1) if sources else owner).astype(np.int32),
            "source": pa.array([names[i] if sources else "" for i in owner]).dictionary_encode(),
            "distance": np.array(distance if len(distance) else [0.0] * len(owner), np.float32),
            "bytes": np.array(tokens)[owner] // 10 * 4,
            "tokens": (np.array(tokens)[owner] // 10).astype(np.int32),
            "hash": hashes,
            "good": np.array(SCORES * 2, np.float32)[owner],
        }
    )
    half = len(owner) // 2 + 3
    pq.write_table(table[:half], labels / "unit-00000.parquet")
    pq.write_table(table[half:], labels / "unit-00001.parquet")
    return clusters, labels


def make(
    root: Path,
    settings: DomainsSettings = ALL,
    target: TargetSettings = TARGET,
    least: int = 0,
    **stages: Sequence[object],
) -> Path:
    """Make domains in a fresh folder and return it."""
    clusters, labels = write_stages(root, **stages)  # type: ignore[arg-type]
    (root / "domains").mkdir()
    make_domains(StageContext(root / "domains", LocalEngine(1), Progress()), clusters, labels, settings, target, least)
    return root / "domains"


def column(rows: Sequence[Mapping[str, str]], name: str) -> list[str]:
    return [row[name] for row in rows]


def test_near_clusters_become_one_domain_the_largest_first(tmp_path: Path) -> None:
    folder = make(tmp_path)
    domains = read_domains(folder)
    assert [domain.name.split("-")[0] for domain in domains] == ["sheep", "engine", "poem"]
    assert [domain.n_tokens for domain in domains] == [1800, 1000, 400]
    assert [domain.cap for domain in domains] == pytest.approx([1, 1, 0.5])
    assert np.load(folder / "assignment.npy", allow_pickle=False).tolist() == [0, 0, 1, 1, 2, 2]
    rows = read_rows(folder / "domains.csv")
    assert column(rows, "n_clusters") == ["2", "2", "2"]
    assert float(rows[0]["good"]) == pytest.approx((1000 * 0.9 + 800 * 0.8) / 1800, abs=1e-4)
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    middle = np.load(folder / "centroids.npy", allow_pickle=False)[0]
    np.testing.assert_allclose(middle, (1000 * CENTROIDS[0] + 800 * CENTROIDS[1]) / 1796, atol=0.01)


def test_the_tables_tell_of_every_cluster(tmp_path: Path) -> None:
    rows = read_rows(make(tmp_path, replace(ALL, prune_below={"good": 0.55})) / "clusters.csv")
    assert column(rows, "kept") == ["yes"] * 4 + ["no"] * 2
    assert rows[4]["reason"] == "mean good 0.500 is below 0.55"
    assert (rows[4]["domain"], rows[4]["words"]) == ("", "poem rhyme")
    assert column(rows, "duplicates") == ["1"] * 6
    assert column(rows, "documents") == ["10"] * 6
    assert [int(row["bytes"]) for row in rows] == [4 * n for n in TOKENS]


def test_documents_find_their_domain(tmp_path: Path) -> None:
    folder = make(tmp_path, replace(ALL, prune_below={"good": 0.45}))
    labels = pa.table({"cluster": np.array([5, 0, 3, 4], np.int32)})
    assert read_assignment(folder)(labels).tolist() == [-1, 0, 1, 2]


def test_pruning_by_quantile_takes_the_lowest_and_adds_reasons(tmp_path: Path) -> None:
    settings = replace(ALL, prune_quantile={"good": 0.34}, prune_below={"good": 0.45})
    rows = read_rows(make(tmp_path, settings) / "clusters.csv")
    assert column(rows, "kept") == ["yes"] * 4 + ["no"] * 2
    assert rows[4]["reason"] == "mean good 0.500 is in the lowest 34%"
    assert rows[5]["reason"] == "mean good 0.400 is below 0.45; mean good 0.400 is in the lowest 34%"


def test_the_distance_decides_when_no_number_is_asked_for(tmp_path: Path) -> None:
    # Neighbours are 2·sin(4°) = 0.14 apart; the pairs are joined only beyond that.
    near = make(tmp_path / "near", replace(ALL, merge_to=0, merge_distance=0.13))
    far = make(tmp_path / "far", replace(ALL, merge_to=0, merge_distance=0.15))
    assert (len(read_domains(near)), len(read_domains(far))) == (6, 3)


def test_raw_centroids_are_as_long_as_their_clusters_are_close(tmp_path: Path) -> None:
    """The mean of unit vectors is their direction times their mean cosine: wide clusters are nearer to all others."""
    settings = replace(ALL, merge_to=0, merge_distance=0.13)  # neighbours are 0.14 apart where clusters are points
    wide = np.full(60, 0.6, np.float32)  # cosine 1 − 0.6² ÷ 2 = 0.82: their means are 0.82 × 0.14 = 0.115 apart
    unit = make(tmp_path / "unit", settings, distance=wide)
    raw = make(tmp_path / "raw", replace(settings, centroids="raw"), distance=wide)
    points = make(tmp_path / "points", replace(settings, centroids="raw"))
    assert [len(read_domains(folder)) for folder in (unit, raw, points)] == [6, 3, 6]


def test_names_are_plain_and_distinct(tmp_path: Path) -> None:
    names = [domain.name for domain in read_domains(make(tmp_path, replace(ALL, merge_to=6)))]
    assert len(set(names)) == 6
    assert all(name.replace("-", "").isalnum() and name == name.lower() for name in names)


def test_a_small_domain_joins_its_nearest(tmp_path: Path) -> None:
    folder = make(tmp_path, replace(ALL, merge_to=6, min_share=0.05))  # 100 of 3200 tokens is less
    assert [domain.n_tokens for domain in read_domains(folder)] == [1000, 800, 600, 400, 400]


def test_a_domain_of_which_a_trial_reads_no_sequence_joins_or_is_left_out_and_named(tmp_path: Path) -> None:
    joined = make(tmp_path / "clusters", replace(ALL, merge_to=6), least=150)
    assert [domain.n_tokens for domain in read_domains(joined)] == [1000, 800, 600, 400, 400]
    sources = ("notes", "wiki", "code", "none")
    folder = make(tmp_path / "sources", ALL, least=150, sources=sources, tokens=(100, 1000, 3000, 0))
    assert [domain.name for domain in read_domains(folder)] == ["code", "wiki"]
    reasons = {row["cluster"]: row["reason"] for row in read_rows(folder / "clusters.csv")}
    assert reasons["notes"] == "100 tokens, of which a trial reads less than a sequence: 150 needed"
    assert reasons["none"].startswith("0 tokens")
    with pytest.raises(DomainError, match="every one of the 2 clusters is pruned: 100 tokens") as caught:
        make(tmp_path / "none", ALL, TargetSettings(token_budget=200), 150, sources=("a", "b"), tokens=(100, 100))
    assert caught.value.fix == "raise proxy.token_budget"
    with pytest.raises(DomainError, match="one domain is left, and a mixture needs two; left out: notes") as caught:
        make(tmp_path / "one", ALL, least=150, sources=("notes", "wiki"), tokens=(100, 3200))
    assert "proxy.token_budget" in caught.value.fix


def test_a_cluster_without_documents_is_not_kept(tmp_path: Path) -> None:
    clusters, labels = write_stages(tmp_path)
    np.save(clusters / "centroids.npy", np.concatenate([CENTROIDS, -CENTROIDS[:1]]))
    (tmp_path / "domains").mkdir()
    make_domains(StageContext(tmp_path / "domains", LocalEngine(1), Progress()), clusters, labels, ALL, TARGET)
    assert read_rows(tmp_path / "domains" / "clusters.csv")[6]["reason"] == "no documents"


def test_ready_made_sources_keep_their_names_and_are_not_merged(tmp_path: Path) -> None:
    sources = ("wiki", "Code, mostly", "b")
    folder = make(tmp_path, replace(ALL, prune_below={"good": 0.75}), sources=sources, tokens=(1000, 3000, 900))
    domains = read_domains(folder)
    assert [(domain.name, domain.n_tokens) for domain in domains] == [("Code, mostly", 3000), ("wiki", 1000)]
    labels = pa.table({"source": pa.array(["b", "wiki", "Code, mostly", "wiki"]).dictionary_encode()})
    assert read_assignment(folder)(labels).tolist() == [-1, 1, 0, 1]
    assert not (folder / "assignment.npy").exists()


def test_every_cluster_pruned_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        DomainError, match="every one of the 6 clusters is pruned: mean good .* is below 0.95"
    ) as caught:
        make(tmp_path, replace(ALL, prune_below={"good": 0.95}))
    assert "prune_below" in caught.value.fix


def test_one_domain_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match="one domain is left"):
        make(tmp_path, replace(ALL, merge_to=1))


def test_an_unknown_score_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"domains\.prune_below: no scorer gave 'god' \(did you mean 'good'\?\)"):
        make(tmp_path, replace(ALL, prune_below={"god": 0.5}))


def test_caps_that_no_mixture_can_meet_are_told_and_the_cure_works(tmp_path: Path) -> None:
    greedy = TargetSettings(token_budget=16_000, max_repetitions=4)
    with pytest.raises(
        DomainError, match=r"caps, which sum to 80\.0%: sheep\S* 45\.0%, engine\S* 25\.0%, poem\S* 10\.0%"
    ) as caught:
        make(tmp_path / "no", target=greedy)
    assert "at most 12,800" in caught.value.fix
    assert "at least 5" in caught.value.fix
    assert len(read_domains(make(tmp_path / "less", target=replace(greedy, token_budget=12_800)))) == 3
    assert len(read_domains(make(tmp_path / "more", target=replace(greedy, max_repetitions=5)))) == 3


def test_of_a_large_corpus_a_share_of_the_hashes_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclimb.clustering.totals.MOST_HASHES", 30)  # of 60: every other hash
    rows = read_rows(make(tmp_path) / "clusters.csv")
    # The copied hashes are 8, 18, 28 …, all even: each copy found stands for two.
    assert column(rows, "duplicates") == ["2"] * 6
