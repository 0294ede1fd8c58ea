"""A uniform sample of documents: those with the smallest salted hash of their place, whatever the file borders.

The draw follows from places and seed alone: not from workers, units or the order of files. It holds the sample, never
the corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.parse import Document
from openclimb.corpus.reading.read import Unit, place_hash, read_unit
from openclimb.engines.engine import Engine
from openclimb.progress import Progress

MAX_UNITS = 2000  # of a larger corpus only this many units, chosen by hash, are looked at
KEPT_CHARS = 8000  # of a sampled text
HASHES = 1 << 64


@dataclass(frozen=True)
class SampledDocument:
    """A document of the sample, its text cut to `KEPT_CHARS`."""

    unit: int
    position: int
    text: str
    source: str
    n_bytes: int  # of the whole text
    id: str
    hash: int


def draw_sample(
    units: Sequence[Unit],
    settings: CorpusSettings,
    n: int,
    seed: int,
    engine: Engine,
    progress: Progress,
    folder: Path | None = None,
) -> list[SampledDocument]:
    """Return the n documents of the corpus with the smallest place hash (all, when there are fewer).

    `folder`: where the engine keeps what it needs.
    """
    looked = sorted(
        sorted(units, key=lambda unit: place_hash(unit.name, unit.start, seed))[:MAX_UNITS], key=lambda u: u.number
    )
    share = n / max(1, _guess_documents(looked, settings))
    while True:  # the bound only saves work: the n smallest are the same whatever it was
        bound = min(HASHES, int(1.2 * share * HASHES) + 1)
        progress.start("sample", len(looked), "units")
        documents: list[SampledDocument] = []
        total = 0
        look = partial(_look, settings=settings, seed=seed, bound=bound)
        for _, (found, n_documents) in engine.map(look, looked, folder=folder):
            documents = sorted([*documents, *found], key=lambda d: (d.hash, d.unit, d.position))[:n]
            total += n_documents
            progress.advance()
        progress.finish(f"{len(documents):,} of {total:,} documents")
        if len(documents) == n or bound == HASHES:
            return documents
        share = 2.0 * max(share, n / max(1, total))


def _look(unit: Unit, settings: CorpusSettings, seed: int, bound: int) -> tuple[list[SampledDocument], int]:
    """Return the documents of a unit whose hash is below `bound`, and how many documents the unit has."""
    total = 0

    def wanted(position: int) -> bool:
        nonlocal total
        total += 1
        return place_hash(unit.name, position, seed) < bound

    found = [
        SampledDocument(
            unit.number,
            document.position,
            document.text[:KEPT_CHARS],
            document.source,
            len(document.text.encode("utf-8", "replace")),
            document.id,
            place_hash(unit.name, document.position, seed),
        )
        for document in read_unit(unit, settings, wanted)
        if isinstance(document, Document)
    ]
    return found, total


def _guess_documents(units: Sequence[Unit], settings: CorpusSettings) -> int:
    """Return a guess of the documents in the units, from the sizes of the first ones in a few of them."""
    n_bytes = n_documents = 0
    for unit in units[:: max(1, len(units) // 8)][:8]:
        for document, _ in zip(read_unit(unit, settings), range(200), strict=False):
            if isinstance(document, Document):
                n_bytes += len(document.text) + 40
                n_documents += 1
    total = sum(unit.n_bytes * (3 if "." in unit.format else 1) for unit in units)
    return round(total * n_documents / n_bytes) if n_bytes else 1
