"""Files: atomic writes, JSON, fingerprints and checksums."""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from openclimb import __version__
from openclimb.errors import WorkspaceError
from openclimb.system_errors import with_number

ABANDONED = 24 * 3600.0  # seconds after which what a process of another machine left is taken for dead
UNCLAIMED = 7 * ABANDONED  # and work that no driver came back for
JOBS = ".jobs"  # where an engine keeps what its workers on other machines do in a folder; goes when the folder is whole
SAMPLES, SAMPLE = 64, 1 << 14  # pieces of a large file that its fingerprint covers, and their bytes: 1 MB in all
DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # no file of Windows can have such a name
LIBRARIES = ("numpy", "faiss-cpu", "scikit-learn", "torch", "tokenizers", "pyarrow", "lightgbm")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    A disk without room is an OSError with its number and `path`, whatever library met it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{writer()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        if full := with_number(error, path):
            raise full from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sweep(root: Path) -> None:
    """Remove what `atomic` left under a folder whose writer was killed, and work for which nobody came back within
    UNCLAIMED. To be called by who alone writes there.

    A process of this machine that is still alive keeps its files. Whether one of another machine lives cannot be seen
    from here: what it wrote to within ABANDONED stays.
    """
    for path in root.rglob(".*.tmp"):
        host, _, process = path.name.removesuffix(".tmp").rpartition(".")[2].partition("-")
        if not process.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError):  # its writer has just given it its name
            gone = not is_alive(int(process)) if host == _host() else time.time() - path.stat().st_mtime > ABANDONED
            if gone:
                path.unlink()
    for folder in root.rglob(f"{JOBS}/map-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) > UNCLAIMED:
                shutil.rmtree(folder, ignore_errors=True)


def writer() -> str:
    """Return what stands for this process in names of temporary files, on a file system that several machines see."""
    return f"{_host()}-{os.getpid()}"


@cache
def _host() -> str:
    return hashlib.blake2b(os.uname().nodename.encode(), digest_size=3).hexdigest()


def is_alive(process: int) -> bool:
    """Return whether a process of this machine has not ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # another user's
    return True


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text file atomically; a private one can be read by its owner alone."""
    with atomic(path) as temporary:
        if private:
            temporary.touch(0o600)
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, readable by people."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the parsed JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing", "run the stage that makes it: climb run") from None
    except ValueError as error:
        raise WorkspaceError(f"{path} is not valid JSON: {error}", "restore the file, or redo its stage") from None


def fingerprint(value: Any) -> str:
    """Return 16 hex digits that stand for a JSON value; equal values have equal fingerprints."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def file_names(names: Sequence[str], reserved: Sequence[str] = ()) -> list[str]:
    """Return a file name (without suffix) for each of different names: its own where that is plain, else with a hash.

    No two are the same, nor one of `reserved`, on disks that ignore case either; none leaves its folder.
    """
    plain = [re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "domain" for name in names]
    plain = [f"domain-{word}" if DEVICE.fullmatch(word) else word for word in plain]
    times = Counter(word.lower() for word in (*plain, *reserved))
    hashed = [f"{word}-{fingerprint(name)}" for word, name in zip(plain, names, strict=True)]
    found = [
        word if word == name and times[word.lower()] == 1 else longer
        for word, name, longer in zip(plain, names, hashed, strict=True)
    ]
    return found if len({word.lower() for word in found}) == len(found) else hashed


def file_checksum(path: Path) -> str:
    """Return the blake2b checksum of a file's content, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_fingerprint(path: str) -> str:
    """Return a fingerprint of a local file or folder given by the user, or "" if it is none: names, sizes, contents.

    A file of more than 1 MB is known by its size and by `SAMPLES` pieces, spread evenly from its beginning to its end.
    That tells models apart that were trained apart, or trained on in any layer but a small one. What it misses: two
    files of one size that differ only between the pieces, as when a single small matrix of a large model was changed.
    """
    parts = [[file.name, file.stat().st_size, _sampled(file)] for file in _files(path)]
    return fingerprint(parts) if parts else ""


def _sampled(file: Path) -> str:
    digest, size = hashlib.blake2b(digest_size=16), file.stat().st_size
    with open(file, "rb") as stream:
        if size <= SAMPLES * SAMPLE:
            digest.update(stream.read())
        else:
            for i in range(SAMPLES):
                stream.seek((size - SAMPLE) * i // (SAMPLES - 1))
                digest.update(stream.read(SAMPLE))
    return digest.hexdigest()


def file_stamps(path: str) -> tuple[tuple[str, int, int], ...]:
    """Return path, time and size of a local file or of each in a folder, () if it is none; what is kept in memory of
    it stays as long as they do.
    """
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in _files(path))


def _files(path: str) -> list[Path]:
    root = Path(path).expanduser()
    if not path or not root.exists():  # "" would be the folder one stands in
        return []
    return [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())


def free_bytes(path: Path) -> int:
    """Return the free space of the disk that holds `path`."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and the libraries that decide results."""
    found = {"python": platform.python_version(), "openclimb": __version__}
    for library in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found
