"""How large a corpus is, from a look into a few of its files: documents, and bytes of text.

Reads of every format some places in a few files: ranges of JSON lines, row groups of Parquet, the beginnings of others.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.parse import Document, Parser
from openclimb.corpus.reading.read import Unit, damage, read_unit
from openclimb.corpus.reading.store import EnoughError, at_most, open_file, patiently
from openclimb.corpus.reading.tables import parquet_file
from openclimb.corpus.reading.units import UNIT_BYTES, InputFile, list_files

Floats = NDArray[np.float64]
See = Callable[[Sequence[str]], None]

PLACES = 16  # looked at of each format
RANGE = 1 << 18  # bytes of JSON lines read at each
MOST = 200  # documents read at each of the others
FEW = PLACES * RANGE + 1  # bytes of a file that are read at each of them: small files are read whole
AROUND = 40  # bytes of a line around its text
HEAD = 2000
COMPRESSED = 3  # times as large when decompressed: not known before the file is read


@dataclass(frozen=True)
class CorpusSize:
    """What a corpus holds: documents, bytes of its files and of its text, pieces that are worked on at once."""

    documents: float
    file_bytes: float
    text_bytes: float
    head_bytes: float  # of the texts' first HEAD bytes: what is embedded
    units: int


def estimate_size(settings: CorpusSettings, tokenizer: str = "", see: See | None = None) -> CorpusSize:
    """Return about how large the corpus is. The same files give the same numbers.

    `see` is given the texts that are met, those of a place together.
    Raises InputError when no file matches or one cannot be read.
    """
    files = list_files(settings)
    totals = np.zeros(3)
    for kind in sorted({file.format for file in files}):
        some = [file for file in files if file.format == kind]
        n_bytes = sum(file.size for file in some)
        totals += n_bytes * _ratios(some, settings, tokenizer, see)
    units = sum(max(1, -(-file.size // UNIT_BYTES)) for file in files)
    documents, text_bytes, head_bytes = totals.tolist()
    documents = max(1.0, documents)  # none is met in a file of web pages alone
    return CorpusSize(documents, float(sum(file.size for file in files)), text_bytes, head_bytes, units)


def _ratios(files: Sequence[InputFile], settings: CorpusSettings, tokenizer: str, see: See | None) -> Floats:
    """Return the documents, bytes of text and bytes of heads of a byte of these files, all of one format."""
    n_places = max(1, PLACES // len(files))
    seen = files[:: max(1, len(files) // PLACES)]
    sums = np.zeros(4)
    for file in seen:
        for i in range(n_places):
            found, texts = _look(file, settings, tokenizer, i, n_places)
            sums += found
            if see:
                see(texts)
    n_bytes, *counts = sums.tolist()
    return np.array(counts) / max(1.0, n_bytes)


def _look(
    file: InputFile, settings: CorpusSettings, tokenizer: str, place: int, n_places: int
) -> tuple[Floats, list[str]]:
    """Return (bytes of the file, documents, bytes of text, bytes of heads) at one of its places, and the texts."""

    def unit(start: int, stop: int, n_bytes: int) -> Unit:
        return Unit(
            0, file.path, file.name, file.format, start, stop, n_bytes, 0, file.size, "", file.folder, tokenizer
        )

    if file.format == "jsonl" and file.size > n_places * RANGE:
        start = (file.size - RANGE) * place // max(1, n_places - 1)
        return _lines(unit(start=start, stop=start + RANGE, n_bytes=RANGE), settings)
    if place:
        return np.zeros(4), []
    if file.format == "parquet":
        rows, groups = patiently(file.path, partial(_rows, file))
        texts, _ = _read(unit(start=0, stop=min(1, groups), n_bytes=file.size), settings, MOST)
        counts = _counted(texts)
        return np.array([file.size, *(counts * rows / max(1.0, counts[0]))]), texts
    most = None if file.format == "jsonl" else MOST
    texts, whole = _read(unit(start=0, stop=file.size, n_bytes=file.size), settings, most)
    counts = _counted(texts)
    if whole or not texts:
        return np.array([file.size, *counts]), texts
    return np.array([(counts[1] + AROUND * counts[0]) / (COMPRESSED if "." in file.format else 1), *counts]), texts


def _lines(unit: Unit, settings: CorpusSettings) -> tuple[Floats, list[str]]:
    """Return (bytes, documents, bytes of text, bytes of heads) of the lines that a range of bytes holds whole, and the
    texts.
    """

    def read() -> bytes:
        with open_file(unit.path) as stream:
            stream.seek(unit.start)
            return bytes(stream.read(unit.stop - unit.start))

    data = patiently(unit.path, read)
    first = data.find(b"\n") + 1 if unit.start else 0
    last = data.rfind(b"\n") + 1
    parser = Parser(unit.name, settings, unit.tokenizer, unit.folder)
    rows = [parser.line(line, 0, None) for line in data[first:last].split(b"\n") if line.strip()]
    texts = [row.text for row in rows if isinstance(row, Document)]
    counts = [last - first, *_counted(texts)] if last > first else [len(data), 0.0, 0.0, 0.0]
    return np.array(counts), texts


def _counted(texts: Sequence[str]) -> Floats:
    """Return how many texts, and the bytes of them and of their heads."""
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    return np.array([len(sizes), sum(sizes), sum(min(HEAD, size) for size in sizes)], dtype=np.float64)


def _read(unit: Unit, settings: CorpusSettings, most: int | None) -> tuple[list[str], bool]:
    """Return the texts of the documents among the first `most` of a unit, and whether the unit has no more.

    Reads at most FEW bytes of the file and, about, as many of text.
    """
    found, n_bytes, whole = list[str](), 0, False
    try:
        with at_most(FEW), contextlib.closing(read_unit(unit, settings)) as documents:  # type: ignore[type-var]
            for one in islice(documents, most):
                found += [one.text] if isinstance(one, Document) else []
                n_bytes += len(one.text) if isinstance(one, Document) else 0
                if n_bytes > FEW:
                    break
            else:
                whole = most is None or len(found) < most
    except EnoughError:
        pass
    return found, whole


def _rows(file: InputFile) -> tuple[int, int]:
    with open_file(file.path) as stream, damage():
        metadata = parquet_file(stream).metadata
    return metadata.num_rows, metadata.num_row_groups
