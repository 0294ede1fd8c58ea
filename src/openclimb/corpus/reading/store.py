"""Faults of stores: which pass by themselves and are waited for, and what is said of those that do not.

The same for every fsspec store. A fault of the network, a busy server or an expired credential must never look like a
short file.
"""

import asyncio
import contextlib
import io
import re
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from openclimb.errors import InputError, MissingDependency, OpenclimbError
from openclimb.masking import without_secrets

Result = TypeVar("Result")

TRIES = 9  # of a fault that passes: about a minute of waiting in all
FEW_TRIES = 5  # of a refused request, which refreshed credentials cure, and of a file that seems cut short
PART = 1 << 24  # bytes that are asked of a remote file at once
PAUSE = 0.25  # seconds before the second try; each further one waits twice as long
PACKAGES = {  # of a URL's scheme: the package, and our extra that installs it
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "s3")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gcs")),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), ("adlfs", "azure")),
    "hf": ("huggingface_hub", "hf"),
    **dict.fromkeys(("http", "https"), ("aiohttp", "web")),
}
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses
REFUSED = (401, 403)
ABSENT = (404, 410)
CREDENTIALS = "set up the store's credentials as its own tools read them"
NO_BUCKET = re.compile(r"specified (bucket|container) does not exist")  # S3, Google, Azure
GONE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
LASTING = (ImportError, TypeError, ValueError, AttributeError, NotImplementedError, OpenclimbError)


class DamagedError(Exception):
    """What was read cannot be all of a file."""


class TooLargeError(DamagedError):
    """A file holds a piece that can only be read as a whole, and is larger than the memory for it."""


def is_remote(path: str) -> bool:
    """Return whether a path is a URL of another store than this machine's files."""
    return "://" in path and not path.startswith(("file://", "local://"))


def local_path(path: str) -> str:
    """Return the absolute path of a file of this machine, which may be given as a URL or begin with ~; "" for others.

    A name such as `a::b.jsonl` is a file's, no chain of URLs.
    """
    if is_remote(path):
        return ""
    if "://" in path:
        import fsspec

        return str(fsspec.core.url_to_fs(path)[1])
    return str(Path(path).expanduser().absolute())


def open_file(path: str) -> Any:
    """Return a context in which a file of any store is open for reading bytes."""
    local = local_path(path)
    stream = open(local, "rb") if local else _RemoteFile(path)  # noqa: SIM115 - the caller closes it
    left = _LEFT.get()
    return stream if left is None else _Limited(stream, left)


class EnoughError(BaseException):
    """As many bytes were read as were to be. Not an Exception: the file is not at fault, and nothing is tried again."""


_LEFT: ContextVar[list[int] | None] = ContextVar("left", default=None)


@contextlib.contextmanager
def at_most(n_bytes: int) -> Iterator[None]:
    """Have files that are opened inside raise EnoughError once so many bytes were read of all of them."""
    token = _LEFT.set([n_bytes])
    try:
        yield
    finally:
        _LEFT.reset(token)


class _Limited(io.RawIOBase):
    """A file of which a few bytes are read."""

    def __init__(self, stream: Any, left: list[int]) -> None:
        self.stream, self.left = stream, left

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self.stream.seekable())

    def tell(self) -> int:
        return int(self.stream.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self.stream.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        if self.left[0] <= 0:
            raise EnoughError
        data = self.stream.read(min(len(buffer), self.left[0]))
        self.left[0] -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


class _RemoteFile(io.RawIOBase):
    """A file of another store. After a fault that passes it is opened again, and reading goes on at the same byte.

    Tries count from the last bytes that came: however long a file is and however often its store fails, no more than
    a request is lost. Raises InputError where they are used up.
    """

    def __init__(self, path: str) -> None:
        self.path, self.place = path, 0
        self.stream: Any = self._opened()
        self.size = getattr(self.stream, "size", None)  # bytes; None where the store does not say

    def _opened(self) -> Any:
        filesystem, inner = _found(self.path)
        return filesystem.open(inner, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self.stream.seekable())

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set where the next bytes are read, which asks the store for nothing."""
        if whence == io.SEEK_END and self.size is None:
            raise OSError(f"the store does not say where {without_secrets(self.path)} ends")
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size or 0}[whence]
        return self.place

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read()

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes, or all up to the end: fewer at the end alone."""
        n = -1 if size is None else size
        if self.size is not None:
            left = max(0, self.size - self.place)
            n = left if n < 0 else min(n, left)
        tried = 0
        while n:
            try:
                data = self._read(n)
                self.place += len(data)
                return data
            except OpenclimbError:
                raise
            except Exception as error:
                tried += 1
                if tried >= tries(error, remote=True):
                    raise unreadable(self.path, error) from error
                self._leave()
                wait(self.path, tried)
        return b""

    def _read(self, n: int) -> bytes:
        if self.stream is None:
            self.stream = self._opened()
            if getattr(self.stream, "size", None) != self.size:
                raise DamagedError("its size changed while it was read")
        if self.stream.tell() != self.place:
            self._go()
        data = b"".join(self._parts(n))
        if self.size is not None and len(data) < n:
            raise DamagedError(f"its store sent {len(data):,} of {n:,} bytes")
        return data

    def _go(self) -> None:
        """Set the stream to the place; a server that sends no parts of a file sends all before it again."""
        try:
            self.stream.seek(self.place)
        except ValueError:
            if self.stream.tell() > self.place:
                self._leave()
                self.stream = self._opened()
            for _ in self._parts(self.place - self.stream.tell()):
                pass

    def _parts(self, n: int) -> Iterator[bytes]:
        """Yield what the stream gives of the next n bytes, or of all that follow where n is −1."""
        while n and (part := self.stream.read(min(n, PART) if n > 0 else PART)):
            yield bytes(part)
            n -= len(part) if n > 0 else 0

    def _leave(self) -> None:
        stream, self.stream = self.stream, None
        with contextlib.suppress(Exception):  # one that failed may not close either
            stream.close()

    def close(self) -> None:
        if not self.closed:
            self._leave()
        super().close()


def tries(error: Exception, remote: bool) -> int:
    """Return how often what failed so may be tried in all; 1 where waiting cures nothing."""
    error = _behind(error)
    if isinstance(error, GONE + LASTING) or _names_credentials(error):
        return 1
    status = _status(error)
    if status in PASSING or isinstance(error, (ConnectionError, TimeoutError, asyncio.TimeoutError)):
        return TRIES
    if not remote or (status is not None and status not in REFUSED):
        return 1
    return FEW_TRIES if status in REFUSED or isinstance(error, (PermissionError, DamagedError)) else TRIES


def wait(path: str, tried: int) -> None:
    """Wait before the next try, and forget connections, listings and credentials of the path's store."""
    import fsspec

    time.sleep(PAUSE * 2.0 ** (tried - 1))
    if is_remote(path):
        filesystem, _ = fsspec.core.url_to_fs(path)
        filesystem.invalidate_cache()
        type(filesystem).clear_instance_cache()


def open_store(path: str) -> tuple[Any, str]:
    """Return the file system of a path or URL, and the path in it.

    Raises MissingDependency for a store whose package is not installed, InputError for one that is not known or cannot
    be opened: no credentials, no account.
    """
    import fsspec

    if local := local_path(path):
        return fsspec.filesystem("file"), local
    try:
        return _found(path)
    except OpenclimbError:
        raise
    except Exception as error:  # each store has its own
        raise store_fault(path, error) from error


def _found(path: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it.

    Of nested series of tries only the innermost, quick one of a store's package is left (botocore's), and ours: with
    s3fs's two between them, 550 requests were made of a store that was dead.
    """
    import fsspec

    filesystem, inner = fsspec.core.url_to_fs(path)
    if hasattr(filesystem, "retries"):
        filesystem.retries = 1
    return filesystem, str(inner)


def store_fault(path: str, error: Exception) -> OpenclimbError:
    """Return the error for a store that cannot be used: its package and the line that installs it, or the cause."""
    scheme = path.partition("://")[0].rpartition("::")[2]
    if isinstance(error, ImportError):
        package, extra = PACKAGES.get(scheme, (f"what reads {scheme}://", ""))
        return MissingDependency(package, f"pip install 'openclimb[{extra}]'" if extra else str(error).strip())
    if isinstance(error, ValueError) and "Protocol not known" in str(error):
        return InputError(
            f"{without_secrets(path)}: there is no store '{scheme}'", "write a path, or a URL such as s3://bucket/path"
        )
    return InputError(
        f"{without_secrets(path)}: the store cannot be opened: {cause_of(error)}",
        f"{CREDENTIALS}, or copy the files to a disk",
    )


def patiently(
    path: str, function: Callable[[], Result], fault: Callable[[str, Exception], OpenclimbError] | None = None
) -> Result:
    """Return function(), tried again while its faults are of those that pass.

    Raises fault(path, error) when they do not: an InputError unless given. What it raises of LASTING is no fault of a
    store, and is raised as it is; but a package that is missing is said with the line that installs it.
    """
    tried = 0
    while True:
        try:
            return function()
        except ImportError as error:
            raise store_fault(path, error) from error
        except LASTING:
            raise
        except Exception as error:
            tried += 1
            if tried >= tries(error, is_remote(path)):
                raise (fault or unreadable)(path, error) from error
            wait(path, tried)


def read_file(path: str) -> bytes:
    """Return all bytes of a small file of any store. Raises InputError when it cannot be read."""

    def read() -> bytes:
        with open_file(path) as file:
            return bytes(file.read())

    return patiently(path, read)


def unreadable(name: str, error: Exception) -> InputError:
    """Return the error that stops a stage at a file, with its cause and the way on."""
    return InputError(
        f"{without_secrets(name)} cannot be read: {cause_of(error)}",
        f"{first_step(error)} and run again, which goes on from here; or take the file out of climb.toml, "
        "with --redo corpus",
    )


def first_step(error: Exception) -> str:
    """Return what a person does first about an error of a store."""
    refused = _names_credentials(error) or _status(error) in REFUSED
    return CREDENTIALS if refused else "put that right"


def cause_of(error: Exception) -> str:
    """Return what went wrong in a few words, without secrets."""
    error = _behind(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket" if has_no_bucket(error) else "the file is gone"
    first = without_secrets(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
    if _names_credentials(error):
        return f"no access ({first})"
    if isinstance(error, PermissionError) or _status(error) in REFUSED:
        return f"permission denied ({first})"
    if isinstance(error, TooLargeError):
        return first
    if isinstance(error, DamagedError):
        return f"it is damaged or cut short: {first}"
    return first if first.startswith(type(error).__name__) else f"{type(error).__name__}: {first}"


def has_no_bucket(error: Exception) -> bool:
    """Return whether a store says that the bucket is missing, not a file in it."""
    return NO_BUCKET.search(str(error)) is not None


def _names_credentials(error: Exception) -> bool:
    """Return whether a store's package found no credentials, or could not use them."""
    return "credential" in type(error).__name__.lower()


def _behind(error: Exception) -> Exception:
    """Return what an error stands for: some stores say that a file is missing whenever they cannot look."""
    behind = error
    while isinstance(behind, FileNotFoundError) and isinstance(behind.__cause__, Exception):
        behind = behind.__cause__
    return error if _status(behind) in ABSENT else behind


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error, or what caused it, carries: aiohttp's, requests', botocore's, gcsfs's."""
    while error is not None:
        found: Any = getattr(error, "response", None)
        if isinstance(found, dict):
            found = found.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if not type(error).__module__.startswith("aiohttp.http_"):  # a broken answer's 400 is no server's
            for name in ("status", "code"):  # in turn: aiohttp's `code` warns
                found = getattr(error, name, None) if found is None else found
        found = getattr(found, "status_code", found)
        if isinstance(found, (int, str)) and str(found).isdigit():
            return int(found)
        error = error.__cause__
    return None
