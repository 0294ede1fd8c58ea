"""A small real workspace for benchmarks and tests: minutes of work cut to seconds, nothing faked."""

from pathlib import Path

import openclimb

SETTINGS = {
    "embed": {"embedder": "hashing", "dim": 32},
    "clusters": {"k": 8, "sample": 400},
    "domains": {"merge_to": 4, "min_share": 0.01},
    "target": {"token_budget": 100_000},
    "tokens": {"vocab_size": 512, "heldout": 0.05},
    "proxy": {"width": 32, "depth": 1, "heads": 2, "sequence": 32, "batch": 8, "token_budget": 8192},
    "search": {"trials": [4, 2, 2]},
    "pick": {"finalists": 1, "seeds": 2},
    "run": {"workers": 1},
}


def make_tiny_workspace(root: Path, corpus: Path, tasks: Path, **changes: dict[str, object]) -> Path:
    """Make a workspace over a small corpus file and a folder of task files; return its root."""
    sections = {name: {**values, **changes.get(name, {})} for name, values in SETTINGS.items()}
    sections |= {name: values for name, values in changes.items() if name not in sections}
    sections["corpus"] = {"paths": [str(corpus)], "unit_mb": 1, **changes.get("corpus", {})}
    sections["tasks"] = {"paths": [f"{tasks}/*.jsonl"], "max_items": 40, **changes.get("tasks", {})}
    openclimb.init(root, scale="demo", **sections)
    return root
