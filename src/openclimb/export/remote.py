"""An export on another store (`s3://…`): made in the workspace, then copied there, its record last.

Each file is copied under a temporary name, compared by size and given its name; `record.json` comes last and means that
the export is whole. Reads and writes `export-HASH/` in the workspace, which is removed then; what was copied before a
kill is not copied again.
"""

import json
import posixpath
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from openclimb.corpus.reading.store import cause_of, first_step, open_store, patiently
from openclimb.errors import ConfigError, DomainError, OpenclimbError, WorkspaceError
from openclimb.masking import without_secrets
from openclimb.progress import Progress
from openclimb.workspace.files import fingerprint

Result = TypeVar("Result")
RECORD, BEGUN, TEMPORARY = "record.json", "recipe.json", ".part"


@dataclass(frozen=True)
class Place:
    """A folder of another store."""

    url: str
    filesystem: Any
    path: str

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return without_secrets(self.url)

    def do(self, work: Callable[[], Result]) -> Result:
        """Return work(), tried again while its faults pass. Raises WorkspaceError when they do not."""
        try:
            return patiently(self.url, work, self.unwritable)
        except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
            raise self.unwritable(self.url, error) from error

    def unwritable(self, _name: str, error: Exception) -> OpenclimbError:
        """Return the error for a store that does not take the export."""
        return WorkspaceError(
            f"{self.shown} cannot be written: {cause_of(error)}",
            f"{first_step(error)} and export again, which goes on from here; or choose a local --out",
        )

    def at(self, name: str) -> str:
        """Return the path of a file of the export."""
        return posixpath.join(self.path, name)

    def sizes(self) -> dict[str, int]:
        """Return {name: bytes} of all files there."""
        found = self.do(partial(_find, self.filesystem, self.path))
        return {posixpath.relpath(path, self.path.rstrip("/")): int(info["size"] or 0) for path, info in found.items()}

    def json(self, name: str) -> Any:
        """Return the JSON in a file there."""
        return json.loads(self.do(partial(self.filesystem.cat_file, self.at(name))))

    def put(self, data: bytes, name: str) -> None:
        """Write a small file."""
        self.do(partial(self.filesystem.pipe_file, self.at(name), data))


def export_to_store(
    url: str, root: Path, asked: dict[str, Any], make: Callable[[Path], dict[str, Any]], progress: Progress
) -> dict[str, Any]:
    """Make an export with `make(folder)` and copy it to a URL; return what was written.

    A finished one with the same settings is returned as it is. Raises WorkspaceError when something else is there, or
    the store does not take it; what `make` raises because of what was asked leaves nothing there.
    """
    place = Place(url, *open_store(url))
    asked = json.loads(json.dumps(asked))
    there = place.sizes()
    if RECORD in there:
        return _done_before(place, there, asked, progress)
    if there and (BEGUN not in there or place.json(BEGUN) != asked):
        raise WorkspaceError(f"{place.shown} holds something that is no export like this one", "choose another --out")
    place.put(json.dumps(asked).encode(), BEGUN)
    staged = root / f"export-{fingerprint([without_secrets(url), asked])[:12]}"
    try:
        facts = make(staged)
    except (ConfigError, DomainError):
        if not there:  # another budget may be asked for next
            place.do(partial(_remove, place.filesystem, place.at(BEGUN)))
        raise
    files = sorted(path for path in staged.rglob("*") if path.is_file() and path.name != RECORD)
    progress.start("copy", len(files), "files")
    for path in files:
        _copy(place, path, path.relative_to(staged).as_posix(), there)
        progress.advance()
    place.do(partial(_remove, place.filesystem, place.at(BEGUN)))
    place.put((staged / RECORD).read_bytes(), RECORD)
    progress.finish(place.shown)
    shutil.rmtree(staged)
    return facts


def _done_before(place: Place, there: dict[str, int], asked: dict[str, Any], progress: Progress) -> dict[str, Any]:
    record = place.json(RECORD)
    if record.get("asked") != asked:
        raise WorkspaceError(f"{place.shown} holds another export", "choose another --out, or remove that one")
    damaged = [name for name, file in record["files"].items() if there.get(name) != file["bytes"]]
    if damaged:
        raise WorkspaceError(
            f"{place.shown}: {damaged[0]} is not as it was written", "remove that export, and export again"
        )
    progress.note(f"{place.shown}: done before, reused")
    facts: dict[str, Any] = record["facts"]
    return facts


def _copy(place: Place, path: Path, name: str, there: dict[str, int]) -> None:
    """Copy one file: a file that has its name is whole."""
    size = path.stat().st_size
    if there.get(name) == size:
        return
    place.do(partial(_put, place.filesystem, path, place.at(name), size))


def _put(filesystem: Any, path: Path, target: str, size: int) -> None:
    filesystem.put_file(str(path), target + TEMPORARY)
    filesystem.invalidate_cache()
    if filesystem.info(target + TEMPORARY)["size"] != size:
        raise ConnectionError(f"{posixpath.basename(target)} arrived with another size")
    filesystem.mv(target + TEMPORARY, target)


def _find(filesystem: Any, path: str) -> dict[str, Any]:
    filesystem.invalidate_cache()
    try:
        return dict(filesystem.find(path, detail=True))
    except FileNotFoundError:
        return {}


def _remove(filesystem: Any, path: str) -> None:
    if filesystem.exists(path):
        filesystem.rm_file(path)
