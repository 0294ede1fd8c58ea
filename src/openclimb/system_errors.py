"""What the system refuses (space, permission, open files, memory), said in a sentence with what to do."""

import errno
import os
import re
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path

from openclimb.errors import OpenclimbError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FILES = (errno.EMFILE, errno.ENFILE)
PROCESSES = ("can't start new thread", "Resource temporarily unavailable")
MEMORY = ("can't allocate memory", "cannot allocate memory", "failed to map segment", "Unable to allocate")
RUST = re.compile(r"\(os error (\d+)\)")  # how tokenizers and safetensors tell an errno
CUT_SHORT = re.compile(r"\d+ requested and \d+ written")  # how numpy tells a full disk
LITTLE = 1 << 20  # bytes: a disk with less free is full
AGAIN = "then run the same command to go on"


def with_number(error: Exception, path: Path) -> OSError | None:
    """Return an error of writing a file as one that has its number and the file, where the disk had no room.

    Libraries lose one or the other. None for another error.
    """
    found = RUST.search(str(error))
    number = int(found[1]) if found else getattr(error, "errno", None)
    if isinstance(error, OSError) and CUT_SHORT.search(str(error)):
        number = errno.ENOSPC
    return OSError(number, os.strerror(number), str(path)) if number in FULL else None


def is_systems(error: BaseException) -> bool:
    """Return whether the machine refused something: no fault of one trial, so that others meet it too."""
    return isinstance(error, OSError) and error.errno in (*FULL, *FILES, errno.EROFS, errno.ENOMEM)


def system_error(error: BaseException, places: Mapping[str, Path]) -> OpenclimbError | None:
    """Return what to tell of an error of the system; None for any other error.

    `places`: what a command reads and writes, by what people call it ("workspace", "output", "temporary folder").
    """
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if number in FULL:
        return _full(error, places)
    if number in FILES:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return OpenclimbError(
            f"too many open files: this process may have {most:,}", "raise the limit (ulimit -n 4096), " + AGAIN
        )
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(each in text for each in MEMORY):
        return _memory(error)
    if number == errno.EAGAIN or any(each in text for each in PROCESSES):
        return OpenclimbError(
            "the system starts no further process or thread",
            f"raise the limit (ulimit -u), or set [run] workers = 1; {AGAIN}",
        )
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in text:
        return OpenclimbError(
            "there is no folder for temporary files that can be written", "set TMPDIR to one, " + AGAIN
        )
    return _file(error, places) if isinstance(error, OSError) and error.errno and error.filename else None


def _full(error: BaseException, places: Mapping[str, Path]) -> OpenclimbError:
    name = getattr(error, "filename", None)
    where = _place(name, places) or min(places, key=lambda each: _free(places[each]), default="")
    what = f"no space left to write {name or 'a file'}"
    if getattr(error, "errno", 0) == errno.EFBIG:
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        limit = f": this process may write files of at most {most:,} bytes" if most > 0 else ""
        return OpenclimbError(what + limit, "raise the limit (ulimit -f) or use another file system, " + AGAIN)
    if not where or (not name and _free(places[where]) > LITTLE):
        return OpenclimbError(what, "free some space, " + AGAIN)
    free = f"{_free(places[where]) / 1e6:,.1f} MB"
    quota = "; a quota is used up" if getattr(error, "errno", 0) == errno.EDQUOT else ""
    fix = "set TMPDIR to a folder with more room" if where == "temporary folder" else f"free some space for the {where}"
    return OpenclimbError(
        f"{what}: the disk of the {where} ({places[where]}) has {free} free{quota}", f"{fix}, {AGAIN}"
    )


def _memory(error: BaseException) -> OpenclimbError:
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    limit = f", and this process may have {most / 1e9:,.1f} GB of addresses (ulimit -v)" if most > 0 else ""
    asked = re.search(r"(?:allocate|tried to allocate) ([\d.]+ ?[KMGT]?i?B|\d+ bytes)", str(error))
    return OpenclimbError(
        f"there is not enough memory{f' for {asked[1]} more' if asked else ''}{limit}",
        f"give it more, or set [run] workers = 1 or a smaller proxy.size or proxy.batch; {AGAIN}",
    )


def _file(error: OSError, places: Mapping[str, Path]) -> OpenclimbError:
    name = str(error.filename)
    where = _place(name, places)
    whose = f"{name}, of the {where}," if where and Path(name) != places[where] else name
    reason = (error.strerror or type(error).__name__).lower()
    if error.errno == errno.EROFS:
        return OpenclimbError(
            f"{whose} cannot be written: its file system is read-only",
            f"mount it for writing, or copy the {where or 'folder'} to another disk; plan, status and best only read",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return OpenclimbError(
            f"{whose} cannot be read or written: {reason}",
            f"run as the user who owns it, or give this one the right to (chmod, chown); {AGAIN}",
        )
    if error.errno in (errno.EIO, errno.ESTALE, errno.ENOTCONN):
        return OpenclimbError(f"{whose} cannot be read or written: {reason}", f"see to that disk or network, {AGAIN}")
    return OpenclimbError(
        f"{whose} cannot be used: {reason}", "correct the path, or add --debug to see where it came up"
    )


def _place(name: str | bytes | None, places: Mapping[str, Path]) -> str:
    """Return which of the places a file lies in, the innermost one; "" for none."""
    if not isinstance(name, str):
        return ""
    path = Path(name).absolute()
    inside = [each for each, place in places.items() if path == place.absolute() or place.absolute() in path.parents]
    return max(inside, key=lambda each: len(str(places[each].absolute())), default="")


def _free(path: Path) -> int:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
