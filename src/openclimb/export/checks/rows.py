"""What is kept of a dataset's documents while it is verified, and what is wrong with each shard by itself.

28 bytes a document; where a hash stands beside the text (`--by-cluster`), it is compared at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.corpus.reading.read import content_hash
from openclimb.corpus.tokenizer import encode_batch, load_tokenizer
from openclimb.export.checks.folder import Fault, Folder
from openclimb.export.facts import TOKENIZER
from openclimb.export.writers.writer import Writer

EVERY = 100  # documents of which one is tokenised again


@dataclass
class Rows:
    """What is kept of the documents that were read, in order."""

    domain: list[NDArray[np.int32]] = field(default_factory=list)
    tokens: list[NDArray[np.int32]] = field(default_factory=list)
    repetition: list[NDArray[np.int32]] = field(default_factory=list)
    key: list[NDArray[np.uint64]] = field(default_factory=list)  # stands for source_file and position
    content: list[NDArray[np.uint64]] = field(default_factory=list)  # stands for the text or the ids
    starts: list[int] = field(default_factory=list)  # of each shard: documents before it
    hashed: int = 0  # documents whose hash was compared

    def joined(self, name: str) -> NDArray[Any]:
        parts = getattr(self, name)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


class Counter:
    """Tokenises every hundredth document again."""

    def __init__(self, folder: Folder, ends: Mapping[str, Any]) -> None:
        self.n, self.seen = 0, 0
        self.faults: list[Fault] = []
        self.ends = ends
        with folder.fetched(TOKENIZER) as path:
            self.tokenizer = load_tokenizer(path)

    def check(self, file: str, table: Any) -> None:
        """Look at a table of rows."""
        first = -self.seen % EVERY
        self.seen += len(table)
        before = [] if self.ends["start"] is None else [self.ends["start"]]
        for row in table.slice(first).to_pylist()[::EVERY] if first < len(table) else ():
            self.n += 1
            where = f"document {row['id']!r} of {row['source_file']}"
            if "text" in row:
                (ids,) = encode_batch(self.tokenizer, [row["text"]])
                n = len(before) + len(ids) + 1
            else:
                ids = row["ids"]
                n = len(ids)
                if ids[: len(before)] != before or ids[-1:] != [self.ends["end"]]:
                    self.faults.append(Fault("tokens", file, f"{where} does not begin and end with its tokens"))
            if n != row["tokens"]:
                self.faults.append(Fault("tokens", file, f"{where} has {n} tokens, not {row['tokens']}"))


def read_shard(
    shard: Mapping[str, Any],
    writer: Writer,
    paths: Sequence[Path],
    facts: Mapping[str, Any],
    rows: Rows,
    counter: Counter | None,
) -> list[Fault]:
    """Keep a shard's rows; return what is wrong with them: not readable, of a domain that is none, other counts."""
    file = f"data/{shard['file']}"
    names = [row["name"] for row in facts["domains"]]
    number = {name: d for d, name in enumerate(names)}
    tokens, documents = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    faults: list[Fault] = []
    rows.starts.append(sum(len(part) for part in rows.tokens))
    try:
        for table in writer.read(*paths):
            domain = np.array([number.get(name, -1) for name in table.column("domain").to_pylist()], np.int32)
            if (domain < 0).any():
                unknown = table.column("domain")[int(np.argmax(domain < 0))].as_py()
                return [Fault("files", file, f"has documents of {unknown!r}, which is no domain of the mixture")]
            n = table.column("tokens").to_numpy().astype(np.int32)
            np.add.at(tokens, domain, n)
            np.add.at(documents, domain, 1)
            rows.domain.append(domain)
            rows.tokens.append(n)
            rows.repetition.append(table.column("repetition").to_numpy().astype(np.int32))
            places = zip(table.column("source_file").to_pylist(), table.column("position").to_pylist(), strict=True)
            rows.key.append(np.array([content_hash(f"{name}\0{at}") for name, at in places], np.uint64))
            rows.content.append(_contents(table))
            if "hash" in table.column_names and "text" in table.column_names:
                rows.hashed += len(table)
                faults += _hashes(file, table, rows.content[-1])
            if counter:
                counter.check(file, table)
    except Exception as error:  # each format has its own
        return [Fault("files", file, f"cannot be read: {type(error).__name__}: {str(error)[:200]}")]
    for what, kept, seen in (("documents", shard["documents"], documents), ("tokens", shard["tokens"], tokens)):
        for name, then, now in zip(names, kept, seen.tolist(), strict=True):
            if then != now:
                faults.append(Fault("counts", file, f"has {now:,} {what} of {name}, not {then:,}"))
    return faults


def _contents(table: Any) -> NDArray[np.uint64]:
    if "text" in table.column_names:
        return np.array([content_hash(text) for text in table.column("text").to_pylist()], np.uint64)
    hashes = [content_hash(ids.values.to_numpy().tobytes().decode("latin-1")) for ids in table.column("ids")]
    return np.array(hashes, np.uint64)


def _hashes(file: str, table: Any, content: NDArray[np.uint64]) -> Iterator[Fault]:
    """Yield a fault where a row's hash is not that of its text."""
    wrong = [
        i
        for i, (kept, own) in enumerate(zip(table.column("hash").to_pylist(), content.tolist(), strict=True))
        if kept != f"{own:016x}"
    ]
    if wrong:
        row = table.slice(wrong[0], 1).to_pylist()[0]
        where = f"document {row['id']!r} of {row['source_file']}"
        yield Fault(
            "hashes", file, f"{where} has another hash than its text; such rows among {len(table)}: {len(wrong)}"
        )
