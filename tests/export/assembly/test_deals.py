"""Deals: every copy stands once in the files of its shard, whatever the sizes of hands, groups and parts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.select_documents import DocumentChoice
from openclimb.engines.local import LocalEngine
from openclimb.export.assembly import deals
from openclimb.export.assembly.deals import Places, make_deals, rows_of
from openclimb.export.assembly.pieces import Work, piece_schema
from openclimb.export.assembly.plan import Counts, DomainPlan, plan_domain
from openclimb.progress import Progress

N = 400  # documents of a piece
PIECES = 5


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Work whose pieces are there: three domains, of which the last is not read."""
    choice = DocumentChoice(tmp_path, tmp_path, 0.0, 0, (1.0, 1.0, 0.0, 0.0))
    names = ("a", "b", "c")
    work = Work(choice, None, {}, (), CorpusSettings(), names, tmp_path, tmp_path / "pieces-1", "parquet")
    work.pieces.mkdir()
    rng = np.random.default_rng(0)
    for unit in range(PIECES):
        columns = {
            "domain": rng.integers(0, 2, N).astype(np.int16),
            "order": rng.integers(0, 2**64, N, dtype=np.uint64),
            "tokens": rng.integers(10, 90, N).astype(np.int32),
            "bytes": np.full(N, 40, np.int32),
            "position": np.arange(N) + 1000 * unit,
            "id": [str(i) for i in range(N)],
            "text": ["some words " * 4] * N,
        }
        pq.write_table(pa.table(columns, schema=piece_schema({}, ())), work.pieces / f"unit-{unit:05d}.parquet")
    return work


def plans_of(work: Work, quota: tuple[float, float]) -> list[DomainPlan]:
    """Return plans that read the two domains as many times as `quota` says."""
    counts = Counts.empty(3)
    for path in sorted(work.pieces.iterdir()):
        table = pq.read_table(path)
        counts.add(*(table.column(name).to_numpy() for name in ("domain", "order", "tokens", "bytes")))
    tokens = counts.tokens.sum(axis=1)
    return [*(plan_domain(int(quota[d] * tokens[d]), counts.tokens[d], True) for d in (0, 1)), DomainPlan(0)]


def dealt(work: Work, plans: list[DomainPlan], places: Places) -> list[list[tuple[int, int, int]]]:
    """Return for each shard the (unit, position, repetition) of its rows."""
    engine = LocalEngine(1)
    try:
        sources = make_deals(work, plans, places, engine, Progress())
    finally:
        engine.release()
    found = []
    for shard, paths in enumerate(sources):
        rows = [row for path in paths for table in rows_of(path, shard, shard + 1) for row in table.to_pylist()]
        for row in rows:
            assert row["position"] // 1000 == row["unit"]
            assert places.shards(row["domain"], np.array([row["place"]]))[0] == shard == row["shard"]
        found.append(sorted((row["unit"], row["position"], row["repetition"]) for row in rows))
    return found


@pytest.mark.parametrize(
    "places", [Places((0, 0, 0), (9, 9, 9), 9), Places((0, 4, 9), (4, 5, 0), 9)], ids=["mixture", "domains apart"]
)
def test_every_copy_comes_once_in_its_shard(
    work: Work, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = plans_of(work, (2.5, 0.4))
    expected = []
    for path in sorted(work.pieces.iterdir()):
        table = pq.read_table(path)
        domain, order = table.column("domain").to_numpy(), table.column("order").to_numpy()
        for d in (0, 1):
            its = np.flatnonzero(domain == d)
            for number, mine, _ in plans[d].copies(order[its]):
                expected += [(int(path.stem[-5:]), int(path.stem[-5:]) * 1000 + int(i), number) for i in its[mine]]
    found = dealt(work, plans, places)
    assert sorted(row for rows in found for row in rows) == sorted(expected)
    assert len(list((tmp_path / "deals").iterdir())) == 1
    (tmp_path / "deals").rename(tmp_path / "once")
    for name, value in (("FAN", 4), ("HAND_BYTES", 20_000), ("PIECES_BYTES", 1), ("READ_ROWS", 33)):
        monkeypatch.setattr(deals, name, value)
    assert dealt(work, plans, places) == found
    assert len(list((tmp_path / "deals").iterdir())) == PIECES
    assert len(list((tmp_path / "parts").iterdir())) == 3
    groups = pq.ParquetFile(tmp_path / "parts" / "part-00000.parquet").metadata
    column = pq.ParquetFile(tmp_path / "parts" / "part-00000.parquet").schema_arrow.names.index("shard")
    for number in range(groups.num_row_groups):  # so that a shard reads its own rows alone
        statistics = groups.row_group(number).column(column).statistics
        assert statistics.min == statistics.max


def test_a_deal_that_is_there_is_not_made_again(work: Work, tmp_path: Path) -> None:
    plans, places = plans_of(work, (1.0, 1.0)), Places((0, 0, 0), (2, 2, 2), 2)
    before = dealt(work, plans, places)
    (path,) = (tmp_path / "deals").iterdir()
    stamp = path.stat().st_mtime_ns
    assert dealt(work, plans, places) == before
    assert path.stat().st_mtime_ns == stamp


def test_documents_of_which_none_is_read_make_an_empty_deal(work: Work) -> None:
    assert dealt(work, [DomainPlan(0)] * 3, Places((0, 0, 0), (1, 1, 1), 1)) == [[]]
