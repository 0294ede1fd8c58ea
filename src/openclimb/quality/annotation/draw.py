"""Which documents are labelled: a uniform sample, or one balanced over clusters or sources. Writes documents.jsonl."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.sample import Block, Sample, draw_sample
from openclimb.engines.engine import Resources
from openclimb.errors import InputError
from openclimb.progress import counted
from openclimb.quality.annotation.answers import DOCUMENTS, Answers
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic, read_json, write_json

DRAW = "draw.json"
SPARE = 4  # times the documents that are asked for are looked at for a balanced sample


@dataclass(frozen=True)
class Grouping:
    """What a sample is balanced over: documents of a block → the group of each, in their order; and what that takes."""

    of: Callable[[Block], Any]
    share: Resources = Resources()


def sources_of(block: Block) -> list[str]:
    """Return the ready-made domain of each document."""
    return [document.source for document in block.documents()]


def draw_documents(
    context: StageContext,
    units: Sequence[Unit],
    corpus: CorpusSettings,
    n: int,
    characters: int,
    answers: Answers,
    grouping: Grouping | None,
) -> None:
    """Write the n documents that are to be labelled to documents.jsonl, unless they are there, with the order to ask
    in: that of the place hash, or balanced, so that any number of the first are a sample of the same kind.

    As many as were ever asked for are drawn, and all that have an answer. Of each text the first `characters` are kept.
    Raises InputError where the corpus has none.
    """
    folder = context.folder
    before = int(read_json(folder / DRAW)["n"]) if (folder / DRAW).is_file() else 0
    if n <= before and (folder / DOCUMENTS).is_file():
        return
    n = max(n, before)
    looked = SPARE * n if grouping else n
    sample = draw_sample(units, corpus, looked, context.seed, context.engine, context.progress, folder, 0)
    if not len(sample):
        raise InputError("the corpus holds no readable document", "check corpus.paths and corpus.text")
    order = np.arange(len(sample))
    if grouping:
        order[_balanced(sample, context, grouping)] = np.arange(len(sample))
    known = {unit: set(answers.places[answers.places[:, 0] == unit, 1].tolist()) for unit in answers.units()}
    with atomic(folder / DOCUMENTS) as temporary, open(temporary, "wb") as file:
        for block in sample.blocks:
            _write_block(file, block, order, n, characters, known.get(block.unit, set()))
    shutil.rmtree(folder / "drawn")
    write_json(folder / DRAW, {"n": n})


def _write_block(
    file: Any, block: Block, order: NDArray[np.int64], n: int, characters: int, answered: set[int]
) -> None:
    import orjson

    for place, document in zip(block.places.tolist(), block.documents(), strict=True):
        if order[place] < n or document.position in answered:
            row = {"order": int(order[place]), "unit": document.unit, "position": document.position}
            file.write(orjson.dumps({**row, "text": document.text[:characters]}) + b"\n")


def _balanced(sample: Sample, context: StageContext, grouping: Grouping) -> NDArray[np.int64]:
    """Return the places of a sample so that the first m of them hold the groups as evenly as their sizes allow, for
    every m: the first document of each group, the second of each, and so on.
    """
    n, names, progress = len(sample), np.empty(len(sample), dtype=object), context.progress
    progress.start("find the groups", n, "documents")
    for at, found in context.engine.map(grouping.of, sample.blocks, grouping.share, folder=context.folder):
        names[sample.blocks[at].places] = found
        progress.advance(len(found))
    _, groups = np.unique(names, return_inverse=True)
    progress.finish(counted(int(groups.max()) + 1, "groups"))
    rank, sizes = np.empty(n, np.int64), np.bincount(groups)
    by_group = np.argsort(groups, kind="stable")  # within a group by the place in the sample
    rank[by_group] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.lexsort((np.arange(n), rank))
