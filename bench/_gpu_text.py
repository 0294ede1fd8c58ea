"""Text and tokens for a machine that has no corpus: the source files of its Python packages."""

import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from openclimb.config.schema import TasksSettings
from openclimb.corpus.tokenizer import encode_batch, ends_of, load_tokenizer, train_tokenizer
from openclimb.progress import Progress
from openclimb.tasks.items import pack_tasks
from openclimb.workspace.files import write_json

KINDS = {"library": "stdlib", "packages": "purelib"}  # domain → where its files are
LONGEST = 20_000  # characters of a document


def documents(kind: str, n_chars: int, longest: int = LONGEST) -> Iterator[str]:
    """Yield pieces of source files of a kind, in a shuffled order, until there are `n_chars` characters."""
    folder = Path(sysconfig.get_paths()[KINDS[kind]])
    paths = sorted(path for path in folder.rglob("*.py") if kind != "library" or "site-packages" not in path.parts)
    for i in np.random.default_rng(0).permutation(len(paths)):
        text = paths[i].read_text(encoding="utf-8", errors="ignore").strip()
        for begin in range(0, len(text), longest):
            yield text[begin : begin + longest]
        n_chars -= len(text)
        if n_chars < 0:
            return


def encoded(texts: list[str], tokenizer: Path) -> np.ndarray:
    """Return the tokens of texts, each with its end, as one array."""
    loaded, end = load_tokenizer(tokenizer), ends_of(tokenizer).end
    ids: list[int] = []
    for i in range(0, len(texts), 200):
        for row in encode_batch(loaded, texts[i : i + 200]):
            ids += [*row, end]
    return np.array(ids, dtype=np.uint16)


def write_tokens(out: Path, n_chars: int, vocab_size: int) -> list[str]:
    """Write a folder as `tokens/` is: two domains, held-out text, two tasks; return the domains' names."""
    out.mkdir(parents=True)
    texts = {kind: list(documents(kind, n_chars)) for kind in KINDS}
    train_tokenizer([text for some in texts.values() for text in some], vocab_size, out / "tokenizer.json")
    rows, tasks = [], []
    for kind, some in texts.items():
        ends = np.cumsum([len(text) for text in some])
        n_held = 1 + int(np.searchsorted(ends, ends[-1] / 10))  # a tenth of the characters: documents differ in length
        held, kept = some[:n_held], some[n_held:]
        ids = encoded(kept, out / "tokenizer.json")
        ids.tofile(out / f"{kind}.bin")
        rows.append({"name": kind, "file": f"{kind}.bin", "n_tokens": len(ids), "n_read": len(ids)})
        tasks.append(write_task(out / f"{kind}.jsonl", held))
    vocab_size = load_tokenizer(out / "tokenizer.json").get_vocab_size()
    write_json(out / "domains.json", {"dtype": "uint16", "eos": 0, "vocab_size": vocab_size, "domains": rows})
    ids[:2000].tofile(out / "heldout.bin")
    write_json(out / "heldout.json", {"n_bytes": 6000, "n_tokens": 2000})
    pack_tasks(TasksSettings(paths=tuple(tasks)), out / "tokenizer.json", out / "tasks", Progress())
    return list(texts)


def write_task(path: Path, texts: list[str], most: int = 400) -> str:
    """Write items: which of two pieces goes on a text; return the path."""
    pieces = [text[i : i + 200] for text in texts for i in range(0, len(text) - 400, 400)][: most + 1]
    items = [
        {"context": here[:120], "options": [here[120:], other[120:]], "gold": 0}
        for here, other in zip(pieces, pieces[1:], strict=False)
        if here[:120].strip() and here[120:].strip() and other[120:].strip()
    ]
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return str(path)
