"""Where a dataset is: a folder, or a URL from which files are fetched one by one; and whether they are as recorded."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclimb.corpus.reading.store import is_remote, open_store, patiently
from openclimb.errors import WorkspaceError
from openclimb.masking import without_secrets
from openclimb.workspace.files import file_checksum

FACTS = {
    "format",
    "by_domain",
    "by_cluster",
    "counted",
    "domains",
    "tokens",
    "documents",
    "within_tolerance",
    "tokenizer",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is not as the record says."""

    check: str  # files, counts, tokens, shares, repetitions, order
    where: str  # a file or a domain
    what: str

    def __str__(self) -> str:
        return f"{self.check}: {self.where} {self.what}"


class Folder:
    """Where the dataset is: files of this machine as they are, those of another store fetched one by one."""

    def __init__(self, out: str) -> None:
        self.out, self.shown = out, without_secrets(out)
        self.filesystem, self.path = open_store(out)

    def record(self) -> dict[str, Any]:
        """Return record.json. Raises WorkspaceError where there is none that can be read."""
        data = self._do(self._record)
        if data is None:
            raise WorkspaceError(
                f"{self.shown} holds no finished export: it has no record.json", "climb export DIR --out FOLDER"
            )
        try:
            found = json.loads(data)
            parts = [found[name] for name in ("files", "shards", "facts", "asked")]
            if any(Path(name).is_absolute() or ".." in Path(name).parts for name in parts[0]):
                raise ValueError("a file lies elsewhere")
            if not all(parts[:3]) or not set(parts[2]) >= FACTS:
                raise ValueError("it lacks parts")
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError(
                f"{self.shown}/record.json cannot be read: {error}",
                "export again: it is damaged, or an earlier version wrote it",
            ) from None
        return dict(found)

    def _record(self) -> bytes | None:
        try:
            return bytes(self.filesystem.cat_file(f"{self.path}/record.json"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self) -> list[str]:
        """Return the names of all files."""
        root = self.path.rstrip("/") + "/"
        return sorted(path.removeprefix(root) for path in self._do(lambda: self.filesystem.find(self.path)))

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Yield a file's path on this machine, which may not exist."""
        if not is_remote(self.out):
            yield Path(self.path) / name
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            if self._do(lambda: self.filesystem.exists(f"{self.path}/{name}")):
                self._do(lambda: self.filesystem.get_file(f"{self.path}/{name}", str(path)))
            yield path

    @contextmanager
    def all_fetched(self, names: Sequence[str]) -> Iterator[list[Path]]:
        """Yield the paths of several files."""
        if not names:
            yield []
            return
        with self.fetched(names[0]) as first, self.all_fetched(names[1:]) as rest:
            yield [first, *rest]

    def _do(self, work: Callable[[], Any]) -> Any:
        return patiently(self.out, work)


def damage(name: str, path: Path, files: Mapping[str, Any]) -> list[Fault]:
    """Return what is wrong with a file: gone, of another size or content; the file whose content it has instead."""
    if name not in files:
        return [Fault("files", name, "is in no record")]
    kept = files[name]
    if not path.is_file():
        return [Fault("files", name, "is gone")]
    checksum = file_checksum(path)
    if checksum == kept["checksum"]:
        return []
    for other, one in files.items():
        if one["checksum"] == checksum:
            return [Fault("files", name, f"has the content of {other}")]
    size = path.stat().st_size
    if size != kept["bytes"]:
        return [Fault("files", name, f"has {size:,} bytes, not {kept['bytes']:,}")]
    return [Fault("files", name, "has other content")]
