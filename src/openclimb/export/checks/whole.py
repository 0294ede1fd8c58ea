"""What is wrong with a dataset as a whole: sums, shares, repetitions, order."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.export.checks.folder import Fault, Folder
from openclimb.export.checks.rows import Rows
from openclimb.export.checks.spread import spread_of
from openclimb.export.facts import TOLERANCE

ROUNDING = 1e-9
MIXTURE = "mixture.json"
SHOWN = 3  # documents that a fault names


def check_card(facts: Mapping[str, Any], folder: Folder) -> Iterator[Fault]:
    """Yield a fault where mixture.json, from which people and programs read the card's numbers, has others."""
    with folder.fetched(MIXTURE) as path:
        said = json.loads(path.read_text(encoding="utf-8"))
    if {name: said.get(name) for name in facts} != facts:
        yield Fault("counts", MIXTURE, "says something else than record.json")


def check_counts(record: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield where the card's numbers are not the sums of the shards', and its weights not those asked for."""
    facts = record["facts"]
    for what in ("tokens", "documents"):
        sums = np.sum([shard[what] for shard in record["shards"]], axis=0)
        for d, row in enumerate(facts["domains"]):
            if row[what] != sums[d]:
                yield Fault("counts", row["name"], f"has {sums[d]:,} {what}, and the card says {row[what]:,}")
        if facts[what] != sums.sum():
            yield Fault("counts", "the dataset", f"has {sums.sum():,} {what}, and the card says {facts[what]:,}")
    weights = {row["name"]: row["weight"] for row in facts["domains"]}
    if weights != record["asked"]["mixture"]:
        yield Fault("shares", "record.json", "names other weights in its facts than were asked for")


def check_shares(rows: Rows, facts: Mapping[str, Any], _files: Sequence[str]) -> Iterator[Fault]:
    """Yield the domains whose share of the tokens is not the mixture's."""
    tokens = np.bincount(rows.joined("domain"), rows.joined("tokens"), len(facts["domains"]))
    shares = tokens / max(1.0, tokens.sum())
    allowed = TOLERANCE if facts["within_tolerance"] else float(facts["largest_difference"])
    for share, row in zip(shares.tolist(), facts["domains"], strict=True):
        if abs(share - row["weight"]) > allowed + ROUNDING:
            yield Fault("shares", row["name"], f"is {share:.3%} of the tokens, and the mixture has {row['weight']:.3%}")


def check_repetitions(rows: Rows, facts: Mapping[str, Any], files: Sequence[str]) -> Iterator[Fault]:
    """Yield the documents whose copies are not numbered from 0, are not alike, or are more than their domain's are."""
    key, number, domain = rows.joined("key"), rows.joined("repetition"), rows.joined("domain")
    order = np.lexsort((number, key))
    same = key[order][1:] == key[order][:-1]
    first = np.concatenate([[True], ~same])
    places = np.arange(len(order))
    expected = places - np.maximum.accumulate(np.where(first, places, 0))
    gap = "has a number of repetition that another copy of its document has, or that follows none"
    yield from _few(rows, files, order[number[order] != expected], gap)
    for name, what in (("domain", "has another domain than its copy"), ("content", "has another text than its copy")):
        values = rows.joined(name)[order]
        yield from _few(rows, files, order[1:][same & (values[1:] != values[:-1])], what)
    starts = np.flatnonzero(first)
    n_copies = np.diff(np.append(starts, len(order)))
    of = domain[order][starts]
    for d, row in enumerate(facts["domains"]):
        mine = n_copies[of == d]
        if len(mine) and (int(mine.max()) != row["copies"] or int(mine.min()) < int(mine.max()) - 1):
            what = f"has documents {mine.min()} to {mine.max()} times, and the record says at most {row['copies']}"
            yield Fault("repetitions", row["name"], what)
        rounds = number[domain == d]
        at = np.flatnonzero(domain == d)[1:][rounds[1:] < rounds[:-1]]
        yield from _few(rows, files, at, "comes before copies of an earlier round")


def check_once(rows: Rows, _facts: Mapping[str, Any], files: Sequence[str]) -> Iterator[Fault]:
    """Yield the documents that come again, or are numbered as if they did."""
    key, number = rows.joined("key"), rows.joined("repetition")
    order = np.argsort(key, kind="stable")
    again = order[1:][key[order][1:] == key[order][:-1]]
    yield from _few(rows, files, again, "comes a second time", "once")
    yield from _few(rows, files, np.flatnonzero(number), "has a number of repetition, and each comes once", "once")


def _few(
    rows: Rows, files: Sequence[str], at: NDArray[np.int64], what: str, check: str = "repetitions"
) -> Iterator[Fault]:
    """Yield faults of the first few documents, by shard and row, and how many more there are."""
    for i in np.sort(at)[:SHOWN].tolist():
        shard = int(np.searchsorted(rows.starts, i, side="right")) - 1
        yield Fault(check, f"data/{files[shard]}", f"row {i - rows.starts[shard]} {what}")
    if len(at) > SHOWN:
        yield Fault(check, "the dataset", f"has {len(at) - SHOWN:,} more of these: {what}")


def check_order(rows: Rows, facts: Mapping[str, Any], _files: Sequence[str]) -> Iterator[Fault]:
    """Yield the domains that have too many or too few tokens in a stretch, or in the first stretches together."""
    domain, tokens = rows.joined("domain"), rows.joined("tokens")
    for d, row in enumerate(facts["domains"]):
        spread = spread_of(domain == d, tokens)
        for parts, allowed, where in (
            (spread.stretches, spread.of_stretch, "in stretch {} of 100"),
            (spread.first, spread.of_first, "in the first {} of 100 stretches"),
        ):
            over = np.abs(parts) - allowed
            if over.max() > 0:
                at = int(over.argmax())
                off = f"is {parts[at]:+,.0f} tokens off its share {where.format(at + 1)}"
                most = f"±{allowed[at]:,.0f} is allowed; such places: {int((over > 0).sum())}"
                yield Fault("order", row["name"], f"{off}, and {most}")
