"""Whether an exported dataset is what its record says, read from its folder or URL alone.

Checked, in this order; what a later check needs and an earlier one found damaged is not checked:

- files: each has the size and the checksum of `record.json`, and no shard is there that the record does not know.
- counts: each shard has its documents and tokens of every domain, and the sums are those of the card.
- tokens: every hundredth document is tokenised again with `tokenizer/tokenizer.json`, where tokens were counted.
- shares: each domain's share of all tokens is the mixture's within 0.1% (or what the card says, where documents are too
  long for the budget).
- repetitions: a document's copies are numbered from 0, of one domain and with one text; within a domain the numbers of
  copies differ by at most one, and the most is the record's; a later copy never stands before an earlier round's.
- order: the dataset is cut into 100 stretches of equal tokens. In each, and in the first 1, 2, … 99 of them together, a
  domain's tokens are its share, give or take what a random order of the documents allows (`spread_of`). The export lays
  documents more evenly than that. Shards of one domain each have no such order.
- once, in place of the last three for a dataset of every document: no document comes twice.
- hashes: those that stand beside texts are theirs.

Memory grows by 28 bytes a document, and as much again while they are compared; one shard at a time is fetched from
another store.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openclimb.config.registry import names as names_of
from openclimb.errors import WorkspaceError
from openclimb.export.checks.folder import Fault, Folder, damage
from openclimb.export.checks.rows import Counter, Rows, read_shard
from openclimb.export.checks.whole import (
    MIXTURE,
    check_card,
    check_counts,
    check_once,
    check_order,
    check_repetitions,
    check_shares,
)
from openclimb.export.facts import TOKENIZER
from openclimb.export.writers.writer import Writer, find_writer
from openclimb.progress import Progress, counted

Check = Callable[[Rows, Mapping[str, Any], Sequence[str]], Iterator[Fault]]  # (rows, facts, files of the shards)


@dataclass(frozen=True)
class Verified:
    """What `verify` read, and what it found."""

    documents: int
    tokens: int
    files: int
    tokenised: int  # documents whose tokens were counted again
    checks: tuple[str, ...]  # those that were done
    faults: tuple[Fault, ...]


def verify(out: str, progress: Progress) -> Verified:
    """Read a dataset and compare it with its record.

    Raises WorkspaceError where there is no finished export, or one of a format that is not built in.
    """
    folder = Folder(out)
    record = folder.record()
    files, shards, facts = record["files"], record["shards"], record["facts"]
    writer = _writer(facts["format"], folder.shown)
    faults = [
        Fault("files", name, "is in no record")
        for name in folder.names()
        if name.startswith("data/") and name not in files
    ]
    rows = Rows()
    filled = [shard for shard in shards if sum(shard["documents"])]
    of_shards = {f"data/{name}" for shard in filled for name in _names(writer, shard["file"])}
    for name in sorted(set(files) - of_shards):
        with folder.fetched(name) as path:
            faults += damage(name, path, files)
    known = facts["counted"] and not any(fault.where == TOKENIZER for fault in faults)
    counter = Counter(folder, facts["tokenizer"]) if known else None
    progress.start("read shards", len(filled), "shards")
    whole = True
    for shard in filled:
        needed = [f"data/{name}" for name in _names(writer, shard["file"])]
        with folder.all_fetched(needed) as paths:
            found = [fault for name, path in zip(needed, paths, strict=True) for fault in damage(name, path, files)]
            if not found:
                found = read_shard(shard, writer, paths, facts, rows, counter)
        whole = whole and not any(fault.check == "files" for fault in found)
        faults += found
        progress.advance()
    checks = ["files", *(["tokens"] if counter else [])]
    if whole:
        checks.append("counts")
        if not any(fault.where == MIXTURE for fault in faults):
            faults += check_card(facts, folder)
        faults += check_counts(record)
        for check in _checks(facts):
            checks.append(check.__name__.removeprefix("check_"))
            faults += check(rows, facts, [shard["file"] for shard in filled])
    if rows.hashed:
        checks.append("hashes")
    faults += counter.faults if counter else []
    n_documents = sum(len(part) for part in rows.tokens)
    progress.finish(counted(n_documents, "documents"))
    n_tokens = sum(int(part.sum()) for part in rows.tokens)
    tokenised = counter.n if counter else 0
    return Verified(n_documents, n_tokens, len(files), tokenised, tuple(checks), tuple(faults))


def _checks(facts: Mapping[str, Any]) -> tuple[Check, ...]:
    """Return what the documents of a dataset must be, all together."""
    if facts["by_cluster"]:
        return (check_once,)
    return (check_shares, check_repetitions) if facts["by_domain"] else (check_shares, check_repetitions, check_order)


def _writer(name: str, shown: str) -> Writer:
    """Return the writer that a record names: only one that is built in, as a dataset's own words import nothing."""
    if name not in names_of("writer"):
        raise WorkspaceError(
            f"{shown} has the format {name}, which is not built in", f"verify reads {', '.join(names_of('writer'))}"
        )
    return find_writer(name)


def _names(writer: Writer, first: str) -> list[str]:
    """Return the names of a shard's files, given that of the first."""
    stem = first.removesuffix(writer.suffixes[0])
    return [stem + suffix for suffix in writer.suffixes]
