"""What is measured of the local engine on a GPU: the same answer with two processes, and a real fault survived."""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from openclimb.engines.engine import Resources
from openclimb.engines.local import LocalEngine
from openclimb.pipeline import run
from openclimb.progress import PlainProgress
from openclimb.testing.fixtures import make_tiny_tasks, make_tiny_workspace
from openclimb.workspace.records import Workspace
from openclimb.workspace.results import read_answer
from openclimb.workspace.trials import read_trials

if TYPE_CHECKING:
    from gpu import Report

DATA = Path(__file__).parent.parent / "tests" / "data"
ITEMS = 6


def engine(report: "Report") -> None:
    """Run a whole small search with one process on the card and with two, and a call that makes its GPU unusable."""
    if not report.tiny:
        with tempfile.TemporaryDirectory() as folder:
            faults(report, Path(folder))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        tasks = make_tiny_tasks(Path(folder) / "tasks", DATA / "passages.jsonl")
        for n in (1, 2):
            root = make_tiny_workspace(
                Path(folder) / f"run-{n}", DATA / "corpus.jsonl", tasks, run={"device": report.device}
            )
            local = LocalEngine(4, () if report.tiny else ("0",) * n)
            began = time.perf_counter()
            run(Workspace(root), local, PlainProgress())
            local.release()
            report.row(f"whole search, {n} processes on the card", "seconds", round(time.perf_counter() - began, 1))
            scores = {trial.number: trial.scores for trial in read_trials(root / "trials")}
            found[n] = read_answer(root).weights, scores
    (alone, first), (shared, second) = found[1], found[2]
    same = [number for number in first if first[number].keys() == second.get(number, {}).keys()]
    apart = max(abs(first[number][task] - second[number][task]) for number in same[:4] for task in first[number])
    report.row("first four trials, two processes against one", "largest difference of a score", round(apart, 5))
    report.row("answer, two processes against one", "half the L1 distance", round(distance(alone, shared), 4))


def distance(a: dict[str, float], b: dict[str, float]) -> float:
    """Return half the sum of absolute differences of two mixtures."""
    return sum(abs(a[name] - b[name]) for name in a) / 2


def faults(report: "Report", folder: Path) -> None:
    """Have one call of several break its CUDA context, once: its item must be done in another process."""
    said = list[str]()
    local = LocalEngine(4, ("0", "0"), said.append)
    results = dict(local.map(partial(break_once, folder), list(range(ITEMS)), Resources(gpus=1)))
    local.release()
    report.row("a fault of the device in one item", "items done", len(results), ITEMS)
    report.row("a fault of the device in one item", "faults", len(list(folder.iterdir())), 1)


def break_once(folder: Path, item: int) -> int:
    """Return the item; the first time that it is 2, make the GPU unusable for this process."""
    values = torch.arange(10, device="cuda")
    if item == 2 and not (folder / "broken").exists():
        (folder / "broken").touch()
        values[torch.tensor([1_000_000], device="cuda")].sum().item()
    return int(values[item].item())
