"""The driver of a map: it fills a spool, reads results, and has jobs started whose workers do the work.

All it knows is in the folders. When it dies, workers go on; the next one finds their results and what they are at.
"""

import contextlib
import pickle
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from openclimb import __version__
from openclimb.engines import interruption
from openclimb.engines.engine import Lost, Tries, name_of
from openclimb.engines.interruption import Interrupted
from openclimb.engines.spool.files import Pool, Spool
from openclimb.engines.spool.identity import identity, keys
from openclimb.engines.worker import DONE, FAILED, RAISED, STOPPED
from openclimb.errors import OpenclimbError
from openclimb.workspace.files import JOBS

LOOK, SLOWEST_LOOK = 0.1, 3.0  # seconds between two looks for results: while they come, and at most
ASK, SLOWEST_ASK = 1.0, 10.0  # seconds between two questions to the scheduler: after jobs were submitted, and at most
LOST_AFTER = 60.0  # seconds without a sign of life, by this machine's clock, after which a worker is given up
FAILED_STARTS = 3  # jobs one after the other that end before their workers begin: then nothing can be run
BLIND = 20.0  # seconds that a node may not see a new folder, as NFS remembers what is not there
MANY_STOPS = 3  # ends of jobs in the middle of one item, after which a person is told
SINGLES = 1000  # items up to which each is a chunk of its own
MOST_CHUNKS = 4000
WAITING = 60.0  # seconds that jobs wait before a person is told why


@dataclass(frozen=True)
class Job:
    """What the scheduler says of a job that has not ended."""

    running: bool  # on a node now, so that its worker may live
    reason: str = ""  # why it waits


class Jobs(Protocol):
    """What starts workers."""

    def submit(self, n: int) -> list[str]:
        """Have n workers started; return the names of their jobs. Raises OpenclimbError where none can be."""

    def states(self) -> dict[str, Job] | None:
        """Return the jobs of this pool that wait or run; None where the scheduler does not answer."""

    def end(self, jobs: Sequence[str]) -> None:
        """End jobs."""

    def log(self, job: str) -> str:
        """Return the last lines that a job wrote, without secrets; "" where there are none."""


@dataclass(frozen=True)
class Settings:
    """How a map is driven."""

    jobs: int  # workers, at most
    at_once: int | None  # calls at once, at most; None: as many as there are workers
    note: Callable[[str], None]


def spool_of(folder: Path, function: Callable[[Any], Any]) -> Spool:
    """Return the spool of a function in a folder: the same one for an equal function."""
    return Spool(folder / JOBS / f"map-{identity([function, __version__])}")


class Drive:
    """One map: its items, its spool, and who works on it."""

    def __init__(self, pool: Pool, spool: Spool, jobs: Jobs, settings: Settings, items: Sequence[Any]) -> None:
        self.pool, self.spool, self.jobs, self.settings, self.items = pool, spool, jobs, settings, items
        self.keys = keys(items)
        self.index = {key: index for index, key in enumerate(self.keys)}
        self.tries = Tries(len(items))
        self.chunks: dict[int, list[int]] = {}  # chunk → its items, of those that are not known to be done
        self.missed: set[int] = set()  # chunks that the last look found nowhere
        self.next = 0  # number of the next chunk
        self.beats: dict[str, tuple[int, float]] = {}  # worker → its last sign of life, and when it was seen
        self.worked: set[str] = set()  # jobs whose workers have begun
        self.starting: set[str] = set()  # jobs that were submitted and whose workers have not begun
        self.n_failed = 0  # of them, one after the other, that ended
        self.ask_at, self.ask_wait = 0.0, ASK
        self.working_at = time.monotonic()  # when something was seen to run
        self.blind_at = 0.0  # when a node was first heard not to see the spool
        self.stops: Counter[int] = Counter()  # item → times that its worker had to end
        self.told: set[str] = set()
        self.stopped = False  # by Ctrl-C or a signal

    def results(
        self, function: Callable[[Any], Any], generation: int, lost: Lost[Any, Any] | None
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as results come; see `Engine.map`.

        A driver that is stopped by a signal or Ctrl-C leaves everything as it is. One that fails, or whose consumer
        stops, takes back what has not begun.
        """
        self.spool.open(function, generation)
        finished = False
        try:
            with self._noting_ctrl_c():
                found = self._adopt()
                self._stock()
                self.pool.offer(self.spool)
                yield from found.items()
                yield from self._look(lost)
            finished = True
        except (Interrupted, KeyboardInterrupt):
            self.stopped = True
            raise
        finally:
            if not (self.stopped or interruption.asked()):
                self.pool.withdraw(self.spool)
                (self.spool.remove if finished else self.spool.stop)()

    def _adopt(self) -> dict[int, Any]:
        """Take what an earlier run of the same function left: chunks that workers are at, and results, by index."""
        self.spool.withdraw()
        claims = self.spool.claims()
        said = self.spool.read()
        found = {self.index[key]: result for key, kind, result in said if kind == DONE and key in self.index}
        for number, worker in claims:
            chunk = self.spool.claimed(number, worker) or []
            mine = [self.index[key] for key, _ in chunk if key in self.index and self.index[key] not in found]
            self.chunks[number] = [index for index in mine if index not in self.tries.running]
            self.tries.running.update(mine)
        self.next = max(self.chunks, default=-1) + 1
        self.tries.waiting = deque(i for i in self.tries.waiting if i not in found and i not in self.tries.running)
        for index in found:
            self.tries.done(index)
        return found

    def _stock(self) -> None:
        """Hand out what may run."""
        settings, taken = self.settings, list[int]()
        few = settings.at_once is not None and settings.at_once < settings.jobs
        most = settings.at_once if few and settings.at_once else len(self.items)
        while len(self.tries.running) < most and (index := self.tries.take()) is not None:
            taken.append(index)
        begin, least = 0, -(-len(taken) // MOST_CHUNKS)
        while begin < len(taken):
            shrinking = (len(taken) - begin) // (4 * settings.jobs)  # the last are small, so that all end together
            size = 1 if len(taken) <= SINGLES else max(least, shrinking, 1)
            some = taken[begin : begin + size]
            self.chunks[self.next] = some
            pairs = [(self.keys[i], pickle.dumps(self.items[i], pickle.HIGHEST_PROTOCOL)) for i in some]
            self.spool.add(self.next, pairs)
            self.next += 1
            begin += size

    def _look(self, lost: Lost[Any, Any] | None) -> Iterator[tuple[int, Any]]:
        heard_at = time.monotonic()
        while not self.tries.finished():
            for index, payload in self._heard(lost):
                heard_at = time.monotonic()
                yield index, payload
            self._stock()
            if not self.tries.finished() and time.monotonic() >= self.ask_at:
                yield from self._ask(lost)
            if not self.tries.finished():
                quiet = time.monotonic() - heard_at
                time.sleep(min(max(LOOK, 0.05 * quiet), SLOWEST_LOOK, max(LOOK, self.ask_at - time.monotonic())))

    def _heard(self, lost: Lost[Any, Any] | None) -> Iterator[tuple[int, Any]]:
        """Yield the results that came. Raises what a call raised."""
        for key, kind, payload in self.spool.read():
            index = self.index.get(key, -1)
            if index not in self.tries.running:
                continue  # nobody asks for it, or it was done twice
            if kind == STOPPED:
                self._note_stop(index)
                continue
            if kind == RAISED:
                raise payload
            if kind == FAILED:
                self.settings.note(f"a worker on {name_of(self.items[index])} ended: its GPU failed: {payload}")
                for some in self.chunks.values():
                    some[:] = [one for one in some if one != index]  # its worker gives back the others
                yield from self._died(index, f"its GPU failed: {payload}", lost)
            else:
                self.n_failed = 0
                self.tries.done(index)
                yield index, payload

    def _note_stop(self, index: int) -> None:
        """Say once of an item that it does not come to its end in the time of a job."""
        self.stops[index] += 1
        if self.stops[index] == MANY_STOPS:
            self.settings.note(
                f"{name_of(self.items[index])} was stopped {MANY_STOPS} times as its job ended; a trial goes on from "
                "its state, a unit begins again: raise engine.minutes if it never ends"
            )

    def _ask(self, lost: Lost[Any, Any] | None) -> Iterator[tuple[int, Any]]:
        """Compare what was taken with who lives; give back what dead workers had, and have new ones started."""
        claims, workers = self.spool.claims(), self.pool.workers()
        states = self.jobs.states()  # after the workers were looked at: one that has begun since is in neither
        yield from self._heard(lost)
        self.ask_wait = min(SLOWEST_ASK, 1.5 * self.ask_wait)
        self.ask_at = time.monotonic() + self.ask_wait
        living = self._living(workers, states)
        for number, worker in claims:
            if worker not in living:
                yield from self._take_from_dead(number, worker, workers.get(worker), lost)
        self._find_missing()
        self._stock()
        self._check_starts(living, states)
        if states is None:
            self._tell("Slurm does not answer; work goes on, and it is asked again")
            return
        states = self._replaced(states)
        busy = {workers[worker]["job"] for _, worker in claims if worker in living}
        idle = sum(job not in busy for job in states)
        most = min(self.settings.jobs, self.settings.at_once or self.settings.jobs)
        if (n := min(len(self.spool.todo()) - idle, most - len(states))) > 0:
            self._submit(n, bool(states))
        if any(job.running for job in states.values()):
            self.working_at = time.monotonic()
        elif states and time.monotonic() - self.working_at > WAITING:
            self._tell(f"jobs wait in Slurm's queue: {next(iter(states.values())).reason}")

    def _replaced(self, states: dict[str, Job]) -> dict[str, Job]:
        """End jobs that were queued again after their worker had to stop; return the others.

        Slurm lets them wait for two minutes, which is meant for when nobody else has their work done.
        """
        waiting = [job for job, one in states.items() if job in self.worked and one.reason == "BeginTime"]
        if waiting:
            self.jobs.end(waiting)
        return {job: one for job, one in states.items() if job not in waiting}

    def _living(self, workers: dict[str, dict[str, Any]], states: dict[str, Job] | None) -> set[str]:
        """Return the workers whose jobs run and that have given a sign of life. Ends the jobs of the others."""
        now, living, silent = time.monotonic(), set[str](), list[str]()
        for worker, said in workers.items():
            job = str(said.get("job", ""))
            self.starting.discard(job)
            self.worked.add(job)
            if said.get("blind") == str(self.spool.path):
                self._check_sight(str(said.get("host")))
            beat = int(said.get("beat", 0))
            if self.beats.get(worker, (-1, 0.0))[0] != beat:
                self.beats[worker] = (beat, now)
            runs = states is None or (job in states and states[job].running)
            if said.get("ended"):
                if said.get("how"):
                    self.n_failed += 1
                    self.settings.note(f"the worker of job {job} on {said.get('host')} ended: {said['how']}")
                self.pool.forget(worker)
            elif not runs:
                self.pool.forget(worker)
            elif now - self.beats[worker][1] > LOST_AFTER:
                silent.append(job)
                self.pool.forget(worker)
            else:
                living.add(worker)
        if silent:
            self.jobs.end(silent)  # it must not write beside the one that takes over
        return living

    def _check_sight(self, host: str) -> None:
        """Raise OpenclimbError for a node that does not see the spool, unless it may only see it a little later."""
        self.blind_at = self.blind_at or time.monotonic()
        if time.monotonic() - self.blind_at > BLIND and not self.tries.n_done:
            raise OpenclimbError(
                f"{host} does not see {self.spool.path}",
                "put the workspace, and what it writes, on a file system that all nodes see under one path",
            )

    def _take_from_dead(
        self, number: int, worker: str, said: dict[str, Any] | None, lost: Lost[Any, Any] | None
    ) -> Iterator[tuple[int, Any]]:
        """Have a dead worker's items wait again; the one that it was at counts a death, unless it was told to stop."""
        if self.spool.claimed(number, worker) is None:
            return  # it was done, or given back
        yield from self._heard(lost)
        self.spool.done(number, worker)
        rest = [index for index in self.chunks.pop(number, []) if index in self.tries.running]
        told_to_stop = bool(said and said.get("stopping") == signal.SIGTERM)
        for index in reversed(rest if told_to_stop else rest[1:]):
            self.tries.give_back(index)
        if not rest or told_to_stop:
            return
        job = worker.rpartition("-")[0]
        last = self.jobs.log(job).rpartition("\n")[2]
        how = f"job {job}{' on ' + said['host'] if said else ''} ended" + (f": {last}" if last else "")
        self.settings.note(f"a worker on {name_of(self.items[rest[0]])} is gone: {how}; it is tried again")
        yield from self._died(rest[0], how, lost)

    def _died(self, index: int, how: str, lost: Lost[Any, Any] | None) -> Iterator[tuple[int, Any]]:
        if self.tries.died(index):
            yield index, self.tries.result_of_lost(self.items[index], how, lost)

    def _find_missing(self) -> None:
        """Give back the items of chunks that two looks found nowhere, as after a disk lost a file."""
        there = {*self.spool.todo(), *(number for number, _ in self.spool.claims())}
        self.chunks = {
            number: rest
            for number, some in self.chunks.items()
            if (rest := [index for index in some if index in self.tries.running])
        }
        missing = set(self.chunks) - there
        for number in missing & self.missed:
            for index in reversed(self.chunks.pop(number)):
                self.tries.give_back(index)
        self.missed = missing

    def _check_starts(self, living: set[str], states: dict[str, Job] | None) -> None:
        """Raise OpenclimbError when jobs end before their workers begin."""
        ended = sorted(job for job in self.starting if states is not None and job not in states)
        self.starting -= set(ended)
        self.n_failed += len(ended)
        if self.n_failed < FAILED_STARTS or living or not ended:
            return
        said = self.jobs.log(ended[-1])
        if said:
            raise OpenclimbError(
                f"{self.n_failed} jobs ended before they could work; the last lines of job {ended[-1]}:\n{said}",
                "correct engine.setup, or what the nodes lack: the workspace's folder and this Python must be there",
            )
        raise OpenclimbError(
            f"{self.n_failed} jobs ended before they could work, and {ended[-1]} left no log in {self.pool.path}",
            "put the workspace on a file system that all nodes see under one path, or see who cancelled the jobs",
        )

    def _submit(self, n: int, some: bool) -> None:
        """Have n workers started. Where Slurm takes no more, those that there are do the work."""
        try:
            jobs = self.jobs.submit(n)
        except OpenclimbError as error:
            if not some:
                raise
            self._tell(f"no more jobs are taken: {error.message}")
            return
        self.starting |= set(jobs)
        self.ask_wait, self.ask_at = ASK, time.monotonic() + ASK

    def _tell(self, sentence: str) -> None:
        if sentence not in self.told:
            self.told.add(sentence)
            self.settings.note(sentence)

    @contextlib.contextmanager
    def _noting_ctrl_c(self) -> Iterator[None]:
        """Note Ctrl-C, which may come while a result is with the consumer: that is no reason to take work back."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield
            return
        pass_on = before

        def come(number: int, frame: FrameType | None) -> None:
            self.stopped = True
            pass_on(number, frame)

        signal.signal(signal.SIGINT, come)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
