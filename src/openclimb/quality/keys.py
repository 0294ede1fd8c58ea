"""The files in which the duplicates stage keeps what it compares of each document: `keys/unit-00012.bin`.

A file is made of blocks of BLOCK documents, the last of fewer. A block holds the keys of all its documents together,
in ascending order (uint64), which of its documents each key is of (uint16), and the documents' signatures (uint8).
What has a key in some range is therefore one stretch of each block, which is read without the rest. Documents that
share a key are compared: by their content's hash, which needs no signature ("exact"), or by bands of MinHash ("near").
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from openclimb.quality.minhash import BANDS, SLOTS, Signatures, alike, load_rensa
from openclimb.quality.ngrams import Hashes
from openclimb.workspace.files import atomic

BLOCK = 1 << 16  # documents of a block: their numbers fit 16 bits, and it takes 22 MB
MOST_COMPARED = 32  # documents that share a key, to which the later ones are compared: the rest are hardly copies
AT_ONCE = 1 << 18  # pairs of signatures in memory: 64 MB


@dataclass(frozen=True)
class Form:
    """What is kept of a document."""

    keys: int
    signature: int  # bytes
    folder: str  # below the stage's

    @property
    def document(self) -> int:
        """Bytes of a document in a block."""
        return self.keys * 10 + self.signature


EXACT = Form(1, 0, "keys")


def form_of(dedup: str) -> Form:
    """Return what is kept for corpus.dedup = "exact" or "near".

    Signatures of another version of rensa lie in another folder. Raises MissingDependency where rensa is not installed.
    """
    return EXACT if dedup == "exact" else Form(BANDS, SLOTS, f"keys-{load_rensa().ALGORITHM_VERSION}")


def keys_path(folder: Path, form: Form, number: int) -> Path:
    """Return the file of a unit."""
    return folder / form.folder / f"unit-{number:05d}.bin"


Add = Callable[[Hashes, Signatures | None], None]


@contextmanager
def writing_keys(path: Path) -> Iterator[Add]:
    """Give a function that takes the keys (n, keys of each) and signatures of a unit's documents, in their order.

    The file appears, whole, at the end.
    """
    with atomic(path) as temporary, open(temporary, "wb") as file:
        block: list[tuple[Hashes, Signatures | None]] = []

        def add(keys: Hashes, signatures: Signatures | None) -> None:
            while len(keys):
                room = BLOCK - sum(len(some) for some, _ in block)
                block.append((keys[:room], None if signatures is None else signatures[:room]))
                keys, signatures = keys[room:], None if signatures is None else signatures[room:]
                if sum(len(some) for some, _ in block) == BLOCK:
                    _write_block(file, block)
                    block.clear()

        yield add
        if block:
            _write_block(file, block)


def _write_block(file: IO[bytes], block: list[tuple[Hashes, Signatures | None]]) -> None:
    keys = np.concatenate([some for some, _ in block])
    order = np.argsort(keys, axis=None, kind="stable")
    file.write(keys.ravel()[order].tobytes())
    file.write((order // keys.shape[1]).astype(np.uint16).tobytes())
    for _, signatures in block:
        if signatures is not None:
            file.write(signatures.tobytes())


@dataclass(frozen=True)
class Block:
    """A block of a file: nothing of it is in memory until it is asked for."""

    first: int  # number of its first document in the unit
    keys: Hashes
    documents: NDArray[np.uint16]  # of each key
    signatures: Signatures

    def between(self, low: int, high: int) -> tuple[Hashes, NDArray[np.int64]]:
        """Return the keys from `low` to `high` − 1, and which of the block's documents each is of."""
        begin = int(np.searchsorted(self.keys, np.uint64(low)))
        end = int(np.searchsorted(self.keys, np.uint64(high - 1), side="right"))
        return np.array(self.keys[begin:end]), self.documents[begin:end].astype(np.int64)


def read_blocks(path: Path, form: Form) -> list[Block]:
    """Return the blocks of a unit's file."""
    n = path.stat().st_size // form.document
    data: Any = np.memmap(path, dtype=np.uint8, mode="r") if n else np.empty(0, np.uint8)
    blocks = []
    for first in range(0, n, BLOCK):
        size = min(BLOCK, n - first)
        begin = first * form.document
        edges = np.cumsum([begin, 8 * size * form.keys, 2 * size * form.keys, size * form.signature]).tolist()
        keys, documents, signatures = (data[a:b] for a, b in zip(edges, edges[1:], strict=False))
        shape = (size, form.signature)
        blocks.append(Block(first, keys.view(np.uint64), documents.view(np.uint16), signatures.reshape(shape)))
    return blocks


def n_documents(path: Path, form: Form) -> int:
    """Return how many documents a unit's file holds."""
    return path.stat().st_size // form.document


def repeats(keys: Hashes, signatures: Callable[[NDArray[np.int64]], Signatures] | None) -> NDArray[np.bool_]:
    """Return for each document whether an earlier one with its key is a duplicate of it.

    `keys` are in ascending order, and documents that share one in that of the corpus. `signatures` returns those of the
    documents at some places; without it, all that share a key are duplicates. The first document of a key is compared
    to all later ones, the first of those that are no duplicates of it to the later ones of these, and so forth
    MOST_COMPARED times.
    """
    found = np.zeros(len(keys), dtype=np.bool_)
    same = np.append(False, keys[1:] == keys[:-1])[: len(keys)]
    if signatures is None:
        return same
    open_ = np.flatnonzero(same | np.append(same[1:], False))
    for _ in range(MOST_COMPARED):
        if not len(open_):
            break
        first = np.append(True, keys[open_[1:]] != keys[open_[:-1]])
        leader, later = open_[first][np.cumsum(first) - 1][~first], open_[~first]
        for begin in range(0, len(later), AT_ONCE):
            pairs = (leader[begin : begin + AT_ONCE], later[begin : begin + AT_ONCE])
            firsts, place = np.unique(pairs[0], return_inverse=True)
            found[pairs[1]] = alike(signatures(firsts)[place], signatures(pairs[1]))
        open_ = later[~found[later]]
    return found
