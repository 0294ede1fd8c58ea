"""The input as units: which files the settings match, cut by byte range or row group. Writes corpus/units.parquet.

Nothing is copied. A file is known by its size, its time (or ETag) and, on this machine, the hash of both ends.
"""

import hashlib
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.read import SUFFIXES, Unit, columns_of, damage, format_of
from openclimb.corpus.reading.store import patiently, tries
from openclimb.errors import ConfigError, InputError, nearest
from openclimb.masking import without_secrets
from openclimb.progress import counted
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic, fingerprint

UNIT_BYTES = 64_000_000  # input is cut into units of about so many
ENDS = 1 << 16  # bytes at each end of a local file that its fingerprint covers
CHECKED_FILES = 64  # files whose columns are looked at before anything runs


@dataclass(frozen=True)
class InputFile:
    """A file that the settings match."""

    path: str
    name: str
    format: str
    size: int
    fingerprint: str


def list_files(settings: CorpusSettings) -> list[InputFile]:
    """Return the files that `corpus.paths` match, sorted by path. Raises InputError when one of them matches none."""
    if not settings.paths:
        raise ConfigError(
            "corpus.paths is empty", "name the files to read in climb.toml, or climb init DIR --corpus PATH"
        )
    found: dict[str, tuple[Any, str, int]] = {}
    for pattern in settings.paths:
        matched = patiently(pattern, partial(_expand, pattern))
        if not matched:
            raise InputError(
                f"no file matches '{pattern}'", f"check the path; files end in one of: {', '.join(sorted(SUFFIXES))}"
            )
        for filesystem, path, size in matched:
            found[filesystem.unstrip_protocol(path) if _is_remote(filesystem) else path] = (filesystem, path, size)
    files = []
    for path, name in names_of(sorted(found)).items():
        filesystem, inner, size = found[path]
        known = patiently(path, partial(_file_fingerprint, filesystem, inner, size))
        files.append(InputFile(path, name, format_of(path), size, known))
    return files


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


def check_inputs(settings: CorpusSettings) -> dict[str, Any]:
    """Return facts of the input (files, bytes, formats) after checking its columns. Changes nothing, reads little.

    Raises InputError when no file matches or the text column is missing, naming the columns there are.
    """
    files = list_files(settings)
    kind, _, column = settings.domains.partition(":")
    if settings.domains and (kind, bool(column)) not in (("column", True), ("folders", False)):
        raise ConfigError(f"corpus.domains = '{settings.domains}' is not known", 'write "column:NAME", "folders" or ""')
    if kind == "folders":
        loose = [file.name for file in files if "/" not in file.name]
        if loose:
            raise InputError(
                f"{loose[0]} lies in no folder, so it has no domain",
                "put every file into a folder named for its domain",
            )
    wanted = {"text": settings.text, "id": settings.id, "domains": column}
    for file in files[:: max(1, len(files) // CHECKED_FILES)]:
        try:
            columns = patiently(file.path, partial(columns_of, file.path, file.format))
        except ValueError:
            continue  # a first line that is no JSON is told, with its place, when it is read
        for setting, name in wanted.items():
            if name and columns and name not in columns:
                raise InputError(
                    f"{file.name} has no column '{name}'{nearest(name, columns)}; it has: {', '.join(columns)}",
                    f"set corpus.{setting} in climb.toml, or --set corpus.{setting}=COLUMN",
                )
    return {
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "formats": dict(Counter(file.format for file in files)),
    }


def survey(context: StageContext, settings: CorpusSettings) -> dict[str, Any]:
    """Cut the input into units and write them to units.parquet; return facts for the record."""
    progress = context.progress
    facts = check_inputs(settings)
    files = list_files(settings)
    progress.start("survey", len(files), "files")
    units: list[Unit] = []
    for file in files:
        for start, stop, n_bytes, first_row in _cut(file, UNIT_BYTES):
            fixed = (file.size, file.fingerprint)
            units.append(Unit(len(units), file.path, file.name, file.format, start, stop, n_bytes, first_row, *fixed))
        progress.advance()
    write_units(units, context.folder / "units.parquet")
    progress.finish(counted(len(units), "units"))
    return {**facts, "units": len(units)}


def write_units(units: Sequence[Unit], path: Path) -> None:
    """Write units as a Parquet table, one row each. A path that may hold a secret is left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [asdict(unit) | ({} if without_secrets(unit.path) == unit.path else {"path": ""}) for unit in units]
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)


def read_units(folder: Path, settings: CorpusSettings | None = None) -> list[Unit]:
    """Return the units of a surveyed corpus, by number.

    `settings` give the paths that were left out; without them these are "", as for who reads no document.
    """
    import pyarrow.parquet as pq

    names = {field.name for field in fields(Unit)}
    rows = pq.read_table(folder / "units.parquet").to_pylist()
    if settings and not all(row["path"] for row in rows):
        paths = {file.name: file.path for file in list_files(settings)}
        for row in rows:
            row["path"] = row["path"] or paths.get(row["name"], "")
    return [Unit(**{name: row[name] for name in names}) for row in rows]


def changed_inputs(folder: Path, settings: CorpusSettings) -> list[str]:
    """Return a line for each file that was added, removed or changed since the survey in `folder`."""
    then = {unit.name: unit.fingerprint for unit in read_units(folder)}
    now = {file.name: file.fingerprint for file in list_files(settings)}
    lines = [f"{name}: new" for name in now.keys() - then.keys()]
    lines += [f"{name}: gone" for name in then.keys() - now.keys()]
    lines += [f"{name}: changed" for name in then.keys() & now.keys() if then[name] != now[name]]
    return sorted(lines)


def _expand(pattern: str) -> list[tuple[Any, str, int]]:
    """Return (file system, path, size) of the files that one path, folder, glob or URL stands for."""
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(pattern)
    known = _info(filesystem, path)
    if known is None and any(mark in path for mark in "*?["):  # a file's own name may hold them
        details = filesystem.glob(path, detail=True).values()
    elif (known is None or known["type"] == "directory" or not format_of(path)) and filesystem.isdir(path):
        details = filesystem.find(path, detail=True).values()
    elif known is not None:
        details = [known]
        if not format_of(path):
            raise InputError(
                f"the format of '{pattern}' is not known", f"files end in one of: {', '.join(sorted(SUFFIXES))}"
            )
    else:
        details = []
    files = [detail for detail in details if detail["type"] == "file" and format_of(detail["name"])]
    for detail in files:
        if detail.get("size") is None:
            raise InputError(
                f"the store does not say how large {without_secrets(detail['name'])} is: a part might pass as all",
                "copy the file to a disk or to another store",
            )
    return [(filesystem, detail["name"], int(detail["size"])) for detail in files]


def _info(filesystem: Any, path: str) -> dict[str, Any] | None:
    """Return what a store knows of a path; None when nothing is there. (Its `exists` is false for every fault.)"""
    try:
        return dict(filesystem.info(path))
    except FileNotFoundError as error:
        if tries(error, _is_remote(filesystem)) > 1:
            raise
        return None


def _is_remote(filesystem: Any) -> bool:
    protocol = filesystem.protocol
    return "file" not in (protocol if isinstance(protocol, (tuple, list)) else (protocol,))


def _file_fingerprint(filesystem: Any, path: str, size: int) -> str:
    info = filesystem.info(path)
    stamp = next((str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(key)), "")
    if _is_remote(filesystem) and stamp:
        return fingerprint([size, stamp])
    with filesystem.open(path, "rb") as stream:
        ends = hashlib.blake2b(stream.read(ENDS), digest_size=8)
        if size > ENDS:
            stream.seek(max(ENDS, size - ENDS))
            ends.update(stream.read(ENDS))
    return fingerprint([size, stamp, ends.hexdigest()])


def _cut(file: InputFile, unit_bytes: int) -> list[tuple[int, int, int, int]]:
    """Return (start, stop, bytes, first row) of each unit of a file."""
    if file.format == "parquet":
        return patiently(file.path, partial(_cut_parquet, file, unit_bytes))
    if file.format == "jsonl" and file.size > unit_bytes:
        n = -(-file.size // unit_bytes)
        edges = [file.size * i // n for i in range(n + 1)]
        return [(start, stop, stop - start, 0) for start, stop in zip(edges, edges[1:], strict=False)]
    return [(0, file.size, file.size, 0)]  # a gzip or zstd stream can only be read from its start


def _cut_parquet(file: InputFile, unit_bytes: int) -> list[tuple[int, int, int, int]]:
    import fsspec
    import pyarrow.parquet as pq

    with fsspec.open(file.path, "rb") as stream, damage():
        metadata = pq.ParquetFile(stream).metadata
    units = []
    start = first_row = next_row = n_bytes = 0
    for group in range(metadata.num_row_groups):
        n_bytes += metadata.row_group(group).total_byte_size
        next_row += metadata.row_group(group).num_rows
        if n_bytes >= unit_bytes or group == metadata.num_row_groups - 1:
            units.append((start, group + 1, n_bytes, first_row))
            start, first_row, n_bytes = group + 1, next_row, 0
    return units
