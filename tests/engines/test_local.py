"""The engine: results with their index, one thread a process, errors whole, no orphans."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from openclimb.engines import interruption
from openclimb.engines.engine import Resources
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


def die_and_count(folder: Path, x: int) -> int:
    (folder / f"{'death' if x == 1 else 'done'}-{time.monotonic_ns()}-{x}").touch()
    return die(x)


def die_once(folder: Path, x: int) -> int:
    if x == 2 and not (folder / "died").exists():
        (folder / "died").touch()
        die(1)
    return x


def die_always(_: int) -> int:
    return die(1)


def see(_: int) -> tuple[str | None, int]:
    time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()


def fail_on(device: str, folder: Path, _: int) -> str:
    """Return the GPU that is seen; fail as PyTorch does on the GPU of that name, on all where it is ""."""
    time.sleep(0.02)
    seen = os.environ["CUDA_VISIBLE_DEVICES"]
    if device in ("", seen):
        (folder / f"{time.monotonic_ns()}").touch()
        raise RuntimeError("CUDA error: unspecified launch failure")
    return seen


def with_a_child(x: int) -> int:
    """Have a process of our own do it, as loaders of data do."""
    with get_context("spawn").Pool(1) as pool:
        return int(pool.apply(square, (x,)))


def double(data: bytes) -> bytes:
    return data + data


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
    found = list(engine.map(partial(attend, tmp_path), list(range(8)), Resources(at_once=2)))
    engine.release()
    assert sorted(index for index, _ in found) == list(range(8))
    assert max(n for _, n in found) <= 2


def test_an_error_in_a_worker_comes_back_whole() -> None:
    with pytest.raises(InputError) as caught:
        list(LocalEngine(2).map(complain, list(range(6))))
    assert (caught.value.message, caught.value.fix) == ("item 3 is bad", "mend it")


def test_an_item_that_kills_its_workers_is_named() -> None:
    with pytest.raises(OpenclimbError, match="worker processes died of 1, 3 times: killed with signal 9"):
        list(LocalEngine(2).map(die, list(range(6))))


def test_an_item_that_kills_its_workers_is_set_aside(tmp_path: Path) -> None:
    said = list[str]()
    engine = LocalEngine(2, note=said.append)
    found = dict(engine.map(partial(die_and_count, tmp_path), list(range(6)), lost=lambda item, how: f"{item} {how}"))
    engine.release()
    how = "its worker died 3 times, the last while nothing else ran: killed with signal 9, often for want of memory"
    assert found == {0: 0, 1: f"1 {how}", **{i: i for i in range(2, 6)}}
    deaths = sorted(tmp_path.glob("death-*"))
    assert len(deaths) == 3
    last = int(deaths[-1].name.split("-")[1])
    assert all(int(done.name.split("-")[1]) < last for done in tmp_path.glob("done-*")), "the last time it is alone"
    assert len(said) == 3
    assert "a worker on 1 killed with signal 9" in said[0]


def test_a_death_that_was_no_fault_of_its_item_is_survived(tmp_path: Path) -> None:
    engine = LocalEngine(2)
    assert sorted(engine.map(partial(die_once, tmp_path), list(range(6)))) == [(i, i) for i in range(6)]
    engine.release()


def test_where_every_item_kills_its_worker_the_map_stops() -> None:
    engine = LocalEngine(2)
    with pytest.raises(OpenclimbError, match="worker processes died of"):
        list(engine.map(die_always, list(range(5)), lost=lambda _item, _how: 0))
    engine.release()


def test_each_worker_sees_one_gpu() -> None:
    engine = LocalEngine(8, ["3", "5"])
    assert engine.gpus == 2
    found = dict(engine.map(see, list(range(8)), Resources(gpus=1)))
    assert {device for device, _ in found.values()} == {"3", "5"}
    assert len({pid for _, pid in found.values()}) == 2, "one process a GPU"
    shared = dict(engine.map(see, list(range(24)), Resources(gpus=0.25)))
    assert {device for device, _ in shared.values()} == {"3", "5"}
    assert 2 < len({pid for _, pid in shared.values()}) <= 8, "four processes a GPU"
    assert {pid for _, pid in found.values()} <= {pid for _, pid in shared.values()}, "warm ones are kept"
    engine.release()


def test_without_gpus_work_for_them_runs_on_cores_that_see_none() -> None:
    engine = LocalEngine(2, [])
    assert {device for device, _ in dict(engine.map(see, list(range(4)), Resources(gpus=0.25))).values()} == {None}
    engine.release()
    hidden = LocalEngine(2, ())
    assert {device for device, _ in dict(hidden.map(see, list(range(4)))).values()} == {""}
    hidden.release()


def test_the_work_of_a_gpu_that_fails_goes_to_the_others(tmp_path: Path) -> None:
    said = list[str]()
    engine = LocalEngine(8, ["0", "1", "2"], said.append)
    found = dict(engine.map(partial(fail_on, "1", tmp_path), list(range(12)), Resources(gpus=1)))
    assert sorted(found) == list(range(12))
    assert set(found.values()) == {"0", "2"}
    assert engine.gpus == 2, "it is left out of later maps too"
    assert said == ["GPU 1 failed 2 times and is left out: CUDA error: unspecified launch failure"]
    assert len(list(tmp_path.iterdir())) == 2
    engine.release()


def test_where_every_gpu_fails_the_run_says_so(tmp_path: Path) -> None:
    engine = LocalEngine(8, ["0", "1"])
    with pytest.raises(OpenclimbError, match="GPU"):
        list(engine.map(partial(fail_on, "", tmp_path), list(range(12)), Resources(gpus=1)))
    engine.release()


def test_a_function_may_start_processes_of_its_own() -> None:
    engine = LocalEngine(2)
    assert sorted(engine.map(with_a_child, [2, 3])) == [(0, 4), (1, 9)]
    engine.release()


def test_a_program_that_does_not_release_its_workers_ends() -> None:
    code = "from openclimb.engines.local import LocalEngine\nlist(LocalEngine(2).map(abs, [1, 2, 3]))\n"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_large_items_and_results_pass_while_workers_are_busy() -> None:
    engine = LocalEngine(2)
    items = [bytes(3_000_000) for _ in range(12)]
    assert [len(result) for _, result in engine.map(double, items)] == [6_000_000] * 12
    engine.release()


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
from openclimb.engines.engine import Resources
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
