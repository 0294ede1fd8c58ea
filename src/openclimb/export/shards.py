"""The shards of a dataset: which slice of it each one holds, and how they are made from the pieces.

A shard holds a slice of the mixture, interleaved so that every stretch is the mixture; or, for trainers that draw from
each domain by its weight, a slice of one domain. Writes `OUT.partial/data/`, and beside it `shards/N.json`, a note of
what each finished shard holds.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.corpus.reading.read import Unit
from openclimb.engines.engine import Engine
from openclimb.export.pieces import Work, piece_schema, row_groups
from openclimb.export.plan import DomainPlan, interleave
from openclimb.export.writers.writer import COLUMNS, find_writer
from openclimb.progress import Progress
from openclimb.workspace.files import atomic, file_names, read_json, write_json


@dataclass(frozen=True)
class Shard:
    """One shard: slice `place` of `of` slices of the mixture, or of one domain."""

    number: int  # among all shards
    name: str  # of its files, without suffix
    place: int
    of: int
    domain: int | None = None


def cut_shards(names: Sequence[str], n_bytes: NDArray[np.float64], shard_bytes: int, by_domain: bool) -> list[Shard]:
    """Return the shards of a dataset whose domains have about `n_bytes` (n_domains,) of text."""
    if not by_domain:
        of = max(1, round(float(n_bytes.sum()) / shard_bytes))
        return [Shard(i, f"shard-{i:05d}-of-{of:05d}", i, of) for i in range(of)]
    shards: list[Shard] = []
    for d, folder in enumerate(file_names(names)):
        of = max(1, round(float(n_bytes[d]) / shard_bytes)) if n_bytes[d] else 0
        for i in range(of):
            shards.append(Shard(len(shards), f"{folder}/shard-{i:05d}-of-{of:05d}", i, of, d))
    return shards


def make_shards(
    work: Work,
    units: Sequence[Unit],
    plans: Sequence[DomainPlan],
    shards: Sequence[Shard],
    engine: Engine,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Write every shard that is not there yet; return what each holds."""
    notes = work.data.parent / "shards"
    names = {unit.number: unit.name for unit in units}
    progress.start("write shards", len(shards), "shards")
    waiting = [shard for shard in shards if not (notes / f"{shard.number:05d}.json").is_file()]
    progress.advance(len(shards) - len(waiting))
    for _ in engine.map(partial(_make_shard, work, names, tuple(plans)), waiting, folder=work.data.parent):
        progress.advance()
    written = [read_json(notes / f"{shard.number:05d}.json") for shard in shards]
    progress.finish(f"{sum(sum(row['tokens']) for row in written):,} tokens")
    return written


def _make_shard(work: Work, names: dict[int, str], plans: tuple[DomainPlan, ...], shard: Shard) -> None:
    """Write one shard: the copies whose place lies in it, interleaved; then a note of what it holds."""
    import pyarrow as pa

    parts: list[Any] = []
    places: list[NDArray[np.float64]] = []
    for unit, d, table in _row_groups(work, plans, shard):
        order = table.column("order").to_numpy()
        for number, mine in plans[d].copies(order, shard.of, shard.place):
            part = table.take(pa.array(mine))
            part = part.append_column("repetition", pa.array(np.full(len(mine), number, dtype=np.int16)))
            parts.append(part.append_column("unit", pa.array(np.full(len(mine), unit, dtype=np.int32))))
            places.append(plans[d].places(order[mine], number))
    writer = find_writer(work.format)
    paths = writer.paths(work.data, shard.name)
    sums = {name: np.zeros(len(plans), np.int64) for name in ("tokens", "documents", "copies")}
    n_bytes = 0
    if parts:
        together = pa.concat_tables(parts)
        domain = together.column("domain").to_numpy()
        n_tokens = together.column("tokens").to_numpy().astype(np.int64)
        np.add.at(sums["tokens"], domain, n_tokens)
        np.add.at(sums["documents"], domain, 1)
        np.maximum.at(sums["copies"], domain, together.column("repetition").to_numpy().astype(np.int64) + 1)
        n_bytes = int(together.column("bytes").to_numpy().sum())
        rows = _as_rows(work, names, together.take(pa.array(interleave(domain, np.concatenate(places), n_tokens))))
        with ExitStack() as stack:
            writer.write(rows, *[stack.enter_context(atomic(path)) for path in paths])
    note = {"file": paths[0].relative_to(work.data).as_posix(), **{name: n.tolist() for name, n in sums.items()}}
    write_json(work.data.parent / "shards" / f"{shard.number:05d}.json", {**note, "bytes": n_bytes})


def _row_groups(work: Work, plans: Sequence[DomainPlan], shard: Shard) -> Iterator[tuple[int, int, Any]]:
    """Yield (unit, domain, table) of the row groups of all pieces that can have copies in the shard."""

    def wanted(domain: int, low: int, high: int) -> bool:
        mine = shard.domain is None or shard.domain == domain
        return mine and bool(plans[domain].quota) and plans[domain].may_hold(low, high, shard.of, shard.place)

    for path in sorted(work.pieces.glob("unit-*.parquet")):
        for domain, table in row_groups(path, wanted, piece_schema(work.ids).names):
            yield int(path.stem.removeprefix("unit-")), domain, table


def _as_rows(work: Work, names: dict[int, str], table: Any) -> Any:
    """Return what a writer writes: the columns of a row, by name in place of number; and what it must know of ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    files = pa.array([names.get(i, "") for i in range(max(names) + 1)])
    named = {
        "domain": pc.take(pa.array(work.names), table.column("domain")),
        "source_file": pc.take(files, table.column("unit")),
    }
    content = "ids" if work.ids else "text"
    rows = pa.table({name: named[name] if name in named else table.column(name) for name in (content, *COLUMNS)})
    return rows.replace_schema_metadata({"tokenizer": json.dumps(work.ids)}) if work.ids else rows
