"""What is no longer as it was made: the files of finished folders against the sizes and checksums of their records."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from openclimb.errors import WorkspaceError
from openclimb.workspace.files import file_checksum, read_json

SHOWN = 5  # files that a message names


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was made."""

    file: str  # within the workspace
    what: str
    fix: str  # the command that makes it again


def find_damage(root: Path, stage: str, content: bool) -> list[Damage]:
    """Return the damaged files of a finished folder: gone, of another size or, with `content`, of another checksum.

    A folder without a record is not finished, and has none. Raises WorkspaceError for a record that cannot be read.
    """
    folder, found = root / stage, []
    if not (folder / "record.json").is_file():
        return []
    fix = f"climb validate {root} --redo" if stage == "validation" else f"climb run {root} --redo {stage}"
    for name, kept in read_json(folder / "record.json")["files"].items():
        path = folder / name
        if not path.is_file():
            found.append(Damage(f"{stage}/{name}", "is gone", fix))
        elif path.stat().st_size != kept["bytes"]:
            what = f"has {path.stat().st_size:,} bytes, not {kept['bytes']:,}"
            found.append(Damage(f"{stage}/{name}", what, fix))
        elif content and file_checksum(path) != kept["checksum"]:
            found.append(Damage(f"{stage}/{name}", "has other content", fix))
    return found


def stop_if_damaged(root: Path, stages: Iterable[str], content: bool = True) -> None:
    """Raise WorkspaceError for the first of these stages of which a file is not as it was made."""
    for stage in stages:
        if found := find_damage(root, stage, content):
            listed = "; ".join(f"{one.file} {one.what}" for one in found[:SHOWN])
            more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
            raise WorkspaceError(
                f"{listed}{more}: not as it was made",
                f"restore it; or `{found[0].fix}` makes it again (the old folder is moved aside)",
            )
