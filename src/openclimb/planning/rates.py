"""How fast the parts of a run are: measured on one core and on one card, each with its machine, date and file.

Of a card: bench/gpu.py. Of a core: bench/proxy.py, bench/label.py, and bench/plan.py. The last was run beside so much
other work that no JSON of it is kept: its numbers stand here in proportion to those of label.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# -- one core ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """What `machine.calibrate` finds on a core: FLOP/s of a matrix product in fp32, bytes a second of a job on text."""

    products: float
    text: float


# The core that all rates are of: products of an Intel Xeon, on which training was measured (`matrix products by
# themselves` in bench/results/proxy.json), text of an AMD EPYC, on which work on documents was.
REFERENCE = Reference(1.35e11, 2.2e7)
# Processors that need no calibration. AMD EPYC: training steps of the scales demo and laptop reach .52 and .47 of the
# Xeon's in fp32 (bench/plan.py, 2026-11-27, beside other work).
KNOWN = {"AMD EPYC": Reference(0.52 * 1.35e11, 2.2e7)}
# Work on documents, AMD EPYC. What takes most of it, LABEL and EMBED, gives the 3,466 documents a second of two
# processes in bench/results/label.json (2026-11-23; 2,264 bytes each, 1,466 of them embedded); the others are in the
# same proportion to it as bench/plan.py had them (2026-11-27, beside other work).
READ = 1.9e8  # bytes of text a second, of JSON lines and Parquet, compressed or not
SKIP = 1.4e9  # bytes of text a second that are passed over
LABEL = 3.0e7  # bytes of text a second that are read, scored by the heuristics, hashed and written
LOOK = 2.1e7  # bytes of text a second in which items of tasks are looked for (bench/contamination.py)
SIGN = 2.7e7  # bytes of text a second that are signed, for near duplicates (docs/decisions/0108, beside other work)
EMBED = {"model2vec": 2.9e6, "hashing": 1.2e7}  # bytes of text a second, of its first 2,000 characters
FIT_HASHING = 3.0e6  # bytes of text a second
TOKENISE = 2.3e6  # bytes of text a second
FIT_TOKENIZER = 3.2e6  # bytes of text a second
VECTORS = 2.1e8  # products of two vectors of 256 dimensions a second, in k-means, all rounds
WORDS = 1.4e7  # bytes of text a second, of the words that describe clusters and domains
MAP = 4.0  # seconds of the map of 1,500 documents
SUM = 3.7e5  # documents a second whose labels are summed over clusters
# Of the demo alone, beside other work: what its search took without trials.
PREDICT = 0.7  # seconds of a batch's proposals, fits and diagnoses, with few trials of few tasks
LOW_FIDELITY = 1.0e5  # tokens a second, of 256 mixtures' scores by bigrams
EXPORT = 1.0e7  # bytes of text a second that are put into shards; not measured by itself
# Share of the rate of a matrix product that a transformer reaches as embedder: bench/results/embedders.json
EMBED_SHARE = 0.41
START = 3.0  # seconds until the processes of a stage work: they import their libraries
# width → FLOP/s of training in fp32, Intel Xeon: the steps of bench/results/proxy.json (2026-11-26), of the scales demo
# and laptop and of 5M and 20M
TRAIN: Mapping[int, float] = {64: 7.09e10, 96: 8.09e10, 256: 9.28e10, 384: 8.97e10}
# width → how many times as fast with products in bf16 on tiles: the same file
TILES: Mapping[int, float] = {64: 1.17, 96: 1.44, 256: 1.89, 384: 1.83}
# width → FLOP/s of scoring ÷ those of training in fp32, AMD EPYC: bench/plan.py, as above
SCORE: Mapping[int, float] = {64: 1.27, 96: 1.03, 128: 0.98}

# -- one card: bench/results/gpu.json ----------------------------------------------------------------------------------

# width → share of the card's peak that training reaches where it is full, NVIDIA H100, 2026-11-27:
# 64 × 1M and 64 × 5M as one program, 62M and 350M alone
CARD_TRAIN: Mapping[int, float] = {128: 0.0705, 256: 0.178, 512: 0.374, 1024: 0.453}
CARD_SCORE: Mapping[int, float] = {256: 0.050, 512: 0.070}  # 16 × 5M, 62M: items of four options
CARD_EMBED = 0.0126  # MiniLM's shape in fp32, the label pass in four processes
CARD_STEP = 0.006  # seconds of a pass at least: one model of 1M or 5M alone is no faster
CARD_COMPILE = 30.0  # seconds until a program of another number of models is compiled: 9 to 42


@dataclass(frozen=True)
class Card:
    """A GPU: dense bf16 FLOP/s and bytes of memory by its data sheet, and whether our rates were measured on it."""

    title: str
    peak: float
    memory: float
    measured: bool = False


CARDS = {
    "h100": Card("NVIDIA H100", 989e12, 80e9, measured=True),
    "h200": Card("NVIDIA H200", 989e12, 141e9),
    "b200": Card("NVIDIA B200", 2250e12, 180e9),
    "a100": Card("NVIDIA A100", 312e12, 80e9),
    "l40s": Card("NVIDIA L40S", 362e12, 48e9),
    "rtx4090": Card("NVIDIA RTX 4090", 165e12, 24e9),
}


def at_width(table: Mapping[int, float], width: int) -> float:
    """Return a table's number at a width: between two widths in their logarithm, beyond the ends that of the end."""
    widths = sorted(table)
    return float(np.interp(np.log(width), np.log(widths), [table[each] for each in widths]))
