"""Files and records: atomic writes, fingerprints, the lock, and the state of each stage's folder.

Reads and writes: `climb.toml`, `<stage>/record.json`, `<stage>.partial/recipe.json`, `.lock`.
A stage works in `<stage>.partial/`; its record is written last and the folder renamed, so the presence
of `record.json` is completion. A record knows its recipe: what differs from the present one is told by name.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import shutil
import socket
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from openclimb import __version__
from openclimb.config import from_dict, to_toml
from openclimb.console import Progress
from openclimb.errors import ConfigError, HeldError, StaleError, WorkspaceError
from openclimb.settings import Config

FORMAT = 1  # of the workspace on disk; a workspace with a larger one was made by a newer version
SAMPLES, SAMPLE = 64, 1 << 14  # pieces of a large file that its fingerprint covers, and their bytes: 1 MB in all
LIBRARIES = ("numpy", "faiss-cpu", "scikit-learn", "torch", "tokenizers", "pyarrow", "lightgbm")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
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


def file_checksum(path: Path) -> str:
    """Return the blake2b checksum of a file's content, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Recipe:
    """What decides a stage's result: its settings, its inputs' fingerprints, its code's version."""

    stage: str
    version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the whole recipe."""
        return fingerprint(json.loads(json.dumps(dataclasses.asdict(self))))


@dataclass(frozen=True)
class StageState:
    """What a stage's folder says: missing, partial, done or stale, and why."""

    stage: str
    state: str
    differs: tuple[str, ...] = ()
    seconds: float = 0.0
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Workspace:
    """One folder: one corpus, one search, one answer."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def config_path(self) -> Path:
        """Where the settings are."""
        return self.root / "climb.toml"

    def folder(self, stage: str) -> Path:
        """Return the finished folder of a stage."""
        return self.root / stage

    def config(self) -> Config:
        """Return the settings in `climb.toml`, checked."""
        if not self.config_path.is_file():
            raise WorkspaceError(
                f"{self.root} is not a workspace: it has no climb.toml", f"climb init {self.root} --corpus …"
            )
        try:
            raw = tomllib.loads(self.config_path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.config_path} is not valid TOML: {error}", "correct that line") from None
        _check_format(raw.pop("format", FORMAT), self.root)
        return from_dict(raw)

    def create(self, config: Config) -> None:
        """Write a new `climb.toml`; an existing one is never overwritten."""
        if self.config_path.exists():
            raise WorkspaceError(f"{self.root} is a workspace already", "edit its climb.toml, or choose another folder")
        head, _, body = to_toml(config).partition("\n\n")
        line = f"format = {FORMAT}  # of the folders on disk; not to be changed"
        write_text(self.config_path, f"{head}\n\n{line}\n{body}")

    def state(self, recipe: Recipe) -> StageState:
        """Return how the folder of a stage stands against the recipe that would make it now."""
        for folder, name in ((self.folder(recipe.stage), "record.json"), (self._partial(recipe), "recipe.json")):
            if (folder / name).is_file():
                record = read_json(folder / name)
                _check_format(record.get("format", FORMAT), self.root)
                differs = _differences(record, recipe)
                if differs:
                    return StageState(recipe.stage, "stale", differs)
                if name == "recipe.json":
                    return StageState(recipe.stage, "partial")
                return StageState(recipe.stage, "done", (), record["seconds"], record["facts"])
        if any(self._partial(recipe).glob("[!.]*")):  # a hidden file is a write that was cut short
            return StageState(recipe.stage, "stale", (f"{self._partial(recipe).name}/ does not say what made it",))
        return StageState(recipe.stage, "missing")

    def begin(self, recipe: Recipe) -> Path:
        """Return the partial folder of a stage, with its recipe in it; pieces of a killed run are still there."""
        partial = self._partial(recipe)
        partial.mkdir(parents=True, exist_ok=True)
        write_json(partial / "recipe.json", {"format": FORMAT, **dataclasses.asdict(recipe)})
        return partial

    def finish(self, recipe: Recipe, facts: Mapping[str, Any], seconds: float) -> None:
        """Write the record of a stage, last, and give its folder the final name.

        The recipe stays until the record is there: a folder that was left at any moment says what made it.
        """
        partial = self._partial(recipe)
        files = sorted(path for path in partial.rglob("*") if path.is_file() and path != partial / "recipe.json")
        record = {
            "format": FORMAT,
            **dataclasses.asdict(recipe),
            "fingerprint": recipe.fingerprint,
            "facts": facts,
            "files": {
                str(path.relative_to(partial)): {"bytes": path.stat().st_size, "checksum": file_checksum(path)}
                for path in files
            },
            "seconds": round(seconds, 2),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        write_json(partial / "record.json", record)
        (partial / "recipe.json").unlink()
        os.rename(partial, self.folder(recipe.stage))

    def make(self, recipe: Recipe, progress: Progress, work: Callable[[Path], Mapping[str, Any]]) -> Path:
        """Return the finished folder of a stage; when it is not done yet, `work(partial folder)` does it."""
        state = self.state(recipe)
        if state.state == "stale":
            raise stale_error(state, self.root)
        if state.state != "done":
            began = time.monotonic()
            facts = work(self.begin(recipe))
            self.finish(recipe, facts, time.monotonic() - began)
        else:
            progress.note(f"{recipe.stage}: done before, reused")
        return self.folder(recipe.stage)

    def recover(self, stage: str) -> None:
        """Give a stage that was killed between its record and its final name that name."""
        partial = self.root / f"{stage}.partial"
        if (partial / "record.json").is_file() and not self.folder(stage).exists():
            (partial / "recipe.json").unlink(missing_ok=True)
            os.rename(partial, self.folder(stage))

    def set_aside(self, stage: str) -> list[Path]:
        """Move a stage's folders to `<stage>.old-N`; return where they went. Nothing is deleted."""
        moved = []
        for folder in (self.folder(stage), self.root / f"{stage}.partial"):
            if folder.exists():
                n = 1
                while (aside := self.root / f"{folder.name}.old-{n}").exists():
                    n += 1
                os.rename(folder, aside)
                moved.append(aside)
        return moved

    def _partial(self, recipe: Recipe) -> Path:
        return self.root / f"{recipe.stage}.partial"

    @contextlib.contextmanager
    def hold(self, wait_seconds: float = 0.0) -> Iterator[None]:
        """Hold the workspace while the block runs; raise HeldError when another process does, so long after waiting."""
        if not self.config_path.is_file():
            self.config()  # says what is wrong
        with open(self.root / ".lock", "a+", encoding="utf-8") as file:
            deadline = time.monotonic() + wait_seconds
            while not _locked(file):
                if time.monotonic() >= deadline:
                    file.seek(0)
                    raise HeldError(
                        f"{self.root} is held by {file.read().strip() or 'another process'}",
                        "wait for it or stop it; `climb status` reads without holding",
                    )
                time.sleep(0.05)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def holder(self) -> str:
        """Return who holds the workspace, or "" when nobody does."""
        lock = self.root / ".lock"
        if not lock.is_file():
            return ""
        with open(lock, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().strip() or "another process"
        return ""


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def stale_error(state: StageState, root: Path) -> StaleError:
    """Return the error that names what differs and the ways out."""
    listed = "\n".join(f"  {line}" for line in state.differs)
    return StaleError(
        f"{state.stage}/ was made with other settings or inputs:\n{listed}",
        f"put the setting back; or `climb run {root} --redo {state.stage}` (the old folder and those made from it "
        "are moved aside); or make a new workspace with `climb init`",
    )


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


def _check_format(found: Any, root: Path) -> None:
    if not isinstance(found, int) or found > FORMAT:
        raise WorkspaceError(
            f"{root} was made by a newer version of Openclimb (format {found}; this one knows up to {FORMAT})",
            "pip install --upgrade openclimb",
        )


def _differences(record: Mapping[str, Any], recipe: Recipe) -> tuple[str, ...]:
    now = json.loads(json.dumps(dataclasses.asdict(recipe)))
    lines = []
    if record["version"] != now["version"]:
        lines.append(f"the stage's code: version {record['version']} then, {now['version']} now")
    for key in sorted({*record["settings"], *now["settings"]}):
        then, new = record["settings"].get(key), now["settings"].get(key)
        if then != new:
            lines.append(f"{key}: {json.dumps(then)} then, {json.dumps(new)} now")
    inputs = sorted({*record["inputs"], *now["inputs"]})
    lines += [f"its input: {key}" for key in inputs if record["inputs"].get(key) != now["inputs"].get(key)]
    return tuple(lines)
