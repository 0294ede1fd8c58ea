"""The lock of a workspace: with the system's locks and without, who holds it, and what a dead process left."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from openclimb.errors import HeldError
from openclimb.workspace import lock
from openclimb.workspace.lock import held, holder

HOLD = """
import sys
from pathlib import Path
from openclimb.workspace.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def written(root: Path, process: int, host: str = "", started: str = "") -> Path:
    """Leave the file of a holder on a file system without locks."""
    path = root / ".lock.held"
    there = {"process": process, "host": host or socket.gethostname(), "since": "2026-01-02 03:04 UTC"}
    path.write_text(json.dumps({**there, "started": started}))
    return path


def dead() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture(params=[errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def without_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_file: object, _kind: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("without_flock")
def test_a_file_system_without_locks_has_a_file_that_says_who(tmp_path: Path) -> None:
    said: list[str] = []
    with held(tmp_path, note=said.append):
        there = json.loads((tmp_path / ".lock.held").read_text())
        assert (there["process"], there["host"]) == (os.getpid(), socket.gethostname())
        assert holder(tmp_path) == f"process {os.getpid()} on {socket.gethostname()} since {there['since']}"
        with pytest.raises(HeldError, match=rf"is held by process {os.getpid()} on "), held(tmp_path, 0.0):
            pass
        assert holder(tmp_path), "who was refused left the holder's file alone"
    assert said == [f"{tmp_path} is on a file system without locks: the file .lock.held keeps other runs out"]
    assert holder(tmp_path) == ""
    with held(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]


@pytest.mark.usefixtures("without_flock")
def test_what_a_dead_process_of_this_host_left_is_taken_over(tmp_path: Path) -> None:
    for process, started in ((dead(), ""), (os.getppid(), "1")):  # the second number went to another process since
        written(tmp_path, process, started=started)
        assert holder(tmp_path) == ""
        with held(tmp_path, 1.0):
            assert json.loads((tmp_path / ".lock.held").read_text())["process"] == os.getpid()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]


@pytest.mark.usefixtures("without_flock")
def test_the_lock_of_another_host_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path, dead(), "node-7")
    with pytest.raises(HeldError) as caught, held(tmp_path, 0.0):
        pass
    assert "on node-7 since 2026-01-02 03:04 UTC" in caught.value.message
    assert caught.value.fix.endswith(f"this machine cannot see whether it still runs: if not, remove {path}")
    assert "on node-7" in holder(tmp_path)
    path.write_text("")  # the one who makes it was cut short
    with pytest.raises(HeldError, match="is held by another process") as caught, held(tmp_path, 0.0):
        pass
    assert str(path) in caught.value.fix


def test_a_host_with_locks_keeps_off_one_without(tmp_path: Path) -> None:
    written(tmp_path, 1, "node-7")
    with pytest.raises(HeldError, match="on node-7"), held(tmp_path, 0.0):
        pass


def test_who_holds_is_seen_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", None)  # must not be called
            assert holder(tmp_path).startswith(f"process {process.pid} on ")
        with pytest.raises(HeldError, match=f"process {process.pid} on"), held(tmp_path, 0.0):
            pass
        process.kill()
    assert json.loads((tmp_path / ".lock").read_text())["process"] == process.pid
    assert holder(tmp_path) == ""
    with held(tmp_path, 0.0):
        pass


def test_a_run_waits_a_moment_for_the_lock(tmp_path: Path) -> None:
    held_now, waited = threading.Event(), []

    def hold() -> None:
        with held(tmp_path):
            held_now.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    held_now.wait()
    began = time.monotonic()
    with held(tmp_path):
        waited.append(time.monotonic() - began)
    thread.join()
    assert 0.1 < waited[0] < lock.WAIT


def test_reading_the_holder_keeps_no_run_out(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("a version that wrote no host")
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            holder(tmp_path)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with held(tmp_path):
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()
