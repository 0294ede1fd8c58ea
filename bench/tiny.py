"""A small real workspace for benchmarks and tests: minutes of work cut to seconds, nothing faked."""

import json
from pathlib import Path

import openclimb

DATA = Path(__file__).parent.parent / "tests" / "data"
TINY_CORPUS = DATA / "corpus.jsonl"  # columns text, domain and id; about 320 documents in six domains of unequal size
GENRES = {"stories": ("novel", "manners"), "speech": ("scripture", "politics")}
CONTEXT_WORDS, OPTION_WORDS, N_OPTIONS = 24, 12, 4

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


def make_tiny_tasks(folder: Path) -> Path:
    """Write two task files: which continuation belongs to the beginning of a passage that the corpus does not hold?"""
    folder.mkdir(parents=True, exist_ok=True)
    passages = [json.loads(line) for line in (DATA / "passages.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, domains in GENRES.items():
        mine = [passage["text"].split() for passage in passages if passage["domain"] in domains]
        lines = [json.dumps(_item(mine, i)) + "\n" for i in range(len(mine))]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def _item(passages: list[list[str]], number: int) -> dict[str, object]:
    """Return the question about one passage; the wrong options continue the passages that follow it in the list."""
    end = CONTEXT_WORDS + OPTION_WORDS
    gold = number % N_OPTIONS
    options = [
        " " + " ".join(passages[(number + i - gold) % len(passages)][CONTEXT_WORDS:end]) for i in range(N_OPTIONS)
    ]
    return {"context": " ".join(passages[number][:CONTEXT_WORDS]), "options": options, "gold": gold}


def make_tiny_workspace(root: Path, paths: Path, tasks: Path, /, **changes: dict[str, object]) -> Path:
    """Make a workspace over a small corpus file and a folder of task files; return its root."""
    sections = {name: {**values, **changes.get(name, {})} for name, values in SETTINGS.items()}
    sections |= {name: values for name, values in changes.items() if name not in sections}
    sections["corpus"] = {"paths": [str(paths)], "unit_mb": 1, **changes.get("corpus", {})}
    sections["tasks"] = {"paths": [f"{tasks}/*.jsonl"], "max_items": 40, **changes.get("tasks", {})}
    openclimb.init(root, scale="demo", **sections)
    return root
