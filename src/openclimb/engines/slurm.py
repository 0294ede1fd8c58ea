"""The engine `slurm`: workers in jobs of a Slurm cluster, which take items from a spool (`engines.spool`).

Not a job a unit: an array of at most `engine.jobs` jobs is submitted with submitit, and each takes work until there is
no more. What is asked of Slurm is sbatch, squeue, scancel and scontrol; accounting (sacct) is not needed.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from openclimb.config.schema import EngineSettings, RunSettings
from openclimb.engines import interruption
from openclimb.engines.engine import ONE_CORE, Lost, Resources
from openclimb.engines.spool.drive import Drive, Job, Settings, spool_of
from openclimb.engines.spool.files import Pool
from openclimb.engines.spool.identity import identity
from openclimb.engines.spool.worker import serve
from openclimb.engines.worker import THREAD_SETTINGS
from openclimb.errors import ConfigError, MissingDependency, OpenclimbError
from openclimb.masking import masked_words
from openclimb.progress import silent
from openclimb.workspace.files import JOBS

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 8  # jobs, where engine.jobs is 0
NOTICE = 90  # seconds before its time limit at which a job is told to save
RUNNING = set("R CG S ST SI SO".split())  # of squeue's states: on a node, so that a worker may live there
OURS = set("array output error job-name open-mode signal requeue no-requeue export chdir nodes ntasks".split())
OPTION = re.compile(r"--([a-z][a-z0-9-]*)(?:=(.*))?")
KEPT = 7 * 24 * 3600.0  # seconds that logs of jobs stay
PATIENCE = 60.0  # seconds that a command of Slurm may take
LOG_LINES = 8


def make(settings: RunSettings, own: EngineSettings, note: Callable[[str], None]) -> "SlurmEngine":
    """Return the engine of the settings.

    Raises MissingDependency without submitit, ConfigError where there is no Slurm or the settings do not go together.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise MissingDependency("submitit", "pip install 'openclimb[slurm]'") from None
    if missing := [name for name in ("sbatch", "squeue", "srun", "scontrol") if not shutil.which(name)]:
        raise ConfigError(
            f"run.engine is 'slurm', and this machine has no {missing[0]}",
            "give the command on a login node of the cluster, or set engine = 'local' in [run]",
        )
    if own.gpus not in (0.0, 1.0):
        raise ConfigError(f"engine.gpus is {own.gpus:g}, and Slurm gives whole GPUs", "set gpus = 1 in [engine]")
    if settings.device == "cuda" and not own.gpus:
        raise ConfigError("run.device is 'cuda', and jobs ask for no GPU", "set gpus = 1 in [engine]")
    _options(own.lines)
    return SlurmEngine(own, note)


@dataclass(frozen=True)
class Kind:
    """What a job asks for: those of one kind do each other's work."""

    gpus: int
    cpus: int
    memory_mb: int
    minutes: int
    partition: str
    account: str
    lines: tuple[str, ...]
    setup: tuple[str, ...]


class SlurmEngine:
    """The engine `slurm`; see the head of this file. Its jobs find work, and are found, in folders of the workspace."""

    here = False

    def __init__(self, settings: EngineSettings, note: Callable[[str], None] = silent) -> None:
        self.settings, self.note = settings, note
        self.most = settings.jobs or MOST
        self._generations: dict[Path, int] = {}  # pool → that of this engine

    @property
    def gpus(self) -> int:
        """How many calls that need a GPU run at once."""
        return self.most if self.settings.gpus else 0

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        resources: Resources = ONE_CORE,
        *,
        folder: Path | None = None,
        lost: Lost[Item, Result] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Yield (index, function(item)) as results come; see `Engine.map`.

        Started again with an equal function in the same folder, it takes what an earlier one left there. Without a
        folder the present one is used. Raises OpenclimbError where Slurm takes no job or jobs cannot work.
        """
        if not items:
            return
        place = (folder or Path.cwd()).absolute()
        kind = _kind(self.settings, resources)
        pool = Pool(_root(place) / JOBS / f"pool-{identity(kind)[:8]}")
        generation = self._generation(pool)
        jobs = SlurmJobs(pool, kind, self.note)
        settings = Settings(self.most, resources.at_once, self.note)
        drive = Drive(pool, spool_of(place, function), jobs, settings, items)
        try:
            yield from drive.results(function, generation, lost)
        finally:
            if drive.stopped or interruption.asked():
                self._leave(jobs)

    def release(self) -> None:
        """Have workers start anew before they take more work; those that find none end by themselves."""
        self._generations.clear()

    def _generation(self, pool: Pool) -> int:
        if pool.path not in self._generations:
            pool.open()
            pool.sweep(KEPT)
            self._generations[pool.path] = pool.begin()
        return self._generations[pool.path]

    def _leave(self, jobs: "SlurmJobs") -> None:
        """Leave the jobs to themselves, or end them where the settings ask for it."""
        if self.settings.cancel:
            jobs.end_all()
            self.note("the jobs were cancelled; what is done is kept")
        else:
            self.note(f"jobs go on while there is work; to end them: scancel --name={jobs.name}")


class SlurmJobs:
    """The jobs of a pool, known by their name."""

    def __init__(self, pool: Pool, kind: Kind, note: Callable[[str], None]) -> None:
        self.pool, self.kind, self.note = pool, kind, note
        self.name = f"climb-{identity(str(pool.path))[:10]}"

    def submit(self, n: int) -> list[str]:
        """Submit n workers, as arrays that the site takes. Raises OpenclimbError with what Slurm says."""
        import submitit

        submitted = list[str]()
        while len(submitted) < n:
            size = min(n - len(submitted), _most_in_array())
            executor = submitit.SlurmExecutor(folder=self.pool.path / "jobs")
            executor.update_parameters(**_parameters(self.kind, self.name))
            path, gpus = self.pool.path, self.kind.gpus > 0
            try:
                with _outside_of_job():
                    if size == 1:
                        submitted.append(str(executor.submit(work, path, gpus).job_id))
                    else:
                        jobs = executor.map_array(work, [path] * size, [gpus] * size)
                        submitted += [str(job.job_id) for job in jobs]
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
                if submitted:
                    break
                raise _refused(str(error)) from error
        arrays = dict.fromkeys(job.partition("_")[0] for job in submitted)
        self.note(f"{len(submitted)} jobs submitted to Slurm: {', '.join(arrays)}")
        return submitted

    def states(self) -> dict[str, Job] | None:
        """Return the jobs that wait or run; None where Slurm does not answer."""
        said = _ask("squeue", "-h", "-r", f"--user={os.geteuid()}", f"--name={self.name}", "-o", "%i|%t|%r")
        if said is None:
            return None
        rows = (line.split("|", 2) for line in said.splitlines() if line.count("|") >= 2)
        return {job.strip(): Job(state.strip() in RUNNING, reason.strip()) for job, state, reason in rows}

    def end(self, jobs: Sequence[str]) -> None:
        """Cancel jobs."""
        _ask("scancel", *jobs)

    def end_all(self) -> None:
        """Cancel all jobs of the pool."""
        _ask("scancel", f"--user={os.geteuid()}", f"--name={self.name}")

    def log(self, job: str) -> str:
        """Return the last lines that a job wrote, without secrets."""
        path = self.pool.path / "jobs" / f"{job}_0_log.out"
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(masked_words([line])[0] for line in lines[-LOG_LINES:])
        return ""


def work(pool: Path, gpus: bool) -> None:
    """Be a worker of a pool. Called in a job."""
    job = os.environ["SLURM_JOB_ID"]
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if serve(pool, job, gpus, _run_again):
        place = [str(pool), "gpu" if gpus else "cpu"]
        os.execv(sys.executable, [sys.executable, "-u", "-m", "openclimb.engines.slurm", *place])


def _run_again() -> None:
    _ask("scontrol", "requeue", os.environ["SLURM_JOB_ID"])


def _root(folder: Path) -> Path:
    """Return the folder of the workspace that a folder is in, or itself where it is in none."""
    return next((one for one in (folder, *folder.parents) if (one / "climb.toml").is_file()), folder)


def _kind(settings: EngineSettings, resources: Resources) -> Kind:
    return Kind(
        gpus=1 if resources.gpus and settings.gpus else 0,
        cpus=max(settings.cpus, resources.cpus),
        memory_mb=max(1, round(1024 * (resources.memory_gb or settings.memory_gb))),
        minutes=max(1, round(resources.minutes or settings.minutes)),
        partition=settings.partition,
        account=settings.account,
        lines=settings.lines,
        setup=settings.setup,
    )


def _parameters(kind: Kind, name: str) -> dict[str, Any]:
    """Return what submitit writes into the script of a job."""
    threads = [f"export {setting}={kind.cpus}" for setting in THREAD_SETTINGS]
    more: dict[str, Any] = {"requeue": True, "signal": f"USR1@{min(NOTICE, 15 * kind.minutes)}"}
    return {
        "job_name": name,
        "time": kind.minutes,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": kind.cpus,
        "mem": f"{kind.memory_mb}M",
        "gpus_per_node": kind.gpus or None,
        "partition": kind.partition or None,
        "account": kind.account or None,
        "setup": [*kind.setup, *threads, "export TOKENIZERS_PARALLELISM=false"],
        "wckey": None,
        "array_parallelism": 1_000_000,
        "stderr_to_stdout": True,
        "additional_parameters": more | _options(kind.lines),
    }


def _options(lines: Sequence[str]) -> dict[str, Any]:
    """Return the options in engine.lines. Raises ConfigError for what is none, or is ours."""
    found = dict[str, Any]()
    for line in lines:
        option = OPTION.fullmatch(line.strip())
        if option is None:
            raise ConfigError(f"engine.lines: '{line}' is no option of sbatch", "write it as --name=value or --name")
        if option[1] in OURS:
            raise ConfigError(f"engine.lines: --{option[1]} is set by openclimb", "take it out")
        found[option[1]] = True if option[2] is None else option[2]
    return found


def _refused(said: str) -> OpenclimbError:
    """Return the error for a submission that Slurm did not take."""
    last = masked_words([said.strip().rpartition("\n")[2]])[0]
    fix = "correct [engine] in climb.toml: partition, account, minutes, memory_gb, gpus, lines"
    if re.search(r"(?i)limit|MaxSubmit|QOS", said):
        fix = "ask for fewer or smaller jobs: jobs, minutes or memory_gb in [engine]"
    if re.search(r"(?i)contact|connect|communicat|timed out", said):
        fix = "see that Slurm answers here: sinfo; then run again, which goes on from here"
    return OpenclimbError(f"sbatch did not take the jobs: {last}", fix)


def _most_in_array() -> int:
    """Return how many jobs an array of this site may have."""
    said = _ask("scontrol", "show", "config") or ""
    found = re.search(r"(?m)^MaxArraySize\s*=\s*(\d+)", said)
    return max(1, int(found[1])) if found else 1000


def _ask(*command: str) -> str | None:
    """Return what a command of Slurm says, or None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@contextlib.contextmanager
def _outside_of_job() -> Iterator[None]:
    """Hide what the job that this process runs in says of itself: sbatch would take it for settings of new ones."""
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")) and name != "SLURM_CONF"
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2] == "gpu")
