"""The engine: results with their index, one thread a process, errors whole, no orphans."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from openclimb.engines import interruption
from openclimb.engines.local import LocalEngine
from openclimb.errors import InputError, OpenclimbError


def square(x: int) -> int:
    return x * x


def describe(_: int) -> tuple[int, str]:
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def attend(place: Path, _: int) -> int:
    """Return how many calls run at once, this one included."""
    mark = place / f"{time.monotonic_ns()}-{os.getpid()}"
    mark.touch()
    time.sleep(0.15)
    n = len(list(place.iterdir()))
    mark.unlink()
    return n


def complain(x: int) -> int:
    if x == 3:
        raise InputError("item 3 is bad", "mend it")
    return x


def die(x: int) -> int:
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_with_their_index(workers: int) -> None:
    assert sorted(LocalEngine(workers).map(square, list(range(20)))) == [(i, i * i) for i in range(20)]


def test_workers_are_other_processes_with_one_thread() -> None:
    found = [result for _, result in LocalEngine(2).map(describe, list(range(4)))]
    assert os.getpid() not in {pid for pid, _ in found}
    assert {threads for _, threads in found} == {"1"}


def test_a_map_of_fewer_workers_leaves_the_others_idle(tmp_path: Path) -> None:
    engine = LocalEngine(4)
    list(engine.map(square, list(range(8))))
    found = list(engine.map(partial(attend, tmp_path), list(range(8)), workers=2))
    engine.release()
    assert sorted(index for index, _ in found) == list(range(8))
    assert max(n for _, n in found) <= 2


def test_an_error_in_a_worker_comes_back_whole() -> None:
    with pytest.raises(InputError) as caught:
        list(LocalEngine(2).map(complain, list(range(6))))
    assert (caught.value.message, caught.value.fix) == ("item 3 is bad", "mend it")


def test_a_worker_that_dies_is_told() -> None:
    with pytest.raises(OpenclimbError, match="worker process died"):
        list(LocalEngine(2).map(die, list(range(6))))


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from openclimb.engines.local import LocalEngine\n"
        "def work(path):\n"
        "    Path(path).write_text(str(os.getpid()))\n"
        "    time.sleep(120)\n"
        "if __name__ == '__main__':\n"
        "    list(LocalEngine(2).map(work, sys.argv[1:]))\n"
    )
    marks = [tmp_path / "0", tmp_path / "1"]
    with subprocess.Popen([sys.executable, str(script), *map(str, marks)]) as parent:
        deadline = time.monotonic() + 60
        while not all(mark.exists() and mark.read_text() for mark in marks):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        parent.kill()
    pids = [int(mark.read_text()) for mark in marks]
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("flag", ["-", "-i"])
def test_a_program_that_is_no_file_has_workers(flag: str) -> None:
    code = (
        "import math\n"
        "from openclimb.engines.local import LocalEngine\n"
        "print(sorted(LocalEngine(2).map(math.sqrt, [1.0, 4.0, 9.0])))\n"
        "print(globals().get('__file__'))\n"
    )
    done = subprocess.run([sys.executable, flag], input=code, capture_output=True, text=True, check=False)
    file = {"-": "<stdin>", "-i": "None"}[flag]  # a notebook has none either
    assert done.stdout.splitlines() == ["[(0, 1.0), (1, 2.0), (2, 3.0)]", file], done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("guard", ["", "if __name__ == '__main__':\n    "])
def test_a_script_without_a_main_guard_works_and_runs_once(guard: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import math\n"
        "from openclimb.engines.local import LocalEngine\n"
        f"{guard}print(sorted(LocalEngine(2).map(math.sqrt, [1.0, 4.0, 9.0])))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "[(0, 1.0), (1, 2.0), (2, 3.0)]\n"
    assert done.stderr == ""


STOPPED = """
import os, sys, time
from pathlib import Path
from openclimb.engines import interruption
from openclimb.engines.local import LocalEngine

def work(path):
    Path(path).write_text(str(os.getpid()))
    with interruption.postponed():
        while not interruption.asked():
            time.sleep(0.01)
        Path(path + ".saved").touch()
        interruption.check()

if __name__ == "__main__":
    interruption.catch()
    try:
        list(LocalEngine(2).map(work, sys.argv[1:]))
    except interruption.Interrupted:
        sys.exit(interruption.EXIT_STATUS)
"""


@pytest.mark.parametrize("to", ["parent", "worker", "group"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_lets_all_workers_save_whoever_it_goes_to(to: str, number: int, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(STOPPED)
    marks = [tmp_path / "0", tmp_path / "1"]
    command = [sys.executable, str(script), *map(str, marks), str(tmp_path / "never")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as parent:
        deadline = time.monotonic() + 60
        while not all(mark.exists() and mark.read_text() for mark in marks):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if to == "group":
            os.killpg(parent.pid, number)
        else:
            os.kill(parent.pid if to == "parent" else int(marks[0].read_text()), number)
        error = parent.communicate(timeout=30)[1]
    assert (parent.returncode, error) == (75, "")
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == ["0.saved", "1.saved"]
    assert not (tmp_path / "never").exists()


def ended(x: int) -> int:
    """Die with a signal that reaches the parent as well, a little later."""
    if x == 1:
        os.kill(os.getppid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_a_worker_that_dies_of_a_signal_to_all_is_no_fault() -> None:
    interruption.catch()
    try:
        with pytest.raises(interruption.Interrupted):
            list(LocalEngine(2).map(ended, list(range(6))))
    finally:
        interruption.catch()  # forgets the signal
