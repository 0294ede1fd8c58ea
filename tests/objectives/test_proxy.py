"""The local proxy as an objective: where its trials run."""

from pathlib import Path

import pytest
import torch

from openclimb.config.schema import ProxySettings, RunSettings, TasksSettings
from openclimb.errors import MissingDependency
from openclimb.objectives.proxy import LocalProxy


def test_on_a_cpu_each_trial_is_a_program_of_its_own(tmp_path: Path) -> None:
    objective = LocalProxy(tmp_path, ProxySettings(), TasksSettings(), RunSettings(device="cpu"), ("search",))
    work = objective.work(10)
    assert (work.together, work.at_once) == (1, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_reported(tmp_path: Path) -> None:
    objective = LocalProxy(tmp_path, ProxySettings(), TasksSettings(), RunSettings(device="cuda"), ("search",))
    with pytest.raises(MissingDependency):
        objective.work(10)
