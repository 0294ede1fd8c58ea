"""Work through a folder: processes that take chunks from it, die, are told to stop, and a driver that dies."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from openclimb.engines.spool import drive as driving
from openclimb.engines.spool.drive import Drive, Job, Settings, spool_of
from openclimb.engines.spool.files import Pool, Spool, make_private
from openclimb.engines.worker import DONE, packed
from openclimb.errors import InputError, OpenclimbError

WORKER = (
    "import sys; from pathlib import Path; from openclimb.engines.spool import worker; worker.IDLE = 1.0;"
    "sys.path.append(sys.argv[3]); again = Path(sys.argv[1], 'again').touch;"
    "worker.serve(Path(sys.argv[1]), sys.argv[2], False, again)"
)
FUNCTIONS = """
import os, signal, time
from pathlib import Path
from openclimb.engines import interruption
from openclimb.errors import InputError

def note(x):
    place, number = x
    with open(place, "a") as file:
        file.write(f"{number}\\n")
    return number * number

def complain(number):
    if number == 3:
        raise InputError("item 3 is bad", "mend it")
    return number

def die(x):
    place, number = x
    if number == 1 and not Path(place).exists():
        Path(place).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number

def always_die(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number

def save(x):
    place, number = x
    if Path(place + ".saved").exists():
        return number
    Path(place).touch()
    with interruption.postponed():
        while not interruption.asked():
            time.sleep(0.01)
        Path(place + ".saved").touch()
        interruption.check()

def too_long(x):
    place, number = x
    with open(place, "a") as file:
        file.write("begun ")
    if Path(place).read_text().count("begun") <= 3:
        with interruption.postponed():
            os.kill(os.getpid(), signal.SIGUSR1)
            interruption.check()
    return number

def hold(x):
    place, number = x
    Path(f"{place}.{number}.begun").touch()
    while not Path(place).exists():
        time.sleep(0.01)
    return number
"""


class Processes:
    """Workers as processes of this machine, in place of jobs of a cluster."""

    def __init__(self, pool: Pool, place: Path) -> None:
        self.pool, self.place = pool, place
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, n: int) -> list[str]:
        jobs = [str(len(self.started) + i) for i in range(n)]
        for job in jobs:
            command = [sys.executable, "-c", WORKER, str(self.pool.path), job, str(self.place)]
            self.started[job] = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return jobs

    def states(self) -> dict[str, Job] | None:
        return {job: Job(True) for job, process in self.started.items() if process.poll() is None}

    def end(self, jobs: Sequence[str]) -> None:
        for job in jobs:
            self.started[job].kill()

    def log(self, job: str) -> str:
        return f"what {job} wrote"


class Place:
    """A pool and what drives maps on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pool = Pool(root / ".jobs" / "pool")
        self.pool.open()
        (root / "spooled.py").write_text(FUNCTIONS)
        self.jobs = Processes(self.pool, root)
        self.notes: list[str] = []

    def function(self, name: str) -> Callable[[object], object]:
        import importlib

        return getattr(importlib.import_module("spooled"), name)  # type: ignore[no-any-return]

    def drive(self, name: str, items: Sequence[object], jobs: int = 2, at_once: int | None = None) -> Drive:
        settings = Settings(jobs, at_once, self.notes.append)
        return Drive(self.pool, spool_of(self.root, self.function(name)), self.jobs, settings, items)

    def results(self, name: str, items: Sequence[object], **more: int) -> Iterator[tuple[int, object]]:
        drive = self.drive(name, items, **more)  # type: ignore[arg-type]
        return drive.results(self.function(name), self.pool.begin() if not self.pool.generation() else 1, None)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(driving, "SLOWEST_ASK", 0.5)
    monkeypatch.setattr(driving, "ASK", 0.2)
    place = Place(tmp_path)
    sys.modules.pop("spooled", None)
    yield place
    for process in place.jobs.started.values():
        process.kill()
        process.wait()


def test_two_workers_do_every_item_once_and_serve_the_next_map(place: Place) -> None:
    log = str(place.root / "log")
    found = sorted(place.results("note", [(log, i) for i in range(40)]))
    assert found == [(i, i * i) for i in range(40)]
    assert sorted(map(int, Path(log).read_text().split())) == list(range(40))
    assert sorted(place.results("complain", [0, 1])) == [(0, 0), (1, 1)]
    assert len(place.jobs.started) <= 2  # the same processes
    assert not list(place.root.glob(".jobs/map-*"))


def test_an_error_comes_back_whole_and_the_rest_is_taken_back(place: Place) -> None:
    with pytest.raises(InputError) as caught:
        list(place.results("complain", list(range(30))))
    assert (caught.value.message, caught.value.fix) == ("item 3 is bad", "mend it")


def test_the_item_of_a_killed_worker_is_tried_again(place: Place) -> None:
    mark = str(place.root / "mark")
    assert sorted(place.results("die", [(mark, i) for i in range(6)])) == [(i, i) for i in range(6)]
    assert any("is gone" in note and "what " in note for note in place.notes)


def test_an_item_that_kills_its_workers_is_named(place: Place) -> None:
    with pytest.raises(OpenclimbError, match="worker processes died of 1, 3 times"):
        list(place.results("always_die", list(range(4))))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_worker_that_is_told_to_stop_saves_and_another_goes_on(place: Place, number: int) -> None:
    mark = place.root / "mark"
    found: list[tuple[int, object]] = []
    results = place.results("save", [(str(mark), 7), (str(mark), 8)], jobs=1)
    thread = threading.Thread(daemon=True, target=lambda: found.extend(results))
    thread.start()
    wait_for(mark.exists)
    place.jobs.started["0"].send_signal(number)
    thread.join(30)
    assert sorted(found) == [(0, 7), (1, 8)]
    assert not any("is gone" in note for note in place.notes)  # no death
    assert (place.pool.path / "again").exists() == (number == signal.SIGUSR1)


def test_an_item_that_never_ends_in_the_time_of_a_job_is_told(place: Place) -> None:
    assert sorted(place.results("too_long", [(str(place.root / "mark"), 7)], jobs=1)) == [(0, 7)]
    told = [note for note in place.notes if "was stopped 3 times" in note]
    assert len(told) == 1
    assert "engine.minutes" in told[0]
    assert not any("is gone" in note for note in place.notes)


def test_a_driver_that_is_started_again_finds_results_and_what_runs(place: Place) -> None:
    mark = place.root / "mark"
    items = [(str(mark), i) for i in range(5)]
    first = place.drive("hold", items)
    first.stopped = True  # as one that is killed: it takes nothing back
    running = first.results(place.function("hold"), place.pool.begin(), None)
    thread = threading.Thread(daemon=True, target=lambda: next(running))
    thread.start()
    wait_for(lambda: len(list(place.root.glob("mark.*.begun"))) == 2)
    mark.touch()  # those two end, and the others are done while no driver looks
    thread.join(30)
    wait_for(lambda: len(list(place.root.glob("mark.*.begun"))) == 5)
    begun = {path: path.stat().st_mtime_ns for path in place.root.glob("mark.*.begun")}
    again = place.drive("hold", [*items[1:], (str(mark), 9)])
    assert sorted(again.results(place.function("hold"), 1, None)) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 9)]
    assert {path: path.stat().st_mtime_ns for path in begun} == begun  # none was done twice
    running.close()


def test_a_consumer_that_stops_early_takes_back_what_has_not_begun(place: Place) -> None:
    log = place.root / "log"
    results = place.results("note", [(str(log), i) for i in range(2000)])
    next(results)
    results.close()
    wait_for(lambda: not place.jobs.states())
    assert len(log.read_text().split()) < 2000


def test_few_at_once(place: Place) -> None:
    mark = place.root / "mark"
    found: list[tuple[int, object]] = []
    results = place.results("hold", [(str(mark), i) for i in range(4)], at_once=1, jobs=2)
    thread = threading.Thread(daemon=True, target=lambda: found.extend(results))
    thread.start()
    wait_for(lambda: list(place.root.glob("mark.*.begun")))
    time.sleep(0.5)
    assert len(list(place.root.glob("mark.*.begun"))) == 1
    mark.touch()
    thread.join(30)
    assert len(found) == 4


def test_a_silent_worker_is_given_up_and_its_job_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "LOST_AFTER", 1.0)
    mark = place.root / "mark"
    found: list[tuple[int, object]] = []
    thread = threading.Thread(daemon=True, target=lambda: found.extend(place.results("hold", [(str(mark), 1)], jobs=1)))
    thread.start()
    wait_for(lambda: list(place.root.glob("mark.*.begun")))
    place.jobs.started["0"].send_signal(signal.SIGSTOP)
    mark.touch()
    thread.join(30)
    assert found == [(0, 1)]
    assert place.jobs.started["0"].poll() == -signal.SIGKILL


def test_jobs_that_end_before_they_work_stop_the_map_with_what_they_wrote(place: Place) -> None:
    place.jobs.place = Path("/")
    place.pool.path.chmod(0o755)  # their workers refuse it
    with pytest.raises(OpenclimbError, match=r"(?s)3 jobs ended before they could work.*what 2 wrote"):
        list(place.results("complain", [1], jobs=1))


def test_one_worker_alone_takes_a_chunk(tmp_path: Path) -> None:
    spool = Spool(tmp_path / ".jobs" / "map-1")
    spool.open(abs, 1)
    for number in range(200):
        spool.add(number, [(str(number), pickle.dumps(number))])
    taken: dict[str, list[int]] = {name: [] for name in "abcd"}

    def take(name: str) -> None:
        mine = Spool(spool.path)
        taken[name] = [number for number in range(200) if mine.claim(number, name)]

    threads = [threading.Thread(target=take, args=(name,)) for name in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for mine in taken.values() for number in mine) == list(range(200))
    assert sorted(spool.claims()) == sorted((number, name) for name, mine in taken.items() for number in mine)


def test_a_frame_is_read_when_it_is_whole_and_right(tmp_path: Path) -> None:
    spool = Spool(tmp_path / ".jobs" / "map-1")
    spool.open(abs, 1)
    results = spool.results("w")
    results.add("a", packed(DONE, 1))
    results.add("b", packed(DONE, "two" * 100))
    results.close()
    path = spool.path / "results" / "w"
    whole = path.read_bytes()
    found = []
    for size in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:size])
        found += list(spool.read())
    path.write_bytes(whole)
    found += list(spool.read())
    assert found == [("a", DONE, 1), ("b", DONE, "two" * 100)]
    wrong = bytearray(whole)
    wrong[-1] ^= 1
    path.write_bytes(wrong)
    assert [key for key, _, _ in Spool(spool.path).read()] == ["a"]


def test_a_spool_that_others_can_use_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ".jobs"
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(OpenclimbError, match="not a folder of this user alone"):
        make_private(folder)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OpenclimbError, match="not a folder of this user alone"):
        make_private(tmp_path / "link")


def test_many_items_are_few_chunks_that_shrink(tmp_path: Path) -> None:
    pool = Pool(tmp_path / ".jobs" / "pool")
    pool.open()
    spool = spool_of(tmp_path, abs)
    spool.open(abs, 1)
    drive = Drive(pool, spool, Processes(pool, tmp_path), Settings(8, None, print), range(20_000))
    drive._stock()
    sizes = [len(some) for some in drive.chunks.values()]
    assert sum(sizes) == 20_000
    assert len(sizes) < 1500
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 500
    assert sizes[-1] < 50


def test_a_node_that_does_not_see_the_folder_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "BLIND", 0.5)
    items = [(str(place.root / "never"), 1)]
    drive = place.drive("hold", items)
    said = {"job": "77", "host": "n7", "beat": 0, "blind": str(drive.spool.path)}  # as its worker would say it
    place.pool.say("77-0", said)
    monkeypatch.setattr(place.pool, "forget", lambda _: None)
    with pytest.raises(OpenclimbError, match=r"n7 does not see .*map-") as caught:
        list(drive.results(place.function("hold"), place.pool.begin(), None))
    assert "file system that all nodes see" in caught.value.fix


def wait_for(ready: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_work_that_came_with_an_archive_is_removed_unread(tmp_path: Path) -> None:
    path = tmp_path / ".jobs" / "map-1"
    Spool(path).open(abs, 0)
    (path / "results" / "w").write_bytes(b"ours")
    Spool(path).open(abs, 0)
    assert (path / "results" / "w").exists(), "a driver that is started again finds its results"
    other = tmp_path / "unpacked" / ".jobs" / "map-1"
    shutil.copytree(tmp_path / ".jobs", other.parent)
    other.parent.chmod(0o700)
    Spool(other).open(abs, 0)
    assert not (other / "results" / "w").exists()
