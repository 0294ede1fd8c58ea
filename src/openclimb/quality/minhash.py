"""MinHash of documents: a signature, whose agreement with another estimates the Jaccard similarity, and its bands.

A document is the set of its runs of five words (shingles), with the words of `quality.ngrams`: case, punctuation and
spaces do not count, and a character of a script that puts no space between words is a word. A shorter document is one
shingle, one without any word that of its text. Signatures are of rensa, 128 slots each (Broder 1997; Dahlgaard et al.
2017, arXiv 1704.04370): two of them agree in a slot with the probability of the documents' Jaccard similarity s.

Documents are compared where all six slots of one of 21 bands agree, which happens with probability
1 − (1 − s^6)^21 (Leskovec et al., Mining of Massive Datasets, section 3.4.2): .998 at s = .8, .93 at .7, .28 at .5.
They are duplicates where at least LEAST of the 128 slots agree. Slots are kept by 8 bits, so that unequal ones agree
once in 256 (Li & König 2010, arXiv 0910.3349): the expected share that agrees is s + (1 − s) ÷ 256. Of pairs with
s = .8 more than .997 pass, of those with .6 1 %.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.corpus.reading.read import content_hash
from openclimb.errors import MissingDependency
from openclimb.quality.ngrams import MIX, Hashes, stretches, words_of

SHINGLE = 5  # words
SLOTS, BANDS, ROWS = 128, 21, 6
LEAST = 90  # slots that agree: a Jaccard similarity of .70, estimated
SEED = 1

Signatures = NDArray[np.uint8]  # (documents, SLOTS)


def load_rensa() -> Any:
    """Return rensa's class of signatures. Raises MissingDependency where it is not installed."""
    try:
        from rensa import RMinHash
    except ImportError:
        raise MissingDependency("rensa", "pip install 'openclimb[dedup]'") from None
    return RMinHash


def shingles(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the hashes of the shingles of texts, one text after the other, and where each begins: (n + 1,)."""
    hashes: list[Hashes] = []
    owners: list[NDArray[np.int64]] = []
    for first, part in stretches(texts):
        runs = words_of(part)
        n = np.bincount(runs.owner, minlength=len(part))
        long = np.flatnonzero(runs.begins(SHINGLE)) if len(runs.owner) >= SHINGLE else np.empty(0, np.int64)
        hashes.append(runs.hashes(long, SHINGLE))
        owners.append(first[runs.owner[long]])
        start = np.cumsum(n) - n
        for length in range(1, SHINGLE):
            short = np.flatnonzero(n == length)
            hashes.append(runs.hashes(start[short], length))
            owners.append(first[short])
    owner = np.concatenate([np.empty(0, np.int64), *owners])
    bare = np.flatnonzero(np.bincount(owner, minlength=len(texts)) == 0)
    hashes.append(np.array([content_hash(texts[i]) for i in bare.tolist()], dtype=np.uint64))
    owner = np.concatenate([owner, bare])
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=len(texts)))
    return np.concatenate(hashes)[order], np.concatenate([[0], ends]).astype(np.int64)


def sign(texts: Sequence[str]) -> tuple[Hashes, Signatures]:
    """Return the keys of each text's bands, (n, BANDS), and its signature, (n, SLOTS)."""
    hashes, starts = shingles(texts)
    rows = load_rensa().digest_matrix_from_flat_token_hashes(hashes, starts, SLOTS, SEED).to_rows()
    slots = np.array(rows, dtype=np.uint32).reshape(len(texts), SLOTS)
    keys = np.repeat(np.arange(1, BANDS + 1, dtype=np.uint64)[None] * MIX, len(texts), axis=0)
    bands = slots[:, : BANDS * ROWS].reshape(len(texts), BANDS, ROWS).astype(np.uint64)
    for row in range(ROWS):
        keys = (keys ^ bands[:, :, row]) * MIX
        keys ^= keys >> np.uint64(29)
    return keys * MIX ^ (keys >> np.uint64(32)), ((slots * np.uint32(0x9E3779B1)) >> np.uint32(24)).astype(np.uint8)


def alike(one: Signatures, other: Signatures) -> NDArray[np.bool_]:
    """Return for each pair of signatures, (n, SLOTS) both, whether they are of duplicates."""
    return np.count_nonzero(one == other, axis=1) >= LEAST
