"""What bench/engines.py needs of Slurm: a cluster whose commands are here."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def lacks() -> str:
    """Return why there is no Slurm here, "" where there is one."""
    if not shutil.which("sinfo"):
        return "there is no sinfo"
    done = subprocess.run(["sinfo", "-h"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip()


def sections(workers: int) -> dict[str, dict[str, Any]]:
    """Return the sections of climb.toml for so many workers."""
    return {"run": {"engine": "slurm"}, "engine": {"jobs": workers, "memory_gb": 2.0}}


@contextmanager
def reached(workers: int) -> Iterator[dict[str, dict[str, Any]]]:
    """Give the sections of climb.toml while the cluster is there."""
    yield sections(workers)
