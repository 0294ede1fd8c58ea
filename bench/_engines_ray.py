"""Ray's rows of bench/engines.py: two nodes on this machine against two local processes, and what a kill costs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _faults_kills import DATA, GONE_WITHIN, holds_seconds, is_alive
from openclimb.clustering.label import label
from openclimb.config.schema import Config, EngineSettings, RunSettings
from openclimb.corpus.reading.units import read_units
from openclimb.engines.engine import Engine, engine_of
from openclimb.progress import Progress
from openclimb.testing.fixtures import make_tiny_tasks, make_tiny_workspace
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import file_checksum, read_json
from openclimb.workspace.records import Workspace

FILES, COPIES = 10, 8  # of the corpus: files, and copies of the documents of tests/data in each, all different
TURNS = 3
TRIAL_SECONDS, TRIALS = 10.0, 6  # of the trials that only wait, to see what is added to them
EXPORTED = "100K"  # tokens of the dataset
STORE = 100_000_000  # bytes of a node's object store
LONG_ENOUGH = {"proxy": {"token_budget": 65_536}}  # for a kill to meet trials
WAIT = 900.0  # seconds at most for what a kill waits for
SMALL = EngineSettings(jobs=0, memory_gb=1.0)


class TwoNodes:
    """A Ray cluster of two nodes with a core each; the second can be lost and come back."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self.cluster.address
        self.add()

    def add(self) -> None:
        """Let another node join."""
        self.second = self.cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def lose(self) -> None:
        """Kill the second node with signal 9, and let another join."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.add()


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Give a cluster, and end it."""
    nodes = TwoNodes()
    try:
        yield nodes
    finally:
        nodes.cluster.shutdown()


@contextmanager
def reached(workers: int) -> Iterator[dict[str, dict[str, Any]]]:
    """Give the sections of climb.toml while a cluster of two nodes is there, one worker on each."""
    with two_nodes() as nodes:
        yield {"run": {"engine": "ray"}, "engine": {"address": nodes.address, "memory_gb": 2.0, "jobs": workers}}


@dataclass(frozen=True)
class Place:
    """A workspace of its own over one corpus, and where its dataset goes."""

    root: Path
    out: Path

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start `climb run` or `climb export` at the head of a process group of its own."""
        more = ["--tokens", EXPORTED, "--out", str(self.out)] if command == "export" else []
        line = [sys.executable, "-m", "openclimb.cli.main", command, str(self.root), *more, "--quiet"]
        return subprocess.Popen(line, start_new_session=True, stdout=subprocess.DEVNULL)

    def finish(self, command: str) -> None:
        """Run a command to its end."""
        if (status := self.start(command).wait()) != 0:
            raise RuntimeError(f"climb {command} ended with {status}")

    def made(self) -> dict[str, str]:
        """Return the checksums of the mixture and the dataset."""
        paths = [path for folder in (self.root / "mixture", self.out) for path in sorted(folder.rglob("*"))]
        return {
            str(path.relative_to(self.root.parent)): file_checksum(path)
            for path in paths
            if path.is_file() and not holds_seconds(path)
        }


def write_corpus(folder: Path, files: int, copies: int) -> Path:
    """Write files of documents, no two of which are the same; return a pattern of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (DATA / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    for number in range(files):
        with open(folder / f"{number:02d}.jsonl", "w", encoding="utf-8") as file:
            for copy in range(copies):
                for row in rows:
                    text = f"Edition {number * copies + copy}. {row['text']}"
                    file.write(json.dumps({**row, "id": f"{row['id']}-{number}-{copy}", "text": text}) + "\n")
    return folder / "*.jsonl"


def place(base: Path, corpus: Path, tasks: Path, address: str = "") -> Place:
    """Make a workspace: two local processes, or with an address the cluster there."""
    base.mkdir(parents=True)
    where: dict[str, Any] = {"run": {"workers": 2}}
    if address:
        where = {"run": {"engine": "ray"}, "engine": {"address": address, "memory_gb": 1.0}}
    return Place(make_tiny_workspace(base / "run", corpus, tasks, **LONG_ENOUGH, **where), base / "data")


def label_seconds(done: Place, config: Config, engine: Engine, out: Path) -> float:
    """Label all units of a finished workspace once more, into a fresh folder; return the seconds."""
    out.mkdir(parents=True)
    units = read_units(done.root / "corpus")
    began = time.perf_counter()
    label(
        StageContext(out, engine, Progress()),
        units,
        done.root / "clusters",
        config.corpus,
        config.embed,
        config.quality,
    )
    return time.perf_counter() - began


def label_rows(done: Place, address: str, base: Path) -> list[dict[str, Any]]:
    """Return documents a second of two nodes beside those of two local processes, turn about, best of TURNS."""
    config = Workspace(done.root).config()
    n = read_json(done.root / "labels" / "record.json")["facts"]["documents"]
    there = (RunSettings(engine="ray"), replace(SMALL, address=address))
    seconds: dict[str, list[float]] = {"local": [], "ray": []}
    with engine_of(RunSettings(workers=2)) as local, engine_of(*there) as ray:
        for turn in range(TURNS + 1):  # the first starts the workers
            for name, engine in (("local", local), ("ray", ray)):
                found = label_seconds(done, config, engine, base / f"{name}-{turn}")
                if turn:
                    seconds[name].append(found)
    here, there_ = n / min(seconds["local"]), n / min(seconds["ray"])
    case = f"label pass, {n} documents, two Ray nodes beside two local processes"
    return [{"case": case, "metric": "documents a second", "value": round(there_, 1), "reference": round(here, 1)}]


def overhead_rows(address: str) -> list[dict[str, Any]]:
    """Return the seconds that a trial of TRIAL_SECONDS takes more through Ray, on workers that are warm."""
    with engine_of(RunSettings(engine="ray"), replace(SMALL, address=address)) as engine:
        list(engine.map(abs, list(range(-50, 0))))  # starts both workers
        began = time.perf_counter()
        list(engine.map(time.sleep, [TRIAL_SECONDS] * TRIALS))
        took = time.perf_counter() - began
    more = (took - TRIAL_SECONDS * TRIALS / 2) / (TRIALS / 2)
    case = f"a trial of {TRIAL_SECONDS:g} s through Ray"
    return [{"case": case, "metric": "seconds more, at most 1", "value": round(more, 3), "reference": 1.0}]


@dataclass(frozen=True)
class Losses:
    """What was lost, and what became of what was finished before. `again`: files that were written a second time."""

    finished: int
    again: int
    orphans: int  # processes of a killed driver that worked on


def broken(where: Place, nodes: TwoNodes) -> Losses:
    """Run and export. A node is lost in labels, in trials and in the export, and the driver is killed in trials."""
    trials = where.root / "trials"
    known: dict[Path, int] = {}
    first = where.start("run")
    wait_for(first, "unit-*.parquet", where.root / "labels.partial", 2)
    nodes.lose()
    known |= stamps((where.root / "labels.partial").glob("unit-*.parquet"))
    wait_for(first, "*/claim.json", trials)
    workers = actors()
    first.kill()
    first.wait()
    orphans = still_alive(workers)
    known |= stamps(trials.glob("*/scores.json"))
    second = where.start("run")
    wait_for(second, "*/scores.json", trials, len(list(trials.glob("*/scores.json"))) + 2)
    nodes.lose()
    known |= stamps(trials.glob("*/scores.json"))
    end(second, "run")
    third, pieces = where.start("export"), where.out.with_name("data.partial")
    wait_for(third, "pieces-*/*", pieces)
    nodes.lose()
    known |= stamps(pieces.glob("pieces-*/*"))
    end(third, "export")
    now = [(_moved(path), written) for path, written in known.items()]
    again = sum(path.exists() and path.stat().st_mtime_ns != written for path, written in now)
    return Losses(len(known), again, orphans)


def _moved(path: Path) -> Path:
    """Return where a file of a partial folder of labels is in the end."""
    return Path(str(path).replace("labels.partial", "labels"))


def end(process: subprocess.Popen[bytes], command: str) -> None:
    """Wait for a command, which must succeed."""
    if (status := process.wait(WAIT)) != 0:
        raise RuntimeError(f"climb {command} ended with {status}")


def wait_for(process: subprocess.Popen[bytes], pattern: str, folder: Path, n: int = 1) -> None:
    """Wait until so many files are there while the command runs."""
    deadline = time.monotonic() + WAIT
    while len(list(folder.glob(pattern))) < n:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no {n} of {pattern} in {folder} while the command ran")
        time.sleep(0.01)


def stamps(paths: Iterable[Path]) -> dict[Path, int]:
    """Return when each finished file was written; hidden ones are not finished."""
    return {path: path.stat().st_mtime_ns for path in paths if path.name[0] != "."}


def actors() -> list[int]:
    """Return the processes of this machine that are actors of ours."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"ray::Actor"):
                found.append(int(entry.name))
    return found


def still_alive(workers: list[int]) -> int:
    """Return how many processes there still are after GONE_WITHIN seconds."""
    deadline = time.monotonic() + GONE_WITHIN
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return sum(map(is_alive, workers))


def loss_rows(base: Path, corpus: Path, tasks: Path, nodes: TwoNodes, expected: dict[str, str]) -> list[dict[str, Any]]:
    """Return what a run with losses makes, beside what two local processes make."""
    where = place(base, corpus, tasks, nodes.address)
    losses = broken(where, nodes)
    case = "a node lost in labels, trials and export, the driver killed in trials"
    return [
        same_row(case, where, expected),
        {"case": case, "metric": "finished files written again", "value": losses.again, "reference": losses.finished},
        {"case": case, "metric": "processes of the killed driver that are left", "value": losses.orphans},
    ]


def same_row(case: str, where: Place, expected: dict[str, str]) -> dict[str, Any]:
    """Return how many files of mixture and dataset have the bytes that local processes gave."""
    made = where.made()
    same = sum(made.get(name) == checksum for name, checksum in expected.items())
    return {"case": case, "metric": "files with the bytes of local", "value": same, "reference": len(expected)}


def lacks() -> str:
    """Return why there is no Ray here, "" where there is one."""
    return "" if find_spec("ray") else "the package ray is not installed"


def rows(base: Path) -> list[dict[str, Any]]:
    """Return all rows. Takes about a quarter of an hour on two free cores."""
    corpus = write_corpus(base / "corpus", FILES, COPIES)
    tasks = make_tiny_tasks(base / "tasks", DATA / "passages.jsonl")
    local = place(base / "local", corpus, tasks)
    for command in ("run", "export"):
        local.finish(command)
    expected = local.made()
    with two_nodes() as nodes:
        there = place(base / "ray", corpus, tasks, nodes.address)
        for command in ("run", "export"):
            there.finish(command)
        return [
            *label_rows(local, nodes.address, base / "labels"),
            *overhead_rows(nodes.address),
            same_row("a whole run and export through Ray", there, expected),
            *loss_rows(base / "broken", corpus, tasks, nodes, expected),
        ]
