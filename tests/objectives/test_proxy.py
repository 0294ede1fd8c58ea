"""The local proxy as an objective: where its trials run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openclimb.config.schema import ProxySettings, RunSettings, TasksSettings
from openclimb.engines.engine import Resources
from openclimb.engines.local import LocalEngine
from openclimb.errors import ConfigError, MissingDependency
from openclimb.objectives.proxy import LocalProxy


class Elsewhere(LocalEngine):
    """Stands for an engine of other machines that have so many GPUs."""

    here = False

    def __init__(self, gpus: int) -> None:
        super().__init__(1, [str(i) for i in range(gpus)])


def test_on_a_cpu_each_trial_is_a_program_of_its_own(tmp_path: Path) -> None:
    objective = LocalProxy(tmp_path, ProxySettings(), TasksSettings(), RunSettings(device="cpu"), ("search",))
    work = objective.work(10, LocalEngine(2))
    assert (work.together, work.resources) == (1, Resources())


@pytest.mark.parametrize(("gpus", "together"), [(4, 3), (16, 1), (1, 10)])
def test_gpus_of_other_machines_share_the_trials(gpus: int, together: int, tmp_path: Path) -> None:
    objective = LocalProxy(tmp_path, ProxySettings(), TasksSettings(), RunSettings(), ("search",))
    work = objective.work(10, Elsewhere(gpus))
    assert (work.together, work.resources.gpus) == (together, 1)
    work = replace(objective, where=RunSettings(device="cpu")).work(10, Elsewhere(gpus))
    assert (work.together, work.resources) == (1, Resources())


def test_gpus_that_workers_have_not_are_told(tmp_path: Path) -> None:
    objective = LocalProxy(tmp_path, ProxySettings(), TasksSettings(), RunSettings(device="cuda"), ("search",))
    with pytest.raises(ConfigError, match="workers have no GPU"):
        objective.work(10, Elsewhere(0))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_reported(tmp_path: Path) -> None:
    objective = LocalProxy(tmp_path, ProxySettings(), TasksSettings(), RunSettings(device="cuda"), ("search",))
    with pytest.raises(MissingDependency):
        objective.work(10, LocalEngine(2))
