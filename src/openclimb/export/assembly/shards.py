"""The shards of a dataset: which slice of it each one holds, and how they are made from the deals.

A shard holds a slice of the mixture, interleaved so that every stretch is the mixture; or, for trainers that draw from
each domain by its weight, a slice of one domain. Writes `OUT.partial/data/`, and beside it `shards/N.json`, a note of
what each finished shard holds.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.corpus.reading.read import Unit
from openclimb.engines.engine import Engine
from openclimb.export.assembly.deals import Places, rows_of
from openclimb.export.assembly.pieces import Work
from openclimb.export.assembly.plan import interleave
from openclimb.export.facts import folders_of
from openclimb.export.writers.writer import COLUMNS, find_writer
from openclimb.progress import Progress
from openclimb.workspace.files import atomic, read_json, write_json


@dataclass(frozen=True)
class Shard:
    """One shard: its number among all, the name of its files without suffix, and the domain of which it is a slice."""

    number: int
    name: str
    domain: int | None = None  # None: of the mixture


def cut_shards(names: Sequence[str], n_bytes: NDArray[np.float64], shard_bytes: int, by_domain: bool) -> list[Shard]:
    """Return the shards of a dataset whose domains have about `n_bytes` (n_domains,) of text."""
    if not by_domain:
        of = max(1, round(float(n_bytes.sum()) / shard_bytes))
        return [Shard(i, f"shard-{i:05d}-of-{of:05d}") for i in range(of)]
    shards: list[Shard] = []
    for d, folder in enumerate(folders_of(names)):
        of = max(1, round(float(n_bytes[d]) / shard_bytes)) if n_bytes[d] else 0
        for i in range(of):
            shards.append(Shard(len(shards), f"{folder}/shard-{i:05d}-of-{of:05d}", d))
    return shards


def places_of(shards: Sequence[Shard], n_domains: int) -> Places:
    """Return which shards hold the slices of each domain."""
    if all(shard.domain is None for shard in shards):
        return Places((0,) * n_domains, (len(shards),) * n_domains, len(shards))
    numbers: list[list[int]] = [[] for _ in range(n_domains)]
    for shard in shards:
        assert shard.domain is not None
        numbers[shard.domain].append(shard.number)
    return Places(tuple(min(own, default=0) for own in numbers), tuple(len(own) for own in numbers), len(shards))


def make_shards(
    work: Work,
    units: Sequence[Unit],
    shards: Sequence[Shard],
    sources: Sequence[list[Path]],
    engine: Engine,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Write every shard that is not there yet from its `sources`, files of deals; return what each holds."""
    notes = work.folder / "shards"
    names = {unit.number: unit.name for unit in units}
    progress.start("write shards", len(shards), "shards")
    waiting = [(shard, sources[shard.number]) for shard in shards if not (notes / f"{shard.number:05d}.json").is_file()]
    progress.advance(len(shards) - len(waiting))
    for _ in engine.map(partial(_make_shard, work, names), waiting, folder=work.folder):
        progress.advance()
    written = [read_json(notes / f"{shard.number:05d}.json") for shard in shards]
    progress.finish(f"{sum(sum(row['tokens']) for row in written):,} tokens")
    return written


def _make_shard(work: Work, names: dict[int, str], item: tuple[Shard, list[Path]]) -> None:
    """Write one shard: the copies whose place lies in it, interleaved; then a note of what it holds."""
    import pyarrow as pa

    shard, sources = item
    writer = find_writer(work.format)
    data = work.folder / "data"
    paths = writer.paths(data, shard.name)
    sums = {name: np.zeros(len(work.names), np.int64) for name in ("tokens", "documents", "copies")}
    n_bytes = 0
    parts = [rows for path in sources for rows in rows_of(path, shard.number, shard.number + 1)]
    if parts:
        together = pa.concat_tables(parts)
        domain = together.column("domain").to_numpy()
        n_tokens = together.column("tokens").to_numpy().astype(np.int64)
        np.add.at(sums["tokens"], domain, n_tokens)
        np.add.at(sums["documents"], domain, 1)
        np.maximum.at(sums["copies"], domain, together.column("repetition").to_numpy().astype(np.int64) + 1)
        n_bytes = int(together.column("bytes").to_numpy().sum())
        order = interleave(domain, together.column("place").to_numpy(), n_tokens)
        rows = _as_rows(work, names, together.take(pa.array(order)))
        with ExitStack() as stack:
            writer.write(rows, *[stack.enter_context(atomic(path)) for path in paths])
    note = {"file": paths[0].relative_to(data).as_posix(), **{name: n.tolist() for name, n in sums.items()}}
    write_json(work.folder / "shards" / f"{shard.number:05d}.json", {**note, "bytes": n_bytes})


def _as_rows(work: Work, names: dict[int, str], table: Any) -> Any:
    """Return what a writer writes: the columns of a row, by name in place of number; and what it must know of ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    files = pa.array([names.get(i, "") for i in range(max(names) + 1)])
    named = {
        "domain": pc.take(pa.array(work.names), table.column("domain")),
        "source_file": pc.take(files, table.column("unit")),
    }
    columns = ("ids" if work.ids else "text", *COLUMNS, *work.labels)
    rows = pa.table({name: named[name] if name in named else table.column(name) for name in columns})
    return rows.replace_schema_metadata({"tokenizer": json.dumps(work.ids)}) if work.ids else rows
