"""How work is known again by the next run: a digest of what a function and its arguments are.

Not of their pickles, which may differ for equal values.
"""

import dataclasses
import enum
import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

DIGEST = 12  # bytes


def identity(value: Any) -> str:
    """Return hex digits that are the same for equal values, on any day and machine.

    Functions are known by their names, paths by where they lead, dataclasses by their fields, arrays by their bytes,
    other objects by what pickle would make them again from. Nothing is known of a value that has no such parts: its
    digits are new each time, so that its work is done again.
    """
    return _digest(value, lambda _: "")


def keys(items: Sequence[Any]) -> list[str]:
    """Return an identity for each item, no two the same.

    A folder among them (a trial) is known by its path and by when its oldest file was written: one that was moved away
    and made again is another.
    """
    seen = Counter[str]()
    found = []
    for item in items:
        digest = _digest(item, _made)
        found.append(f"{digest}-{seen[digest]}")
        seen[digest] += 1
    return found


def _digest(value: Any, stamp: Callable[[Path], str]) -> str:
    digest = hashlib.blake2b(digest_size=DIGEST)
    try:
        for part in _parts(value, stamp):
            digest.update(part)
            digest.update(b"\0")
    except Exception:  # whatever an object's own methods raise
        return uuid.uuid4().hex[: 2 * DIGEST]
    return digest.hexdigest()


def _made(path: Path) -> str:
    try:
        return str(min((file.stat().st_mtime_ns for file in path.iterdir() if file.is_file()), default=0))
    except OSError:  # a file, or nothing
        return ""


def _parts(value: Any, stamp: Callable[[Path], str]) -> Iterator[bytes]:
    kind = type(value)
    if (plain := _plain(value, stamp)) is not None:
        yield plain
    elif isinstance(value, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(value)
        known = array.tolist() if array.dtype.hasobject else array.tobytes()
        yield from _group("array", [array.dtype.str, array.shape, known], stamp)
    elif isinstance(value, partial):
        yield from _group("partial", [value.func, value.args, value.keywords], stamp)
    elif isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        bound = getattr(value, "__self__", None)
        yield from _group(f"name:{_name(value)}", [] if isinstance(bound, ModuleType) else [bound], stamp)
    elif dataclasses.is_dataclass(value):
        yield from _group(_name(kind), [getattr(value, field.name) for field in dataclasses.fields(value)], stamp)
    elif isinstance(value, (set, frozenset)):
        yield from _group(kind.__name__, sorted(_digest(one, stamp) for one in value), stamp)
    elif isinstance(value, Mapping):
        yield from _group(_name(kind), [part for pair in value.items() for part in pair], stamp)
    elif isinstance(value, (list, tuple)):
        yield from _group(_name(kind), value, stamp)
    else:
        yield from _group("object", list(value.__reduce_ex__(2)), stamp)


def _plain(value: Any, stamp: Callable[[Path], str]) -> bytes | None:
    """Return what stands for a value without parts; None for one with parts."""
    if value is None or type(value) in (bool, int, float, complex, str):
        return f"{type(value).__name__}:{value!r}".encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return b"bytes:" + hashlib.blake2b(value, digest_size=DIGEST).digest()
    if isinstance(value, Path):
        return f"path:{value.absolute()}:{stamp(value)}".encode("utf-8", "surrogateescape")
    if isinstance(value, enum.Enum):
        return f"enum:{_name(type(value))}.{value.name}".encode()
    return None


def _group(name: str, values: Sequence[Any], stamp: Callable[[Path], str]) -> Iterator[bytes]:
    yield f"{name}:{len(values)}".encode()
    for value in values:
        yield from _parts(value, stamp)


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}:{thing.__qualname__}"
