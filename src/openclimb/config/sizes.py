"""Shapes of proxies from 0.5M to 1B parameters: one dial, `proxy.size`, from which the settings of a shape follow.

62M, 350M and 1B are sizes of the paper, 132M its third proxy; their widths and depths are ours, since it names none.
Counted with the tied embedding. The learning rate is that of the hidden matrices: it falls as width^-1.5, from the
rate that was best at width 64 (docs/decisions/0094).
"""

from typing import Any

from openclimb.errors import ConfigError, nearest

RATE_AT_64 = 8e-3
# μP (Yang et al. 2022) has 1 for Adam. Our residual stream begins smaller in wider models, as width^-½, and so should
# the steps of what writes to it.
RATE_FALLS = 1.5
# size → (width, depth, heads, sequence, sequences a step, entries of the tokenizer)
SHAPES = {
    "0.5M": (96, 3, 3, 128, 8, 2048),
    "1M": (128, 3, 4, 128, 8, 4096),
    "2M": (160, 4, 5, 128, 16, 4096),
    "5M": (256, 4, 8, 256, 16, 8192),
    "10M": (320, 6, 10, 256, 32, 8192),
    "20M": (384, 8, 6, 512, 64, 16_384),
    "62M": (512, 12, 8, 1024, 256, 50_304),
    "132M": (768, 13, 12, 1024, 256, 50_304),
    "350M": (1024, 24, 16, 1024, 512, 50_304),
    "1B": (2048, 18, 16, 1024, 1024, 50_304),
}


def shape_of(size: str) -> dict[str, Any]:
    """Return the settings of [proxy] that follow from a size. Raises ConfigError for one that is not in the table."""
    if size not in SHAPES:
        raise ConfigError(
            f"proxy.size = '{size}' is not known{nearest(size, SHAPES)}", f"use one of: {', '.join(SHAPES)}"
        )
    width, depth, heads, sequence, batch, _ = SHAPES[size]
    return {
        "width": width,
        "depth": depth,
        "heads": heads,
        "sequence": sequence,
        "batch": batch,
        "learning_rate": rate_at(width),
    }


def rate_at(width: int, known: float = RATE_AT_64, known_width: int = 64) -> float:
    """Return the learning rate of a width, of three digits, from the rate that is known of another."""
    return float(f"{known * (known_width / width) ** RATE_FALLS:.3g}")


def vocabulary_of(size: str) -> int:
    """Return the entries of a tokenizer that suit a size: about half of a small proxy's parameters, a tenth of a large
    one's."""
    return SHAPES[size][-1]


def derived_settings(size: str) -> dict[str, dict[str, Any]]:
    """Return every setting that follows from a size, by section; nothing for the empty size."""
    return {"proxy": shape_of(size), "tokens": {"vocab_size": vocabulary_of(size)}} if size else {}


def n_parameters(width: int, depth: int, vocab_size: int) -> int:
    """Return the parameters: embedding (tied), attention 4·w², SwiGLU of three matrices w × h, norms."""
    hidden = 8 * round(width * 8 / 3 / 8)
    return vocab_size * width + depth * (4 * width**2 + 3 * width * hidden + 2 * width) + width
