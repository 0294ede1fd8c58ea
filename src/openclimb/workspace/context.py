"""What every stage is handed besides its own inputs."""

from dataclasses import dataclass, replace
from pathlib import Path

from openclimb.engines.engine import Engine
from openclimb.progress import Progress


@dataclass(frozen=True)
class StageContext:
    """Where a stage writes, who does the work, who is told of it, and the seed of its draws."""

    folder: Path
    engine: Engine
    progress: Progress
    seed: int = 0

    def at(self, folder: Path) -> "StageContext":
        """Return the same with another folder."""
        return replace(self, folder=folder)
