"""The engine `slurm` where there is no Slurm: what is missing, which settings do not go together, what jobs ask for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openclimb.config.schema import EngineSettings, RunSettings
from openclimb.engines import slurm
from openclimb.engines.engine import ONE_CORE, Resources
from openclimb.engines.slurm import SlurmEngine, make
from openclimb.errors import ConfigError, MissingDependency


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitit and programs of Slurm's names, so that settings are looked at."""
    pytest.importorskip("submitit")
    for name in ("sbatch", "squeue", "srun", "scontrol"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_without_submitit_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingDependency) as caught:
        make(RunSettings(), EngineSettings(), print)
    assert caught.value.fix == "pip install 'openclimb[slurm]'"


def test_a_machine_without_slurm_is_told(commands: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="this machine has no sbatch"):
        make(RunSettings(), EngineSettings(), print)


@pytest.mark.parametrize(
    ("run", "own", "message"),
    [
        (RunSettings(), EngineSettings(gpus=0.5), "whole GPUs"),
        (RunSettings(device="cuda"), EngineSettings(), "ask for no GPU"),
        (RunSettings(), EngineSettings(lines=("-q high",)), "no option of sbatch"),
        (RunSettings(), EngineSettings(lines=("--array=1-9",)), "--array is set by openclimb"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    commands: None, run: RunSettings, own: EngineSettings, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(run, own, print)
    assert caught.value.fix


def test_only_calls_that_use_a_gpu_ask_for_one() -> None:
    own = EngineSettings(
        gpus=1.0, cpus=2, memory_gb=3.0, minutes=60, account="lab", lines=("--qos=high", "--exclusive")
    )
    assert (SlurmEngine(own).gpus, SlurmEngine(EngineSettings()).gpus) == (8, 0)
    embeds, others = slurm._kind(own, Resources(gpus=0.25)), slurm._kind(own, ONE_CORE)
    assert (embeds.gpus, others.gpus) == (1, 0)
    script = slurm._parameters(embeds, "climb-x")
    assert (script["gpus_per_node"], script["cpus_per_task"], script["mem"], script["time"]) == (1, 2, "3072M", 60)
    assert script["account"] == "lab"
    assert script["additional_parameters"] == {
        "requeue": True,
        "signal": "USR1@90",
        "qos": "high",
        "exclusive": True,
    }
    asks = slurm._kind(own, Resources(cpus=4, memory_gb=9.0, minutes=5))
    assert (asks.cpus, asks.memory_mb, asks.minutes) == (4, 9216, 5)


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("sbatch: error: invalid partition specified: x", "partition, account"),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", "jobs, minutes or memory_gb in [engine]"),
        ("sbatch: error: Unable to contact slurm controller", "sinfo"),
    ],
)
def test_what_slurm_refuses_is_told_with_what_to_do(said: str, fix: str) -> None:
    error = slurm._refused(f"a line before\n{said}\n")
    assert said in error.message
    assert fix in error.fix


def test_a_driver_in_a_job_hides_that_job_from_the_jobs_it_submits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    with slurm._outside_of_job():
        assert "SLURM_CPUS_PER_TASK" not in os.environ
        assert os.environ["SLURM_CONF"] == "/etc/slurm.conf"
    assert os.environ["SLURM_CPUS_PER_TASK"] == "7"


def test_the_example_of_a_driver_as_a_job_is_a_script() -> None:
    example = Path(__file__).parent.parent.parent / "examples" / "slurm.sh"
    subprocess.run(["bash", "-n", str(example)], check=True)
