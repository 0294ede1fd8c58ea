"""Which files the settings mean: paths, folders, globs and URLs → files, and what is left out of them, with reasons.

Named files are always read. In folders and globs hidden files, formats that are not read, files that are no data and
the test and validation parts of a data set are left out, and listed. Links are followed; each file is read once.
"""

import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from openclimb.corpus.reading.formats import ENDINGS, format_of, stem_of
from openclimb.corpus.reading.store import has_no_bucket, local_path, open_store, patiently, tries
from openclimb.errors import InputError
from openclimb.masking import without_secrets
from openclimb.printable import one_line
from openclimb.progress import counted, size_text

HIDDEN = "hidden"
DANGLING = "links to nothing"
SPECIAL = "no regular files"
NOT_DATA = "descriptions, not data"
UNSUPPORTED = "a format that is not read"
SPLIT = "test or validation"
TWICE = "the same file under another name"
NAMED = 3  # left-out files of a reason that are named; of links to nothing, which look like data, more
NAMED_LINKS = 20

HIDDEN_FOLDERS = ("__MACOSX", "__pycache__", "_temporary", "_delta_log")
DESCRIPTIONS = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "croissant.json"}
DESCRIPTIONS |= {f"{name}{suffix}" for name in ("readme", "license", "licence") for suffix in ("", ".md", ".txt")}
SPLITS = {"test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"}  # of Hugging Face's datasets
TRAIN = ("train", "training")
WORD = re.compile(r"[^-_. ]+")
SHARD = re.compile(r"\d+|of|[0-9a-f]{16}")  # words that tell the shards of a split apart
MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Found:
    """A file that a path, folder, glob or URL stands for."""

    path: str  # as `open_file` takes it
    inner: str  # its path below what was given
    size: int  # bytes
    filesystem: Any = None  # of a store
    place: str = ""  # its path there
    inode: tuple[int, int] = (0, 0)  # device and number of a file of this machine


@dataclass(frozen=True)
class LeftOut:
    """A file that is not read, and why."""

    path: str
    name: str
    reason: str
    size: int  # bytes


def find_files(patterns: Sequence[str]) -> tuple[list[Found], list[LeftOut]]:
    """Return the files that paths, folders, globs and URLs stand for, each once, and those left out; by path.

    Raises InputError for one that stands for no file that is read.
    """
    found: dict[str, Found] = {}
    left: dict[str, LeftOut] = {}
    for pattern in patterns:
        files, out = patiently(pattern, partial(_expand, pattern))
        if not files:
            said = f": {left_out_text(summary(out))}" if out else ""
            raise InputError(f"no file matches '{without_secrets(pattern)}'{said}", f"check the path; {_ways(out)}")
        found |= {file.path: file for file in files}
        left |= {one.path: one for one in out}
    for file in _repeated(found.values()):
        del found[file.path]
        left[file.path] = LeftOut(file.path, file.inner, TWICE, file.size)
    for path in left.keys() & found.keys():  # named by another path
        del left[path]
    return [found[path] for path in sorted(found)], [left[path] for path in sorted(left)]


def _ways(out: Sequence[LeftOut]) -> str:
    if any(one.reason == SPLIT for one in out):
        return "to read test or validation parts, name their files or a glob such as 'test-*'"
    return f"files end in one of: {ENDINGS}"


def summary(left: Sequence[LeftOut]) -> list[dict[str, Any]]:
    """Return a row for each reason: reason, files, bytes and the names of some."""
    rows: dict[str, dict[str, Any]] = {}
    for one in left:
        row = rows.setdefault(one.reason, {"reason": one.reason, "files": 0, "bytes": 0, "named": []})
        row["files"] += 1
        row["bytes"] += one.size
        if len(row["named"]) < (NAMED_LINKS if one.reason == DANGLING else NAMED):
            row["named"].append(one.name)
    return [rows[reason] for reason in sorted(rows)]


def left_out_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return what was left out in one line."""
    return "; ".join(left_out_lines(rows))


def left_out_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what was left out, a line for each reason."""
    lines = []
    for row in rows:
        more = ", …" if row["files"] > len(row["named"]) else ""
        named = ", ".join(map(one_line, row["named"]))
        lines.append(f"{counted(row['files'], 'files')}, {size_text(row['bytes'])}: {row['reason']} ({named}{more})")
    return lines


def _expand(pattern: str) -> tuple[list[Found], list[LeftOut]]:
    """Return the files that one path, folder, glob or URL stands for, and those of them that are left out."""
    path = local_path(pattern)
    if path:
        base, listed, special = _local(path)
    else:
        base, listed, special = _remote(pattern)
    if base is None:  # a file by its name
        for one in special:
            raise InputError(f"'{pattern}' is one of {one.reason}", "name a file that is there")
        for file in listed:
            if not format_of(file.path):
                raise InputError(f"the format of '{without_secrets(pattern)}' is not known", f"files end in {ENDINGS}")
        return listed, []
    below = (path or without_secrets(pattern))[len(base) :]
    return _chosen(listed, special, _mentions(below, base))


def _mentions(below: str, base: str) -> tuple[bool, bool]:
    """Return whether hidden files and whether splits are asked for by what was given below its fixed part."""
    parts = [part for part in below.split("/") if part]
    words = {word for part in parts for word in re.findall("[a-z]+", part.lower())}
    folder = base.rstrip("/").rpartition("/")[2].lower()
    return any(part.startswith(".") for part in parts), folder in SPLITS or bool(words & SPLITS)


def _chosen(
    listed: Sequence[Found], special: Sequence[LeftOut], mentions: tuple[bool, bool]
) -> tuple[list[Found], list[LeftOut]]:
    """Return the files to read, and those left out with their reasons."""
    hidden, splits = mentions
    known = {_words(file.inner) for file in listed}
    files, left = [], list(special)
    for file in listed:
        reason = ""
        if not hidden and _is_hidden(file.inner):
            reason = HIDDEN
        elif file.inner.rpartition("/")[2].lower() in DESCRIPTIONS:
            reason = NOT_DATA
        elif not format_of(file.path):
            reason = UNSUPPORTED
        elif not splits and _is_split(file.inner, known):
            reason = SPLIT
        if reason:
            left.append(LeftOut(file.path, file.inner, reason, file.size))
        else:
            files.append(file)
    return files, left


def _is_hidden(inner: str) -> bool:
    return any(part.startswith(".") or part in HIDDEN_FOLDERS for part in inner.split("/"))


def _words(inner: str) -> tuple[str, ...]:
    """Return the folder of a file and the words of its name, without those that tell shards apart."""
    words = [word for word in WORD.findall(stem_of(inner)) if not SHARD.fullmatch(word)]
    return (inner.lower().rpartition("/")[0], *words)


def _is_split(inner: str, known: set[tuple[str, ...]]) -> bool:
    """Return whether a file is of a test or validation part: by its folder or name alone, or because a file of the same
    name with `train` stands beside it.
    """
    folder, *words = _words(inner)
    if SPLITS & set(folder.split("/")) or (len(words) == 1 and words[0] in SPLITS):
        return True
    for i in {0, len(words) - 1} if words else set():
        if words[i] in SPLITS and any((folder, *words[:i], train, *words[i + 1 :]) in known for train in TRAIN):
            return True
    return False


def _repeated(files: Iterable[Found]) -> list[Found]:
    """Return the local files that are links to, or in links to folders of, others in the list; those go last."""
    places: dict[tuple[int, int], list[Found]] = {}
    for file in files:
        if file.inode != (0, 0):
            places.setdefault(file.inode, []).append(file)
    repeated = []
    for same in places.values():
        if len(same) > 1:
            real = {file.path: os.path.realpath(file.path) for file in same}
            seen: set[str] = set()
            for file in sorted(same, key=_n_links):
                if real[file.path] in seen:
                    repeated.append(file)
                seen.add(real[file.path])
    return repeated


def _n_links(file: Found) -> tuple[int, str]:
    """Return how many of a path's parts are links, and the path."""
    path = Path(file.path)
    return sum(part.is_symlink() for part in (path, *path.parents)), file.path


def _local(path: str) -> tuple[str | None, list[Found], list[LeftOut]]:
    """Return the folder that a path or glob begins with (None: it is a file), its files, and what is no file there."""
    place = Path(path)
    if place.is_dir():
        return path, *_looked_at(_files(place), place)
    if os.path.lexists(path):  # its own name may hold the marks of a glob
        return None, *_looked_at([place], place.parent)
    mark = MAGIC.search(path)
    if mark is None:
        return path, [], []
    base = Path(path[: path.rfind("/", 0, mark.start()) + 1])
    return str(base), *_looked_at(_matched(base, Path(path).relative_to(base).parts), base)


def _looked_at(paths: Iterable[Path], base: Path) -> tuple[list[Found], list[LeftOut]]:
    """Return the regular files among paths, and the others with what they are."""
    files, special = {}, {}
    for path in paths:
        inner = path.relative_to(base).as_posix()
        try:
            info = path.stat()
        except OSError:
            if not path.is_symlink():
                raise
            special[path] = LeftOut(str(path), inner, DANGLING, 0)  # or it leads back to itself
            continue
        if stat.S_ISREG(info.st_mode):
            files[path] = Found(str(path), inner, info.st_size, inode=(info.st_dev, info.st_ino))
        else:
            special[path] = LeftOut(str(path), inner, SPECIAL, 0)
    return list(files.values()), list(special.values())


def _folders(root: Path) -> Iterator[Path]:
    """Yield a folder and those below it, each once. Linked ones are followed after the others."""
    seen: set[str] = set()
    later = [root]
    while later:
        waiting = [later.pop(0)]
        while waiting:
            folder = waiting.pop()
            real = os.path.realpath(folder)
            if real in seen:
                continue
            seen.add(real)
            yield folder
            for path in sorted(folder.iterdir()):
                if path.is_dir():
                    (later if path.is_symlink() else waiting).append(path)


def _files(root: Path) -> Iterator[Path]:
    """Yield what is no folder below a folder."""
    for folder in _folders(root):
        yield from (path for path in sorted(folder.iterdir()) if not path.is_dir())


def _matched(place: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Yield the files that the parts of a glob match below a folder; a folder that they match stands for its files."""
    if not parts or parts == ("**",):
        if place.is_dir():
            yield from _files(place)
        elif os.path.lexists(place):
            yield place
        return
    if parts[0] == "**":
        places = list(_folders(place)) if place.is_dir() else []
    elif MAGIC.search(parts[0]) is None:
        places = [place / parts[0]]
    else:
        names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
        places = [place / name for name in names if fnmatch.fnmatchcase(name, parts[0])]
    for below in places:
        yield from _matched(below, parts[1:])


def _remote(pattern: str) -> tuple[str | None, list[Found], list[LeftOut]]:
    """Return the same for a URL: the part of it that is fixed, as the pattern spells it."""
    filesystem, path = open_store(pattern)
    known = _info(filesystem, path)
    base: str | None = without_secrets(pattern)
    if known is None and MAGIC.search(path):
        details = list(filesystem.glob(path, detail=True).values())
        for folder in [one["name"] for one in details if one["type"] == "directory"]:
            details += filesystem.find(folder, detail=True).values()
        fixed = path[: path.rfind("/", 0, MAGIC.search(path).start()) + 1]  # type: ignore[union-attr]
        plain = without_secrets(pattern)
        mark = MAGIC.search(plain)
        base = plain[: plain.rfind("/", 0, mark.start()) + 1] if mark else plain
    elif (known is None or known["type"] == "directory" or not format_of(path)) and filesystem.isdir(path):
        details, fixed = list(filesystem.find(path, detail=True).values()), path
    else:
        details, fixed, base = ([known] if known else []), path, None if known else base
    files = {}
    for one in details:
        name = str(one["name"])
        if one["type"] == "file" and not name.endswith("/"):  # some stores keep an empty object for a folder
            inner = without_secrets(name).removeprefix(without_secrets(fixed)).strip("/")
            files[name] = Found(filesystem.unstrip_protocol(name), inner or name, _sized(one), filesystem, name)
    return base, list(files.values()), []


def _sized(detail: dict[str, Any]) -> int:
    """Return a file's size. Raises InputError where a store does not say it of a file that is read."""
    if detail.get("size") is None:
        if not format_of(detail["name"]):
            return 0
        raise InputError(
            f"the store does not say how large {without_secrets(detail['name'])} is: a part might pass as all",
            "copy the file to a disk or to another store",
        )
    return int(detail["size"])


def _info(filesystem: Any, path: str) -> dict[str, Any] | None:
    """Return what a store knows of a path; None when nothing is there. (Its `exists` is false for every fault.)"""
    try:
        return dict(filesystem.info(path))
    except FileNotFoundError as error:
        if tries(error, remote=True) > 1 or has_no_bucket(error):
            raise
        return None
