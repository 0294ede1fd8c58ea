"""Where benchmark numbers go: bench/results/NAME.json, rows beside the machine and the versions they hold for."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.engines.local import n_cores
from openclimb.workspace.files import versions, write_json

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


def mean_row(key: Sequence[Any], values: Iterable[float]) -> dict[str, Any]:
    """Return {"bench", "table", "method", "runs", "metric", "mean", "se"}; the key has the first five."""
    found = np.array(list(values), dtype=np.float64)
    n = len(found)
    se = float(found.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    names = ("bench", "table", "method", "runs", "metric")
    return {**dict(zip(names, key, strict=True)), "mean": round(float(found.mean()), 5), "se": round(se, 5)}


def markdown(rows: Sequence[Mapping[str, Any]], runs: str = "runs") -> str:
    """Return such rows as Markdown tables: one a bench and metric, methods across."""
    blocks = []
    for bench, metric in dict.fromkeys((row["bench"], row["metric"]) for row in rows):
        some = [row for row in rows if (row["bench"], row["metric"]) == (bench, metric)]
        methods = list(dict.fromkeys(row["method"] for row in some))
        cells = {(row["table"], row["runs"], row["method"]): f"{row['mean']:.3f} ± {row['se']:.3f}" for row in some}
        lines = [f"### {bench}: {metric}", "", f"| table | {runs} | " + " | ".join(methods) + " |"]
        lines.append("|" + "---|" * (2 + len(methods)))
        for table, n in sorted({(row["table"], row["runs"]) for row in some}):
            line = " | ".join(cells.get((table, n, method), "–") for method in methods)
            lines.append(f"| {table} | {n} | {line} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


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
