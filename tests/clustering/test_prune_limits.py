"""What limits take is what the domains stage pruned, and what could be set would take what is said."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from openclimb.clustering.domains import make_domains
from openclimb.clustering.prune_limits import EXAMPLE, prune_limits
from openclimb.config.schema import DomainsSettings, TargetSettings
from openclimb.engines.local import LocalEngine
from openclimb.progress import Progress
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import write_json
from openclimb.workspace.tables import read_rows

SCORE = "heuristics"


def made(finished: Path, root: Path, **limits: dict[str, float]) -> list[dict[str, str]]:
    """Make the domains of a finished workspace again with these limits, in a fresh one; return the clusters' rows."""
    for stage in ("clusters", "labels"):
        shutil.copytree(finished / stage, root / stage)
    (root / "domains").mkdir()
    settings = DomainsSettings(merge_to=2, min_share=0.0, **limits)
    context = StageContext(root / "domains", LocalEngine(1), Progress())
    make_domains(context, root / "clusters", root / "labels", settings, TargetSettings(token_budget=1000))
    both = {"domains.prune_below": settings.prune_below, "domains.prune_quantile": settings.prune_quantile}
    write_json(root / "domains" / "record.json", {"settings": both})
    return read_rows(root / "domains" / "clusters.csv")


def means_of(finished: Path) -> list[float]:
    return sorted(float(row[SCORE]) for row in read_rows(finished / "domains" / "clusters.csv"))


@pytest.mark.parametrize("how", ["below", "quantile", "both"])
def test_a_limit_takes_what_the_stage_pruned(finished: Path, tmp_path: Path, how: str) -> None:
    means = means_of(finished)
    limits = {"prune_below": {SCORE: (means[1] + means[2]) / 2}, "prune_quantile": {SCORE: 3.5 / len(means)}}
    chosen = {name: value for name, value in limits.items() if how in (name.removeprefix("prune_"), "both")}
    rows = made(finished, tmp_path, **chosen)
    gone = [row for row in rows if row["kept"] == "no"]
    assert len(gone) == (2 if how == "below" else 3)
    found = prune_limits(tmp_path)
    assert found is not None
    assert found.clusters == len(rows)
    assert found.unset == []
    (limit,) = found.limits
    assert limit.clusters == len(gone)
    assert limit.tokens == sum(int(row["tokens"]) for row in gone)
    assert limit.share == pytest.approx(limit.tokens / sum(int(row["tokens"]) for row in rows))
    assert {near.cluster for near in limit.near if near.pruned} == {row["cluster"] for row in gone}
    assert [near.mean for near in limit.near] == sorted((near.mean for near in limit.near), reverse=True)
    assert sum(not near.pruned for near in limit.near) == 3
    assert ("below" in limit.set_to, "lowest" in limit.set_to) == (how != "quantile", how != "below")


def test_a_cluster_is_shown_by_its_document_nearest_to_the_centroid(finished: Path, tmp_path: Path) -> None:
    made(finished, tmp_path, prune_quantile={SCORE: 0.3})
    found = prune_limits(tmp_path)
    assert found is not None
    sample = pq.read_table(tmp_path / "clusters" / "sample.parquet").to_pylist()
    for near in found.limits[0].near:
        mine = [row for row in sample if str(row["cluster"]) == near.cluster]
        nearest = min(mine, key=lambda row: float(row["distance"]))
        assert near.example == " ".join(nearest["excerpt"].split())[:EXAMPLE]
        assert near.words


def test_what_could_be_set_takes_what_is_said(finished: Path, tmp_path: Path) -> None:
    before = prune_limits(finished)
    assert before is not None
    assert before.limits == []
    (score,) = before.unset
    assert (score.score, score.lowest, score.highest) == (SCORE, means_of(finished)[0], means_of(finished)[-1])
    assert [choice.quantile for choice in score.choices] == [0.25, 0.5]  # of 8 clusters a tenth is none
    choice = score.choices[0]
    made(finished, tmp_path, prune_below={SCORE: choice.limit})
    after = prune_limits(tmp_path)
    assert after is not None
    assert (after.limits[0].clusters, after.limits[0].share) == (choice.clusters, choice.share) == (2, choice.share)


def test_there_is_nothing_to_say_before_there_are_domains(tmp_path: Path) -> None:
    assert prune_limits(tmp_path) is None


def test_sources_that_were_brought_are_shown_by_their_own_documents(finished: Path, tmp_path: Path) -> None:
    made(finished, tmp_path, prune_quantile={SCORE: 0.3})
    path = tmp_path / "clusters" / "sample.parquet"
    table = pq.read_table(path)
    names = table["cluster"].to_numpy().astype(str)
    sources = table.set_column(table.column_names.index("source"), "source", [names.tolist()])
    bare = sources.set_column(table.column_names.index("cluster"), "cluster", [np.full(len(names), -1, np.int32)])
    pq.write_table(bare, path)
    found = prune_limits(tmp_path)
    assert found is not None
    assert all(near.example for near in found.limits[0].near)
