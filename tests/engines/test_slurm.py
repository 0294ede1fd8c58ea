"""The engine `slurm` on a real Slurm of two nodes. Marked `slurm`: run by `make test-slurm`, which starts one."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openclimb.cli.main import main
from openclimb.config.schema import EngineSettings
from openclimb.engines import slurm
from openclimb.engines.engine import Resources
from openclimb.engines.slurm import SlurmEngine
from openclimb.errors import OpenclimbError
from openclimb.testing.contracts import check_engine
from openclimb.testing.fixtures import make_tiny_workspace
from openclimb.workspace.files import file_checksum

ROOT = Path(__file__).parent.parent.parent
OWN = EngineSettings(jobs=2, memory_gb=1.0)
FUNCTIONS = """
import os, signal, time
from pathlib import Path
from openclimb.engines import interruption

def see(_):
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"], os.environ["SLURM_JOB_ID"]

def save(place):
    if Path(place, "saved").exists():
        return os.environ["SLURM_JOB_ID"]
    Path(place, os.environ["SLURM_JOB_ID"] + ".begun").touch()
    with interruption.postponed():
        while not interruption.asked():
            time.sleep(0.01)
        Path(place, "saved").touch()
        interruption.check()

def embed(texts):
    import numpy as np
    time.sleep(0.5)
    vectors = np.array([[len(text), text.count("e"), text.count(" ")] for text in texts], dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
"""
DRIVER = (
    "import sys; from openclimb.engines.spool import drive; drive.LOST_AFTER = 8.0;"
    "from openclimb.corpus.reading import units; units.UNIT_BYTES = 30_000;"
    "from openclimb.export import dataset; dataset.export.__defaults__ = (50_000,);"
    "from openclimb.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
TOKENS = "100K"
WHERE = {  # a moment → a file that is there then, below the workspace
    "labels": "labels.partial/.jobs/map-*/running/*",
    "trials": "trials/.jobs/map-*/running/*",
    "export": "data.partial/.jobs/map-*/running/*",
}
DONE = {  # a moment → files that are finished then, below the workspace; the last folder or two say which
    "labels": "labels*/unit-*.parquet",
    "trials": "trials/*/scores.json",
    "export": "data.partial/pieces*/unit-*.parquet",
}

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both nodes, with nothing in the queue."""
    (tmp_path / "worked.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = os.pathsep.join(one for one in (str(tmp_path), os.environ.get("PYTHONPATH", "")) if one)
    monkeypatch.setenv("PYTHONPATH", path)
    sys.modules.pop("worked", None)
    yield
    subprocess.run(["scancel", "--user=root"], check=False)
    revive()
    wait_for(lambda: not said("squeue", "-h") and said("sinfo", "-h", "-t", "idle", "-o", "%D") == "2", 90)


def worked(name: str) -> Callable[[object], object]:
    import importlib

    return getattr(importlib.import_module("worked"), name)  # type: ignore[no-any-return]


def test_it_is_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_engine(lambda: SlurmEngine(OWN))


def test_jobs_that_need_a_gpu_have_one_and_others_see_none(tmp_path: Path) -> None:
    engine = SlurmEngine(EngineSettings(jobs=1, memory_gb=1.0, gpus=1.0))
    assert engine.gpus == 1
    ((_, without),) = engine.map(worked("see"), [0], folder=tmp_path)
    assert without[:2] == ("", "1")
    said("scancel", "--user=root")
    ((_, with_one),) = engine.map(worked("see"), [0], Resources(gpus=0.25, cpus=1), folder=tmp_path)
    assert with_one[0] in ("0", "1")


def test_an_array_over_the_limit_of_the_site_is_split(tmp_path: Path) -> None:
    notes: list[str] = []
    engine = SlurmEngine(EngineSettings(jobs=6, memory_gb=1.0), notes.append)
    limit = slurm._most_in_array()
    assert len(list(engine.map(worked("see"), list(range(12)), folder=tmp_path))) == 12
    jobs = next(note for note in notes if "submitted" in note)
    assert jobs.startswith("6 jobs submitted to Slurm: ")
    assert jobs.count(",") == -(-6 // limit) - 1


def test_what_is_told_of_its_time_limit_saves_and_goes_on_in_another_job(tmp_path: Path) -> None:
    notes = list[str]()
    engine = SlurmEngine(EngineSettings(jobs=1, memory_gb=1.0), notes.append)
    teller = threading.Thread(daemon=True, target=lambda: said("scancel", "--signal=USR1", begun_job(tmp_path)))
    teller.start()
    ((_, job),) = engine.map(worked("save"), [str(tmp_path)], folder=tmp_path)
    assert (tmp_path / "saved").exists()
    assert job != begun_job(tmp_path)
    assert sum("submitted" in note for note in notes) == 2
    assert not any("is gone" in note for note in notes)  # no death


def test_without_a_driver_a_job_at_its_time_limit_is_queued_again_and_the_next_driver_finds_it(tmp_path: Path) -> None:
    engine = SlurmEngine(EngineSettings(jobs=1, memory_gb=1.0))
    if not (driver := os.fork()):
        list(engine.map(worked("save"), [str(tmp_path)], folder=tmp_path))
        os._exit(0)
    job = begun_job(tmp_path)
    os.kill(driver, signal.SIGKILL)
    os.waitpid(driver, 0)
    said("scancel", "--signal=USR1", job)
    wait_for(lambda: said("squeue", "-h", "-j", job, "-o", "%t") == "PD")
    assert (tmp_path / "saved").exists()
    assert len(list(engine.map(worked("save"), [str(tmp_path)], folder=tmp_path))) == 1


TRAINER = """
import json, os, pathlib
asked = json.loads(pathlib.Path(os.environ["CLIMB_TRIAL"]).read_text())
assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1", os.environ["CUDA_VISIBLE_DEVICES"]
(pathlib.Path(asked["output"]) / "job").write_text(os.environ["SLURM_JOB_ID"])
(pathlib.Path(asked["output"]) / "scores.json").write_text(json.dumps({"loss": -asked["mixture"]["web"]}))
"""


def test_trials_on_several_gpus_are_commands_that_ask_slurm_for_them(tmp_path: Path) -> None:
    (tmp_path / "domains.csv").write_text("name,tokens\nweb,1000\ncode,1000\n")
    trainer, run = tmp_path / "train.py", tmp_path / "run"
    trainer.write_text(TRAINER)
    settings = {
        "objective.command": f"srun --gres=gpu:2 {sys.executable} {trainer}",
        "objective.parallel": "2",
        "search.trials": "[3]",
        "selection.finalists": "1",
        "selection.seeds": "2",
    }
    sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    by_hand = ["--domains-file", str(tmp_path / "domains.csv"), "--target-tokens", "4K"]
    assert main(["init", str(run), *by_hand, *sets]) == 0
    assert main(["run", str(run), "--quiet"]) == 0
    jobs = [path.read_text() for path in (run / "trials").rglob("job")]
    assert len(set(jobs)) == len(jobs) >= 3


def begun_job(place: Path) -> str:
    wait_for(lambda: list(place.glob("*.begun")))
    return next(place.glob("*.begun")).stem


def test_jobs_that_cannot_start_are_told_with_what_they_wrote_without_secrets(tmp_path: Path) -> None:
    setup = ("echo no module here, token=hf_abcdefghijklmnopqrst >&2", "exit 3")
    engine = SlurmEngine(EngineSettings(jobs=1, memory_gb=1.0, setup=setup))
    with pytest.raises(OpenclimbError, match="3 jobs ended before they could work") as caught:
        list(engine.map(worked("see"), [1], folder=tmp_path))
    assert "no module here" in caught.value.message
    assert "hf_abc" not in caught.value.message
    assert "engine.setup" in caught.value.fix


def test_what_slurm_does_not_take_is_told(tmp_path: Path) -> None:
    for settings, said_so in ((EngineSettings(partition="none"), "partition"), (EngineSettings(memory_gb=99_000), "")):
        with pytest.raises(OpenclimbError, match=f"sbatch did not take the jobs: .*{said_so}"):
            list(SlurmEngine(settings).map(worked("see"), [1], folder=tmp_path))


def test_the_example_is_a_job_that_slurm_would_take(tmp_path: Path) -> None:
    example = ROOT / "examples" / "slurm.sh"
    subprocess.run(["bash", "-n", str(example)], check=True)
    subprocess.run(["sbatch", "--test-only", "--mem=1G", str(example), str(tmp_path)], check=True)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path, tiny_tasks: Path) -> dict[str, str]:
    """What one machine makes."""
    base = tmp_path_factory.mktemp("local")
    (base / "worked.py").write_text(FUNCTIONS)
    place = Workplace(base, tiny_corpus, tiny_tasks, "local")
    place.env["PYTHONPATH"] = os.pathsep.join((str(base), os.environ.get("PYTHONPATH", "")))
    for command in ("run", "export"):
        assert place.start(command).wait() == 0
    return place.made()


class Workplace:
    """A workspace whose units take a while, and its export."""

    def __init__(self, base: Path, corpus: Path, tasks: Path, engine: str) -> None:
        sections = {"run": {"engine": engine, "workers": 1}, "engine": {"jobs": 2, "memory_gb": 1.5}}
        slow = {"embed": {"embedder": "worked:embed"}, "proxy": {"token_budget": 65536}}
        few = {"search": {"trials": [4, 2]}, "selection": {"finalists": 1, "seeds": 2}}
        self.root = make_tiny_workspace(base / "run", corpus, tasks, **sections, **slow, **few)
        self.env = dict(os.environ)

    def start(self, command: str) -> subprocess.Popen[bytes]:
        out = self.root / "data"
        more = {"run": [], "export": ["--tokens", TOKENS, "--out", str(out)]}[command]
        arguments = [sys.executable, "-c", DRIVER, command, str(self.root), *more, "--quiet"]
        with open(self.root / f"{command}.log", "ab") as log:
            return subprocess.Popen(arguments, env=self.env, stdout=log, stderr=log)

    def wait_until(self, moment: str, driver: subprocess.Popen[bytes]) -> None:
        """Wait until workers are at it. Fails where the command ends before."""
        wait_for(lambda: driver.poll() is not None or list(self.root.glob(WHERE[moment])), 200, 0.005)
        assert driver.poll() is None, (self.root / "run.log").read_text()

    def files(self, moment: str) -> dict[str, int]:
        """What is finished: a name → the inode of its file, which a second file of the name would not have."""
        found = {}
        for path in self.root.glob(DONE[moment]):
            with contextlib.suppress(FileNotFoundError):  # the folder got its last name
                found["/".join(path.parts[-2:]).replace(".partial", "")] = path.stat().st_ino
        return found

    def made(self) -> dict[str, str]:
        files = [self.root / "mixture" / name for name in ("mixture.json", "mixture.csv")]
        files += sorted(path for path in (self.root / "data").rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): file_checksum(path) for path in files if path.name != "record.json"}

    def spools(self) -> list[Path]:
        return list(self.root.rglob(".jobs/map-*"))


@pytest.mark.parametrize("moment", ["labels", "trials", "export"])
def test_a_node_that_is_lost_changes_no_byte(
    moment: str, tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, local: dict[str, str]
) -> None:
    place = Workplace(tmp_path, tiny_corpus, tiny_tasks, "slurm")
    for command in ("run", "export"):
        driver = place.start(command)
        done, seen = set[str](), dict[str, set[int]]()
        if (moment == "export") == (command == "export"):
            place.wait_until(moment, driver)
            while driver.poll() is None and not done:
                done = set(place.files(moment))
                time.sleep(0.005)
            kill_node("n2")
            while driver.poll() is None:
                for name, inode in place.files(moment).items():
                    seen.setdefault(name, set()).add(inode)
                time.sleep(0.02)
            assert done
        assert driver.wait(300) == 0, (place.root / f"{command}.log").read_text()
        revive()
        assert [name for name in done if len(seen[name]) > 1] == []  # what was done is not done again
    assert place.made() == local
    assert not place.spools()


def test_a_driver_that_is_killed_and_started_again_redoes_nothing_that_was_done(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, local: dict[str, str]
) -> None:
    place = Workplace(tmp_path, tiny_corpus, tiny_tasks, "slurm")
    driver = place.start("run")
    place.wait_until("labels", driver)
    driver.kill()
    driver.wait()
    units = place.root / "labels.partial"
    wait_for(lambda: not list(place.root.glob("labels.partial/.jobs/map-*/todo/*")), 120)  # workers go on
    wait_for(lambda: not list(place.root.glob(WHERE["labels"])), 120)
    done = {path.name: path.stat().st_mtime_ns for path in units.glob("unit-*.parquet")}
    assert len(done) > 3
    driver = place.start("run")
    place.wait_until("trials", driver)
    driver.kill()
    driver.wait()
    assert {name: (place.root / "labels" / name).stat().st_mtime_ns for name in done} == done
    for command in ("run", "export"):
        assert place.start(command).wait(300) == 0, (place.root / f"{command}.log").read_text()
    assert place.made() == local
    assert not place.spools()


@pytest.mark.parametrize("cancel", [False, True])
def test_jobs_go_on_after_ctrl_c_unless_asked_to_end(
    cancel: bool, tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path
) -> None:
    place = Workplace(tmp_path, tiny_corpus, tiny_tasks, "slurm")
    config = place.root / "climb.toml"
    if cancel:
        text = config.read_text()
        assert "\ncancel = false" in text
        config.write_text(text.replace("\ncancel = false", "\ncancel = true"))
    driver = place.start("run")
    place.wait_until("labels", driver)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(60) == 130
    if cancel:
        wait_for(lambda: not said("squeue", "-h"), 60)
        assert list(place.root.glob("labels.partial/.jobs/map-*/todo/*"))  # what was not done waits for the next run
    else:
        assert said("squeue", "-h")
        wait_for(lambda: not list(place.root.glob("labels.partial/.jobs/map-*/todo/*")), 120)


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def folder() -> Path:
    return Path(os.environ["SLURM_CONF"]).parent


def kill_node(name: str) -> None:
    """Kill a node's daemon, and all that runs on it."""
    daemons = {}
    for path in folder().glob("slurmd_*.pid"):
        daemons[path.stem.removeprefix("slurmd_")] = int(path.read_text())
    steps = [pid for pid in pids() if node_of(pid) == name]
    for pid in [daemons[name], *steps]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def node_of(pid: int) -> str:
    """Return the node that a process of a job runs on, "" for others."""
    try:
        if b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return ""
        names = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((one.decode().partition("=")[2] for one in names if one.startswith(b"SLURMD_NODENAME=")), "")


def revive() -> None:
    """Start the daemons of nodes that are gone."""
    for path in folder().glob("slurmd_*.pid"):
        name = path.stem.removeprefix("slurmd_")
        if not Path(f"/proc/{path.read_text().strip()}").exists():
            subprocess.run(["slurmd", "-N", name, "-f", os.environ["SLURM_CONF"]], check=True)
            said("scontrol", "update", f"nodename={name}", "state=resume")


def wait_for(ready: Callable[[], object], seconds: float = 60.0, pause: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(pause)
