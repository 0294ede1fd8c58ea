"""All that is measured on one GPU, in seven parts, each with a time limit of its own and JSON of its own.

    bench/gpu.sh OUT [--tiny] [--part NAME] [--minilm FOLDER]

agreement: one small trial on the CPU in fp32 and on the GPU in bf16. stacked: 64 proxies as one program against one
after the other. single: 62M and 350M alone: tokens a second, share of the card's peak, memory planned and used. rates:
learning rates at 0.26M tokens a step. evaluation: items a second. embedding: documents a second of MiniLM and of the
label pass. engine: a small search with one process on the card and with two, and a fault of the device.
Each part runs in a process of its own and writes OUT/part_NAME.json after every case; OUT/gpu.json has all rows. A part
that failed or ran out of time stops no other. Called again it goes on with the parts that are not done. `--tiny` tries
everything on a CPU in two minutes.
"""

import argparse
import json
import math
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _results import write_results
from openclimb.workspace.files import write_json

LIMITS = {
    "agreement": 90,
    "stacked": 120,
    "single": 120,
    "rates": 65,
    "evaluation": 40,
    "embedding": 150,
    "engine": 150,
}  # seconds
ALL = 580  # seconds of all parts together
TINY_LIMITS = 10  # times as long for a try, which is not about time: the machine may be busy


class Report:
    """The rows of one part, written after each. `tiny`: the smallest sizes that run the same code, on a CPU."""

    def __init__(self, part: str, out: Path, tiny: bool, minilm: str = "") -> None:
        self.part, self.out, self.tiny, self.minilm = part, out, tiny, minilm
        self.device = "cpu" if tiny else "cuda"
        self.rows: list[dict[str, Any]] = []
        self.began = time.monotonic()
        self.write("running")

    @property
    def left(self) -> float:
        """Seconds until the part's time limit."""
        return LIMITS[self.part] * (TINY_LIMITS if self.tiny else 1) - (time.monotonic() - self.began)

    def row(self, case: str, metric: str, value: Any, reference: Any = None) -> None:
        """Add a row, and write all so far. A loss may be no number: JSON takes its name."""
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        self.rows.append({"case": f"{self.part}: {case}", "metric": metric, "value": value, "reference": reference})
        print(
            f"{self.part}: {case:<44} {metric:<24} {value!s:>14} {'' if reference is None else reference}", flush=True
        )
        self.write("running")

    def write(self, status: str, message: str = "") -> None:
        """Write the part's file."""
        known = {"part": self.part, "status": status, "tiny": self.tiny, "message": message, "card": card()}
        seconds = round(time.monotonic() - self.began, 1)
        write_json(path_of(self.out, self.part), {**known, "seconds": seconds, "rows": self.rows})


def card() -> str:
    """Return the name of the GPU, "" without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def path_of(out: Path, part: str) -> Path:
    return out / f"part_{part}.json"


def run_part(part: str, out: Path, tiny: bool, minilm: str) -> int:
    """Run one part in this process; return the exit status."""
    import _gpu_engine
    import _gpu_reading
    import _gpu_training

    parts: dict[str, Callable[[Report], None]] = {
        "agreement": _gpu_training.agreement,
        "stacked": _gpu_training.stacked,
        "single": _gpu_training.single,
        "rates": _gpu_training.rates,
        "evaluation": _gpu_reading.evaluation,
        "embedding": _gpu_reading.embedding,
        "engine": _gpu_engine.engine,
    }
    report = Report(part, out, tiny, minilm)
    try:
        parts[part](report)
    except Exception as error:  # whatever goes wrong is what is to be known
        traceback.print_exc()
        report.write("failed", f"{type(error).__name__}: {error}"[:2000])
        return 1
    report.write("done")
    return 0


def run_all(options: argparse.Namespace) -> int:
    """Run the parts that are not done, each in a process of its own; return 1 where one is not done at the end."""
    began, factor = time.monotonic(), TINY_LIMITS if options.tiny else 1
    for part, seconds in LIMITS.items():
        limit = seconds * factor
        if options.part not in ("", part) or state_of(options, part)["status"] == "done":
            continue
        left = ALL * factor - (time.monotonic() - began)
        if left < 20:
            print(f"{part}: not begun: call again for it", flush=True)
            continue
        command = [sys.executable, __file__, str(options.out), "--only", part, "--minilm", options.minilm]
        try:
            subprocess.run(
                [*command, *(["--tiny"] if options.tiny else [])], timeout=min(limit + 10, left), check=False
            )
        except subprocess.TimeoutExpired:
            stopped(options, part, "out of time", f"stopped after {min(limit + 10, left):.0f} s")
    found = {part: state_of(options, part) for part in LIMITS}
    write_results("gpu", gathered(found), options.out)
    for part, state in found.items():
        print(f"{part:<12} {state['status']:<12} {state['seconds']:>7.1f} s  {state['message'][:200]}")
    return int(any(state["status"] != "done" for state in found.values()))


def state_of(options: argparse.Namespace, part: str) -> dict[str, Any]:
    """Return what a part's file says; a file of the other size (tiny or not) does not count."""
    path = path_of(options.out, part)
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    none = {"status": "not run", "seconds": 0.0, "message": "", "rows": [], "card": ""}
    return found if found.get("tiny") == options.tiny else none


def stopped(options: argparse.Namespace, part: str, status: str, message: str) -> None:
    """Write into a part's file how it was stopped; the rows that are there stay."""
    known = {"part": part, "tiny": options.tiny, "status": status, "message": message}
    write_json(path_of(options.out, part), {**state_of(options, part), **known})


def gathered(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of all parts, and one a part that says how it ended."""
    rows = []
    for part, state in found.items():
        rows += state["rows"]
        ended = f"{state['status']} {state['message']}".strip()
        rows.append({"case": f"{part} on {state['card'] or 'a CPU'}", "metric": "seconds", "value": state["seconds"]})
        rows.append({"case": part, "metric": "status", "value": ended})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the JSON")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, on a CPU")
    parser.add_argument("--part", choices=("", *LIMITS), default="", help="this part alone")
    parser.add_argument("--minilm", default="", help="folder of MiniLM; else its shape with random weights")
    parser.add_argument("--only", choices=LIMITS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only:
        return run_part(options.only, options.out, options.tiny, options.minilm)
    return run_all(options)


if __name__ == "__main__":
    sys.exit(main())
