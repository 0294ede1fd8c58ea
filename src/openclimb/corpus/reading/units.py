"""The input as units: which files the settings match, cut by byte range or row group. Writes corpus/units.parquet.

Nothing is copied. A file is known by its size, its time (or ETag) and, on this machine, the hash of both ends.
"""

import hashlib
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.find import Found, LeftOut, find_files, summary
from openclimb.corpus.reading.formats import SEEKABLE_ZST, format_of, text_stream
from openclimb.corpus.reading.lines import is_array
from openclimb.corpus.reading.parse import FOLDERS, MISSING, TOKEN_IDS, NotText, is_token_ids, shown, text_of, value_at
from openclimb.corpus.reading.read import PACKED, Unit, damage, first_row
from openclimb.corpus.reading.seekable import SeekTable, seek_table
from openclimb.corpus.reading.store import open_file, patiently
from openclimb.corpus.reading.tables import parquet_file
from openclimb.corpus.tokenizer import load_tokenizer
from openclimb.errors import ConfigError, InputError, nearest
from openclimb.masking import without_secrets
from openclimb.progress import counted
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic, fingerprint, read_json, write_json

Item = TypeVar("Item")
Result = TypeVar("Result")

UNIT_BYTES = 64_000_000  # input is cut into units of about so many
LARGE_UNIT = 1_000_000_000  # bytes of text: a larger unit is named, as it is redone whole and holds up one worker
ENDS = 1 << 16  # bytes at each end of a local file that its fingerprint covers
THREADS = 16  # that look at files at once: stores take tens of milliseconds to answer
CHECKED_FILES = 64  # files whose columns are looked at before anything runs
LEFT_OUT = "left_out.json"
STAMPS = ("ETag", "etag", "blob_id", "LastModified", "mtime", "created")  # what stores say that changes with a file


@dataclass(frozen=True)
class InputFile:
    """A file that the settings match."""

    path: str
    name: str
    format: str
    size: int
    fingerprint: str
    folder: str  # the first below the path that was given or, where it lies in none, its own


def list_files(settings: CorpusSettings) -> list[InputFile]:
    """Return the files that `corpus.paths` match, sorted by path. Raises InputError when one of them matches none."""
    return look(settings)[0]


def look(settings: CorpusSettings) -> tuple[list[InputFile], list[LeftOut]]:
    """Return the files that `corpus.paths` match, and those that are left out."""
    if not settings.paths:
        raise ConfigError(
            "corpus.paths is empty", "name the files to read in climb.toml, or climb init DIR --corpus PATH"
        )
    found, left = find_files(settings.paths)
    names = names_of([file.path for file in found]).values()
    known = at_once(lambda file: patiently(file.path, partial(_file_fingerprint, file)), found)
    return [
        InputFile(file.path, name, format_of(file.path), file.size, mark, _folder(file))
        for file, name, mark in zip(found, names, known, strict=True)
    ], left


def at_once(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield function(item) in the order of the items; several wait for their stores at once, in threads."""
    with ThreadPoolExecutor(max(1, min(THREADS, len(items)))) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _folder(file: Found) -> str:
    if "/" in file.inner:
        return file.inner.split("/", 1)[0]
    return without_secrets(file.path).rpartition("/")[0].rpartition("/")[2]


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """Return {path: its name}: what follows the folders that all these paths and URLs share.

    Not by `posixpath.commonpath`, which takes `s3://` for `s3:/` and does not mix paths with URLs. A URL's user and
    query are left out, as they may be secrets; where only a query tells files apart, its hash stands for it.
    """
    plain = [without_secrets(path) for path in paths]
    twice = {name for name, n in Counter(plain).items() if n > 1}
    told = [
        f"{name}~{fingerprint(path)[:8]}" if name in twice else name for name, path in zip(plain, paths, strict=True)
    ]
    parts = [path.split("/") for path in told]
    folders = [each[:-1] for each in parts]
    shared = len(posixpath.commonprefix(folders))  # of lists: whole components
    return {path: "/".join(each[shared:]).lstrip("/") for path, each in zip(paths, parts, strict=True)}


def input_fingerprint(settings: CorpusSettings) -> str:
    """Return the fingerprint of all input files as they are now."""
    return fingerprint([[file.name, file.fingerprint] for file in list_files(settings)])


def check_inputs(settings: CorpusSettings, tokenizer: str = "") -> dict[str, Any]:
    """Return facts of the input (files, bytes, formats, what is left out) after checking its columns. Changes nothing,
    reads little. `tokenizer` is a path, which decodes token ids.

    Raises InputError when no file matches or the text column is missing or no text, naming the columns there are.
    """
    return _checked(settings, tokenizer)[0]


def _checked(settings: CorpusSettings, tokenizer: str) -> tuple[dict[str, Any], list[InputFile]]:
    """Return the facts of `check_inputs`, and the files."""
    files, left = look(settings)
    kind, _, column = settings.domains.partition(":")
    if settings.domains and (kind, bool(column)) not in (("column", True), (FOLDERS, False)):
        raise ConfigError(f"corpus.domains = '{settings.domains}' is not known", 'write "column:NAME", "folders" or ""')
    if kind == FOLDERS:
        folders = {file.folder for file in files}
        if len(folders) < 2:
            raise InputError(
                f"all files lie in one folder, '{files[0].folder}', and a mixture needs two domains",
                "put the files into folders named for their domains, and name those or the folder above",
            )
    wanted = {"text": settings.text, "id": settings.id, "domains": column}
    decoded, pages = False, ""
    some = files[:: max(1, len(files) // CHECKED_FILES)]
    for file, row in zip(some, at_once(partial(_first_row, column=settings.text), some), strict=True):
        if row == {} and file.format.startswith("warc"):
            pages = pages or file.name
        elif row is not None:
            _check_columns(file, row, wanted)
            decoded |= _check_text(file, row, settings.text, tokenizer)
    facts = {
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "formats": dict(Counter(file.format for file in files)),
        "left_out": summary(left),
        "token_ids": decoded,
        "pages": pages,  # a WARC file that begins with web pages, without any plain text
        "large_units": large_units(files),
    }
    return facts, files


def large_units(files: Sequence[InputFile]) -> list[dict[str, Any]]:
    """Return name and bytes of text, about, of the largest unit of each file that has one over `LARGE_UNIT`.

    What stands in a file's name is enough for most formats; of the others, `CHECKED_FILES` are looked at.
    """
    large = [file for file in files if file.size * PACKED > LARGE_UNIT]
    named = [file for file in large if not _may_be_cut(file)]
    looked = [file for file in large if _may_be_cut(file)]
    looked = looked[:: max(1, len(looked) // CHECKED_FILES)]
    rows = [(file, file.size * (PACKED if "." in file.format else 1)) for file in named]
    cuts = at_once(lambda file: patiently(file.path, partial(_cut, file, UNIT_BYTES)), looked)
    for file, (kind, pieces) in zip(looked, cuts, strict=True):
        packed = PACKED if kind == "jsonl.zst" or kind == "json.zst" else 1
        rows.append((file, packed * max((n_bytes for _, _, n_bytes, _ in pieces), default=0)))
    return [{"name": file.name, "bytes": n_bytes} for file, n_bytes in rows if n_bytes > LARGE_UNIT]


def _may_be_cut(file: InputFile) -> bool:
    return file.format in ("parquet", "json", "jsonl", "json.zst", "jsonl.zst")


def _first_row(file: InputFile, column: str) -> dict[str, Any] | None:
    try:
        return patiently(file.path, partial(first_row, file.path, file.format, column))
    except ValueError:
        if not file.format.startswith("json") or file.format.startswith("jsonl"):
            return None  # a first line that is no JSON is told, with its place, when it is read
        raise InputError(
            f"{file.name} holds neither JSON lines nor an array of them",
            "write its documents as JSON lines, or leave it out of corpus.paths, with a glob for the others",
        ) from None


def _check_columns(file: InputFile, row: dict[str, Any], wanted: dict[str, str]) -> None:
    for setting, name in wanted.items():
        if not name or value_at(row, name) is not MISSING or (setting == "id" and file.format.startswith("text")):
            continue
        ids = [column for column, value in row.items() if is_token_ids(value)]
        hint = f"; '{ids[0]}' holds token ids" if ids and setting == "text" else ""
        raise InputError(
            f"{file.name} has no column '{name}'{nearest(name, row)}; it has: {shown(row)}{hint}",
            f"set corpus.{setting} in climb.toml, or --set corpus.{setting}=COLUMN"
            + (f"; for {ids[0]}, tokens.tokenizer must name their tokenizer.json" if hint else ""),
        )


def _check_text(file: InputFile, row: dict[str, Any], column: str, tokenizer: str) -> bool:
    """Return whether the text column holds token ids that the tokenizer decodes. Raises InputError when it holds no
    text by its type, or in a first line that cannot be meant.
    """
    value = value_at(row, column)
    if is_token_ids(value) and tokenizer:
        load_tokenizer(Path(tokenizer).expanduser())  # says what is wrong with it
        return True
    typed = file.format in ("parquet", "arrow")
    try:
        if typed or isinstance(value, (list, dict)):
            text_of(value, column)
    except NotText as error:
        if value is not None:
            what = str(error).partition(":")[0]
            ids = f"'{column}' holds lists of whole numbers: {TOKEN_IDS}" if what == TOKEN_IDS else str(error)
            raise InputError(
                f"{file.name}: {ids}",
                "decode them first, or name their tokenizer: --set tokens.tokenizer=PATH/tokenizer.json"
                if what == TOKEN_IDS
                else "set corpus.text in climb.toml, or --set corpus.text=COLUMN; a path is messages.content",
            ) from None
    return False


def survey(context: StageContext, settings: CorpusSettings, tokenizer: str = "") -> dict[str, Any]:
    """Cut the input into units and write them to units.parquet, and what is left out to left_out.json; return facts."""
    progress = context.progress
    facts, files = _checked(settings, tokenizer)
    progress.start("survey", len(files), "files")
    units: list[Unit] = []
    cut = at_once(lambda file: patiently(file.path, partial(_cut, file, UNIT_BYTES)), files)
    for file, (kind, pieces) in zip(files, cut, strict=True):
        for start, stop, n_bytes, first in pieces:
            fixed = (file.size, file.fingerprint, file.folder)
            units.append(Unit(len(units), file.path, file.name, kind, start, stop, n_bytes, first, *fixed))
        progress.advance()
    write_units(units, context.folder / "units.parquet")
    write_json(context.folder / LEFT_OUT, facts["left_out"])
    progress.finish(counted(len(units), "units"))
    return {**facts, "units": len(units)}


def left_out(folder: Path) -> list[dict[str, Any]]:
    """Return what a surveyed corpus left out, a row for each reason: reason, files, bytes, named."""
    path = folder / LEFT_OUT
    return list(read_json(path)) if path.is_file() else []


def write_units(units: Sequence[Unit], path: Path) -> None:
    """Write units as a Parquet table, one row each. A path that may hold a secret is left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [asdict(unit) | ({} if without_secrets(unit.path) == unit.path else {"path": ""}) for unit in units]
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows).drop_columns("tokenizer"), temporary)


def read_units(folder: Path, settings: CorpusSettings | None = None, tokenizer: str = "") -> list[Unit]:
    """Return the units of a surveyed corpus, by number; `tokenizer` decodes their texts where they are token ids.

    `settings` give the paths that were left out; without them these are "", as for who reads no document.
    """
    import pyarrow.parquet as pq

    names = {field.name for field in fields(Unit)} - {"tokenizer"}
    rows = pq.read_table(folder / "units.parquet").to_pylist()
    if settings and not all(row["path"] for row in rows):
        paths = {file.name: file.path for file in list_files(settings)}
        for row in rows:
            row["path"] = row["path"] or paths.get(row["name"], "")
    return [Unit(**{name: row[name] for name in names}, tokenizer=tokenizer) for row in rows]


def changed_inputs(folder: Path, settings: CorpusSettings) -> list[str]:
    """Return a line for each file that was added, removed or changed since the survey in `folder`."""
    then = {unit.name: unit.fingerprint for unit in read_units(folder)}
    now = {file.name: file.fingerprint for file in list_files(settings)}
    lines = [f"{name}: new" for name in now.keys() - then.keys()]
    lines += [f"{name}: gone" for name in then.keys() - now.keys()]
    lines += [f"{name}: changed" for name in then.keys() & now.keys() if then[name] != now[name]]
    return sorted(lines)


def _file_fingerprint(file: Found) -> str:
    """Return what a file is known by: its size, what its store says of its version, else the hash of both ends."""
    if file.filesystem is None:
        stamp = str(Path(file.path).stat().st_mtime)
    else:
        info = file.filesystem.info(file.place)
        stamp = next((str(info[key]) for key in STAMPS if info.get(key)), "")
        if stamp:
            return fingerprint([file.size, stamp])
    with open_file(file.path) as stream:
        ends = hashlib.blake2b(stream.read(ENDS), digest_size=8)
        if file.size > ENDS:
            stream.seek(max(ENDS, file.size - ENDS))
            ends.update(stream.read(ENDS))
    return fingerprint([file.size, stamp, ends.hexdigest()])


def _cut(file: InputFile, unit_bytes: int) -> tuple[str, list[tuple[int, int, int, int]]]:
    """Return the format of a file's units, and (start, stop, bytes, first row) of each.

    Only JSON lines in UTF-8, plain or in seekable zstd, and Parquet can be read from anywhere but their start.
    """
    if file.format == "parquet":
        return file.format, _cut_parquet(file, unit_bytes)
    kind, _, packed = file.format.partition(".")
    size = file.size
    if packed == "zst" and size * PACKED > unit_bytes:
        table = _seek_table(file)
        size, packed = (table.plain[-1], SEEKABLE_ZST) if table else (size, packed)
    if kind in ("json", "jsonl") and packed in ("", SEEKABLE_ZST) and size > unit_bytes:
        with open_file(file.path) as stream, damage():
            text, translated = text_stream(stream, packed)
            whole = translated or (kind == "json" and is_array(text))
        if not whole:
            n = -(-size // unit_bytes)
            edges = [size * i // n for i in range(n + 1)]
            pieces = [(start, stop, stop - start, 0) for start, stop in zip(edges, edges[1:], strict=False)]
            return f"jsonl.{packed}".rstrip("."), pieces
    return file.format, [(0, file.size, file.size, 0)]


def _seek_table(file: InputFile) -> SeekTable | None:
    """Return the table of frames of a zstd file; None where it has none, or its store cannot read from anywhere."""
    with open_file(file.path) as stream:
        try:
            return seek_table(stream, file.size)
        except (ValueError, NotImplementedError):
            return None


def _cut_parquet(file: InputFile, unit_bytes: int) -> list[tuple[int, int, int, int]]:
    with open_file(file.path) as stream, damage():
        metadata = parquet_file(stream).metadata
    units = []
    start = first_row = next_row = n_bytes = 0
    for group in range(metadata.num_row_groups):
        n_bytes += metadata.row_group(group).total_byte_size
        next_row += metadata.row_group(group).num_rows
        if n_bytes >= unit_bytes or group == metadata.num_row_groups - 1:
            units.append((start, group + 1, n_bytes, first_row))
            start, first_row, n_bytes = group + 1, next_row, 0
    return units
