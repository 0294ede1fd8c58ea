"""The folders through which a driver and its workers work together, on any machines that see them.

A map has a spool, `FOLDER/.jobs/map-ID/`:

    function            what is called, and from where; rewritten when a run is started again
    todo/0000012        a chunk: keys and items
    running/0000012.W   the same, taken by worker W: taking is a rename, which one worker alone can make
    results/W           what became of W's items, one frame each, appended
    stop                nothing more is to be begun

A pool has a folder too, `ROOT/.jobs/pool-KIND/`:

    maps/ID             the path of a spool that its workers take from
    workers/W           what a worker says of itself, anew every BEAT seconds
    generation          a number; workers start anew before work of a later one
    jobs/               scripts and logs of the jobs that workers run in

What they hold is pickled, as what goes through a pipe to a local worker. So the folders are their user's alone (mode
0700), one of another owner is refused, and what came in an archive is removed (`make_ours`): nothing of it is read. All
is correct on NFS: renames are atomic there, files are opened anew at each look, and frames have a length and a
checksum, so that an unfinished one is seen.
"""

import contextlib
import hashlib
import hmac
import json
import os
import pickle
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from openclimb.errors import OpenclimbError
from openclimb.workspace.files import atomic

BEAT = 5.0  # seconds between two signs of life
SYNC = 0.2  # seconds after which what a worker appended is sent to the disk that others see
HEAD, SUM = 8, 16  # bytes of a frame's length and checksum

Chunk = list[tuple[str, bytes]]  # (key, pickled item)


def make_private(path: Path) -> Path:
    """Make a folder that its user alone can use, or check that it is one; return it. Raises OpenclimbError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(path)
    return path


def make_ours(path: Path) -> None:
    """Make a folder, or go on with one that this user's drivers made at this place; another's content is removed.

    A workspace that came in an archive is owned by who unpacked it, and may hold work of another person's: the seal is
    made with a key that stands in no workspace.
    """
    make_private(path)
    seal = hmac.new(_key(), str(path.absolute()).encode(), hashlib.sha256).hexdigest()
    try:
        known = hmac.compare_digest((path / "seal").read_text(), seal)
    except (OSError, ValueError, TypeError):
        known = False
    if not known:
        shutil.rmtree(path)
        make_private(path)
        _write(path / "seal", seal.encode())


@cache
def _key() -> bytes:
    """Return this user's key, made when it is first asked for; where none can be kept, one for this process."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openclimb" / "key"
    fresh = os.urandom(32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            contextlib.suppress(FileExistsError),
            open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
        ):
            file.write(fresh)
        return path.read_bytes() or fresh
    except OSError:
        return fresh


def check_private(path: Path) -> None:
    """Raise OpenclimbError for a folder that others own or can use: what is in it would be run."""
    state = os.lstat(path)
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o077:
        raise OpenclimbError(
            f"{path} is not a folder of this user alone, and what is in it would be run",
            f"look what it holds; then remove it, or chown it to you and chmod 700 {path}",
        )


@dataclass(frozen=True)
class Call:
    """What a spool's items are handed to."""

    function: Callable[[Any], Any]
    generation: int


class Spool:
    """The folder of a map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: dict[str, int] = {}  # worker → bytes of its results that were read

    def open(self, function: Callable[[Any], Any], generation: int) -> None:
        """Make it, or go on with one that is there."""
        make_private(self.path.parent)
        make_ours(self.path)
        for name in ("todo", "running", "results"):
            (self.path / name).mkdir(exist_ok=True)
        (self.path / "stop").unlink(missing_ok=True)
        # Relative paths are those of the folder that the command was given in.
        facts = {"generation": generation, "cwd": str(Path.cwd()), "path": [one for one in sys.path if one]}
        code = pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
        _write(self.path / "function", json.dumps(facts).encode() + b"\n" + code)

    def generation(self) -> int:
        """Return the generation that its workers have to be of. Raises FileNotFoundError where the spool is gone."""
        check_private(self.path)
        with open(self.path / "function", "rb") as file:
            return int(json.loads(file.readline())["generation"])

    def call(self) -> Call:
        """Return the function, in the folder and with the search path that it was handed over with."""
        check_private(self.path)
        with open(self.path / "function", "rb") as file:
            place, code = json.loads(file.readline()), file.read()
        os.chdir(place["cwd"])
        sys.path += [one for one in place["path"] if one not in sys.path]
        return Call(pickle.loads(code), int(place["generation"]))  # noqa: S301 - our own, see the head of this file

    def add(self, number: int, chunk: Chunk) -> None:
        """Let a chunk be taken."""
        _write(self.path / "todo" / f"{number:07d}", pickle.dumps(chunk, pickle.HIGHEST_PROTOCOL))

    def todo(self) -> list[int]:
        """Return the chunks that nobody has taken."""
        return sorted(int(name) for name in _names(self.path / "todo"))

    def claims(self) -> list[tuple[int, str]]:
        """Return (chunk, worker) of those that were taken and are not done."""
        found = (name.partition(".") for name in _names(self.path / "running"))
        return sorted((int(number), worker) for number, _, worker in found)

    def claim(self, number: int, worker: str) -> Chunk | None:
        """Take a chunk; None where another was faster."""
        taken = self._claim(number, worker)
        try:
            os.rename(self.path / "todo" / f"{number:07d}", taken)
        except FileNotFoundError:
            pass  # another's; or ours, where NFS asked twice because the first answer was lost
        return self.claimed(number, worker)

    def claimed(self, number: int, worker: str) -> Chunk | None:
        """Return a chunk that a worker has taken; None where it has not, or has it no more."""
        check_private(self.path)
        try:
            data = self._claim(number, worker).read_bytes()
        except FileNotFoundError:
            return None
        chunk: Chunk = pickle.loads(data)  # noqa: S301 - our own, see the head of this file
        return chunk

    def holds(self, number: int, worker: str) -> bool:
        """Return whether a claim still stands and work is to go on."""
        return self._claim(number, worker).exists() and not (self.path / "stop").exists()

    def done(self, number: int, worker: str) -> None:
        """End a claim."""
        self._claim(number, worker).unlink(missing_ok=True)

    def give_back(self, number: int, worker: str, rest: Chunk) -> None:
        """End a claim whose `rest` was not done: another may take it, unless work is to stop."""
        if rest and self.holds(number, worker):
            self.add(number, rest)
        self.done(number, worker)

    def results(self, worker: str) -> "Results":
        """Return the file that a worker appends its results to."""
        return Results(self.path / "results" / worker)

    def read(self) -> Iterator[tuple[str, str, Any]]:
        """Yield (key, kind, payload) of the results that came since the last time."""
        for worker in _names(self.path / "results"):
            begin = self._read.get(worker, 0)
            with contextlib.suppress(FileNotFoundError), open(self.path / "results" / worker, "rb") as file:
                if os.fstat(file.fileno()).st_size <= begin:
                    continue
                file.seek(begin)
                for end, body in _frames(file.read()):
                    self._read[worker] = begin + end
                    key, said = pickle.loads(body)  # noqa: S301 - our own, see the head of this file
                    yield key, *pickle.loads(said)  # noqa: S301

    def withdraw(self) -> None:
        """Take back what nobody has begun."""
        for number in self.todo():
            (self.path / "todo" / f"{number:07d}").unlink(missing_ok=True)

    def stop(self) -> None:
        """Take back what nobody has begun, also of chunks that were taken; the spool goes with its last claim."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "stop").touch()
        self.withdraw()
        if not self.claims():
            self.remove()

    def remove(self) -> None:
        """Remove the spool, and the folder around it where nothing else is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def _claim(self, number: int, worker: str) -> Path:
        return self.path / "running" / f"{number:07d}.{worker}"


class Results:
    """The file of a worker's results."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._synced = time.monotonic()

    def add(self, key: str, payload: bytes) -> None:
        """Append an item's result. It outlives this process at once, and this machine within SYNC seconds."""
        body = pickle.dumps((key, payload), pickle.HIGHEST_PROTOCOL)
        left = memoryview(len(body).to_bytes(HEAD, "little") + _sum(body) + body)
        size = os.fstat(self._file).st_size
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, size)  # a disk that was full may have room for the next
            raise
        if time.monotonic() - self._synced > SYNC:
            self.sync()

    def sync(self) -> None:
        """Let all machines see what was appended."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file, seen by all."""
        self.sync()
        os.close(self._file)


class Pool:
    """The folder of the workers of one kind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> None:
        """Make it where it is not there."""
        make_private(self.path.parent)
        make_ours(self.path)
        for name in ("maps", "workers", "jobs"):
            (self.path / name).mkdir(exist_ok=True)

    def generation(self) -> int:
        """Return the present generation, 0 before the first."""
        try:
            return int((self.path / "generation").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return 0

    def begin(self) -> int:
        """Begin a generation and return it."""
        number = self.generation() + 1
        _write(self.path / "generation", str(number).encode())
        return number

    def offer(self, spool: Spool) -> None:
        """Have workers take from a spool."""
        _write(self._offer(spool), str(spool.path).encode("utf-8", "surrogateescape"))

    def withdraw(self, spool: Spool) -> None:
        """Have them take from it no more."""
        self._offer(spool).unlink(missing_ok=True)

    def spools(self) -> list[Spool]:
        """Return the spools that workers take from."""
        found = []
        for name in _names(self.path / "maps"):
            with contextlib.suppress(FileNotFoundError):
                path = (self.path / "maps" / name).read_bytes().decode("utf-8", "surrogateescape")
                found.append(Spool(Path(path)))
        return found

    def say(self, worker: str, facts: dict[str, Any]) -> None:
        """Write what a worker says of itself."""
        path = self.path / "workers" / worker
        temporary = path.with_name(f".{worker}.tmp")
        temporary.write_text(json.dumps(facts), encoding="utf-8")
        os.replace(temporary, path)

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return what workers say of themselves."""
        found = {}
        for worker in _names(self.path / "workers"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                found[worker] = json.loads((self.path / "workers" / worker).read_text(encoding="utf-8"))
        return found

    def forget(self, worker: str) -> None:
        """Remove what a worker that is gone said."""
        (self.path / "workers" / worker).unlink(missing_ok=True)

    def sweep(self, seconds: float) -> None:
        """Remove logs of jobs and offers that nobody has written to for so long."""
        before = time.time() - seconds
        for name in ("maps", "jobs"):
            for path in (self.path / name).iterdir():
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < before:
                        path.unlink()

    def _offer(self, spool: Spool) -> Path:
        name = hashlib.blake2b(os.fsencode(spool.path), digest_size=8).hexdigest()
        return self.path / "maps" / name


def _write(path: Path, data: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def _names(folder: Path) -> list[str]:
    """Return the files of a folder that are whole, sorted; none where it is gone."""
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []


def _sum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=SUM).digest()


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (end, body) of the whole frames at the beginning of some bytes."""
    at = 0
    while len(data) - at >= HEAD + SUM:
        begin = at + HEAD + SUM
        end = begin + int.from_bytes(data[at : at + HEAD], "little")
        body = data[begin:end]
        if len(data) < end or _sum(body) != data[begin - SUM : begin]:
            return  # its writer is at it, or was killed in it
        yield end, body
        at = end
