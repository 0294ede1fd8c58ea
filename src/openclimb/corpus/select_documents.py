"""Which documents of a unit are read: the first of each domain in an order that follows from place and seed alone.

Packing and export choose by the same rule, so that a larger share holds the same documents and more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.corpus.domains import PRUNED, read_assignment, read_assignment_column
from openclimb.corpus.heldout import is_heldout
from openclimb.corpus.left_out import is_left_out
from openclimb.corpus.reading.read import Unit, document_order
from openclimb.errors import InputError

WAYS = {  # what a later stage reads: how it is made again
    "labelled documents": "label it again: climb run DIR --redo corpus",
    "packed tokens": "pack it again: climb run DIR --redo tokens",
}


def stop_if_fewer(file: str, n_read: int, n_counted: int, what: str = "labelled documents") -> None:
    """Raise InputError when less was read of a file than an earlier stage counted in it; `what` is a key of WAYS."""
    if n_read != n_counted:
        raise InputError(
            f"{file}: {n_counted - n_read} of {n_counted} {what} cannot be read any more",
            f"restore the file, or {WAYS[what]}",
        )


@dataclass(frozen=True)
class DocumentChoice:
    """What decides whether a document is read."""

    labels: Path
    domains: Path
    heldout: float  # share of the documents that are kept out of training
    seed: int
    rates: tuple[float, ...]  # share of each domain's documents, first in order; the last one is of the held-out ones
    left_out: tuple[Path, ...] = ()  # the folders that say which documents are left out

    def documents(self, unit: Unit) -> dict[int, tuple[int, int]]:
        """Return position → (domain, order) of the chosen documents of a unit; held-out ones have the last number."""
        table, domain = self._labels(unit, "position")
        position = table.column("position").to_numpy()
        order = document_order(unit, position, self.seed)
        bounds = np.array(self.rates, dtype=np.float64)[np.maximum(domain, 0)] * 2.0**64
        chosen = (domain >= 0) & (bounds > 0) & (order.astype(np.float64) <= bounds)
        rows = zip(position[chosen].tolist(), domain[chosen].tolist(), order[chosen].tolist(), strict=True)
        return {place: (of, key) for place, of, key in rows}

    def columns(self, unit: Unit, positions: NDArray[np.int64], names: Sequence[str]) -> Any:
        """Return these columns of the labels (pyarrow.Table) of the documents of a unit that stand at `positions`."""
        import pyarrow.parquet as pq

        names = list(dict.fromkeys(["position", *names]))
        table = pq.read_table(self.labels / f"unit-{unit.number:05d}.parquet", columns=names)
        place = table.column("position").to_numpy()
        order = np.argsort(place, kind="stable")
        return table.take(order[np.searchsorted(place, positions, sorter=order)])

    def count(self, unit: Unit) -> NDArray[np.float64]:
        """Return the tokens and the documents of each domain in a unit, whatever the rates: (2, domains + 1)."""
        table, domain = self._labels(unit, "tokens")
        tokens = table.column("tokens").to_numpy()[domain >= 0]
        of = domain[domain >= 0]
        return np.stack([np.bincount(of, weights, len(self.rates)) for weights in (tokens, np.ones(len(of)))])

    def _labels(self, unit: Unit, column: str) -> tuple[Any, NDArray[np.int64]]:
        """Return the labels of a unit with this column, and each document's domain."""
        import pyarrow.parquet as pq

        columns = [column, "hash", read_assignment_column(self.domains), *(["position"] if self.left_out else [])]
        table = pq.read_table(self.labels / f"unit-{unit.number:05d}.parquet", columns=list(dict.fromkeys(columns)))
        domain = read_assignment(self.domains)(table).astype(np.int64)
        domain[(domain >= 0) & is_heldout(table.column("hash").to_numpy(), self.heldout)] = len(self.rates) - 1
        domain[is_left_out(self.left_out, unit.number, table)] = PRUNED
        return table, domain
