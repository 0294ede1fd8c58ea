"""Deals: copies of documents, sorted by the shard that each goes to.

The documents of a shard lie in all pieces, as a shard holds a slice of every domain. If each shard looked for them
there, every piece would be read as often as there are shards. So each piece is read once, and its copies are dealt out:
a file has them by shard, in row groups of one part of the shards each. Of more than FAN shards, a second deal makes a
file of each part, so that a shard opens one file.

Writes `OUT.partial/deals/deal-00003.parquet` (domain, tokens, bytes, place, id, text or ids, …, and shard, unit,
repetition and place in the dataset), and `parts/part-00003.parquet`. A file appears when it is complete.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.engines.engine import Engine
from openclimb.export.assembly.pieces import LEVEL, TEMPORARY, Work, find_pieces
from openclimb.export.assembly.plan import DomainPlan
from openclimb.progress import Progress
from openclimb.workspace.files import atomic

FAN = 128  # parts into which one file is sorted
HAND_BYTES = 64_000_000  # in memory, which are sorted at once
PIECES_BYTES = 64_000_000  # of pieces on disk that make one deal
READ_ROWS = 4096  # of a piece at once


@dataclass(frozen=True)
class Places:
    """Which shards a domain's slices are: of domain d, `count[d]` from number `first[d]` on, of `n` shards in all."""

    first: tuple[int, ...]
    count: tuple[int, ...]
    n: int

    @property
    def width(self) -> int:
        """How many shards make a part."""
        return -(-self.n // FAN)

    def shards(self, domain: int, place: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return the shard of each of a domain's copies that lie at these places, 0 to 1, of the dataset."""
        count = self.count[domain]
        return (self.first[domain] + np.minimum((place * count).astype(np.int64), count - 1)).astype(np.int32)


@dataclass(frozen=True)
class Deal:
    """One file: what it is made of, and for which shards."""

    path: Path
    sources: tuple[Path, ...]
    low: int
    high: int


def make_deals(
    work: Work, plans: Sequence[DomainPlan], places: Places, engine: Engine, progress: Progress
) -> list[list[Path]]:
    """Deal the copies of all documents out; return for each shard the files that hold its rows."""
    folder = work.folder / "deals"
    groups = _grouped(find_pieces(work))
    deals = [Deal(folder / f"deal-{i:05d}.parquet", group, 0, places.n) for i, group in enumerate(groups)]
    _make(partial(_deal_pieces, tuple(plans), places), deals, "deal documents", engine, progress)
    files = tuple(deal.path for deal in deals)
    if places.width == 1:
        return [list(files)] * places.n
    lows = range(0, places.n, places.width)
    parts = [
        Deal(work.folder / "parts" / f"part-{i:05d}.parquet", files, low, min(places.n, low + places.width))
        for i, low in enumerate(lows)
    ]
    _make(_deal_again, parts, "deal again", engine, progress)
    return [[parts[number // places.width].path] for number in range(places.n)]


def _make(function: Any, deals: Sequence[Deal], what: str, engine: Engine, progress: Progress) -> None:
    progress.start(what, len(deals), "files")
    waiting = [deal for deal in deals if not deal.path.is_file()]
    progress.advance(len(deals) - len(waiting))
    for _ in engine.map(function, waiting, folder=deals[0].path.parents[1] if deals else None):
        progress.advance()
    progress.finish()


def _grouped(paths: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Return pieces in groups of about `PIECES_BYTES` on disk."""
    groups: list[tuple[Path, ...]] = []
    group: list[Path] = []
    n_bytes = 0
    for path in paths:
        group.append(path)
        n_bytes += path.stat().st_size
        if n_bytes >= PIECES_BYTES:
            groups.append(tuple(group))
            group, n_bytes = [], 0
    return [*groups, tuple(group)] if group else groups


def _deal_pieces(plans: tuple[DomainPlan, ...], places: Places, deal: Deal) -> None:
    """Write the copies of the documents of some pieces by shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def parts() -> Iterator[Any]:
        for path in deal.sources:
            unit = int(path.stem.removeprefix("unit-"))
            for batch in pq.ParquetFile(path).iter_batches(READ_ROWS):
                domain = batch.column("domain").to_numpy()
                order = batch.column("order").to_numpy()
                rows = pa.Table.from_batches([batch]).drop_columns(["order"])
                for d in np.unique(domain).tolist():
                    its = np.flatnonzero(domain == d)
                    for number, mine, place in plans[d].copies(order[its]):
                        part = rows.take(pa.array(its[mine]))
                        for name, values in (
                            ("repetition", np.full(len(mine), number, np.int16)),
                            ("unit", np.full(len(mine), unit, np.int32)),
                            ("place", place),
                            ("shard", places.shards(d, place)),
                        ):
                            part = part.append_column(name, pa.array(values))
                        yield part

    _write(deal, places.width, parts())


def _deal_again(deal: Deal) -> None:
    """Write the rows of some shards that stand in all deals into one file."""
    _write(deal, 1, (rows for path in deal.sources for rows in rows_of(path, deal.low, deal.high)))


def _write(deal: Deal, width: int, parts: Iterator[Any]) -> None:
    """Write tables, sorted by shard, about `HAND_BYTES` at a time; a row group holds rows of `width` shards."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    with atomic(deal.path) as temporary:
        try:
            for hand in _hands(parts):
                rows = pa.concat_tables(hand)
                shard = rows.column("shard").to_numpy()
                order = np.argsort(shard, kind="stable")
                rows, group = rows.take(pa.array(order)), shard[order] // width
                writer = writer or pq.ParquetWriter(
                    temporary, rows.schema, compression=TEMPORARY, compression_level=LEVEL
                )
                cuts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
                for begin, end in zip(cuts, cuts[1:], strict=False):
                    writer.write_table(rows.slice(begin, end - begin))
            if writer is None:
                temporary.touch()
        finally:
            if writer is not None:
                writer.close()


def _hands(parts: Iterator[Any]) -> Iterator[list[Any]]:
    hand: list[Any] = []
    n_bytes = 0
    for part in parts:
        hand.append(part)
        n_bytes += part.nbytes
        if n_bytes >= HAND_BYTES:
            yield hand
            hand, n_bytes = [], 0
    if hand:
        yield hand


def rows_of(path: Path, low: int, high: int) -> Iterator[Any]:
    """Yield tables of the rows in a deal that go to shards from `low` to below `high`."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not path.stat().st_size:
        return
    file = pq.ParquetFile(path)
    column = file.schema_arrow.names.index("shard")  # a list of ids is one leaf, as the other columns are
    for number in range(file.num_row_groups):
        found = file.metadata.row_group(number).column(column).statistics
        if found.min < high and found.max >= low:
            rows = file.read_row_group(number)
            if found.min < low or found.max >= high:
                rows = rows.filter(pc.and_(pc.greater_equal(rows["shard"], low), pc.less(rows["shard"], high)))
            yield rows
