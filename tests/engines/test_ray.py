"""The engine `ray` on a cluster of two nodes: deaths, lost nodes, GPUs, signals, and the same bytes as local."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="needs the extra ray")

from openclimb.cli.main import main  # noqa: E402
from openclimb.config.schema import EngineSettings, RunSettings  # noqa: E402
from openclimb.engines.engine import DeviceLost, Resources, engine_of  # noqa: E402
from openclimb.engines.ray import RayEngine  # noqa: E402
from openclimb.engines.ray_worker import Shape, start  # noqa: E402
from openclimb.errors import ConfigError, InputError, MissingDependency  # noqa: E402
from openclimb.testing.contracts import check_engine  # noqa: E402
from openclimb.testing.fixtures import complaint, make_tiny_workspace  # noqa: E402

pytestmark = [
    pytest.mark.ray,
    # Of Ray's own: its processes and pipes are closed when they are collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STORE = 100_000_000  # bytes, of the object store of a node
SMALL = Shape(cpus=1, gpus=0, memory=500_000_000)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, the second with stand-in GPUs; this process is connected, as that of a user who uses Ray already."""
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE}
    found = Cluster(initialize_head=True, head_node_args=head)
    found.add_node(num_cpus=2, num_gpus=2, object_store_memory=STORE)
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()
    signal.signal(signal.SIGTERM, before)


Make = Callable[..., RayEngine]


@pytest.fixture
def make(cluster: Any) -> Iterator[Make]:
    """Return a function that gives an engine with these settings; what it is told goes into its list `said`."""
    made: list[RayEngine] = []

    def one(on_gpus: bool = True, **settings: Any) -> RayEngine:
        said: list[str] = []
        own = EngineSettings(**{"jobs": 2, "memory_gb": 0.5, **settings})
        engine = RayEngine(own, on_gpus=on_gpus, note=said.append)
        engine.said = said  # type: ignore[attr-defined]
        made.append(engine)
        return engine

    yield one
    for engine in made:
        engine.release()
    assert ray.is_initialized(), "a Ray that was there before us goes on"


def describe(_: int) -> tuple[int, str | None, str | None]:
    return os.getpid(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("CUDA_VISIBLE_DEVICES")


def complain(x: int) -> int:
    if x == 3:
        raise InputError("item 3 is bad", "mend it")
    return int("four") if x == 4 else x


def die(x: int) -> int:
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def end_once(place: Path, number: int, x: int) -> int:
    """Send this worker a signal, the first time with 1."""
    mark = place / f"ended-{number}"
    if x == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), number)
    return x


def fail_on_first_gpu(place: Path, x: int) -> str:
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    if gpu == "0":
        (place / f"failed-{x}").touch()
        raise DeviceLost("uncorrectable ECC error")
    while len(list(place.iterdir())) < 2:  # until the other one has failed twice
        time.sleep(0.02)
    return gpu


def note_and_wait(place: Path, x: int) -> str:
    """Say on which node the call is; the first call on a node waits until it is told to go on."""
    node = ray.get_runtime_context().get_node_id()
    (place / f"{x}-{node}").touch()
    while not (place / "go").exists():
        time.sleep(0.02)
    return node


def count(place: Path, x: int) -> int:
    (place / str(x)).touch()
    time.sleep(0.3)
    return x


def twice(x: np.ndarray) -> np.ndarray:
    x *= 2
    return x


def not_sent(_: int) -> Any:
    return lambda: 0


def test_the_contract_of_engines(make: Make) -> None:
    check_engine(make)


def test_workers_have_one_thread_and_no_gpu_and_live_from_map_to_map(make: Make) -> None:
    engine = make()
    found = [result for _, result in engine.map(describe, list(range(20)))]
    again = [result for _, result in engine.map(describe, list(range(20)))]
    pids = {pid for pid, *_ in found}
    assert os.getpid() not in pids
    assert len(pids | {pid for pid, *_ in again}) <= 2  # a second worker may begin late
    assert {tuple(rest) for _, *rest in found} == {("1", "")}


def test_errors_and_results_come_back_whole(make: Make) -> None:
    engine = make()
    with pytest.raises(InputError) as caught:
        list(engine.map(complain, list(range(6))))
    assert (caught.value.message, caught.value.fix) == ("item 3 is bad", "mend it")
    with pytest.raises(ValueError, match="invalid literal") as other:
        list(engine.map(complain, [4]))
    assert "in complain" in other.value.__notes__[0]
    with pytest.raises(TypeError, match="a result cannot be sent"):
        list(engine.map(not_sent, [1]))
    large = np.ones(200_000)  # more than Ray sends inside a message
    ((_, found),) = engine.map(twice, [large])
    found += 1  # not read-only
    assert found.sum() == 600_000


def test_an_item_that_kills_its_worker_is_tried_again_and_then_set_aside(make: Make, tmp_path: Path) -> None:
    engine = make()
    for number in (signal.SIGTERM, signal.SIGKILL):  # SIGTERM to a worker alone: its node is about to end
        assert sorted(engine.map(partial(end_once, tmp_path, number), [0, 1, 2])) == [(0, 0), (1, 1), (2, 2)]
    assert [text for text in engine.said if "on 1 died" in text and "it is tried again" in text]  # type: ignore[attr-defined]
    found = dict(engine.map(die, [0, 1, 2], lost=lambda item, how: how))
    assert (found[0], found[2]) == (0, 2)
    assert found[1].startswith("its worker died 3 times, the last while nothing else ran: ")


@pytest.mark.slow
def test_a_lost_node_costs_what_ran_on_it(cluster: Any, make: Make, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    engine = make(jobs=0)  # a worker on each core, so also on that node
    work = engine.map(partial(note_and_wait, tmp_path), list(range(4)))

    def lose() -> None:
        """Remove the node when it works, then let the others end."""
        while not list(tmp_path.glob(f"*-{node.node_id}")):
            time.sleep(0.02)
        cluster.remove_node(node)
        (tmp_path / "go").touch()

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    found = sorted(work)
    thread.join()
    assert [index for index, _ in found] == list(range(4))
    assert node.node_id not in {where for _, where in found}
    begun = sorted(int(path.name.partition("-")[0]) for path in tmp_path.glob("*-*"))
    redone = [x for x in begun if begun.count(x) > 1]
    assert len(set(redone)) == 1
    assert any("was lost with" in text for text in engine.said)  # type: ignore[attr-defined]


def test_several_workers_share_a_gpu(make: Make) -> None:
    assert make().gpus == 0
    assert make(jobs=0, gpus=1.0).gpus == 2
    assert make(jobs=0, gpus=0.4).gpus == 4
    assert make(jobs=3, gpus=0.25).gpus == 3
    assert make(jobs=0, gpus=1.0, on_gpus=False).gpus == 0
    engine = make(gpus=0.5)
    found = [result for _, result in engine.map(describe, list(range(8)), Resources(gpus=1))]
    assert {gpus for *_, gpus in found} <= {"0", "1"}
    assert [result[2] for _, result in engine.map(describe, [0])] == [""]


@pytest.mark.slow
def test_a_gpu_that_fails_twice_is_left_out(make: Make, tmp_path: Path) -> None:
    engine = make(gpus=1.0)
    work = engine.map(partial(fail_on_first_gpu, tmp_path), list(range(4)), Resources(gpus=1))
    assert [result for _, result in work] == ["1"] * 4
    assert [text for text in engine.said if "failed 2 times and is left out: uncorrectable ECC error" in text]  # type: ignore[attr-defined]


def test_what_has_not_begun_is_cancelled(make: Make, tmp_path: Path) -> None:
    engine = make()
    for _ in engine.map(partial(count, tmp_path), list(range(40))):
        break
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) < 8
    assert dict(engine.map(complain, [1, 2])) == {0: 1, 1: 2}


def test_a_node_that_lacks_the_folder_or_a_module_is_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    assert dict(engine.map(complain, [1, 2], folder=tmp_path)) == {0: 1, 1: 2}
    assert not list(tmp_path.iterdir())
    worker = start(ray, SMALL)
    with pytest.raises(ConfigError, match="does not see the folder") as caught:
        ray.get(worker.actor.begin.remote(pickle.dumps(complain), str(tmp_path), str(tmp_path / "absent" / "mark")))
    assert "docs/clusters.md" in caught.value.cause.fix
    ray.kill(worker.actor)
    (tmp_path / "only_here.py").write_text("def work(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    with pytest.raises(ConfigError, match="has no module only_here"):
        list(engine.map(only_here.work, [1]))


def test_settings_that_do_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ConfigError, match="Ray client"),
        engine_of(RunSettings(engine="ray"), EngineSettings(address="ray://head:10001")),
    ):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency) as caught, engine_of(RunSettings(engine="ray")):
        pass
    assert caught.value.fix == "pip install 'openclimb[ray]'"


STOPPED = """
import sys, time
from pathlib import Path
from openclimb.config.schema import EngineSettings, RunSettings
from openclimb.engines import interruption
from openclimb.engines.engine import engine_of

def work(path):
    Path(path).touch()
    with interruption.postponed():
        while not interruption.asked():
            time.sleep(0.01)
        Path(path + ".saved").touch()
        interruption.check()

if __name__ == "__main__":
    interruption.catch()
    try:
        with engine_of(RunSettings(engine="ray"), EngineSettings(jobs=2, memory_gb=0.5, address=sys.argv[1])) as engine:
            list(engine.map(work, sys.argv[2:]))
    except interruption.Interrupted:
        sys.exit(interruption.EXIT_STATUS)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_signal_to_the_driver_lets_all_workers_save(cluster: Any, number: int, tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(STOPPED)
    marks = [tmp_path / "0", tmp_path / "1"]
    command = [sys.executable, str(script), cluster.address, *map(str, marks), str(tmp_path / "never")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        while not all(mark.exists() for mark in marks):
            assert driver.poll() is None
            time.sleep(0.02)
        driver.send_signal(number)
        error = driver.communicate(timeout=60)[1]
    assert (driver.returncode, error) == (75, "")
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == ["0.saved", "1.saved"]
    assert not (tmp_path / "never").exists()


def test_an_address_without_a_cluster_is_an_error_with_a_fix(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path
) -> None:
    where = {"run": {"engine": "ray"}, "engine": {"address": "127.0.0.1:1"}}
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, **where)
    done = climb("run", str(root), "--quiet")
    assert done.returncode == 1
    assert "engine.address '127.0.0.1:1' cannot be used" in complaint(done.stderr)


def climb(*arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "openclimb.cli.main", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_whole_run_has_the_bytes_of_local(
    cluster: Any, finished: Path, tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path
) -> None:
    where = {"run": {"engine": "ray"}, "engine": {"jobs": 2, "memory_gb": 0.5}}
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, **where)
    assert main(["run", str(root), "--quiet"]) == 0
    for name in ("mixture.json", "mixture.csv"):
        assert (root / "mixture" / name).read_bytes() == (finished / "mixture" / name).read_bytes()


@pytest.mark.slow
def test_trials_are_saved_on_a_signal_and_go_on(
    cluster: Any, tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path
) -> None:
    where = {"run": {"engine": "ray"}, "engine": {"address": cluster.address, "jobs": 2, "memory_gb": 0.5}}
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, proxy={"token_budget": 400_000}, **where)
    line = [sys.executable, "-m", "openclimb.cli.main", "run", str(root), "--quiet"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as driver:
        while len(list(root.glob("trials/*/claim.json"))) < 2:
            assert driver.poll() is None
            time.sleep(0.05)
        time.sleep(2)  # some steps
        driver.terminate()
        assert "run the same command to go on" in driver.communicate(timeout=120)[1]
    assert driver.returncode == 75
    assert len(list(root.glob("trials/*/state.safetensors"))) == 2
    assert not list(root.glob("trials/*/failure.json"))
    assert climb("run", str(root), "--quiet").returncode == 0


@pytest.mark.slow
def test_nodes_and_drivers_may_die_and_the_bytes_are_those_of_local(tmp_path: Path, tiny_tasks: Path) -> None:
    from _engines_ray import broken, place, two_nodes, write_corpus  # workers, which import this file, lack the folder

    corpus = write_corpus(tmp_path / "corpus", files=8, copies=3)
    local = place(tmp_path / "local", corpus, tiny_tasks)
    for command in ("run", "export"):
        local.finish(command)
    with two_nodes() as nodes:
        there = place(tmp_path / "ray", corpus, tiny_tasks, nodes.address)
        losses = broken(there, nodes)
    assert there.made() == local.made()
    assert losses.finished > 5
    assert (losses.again, losses.orphans) == (0, 0)
    assert not list(there.root.rglob(".ray.*"))
