"""Kills at random moments: what the answer, the exported bytes and the folders look like after the command was run
again."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclimb.cli.main import main as climb
from openclimb.testing.fixtures import make_tiny_tasks, make_tiny_workspace
from openclimb.workspace.files import file_checksum

DATA = Path(__file__).parent.parent / "tests" / "data"
EXPORTED, TARGET = "100K", "16K"  # tokens of the dataset; of the models of a validation
SIGNALS = {"-9": signal.SIGKILL, "TERM": signal.SIGTERM}
WHOM = ("parent", "worker", "group")
PER_ROUND = {"run": 6, "export": 2, "validate": 2, "import": 1}  # kills of one workspace
GONE_WITHIN = 20.0  # seconds in which the workers of a dead parent end
RUNS = 200  # of the tables that are imported


@dataclass(frozen=True)
class Kill:
    """What one kill met. `hit`: the command was still running."""

    command: str
    signal: str
    whom: str
    hit: bool
    left: int  # processes that outlived their parent
    seconds: float  # from the start to the kill, or to the end


class Workplace:
    """A fresh workspace, an export's folder, and one whose runs are imported."""

    def __init__(self, base: Path, tasks: Path) -> None:
        self.root = make_tiny_workspace(base / "run", DATA / "corpus.jsonl", tasks, run={"workers": 2})
        self.out, self.hand = base / "data", base / "hand"
        (base / "domains.csv").write_text("name,tokens\nweb,1000000\ncode,400000\n")
        if climb(["init", str(self.hand), "--domains-file", str(base / "domains.csv"), "--target-tokens", "1M"]):
            raise RuntimeError("no workspace of domains by hand was made")
        rng = random.Random(0)
        weights = [rng.random() for _ in range(RUNS)]
        rows = [f"{i},{w!r},{1 - w!r}\n" for i, w in enumerate(weights)]
        (base / "r.csv").write_text("".join(["run,web,code\n", *rows]))
        (base / "m.csv").write_text("".join(["run,piqa\n", *(f"{i},{w**2!r}\n" for i, w in enumerate(weights))]))
        self.commands = {
            "run": ["run", str(self.root), "--quiet"],
            "export": ["export", str(self.root), "--tokens", EXPORTED, "--out", str(self.out), "--quiet"],
            "validate": ["validate", str(self.root), "--token-budget", TARGET, "--seeds", "2", "--quiet"],
            "import": ["import", str(self.hand), str(base / "r.csv"), str(base / "m.csv")],
        }

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command at the head of a process group of its own."""
        arguments = [sys.executable, "-m", "openclimb.cli.main", *self.commands[command]]
        null = subprocess.DEVNULL
        return subprocess.Popen(arguments, start_new_session=True, stdout=null, stderr=null)

    def finish(self, command: str) -> float:
        """Run a command to its end; return its seconds."""
        began = time.monotonic()
        if (status := self.start(command).wait()) != 0:
            raise RuntimeError(f"climb {command} ended with {status}")
        return time.monotonic() - began

    def made(self) -> dict[str, str]:
        """Return the checksum of all that a person asked for: mixture, dataset, validation, imported trials."""
        sums = {}
        for folder in (self.root / "mixture", self.out, self.root / "validation", self.hand / "trials"):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not holds_seconds(path):
                    sums[f"{folder.name}/{path.relative_to(folder)}"] = file_checksum(path)
        return sums

    def left_behind(self) -> list[str]:
        """Return files and folders that only a running command may have."""
        names = (*self.root.rglob("*"), *self.out.parent.glob("*.partial"), *self.hand.rglob("*"))
        return [
            str(path)
            for path in names
            if path.name == "claim.json" or path.suffix == ".partial" or (path.name[0] == "." and path.name != ".lock")
        ]


def holds_seconds(path: Path) -> bool:
    """Return whether a file says how long something took: records, and the scores of trials that a target trained."""
    return path.name == "record.json" or "validation/trials" in path.as_posix()


def children(pid: int) -> list[int]:
    """Return the processes that a process started, and theirs."""
    try:
        found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*found, *(below for each in found for below in children(each))]


def is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def kill_once(place: Workplace, command: str, seconds: float, rng: random.Random) -> Kill:
    """Start a command, kill it or a part of it at a moment of its `seconds`, and wait until all has ended."""
    name, whom = rng.choice(list(SIGNALS)), rng.choice(WHOM)
    process = place.start(command)
    began = time.monotonic()
    try:
        process.wait(rng.uniform(0.0, seconds))
        return Kill(command, name, whom, False, 0, time.monotonic() - began)
    except subprocess.TimeoutExpired:
        pass
    at = time.monotonic() - began
    family = children(process.pid)
    workers = [pid for pid in family if is_worker(pid)]
    if whom == "worker" and workers:
        os.kill(rng.choice(workers), SIGNALS[name])
    elif whom == "group":
        os.killpg(process.pid, SIGNALS[name])
    else:
        whom = "parent"
        process.send_signal(SIGNALS[name])
    process.wait()
    until = time.monotonic() + GONE_WITHIN
    while any(map(is_alive, family)) and time.monotonic() < until:
        time.sleep(0.05)
    left = [pid for pid in family if is_alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return Kill(command, name, whom, True, len(left), at)


def kill_some(place: Workplace, command: str, most: int, seconds: float, rng: random.Random) -> list[Kill]:
    """Kill a command, again and again, until one came to its end first or `most` met it."""
    found = list[Kill]()
    while len(found) < most and (not found or found[-1].hit):
        found.append(kill_once(place, command, seconds, rng))
    return found


def killed(base: Path, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Kill until n kills met a running command; return the rows."""
    rng, kills, differs, left_behind, rounds = random.Random(seed), list[Kill](), 0, 0, 0
    tasks = make_tiny_tasks(base / "tasks", DATA / "passages.jsonl")
    (base / "whole").mkdir()
    whole = Workplace(base / "whole", tasks)
    seconds = {command: whole.finish(command) for command in whole.commands}
    expected = whole.made()
    while sum(kill.hit for kill in kills) < n:
        rounds += 1
        folder = base / f"round-{rounds}"
        folder.mkdir()
        place = Workplace(folder, tasks)
        for command, times in PER_ROUND.items():
            kills += (found := kill_some(place, command, times, seconds[command], rng))
            if len(found) == 1 and not found[0].hit:  # the machine is quicker now
                seconds[command] = found[0].seconds
            place.finish(command)
        made, left = place.made(), place.left_behind()
        other = sorted(name for name in {*made, *expected} if made.get(name) != expected.get(name))
        print("\n".join([*(f"  differs: {name}" for name in other), *(f"  left: {name}" for name in left)]), flush=True)
        differs += bool(other)
        left_behind += len(left)
        shutil.rmtree(folder)
        print(f"round {rounds}: {sum(kill.hit for kill in kills)} kills, {differs} rounds differ", flush=True)
    hits = [kill for kill in kills if kill.hit]
    kinds = Counter((kill.command, kill.signal, kill.whom) for kill in hits)
    rows: list[dict[str, Any]] = [
        {"case": f"kills: {command} {name} {whom}", "metric": "kills", "value": count}
        for (command, name, whom), count in sorted(kinds.items())
    ]
    return [
        *rows,
        {"case": "kills", "metric": "met a running command", "value": len(hits), "reference": n},
        {"case": "kills", "metric": "rounds with the same bytes", "value": rounds - differs, "reference": rounds},
        {"case": "kills", "metric": "files left behind", "value": left_behind},
        {"case": "kills", "metric": "processes left behind", "value": sum(kill.left for kill in hits)},
    ]
