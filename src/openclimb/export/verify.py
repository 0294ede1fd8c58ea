"""Whether an exported dataset is what its record says, read from its folder or URL alone.

Checked, in this order; what a later check needs and an earlier one found damaged is not checked:

- files: each has the size and the checksum of `record.json`, and no shard is there that the record does not know.
- counts: each shard has its documents and tokens of every domain, and the sums are those of the card.
- tokens: every hundredth document is tokenised again with `tokenizer/tokenizer.json`.
- shares: each domain's share of all tokens is the mixture's within 0.1% (or what the card says, where documents are too
  long for the budget).
- repetitions: a document's copies are numbered from 0, of one domain and with one text; within a domain the numbers of
  copies differ by at most one, and the most is the record's; a later copy never stands before an earlier round's.
- order: the dataset is cut into 100 stretches of equal tokens. In each, and in the first 1, 2, … 99 of them together, a
  domain's tokens are its share, give or take what a random order of the documents allows (`spread_of`). The export lays
  documents more evenly than that. Shards of one domain each have no such order.

Memory grows by 28 bytes a document, and as much again while they are compared; one shard at a time is fetched from
another store.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.registry import names as names_of
from openclimb.corpus.reading.read import content_hash
from openclimb.corpus.reading.store import is_remote, open_store, patiently
from openclimb.corpus.tokenizer import encode_batch, load_tokenizer
from openclimb.errors import WorkspaceError
from openclimb.export.writers.writer import Writer, find_writer
from openclimb.masking import without_secrets
from openclimb.progress import Progress, counted
from openclimb.workspace.files import file_checksum

TOLERANCE = 0.001  # of a realised share
STRETCHES, DEVIATIONS = 100, 5.0
EVERY = 100  # documents of which one is tokenised again
ROUNDING = 1e-9
TOKENIZER, MIXTURE = "tokenizer/tokenizer.json", "mixture.json"
SHOWN = 3  # documents that a fault names


@dataclass(frozen=True)
class Fault:
    """One thing that is not as the record says."""

    check: str  # files, counts, tokens, shares, repetitions, order
    where: str  # a file or a domain
    what: str

    def __str__(self) -> str:
        return f"{self.check}: {self.where} {self.what}"


@dataclass(frozen=True)
class Verified:
    """What `verify` read, and what it found."""

    documents: int
    tokens: int
    files: int
    tokenised: int  # documents whose tokens were counted again
    checks: tuple[str, ...]  # those that were done
    faults: tuple[Fault, ...]


@dataclass
class _Rows:
    """What is kept of the documents that were read, in order."""

    domain: list[NDArray[np.int32]] = field(default_factory=list)
    tokens: list[NDArray[np.int32]] = field(default_factory=list)
    repetition: list[NDArray[np.int32]] = field(default_factory=list)
    key: list[NDArray[np.uint64]] = field(default_factory=list)  # stands for source_file and position
    content: list[NDArray[np.uint64]] = field(default_factory=list)  # stands for the text or the ids
    starts: list[int] = field(default_factory=list)  # of each shard: documents before it

    def joined(self, name: str) -> NDArray[Any]:
        parts = getattr(self, name)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


def verify(out: str, progress: Progress) -> Verified:
    """Read a dataset and compare it with its record.

    Raises WorkspaceError where there is no finished export, or one of a format that is not built in.
    """
    folder = _Folder(out)
    record = folder.record()
    files, shards, facts = record["files"], record["shards"], record["facts"]
    writer = _writer(facts["format"], folder.shown)
    faults = [
        Fault("files", name, "is in no record")
        for name in folder.names()
        if name.startswith("data/") and name not in files
    ]
    rows = _Rows()
    filled = [shard for shard in shards if sum(shard["documents"])]
    of_shards = {f"data/{name}" for shard in filled for name in _names(writer, shard["file"])}
    for name in sorted(set(files) - of_shards):
        with folder.fetched(name) as path:
            faults += _damage(name, path, files)
    counter = None if any(fault.where == TOKENIZER for fault in faults) else _Counter(folder, facts["tokenizer"])
    progress.start("read shards", len(filled), "shards")
    whole = True
    for shard in filled:
        needed = [f"data/{name}" for name in _names(writer, shard["file"])]
        with folder.all_fetched(needed) as paths:
            found = [fault for name, path in zip(needed, paths, strict=True) for fault in _damage(name, path, files)]
            if not found:
                found = _read(shard, writer, paths, facts, rows, counter)
        whole = whole and not any(fault.check == "files" for fault in found)
        faults += found
        progress.advance()
    checks = ["files", *(["tokens"] if counter else [])]
    if whole:
        checks.append("counts")
        if not any(fault.where == MIXTURE for fault in faults):
            faults += _card(facts, folder)
        faults += _counts(record)
        for check in (_shares, _repetitions, *([] if facts["by_domain"] else [_order])):
            checks.append(check.__name__.removeprefix("_"))
            faults += check(rows, facts, [shard["file"] for shard in filled])
    faults += counter.faults if counter else []
    n_documents = sum(len(part) for part in rows.tokens)
    progress.finish(counted(n_documents, "documents"))
    n_tokens = sum(int(part.sum()) for part in rows.tokens)
    tokenised = counter.n if counter else 0
    return Verified(n_documents, n_tokens, len(files), tokenised, tuple(checks), tuple(faults))


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


class _Folder:
    """Where the dataset is: files of this machine as they are, those of another store fetched one by one."""

    def __init__(self, out: str) -> None:
        self.out, self.shown = out, without_secrets(out)
        self.filesystem, self.path = open_store(out)

    def record(self) -> dict[str, Any]:
        """Return record.json. Raises WorkspaceError where there is none that can be read."""
        data = self._do(self._record)
        if data is None:
            raise WorkspaceError(
                f"{self.shown} holds no finished export: it has no record.json", "climb export DIR --out FOLDER"
            )
        try:
            found = json.loads(data)
            parts = [found[name] for name in ("files", "shards", "facts", "asked")]
            if any(Path(name).is_absolute() or ".." in Path(name).parts for name in parts[0]):
                raise ValueError("a file lies elsewhere")
            known = {"format", "by_domain", "domains", "tokens", "documents", "within_tolerance", "tokenizer"}
            if not all(parts[:3]) or not known <= set(parts[2]):
                raise ValueError("it lacks parts")
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError(
                f"{self.shown}/record.json cannot be read: {error}",
                "export again: it is damaged, or an earlier version wrote it",
            ) from None
        return dict(found)

    def _record(self) -> bytes | None:
        try:
            return bytes(self.filesystem.cat_file(f"{self.path}/record.json"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self) -> list[str]:
        """Return the names of all files."""
        root = self.path.rstrip("/") + "/"
        return sorted(path.removeprefix(root) for path in self._do(lambda: self.filesystem.find(self.path)))

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Yield a file's path on this machine, which may not exist."""
        if not is_remote(self.out):
            yield Path(self.path) / name
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            if self._do(lambda: self.filesystem.exists(f"{self.path}/{name}")):
                self._do(lambda: self.filesystem.get_file(f"{self.path}/{name}", str(path)))
            yield path

    @contextmanager
    def all_fetched(self, names: Sequence[str]) -> Iterator[list[Path]]:
        """Yield the paths of several files."""
        if not names:
            yield []
            return
        with self.fetched(names[0]) as first, self.all_fetched(names[1:]) as rest:
            yield [first, *rest]

    def _do(self, work: Callable[[], Any]) -> Any:
        return patiently(self.out, work)


def _damage(name: str, path: Path, files: Mapping[str, Any]) -> list[Fault]:
    """Return what is wrong with a file: gone, of another size or content; the file whose content it has instead."""
    if name not in files:
        return [Fault("files", name, "is in no record")]
    kept = files[name]
    if not path.is_file():
        return [Fault("files", name, "is gone")]
    checksum = file_checksum(path)
    if checksum == kept["checksum"]:
        return []
    for other, one in files.items():
        if one["checksum"] == checksum:
            return [Fault("files", name, f"has the content of {other}")]
    size = path.stat().st_size
    if size != kept["bytes"]:
        return [Fault("files", name, f"has {size:,} bytes, not {kept['bytes']:,}")]
    return [Fault("files", name, "has other content")]


class _Counter:
    """Tokenises every hundredth document again."""

    def __init__(self, folder: _Folder, ends: Mapping[str, Any]) -> None:
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


def _read(
    shard: Mapping[str, Any],
    writer: Writer,
    paths: Sequence[Path],
    facts: Mapping[str, Any],
    rows: _Rows,
    counter: "_Counter | None",
) -> list[Fault]:
    """Keep a shard's rows; return what is wrong with them: not readable, of a domain that is none, other counts."""
    file = f"data/{shard['file']}"
    names = [row["name"] for row in facts["domains"]]
    number = {name: d for d, name in enumerate(names)}
    tokens, documents = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
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
            if counter:
                counter.check(file, table)
    except Exception as error:  # each format has its own
        return [Fault("files", file, f"cannot be read: {type(error).__name__}: {str(error)[:200]}")]
    found = []
    for what, kept, seen in (("documents", shard["documents"], documents), ("tokens", shard["tokens"], tokens)):
        for name, then, now in zip(names, kept, seen.tolist(), strict=True):
            if then != now:
                found.append(Fault("counts", file, f"has {now:,} {what} of {name}, not {then:,}"))
    return found


def _contents(table: Any) -> NDArray[np.uint64]:
    if "text" in table.column_names:
        return np.array([content_hash(text) for text in table.column("text").to_pylist()], np.uint64)
    hashes = [content_hash(ids.values.to_numpy().tobytes().decode("latin-1")) for ids in table.column("ids")]
    return np.array(hashes, np.uint64)


def _card(facts: Mapping[str, Any], folder: _Folder) -> Iterator[Fault]:
    """Yield a fault where mixture.json, from which people and programs read the card's numbers, has others."""
    with folder.fetched(MIXTURE) as path:
        said = json.loads(path.read_text(encoding="utf-8"))
    if {name: said.get(name) for name in facts} != facts:
        yield Fault("counts", MIXTURE, "says something else than record.json")


def _counts(record: Mapping[str, Any]) -> Iterator[Fault]:
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


def _shares(rows: _Rows, facts: Mapping[str, Any], _files: Sequence[str]) -> Iterator[Fault]:
    """Yield the domains whose share of the tokens is not the mixture's."""
    tokens = np.bincount(rows.joined("domain"), rows.joined("tokens"), len(facts["domains"]))
    shares = tokens / max(1.0, tokens.sum())
    allowed = TOLERANCE if facts["within_tolerance"] else float(facts["largest_difference"])
    for share, row in zip(shares.tolist(), facts["domains"], strict=True):
        if abs(share - row["weight"]) > allowed + ROUNDING:
            yield Fault("shares", row["name"], f"is {share:.3%} of the tokens, and the mixture has {row['weight']:.3%}")


def _repetitions(rows: _Rows, facts: Mapping[str, Any], files: Sequence[str]) -> Iterator[Fault]:
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


def _few(rows: _Rows, files: Sequence[str], at: NDArray[np.int64], what: str) -> Iterator[Fault]:
    """Yield faults of the first few documents, by shard and row, and how many more there are."""
    for i in np.sort(at)[:SHOWN].tolist():
        shard = int(np.searchsorted(rows.starts, i, side="right")) - 1
        yield Fault("repetitions", f"data/{files[shard]}", f"row {i - rows.starts[shard]} {what}")
    if len(at) > SHOWN:
        yield Fault("repetitions", "the dataset", f"has {len(at) - SHOWN:,} more of these: {what}")


def _order(rows: _Rows, facts: Mapping[str, Any], _files: Sequence[str]) -> Iterator[Fault]:
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


@dataclass(frozen=True)
class Spread:
    """How far a domain's tokens are from its share, in tokens, and how far is allowed."""

    stretches: NDArray[np.float64]  # (100,)
    of_stretch: NDArray[np.float64]
    first: NDArray[np.float64]  # (99,): in the first 1, 2, … 99 stretches together
    of_first: NDArray[np.float64]

    @property
    def worst(self) -> float:
        """The largest distance, in what is allowed."""
        pairs = ((self.stretches, self.of_stretch), (self.first, self.of_first))
        return max(float((np.abs(off) / np.maximum(1.0, allowed)).max()) for off, allowed in pairs)


def spread_of(mine: NDArray[np.bool_], tokens: NDArray[Any]) -> Spread:
    """Return how a domain is spread over 100 stretches of equal tokens.

    `mine` (n,) says which documents are the domain's, `tokens` (n,) how long each is; one on a border is divided. In a
    random order, each document of a part x of the dataset adds its tokens, less the domain's share of them, or takes
    away the share of another's: with V the sum of their squares, the variance is V x (1 - x). Allowed are five standard
    deviations and two of the domain's longest document, as lengths are far from normal.
    """
    length = tokens.astype(np.float64)
    own = np.where(mine, length, 0.0)
    ends = np.concatenate([[0.0], np.cumsum(length)])
    edges = np.linspace(0.0, ends[-1], STRETCHES + 1)
    share = float(own.sum() / max(1.0, ends[-1]))
    off = np.interp(edges, ends, np.concatenate([[0.0], np.cumsum(own)])) - share * edges
    part = np.arange(1, STRETCHES) / STRETCHES
    variance, longest = float(((own - share * length) ** 2).sum()), float(own.max(initial=0.0))
    allowed = DEVIATIONS * np.sqrt(variance * part * (1 - part)) + 2 * longest
    return Spread(np.diff(off), np.full(STRETCHES, allowed[0]), off[1:-1], allowed)
