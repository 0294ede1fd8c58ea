"""The scales: demo, laptop, node and paper preset everything."""

import dataclasses
from typing import Any

from openclimb.config.schema import SECTIONS, Config
from openclimb.config.sizes import shape_of
from openclimb.errors import ConfigError, nearest

# One dial sets the rest. Only what differs from the defaults (scale "laptop") stands here.
SCALES: dict[str, dict[str, dict[str, Any]]] = {
    "demo": {
        "clusters": {"k": 24, "sample": 10_000},
        "domains": {"merge_to": 10},
        "target": {"token_budget": 3_000_000},
        "tokens": {"vocab_size": 2048},
        "tasks": {"max_items": 300},
        "proxy": {
            "width": 64,
            "depth": 2,
            "heads": 2,
            "sequence": 128,
            "token_budget": 300_000,
            "learning_rate": 8e-3,
        },
        "search": {"trials": (8, 5, 3), "low_fidelity": "bigram"},
        "selection": {"finalists": 1, "seeds": 4},
    },
    "laptop": {
        "domains": {"merge_to": 16},
        "target": {"token_budget": 100_000_000},
    },
    "node": {
        "embed": {"embedder": "sentence-transformers", "model": "sentence-transformers/all-MiniLM-L6-v2"},
        "clusters": {"sample": 500_000},
        "domains": {"merge_to": 24},
        "tokens": {"vocab_size": 16_384},
        "target": {"token_budget": 10_000_000_000},
        "tasks": {"max_items": 2000},
        "proxy": {
            "width": 384,
            "depth": 8,
            "heads": 6,
            "sequence": 512,
            "batch": 64,
            "token_budget": 300_000_000,
            "learning_rate": 5.4e-4,
        },
        "search": {"trials": (32, 16, 8)},
        "selection": {"finalists": 4},
    },
    "paper": {
        "embed": {
            "embedder": "sentence-transformers",
            "model": "NovaSearch/stella_en_400M_v5",  # with code of its own: trust_remote_code is the user's to set
            "max_tokens": 512,
        },
        "clusters": {"k": 1000, "sample": 1_000_000},
        "quality": {"scorers": ("students",)},  # of `climb annotate`'s labels
        "domains": {
            # 3 on the paper's four scales; the fifth is the recipe's, and so is its limit
            "prune_below": {
                **dict.fromkeys(("quality", "educational_value", "informational_value", "no_advertisement"), 3.0),
                "cultural_value": 1.0,
            },
            "merge_distance": 1.5,
            "centroids": "raw",
            "min_share": 0.0,
        },
        "tokens": {"vocab_size": 50_304},
        "target": {"token_budget": 40_000_000_000},
        "tasks": {"max_items": 10_000, "preset": "paper"},
        "proxy": {"size": "62M", **shape_of("62M"), "token_budget": 1_240_000_000},
        "search": {"trials": (64, 32, 16), "proposer": "recipe", "predictor": "recipe", "answer": "argmax"},
        "selection": {"finalists": 4},
    },
}


def preset(scale: str) -> Config:
    """Return the settings of a scale: demo, laptop, node or paper."""
    if scale not in SCALES:
        raise ConfigError(f"unknown scale '{scale}'{nearest(scale, SCALES)}", f"use one of: {', '.join(SCALES)}")
    return Config(
        scale=scale,
        **{name: dataclasses.replace(section(), **SCALES[scale].get(name, {})) for name, section in SECTIONS.items()},
    )
