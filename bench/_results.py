"""Where benchmark numbers go: bench/results/NAME.json, rows beside the machine and the versions they hold for."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openclimb.engine import n_cores
from openclimb.workspace import versions, write_json

FOLDER = Path(__file__).parent / "results"
KEYS = ("bench", "case", "metric", "value", "reference", "ratio")


def write_results(name: str, rows: Sequence[Mapping[str, Any]], folder: Path = FOLDER) -> Path:
    """Write rows {"bench", "case", "metric", "value", "reference", "ratio"}; return the file's path.

    A ratio that is left out is value ÷ reference where both are numbers.
    """
    path = folder / f"{name}.json"
    header = {"machine": machine(), "versions": versions(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    write_json(path, {**header, "rows": [_row(name, row) for row in rows]})
    return path


def machine() -> dict[str, Any]:
    """Return what decides speed here: the processor, the cores this process may use, the memory in GB."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {"processor": model, "cores": n_cores(), "memory_gb": round(memory), "system": platform.system()}


def _row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    full = {"bench": name, "reference": None, "ratio": None, **row}
    unknown = set(full) - set(KEYS)
    if unknown:
        raise ValueError(f"a row has {', '.join(KEYS)}, not {', '.join(sorted(unknown))}")
    value, reference = full["value"], full["reference"]
    if full["ratio"] is None and isinstance(value, (int, float)) and isinstance(reference, (int, float)) and reference:
        full["ratio"] = round(value / reference, 4)
    return {key: full[key] for key in KEYS}
