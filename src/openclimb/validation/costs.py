"""What an ablation or a scaling run will take, before it begins: trials and hours, with the rates of `climb plan`."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from openclimb.config.schema import Config
from openclimb.planning.cost import trial_rows
from openclimb.planning.machine import machine_of
from openclimb.planning.plan import Plan, make_plan, read_proxy
from openclimb.tasks.items import check_task, task_files

STAGE_OF = {"replicates": "mixture", "search": "mixture", "selection": "mixture", "predictions": "mixture"}


@dataclass(frozen=True)
class Cost:
    """Trials at most, and hours on this machine as it is set up in [run]."""

    trials: int = 0
    hours: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.trials + other.trials, self.hours + other.hours)


def run_cost(root: Path, config: Config, stages: Collection[str]) -> Cost:
    """Return what `climb run` with these settings takes for these stages, with the sizes of the workspace at `root`."""
    rows = [row for row in _plan(root, config).rows if STAGE_OF.get(row.stage, row.stage) in stages]
    return Cost(sum(row.trials for row in rows), sum(row.hours for row in rows))


def target_cost(root: Path, target: Config, n: int) -> Cost:
    """Return what n targets take that run beside each other and are scored on search and report items."""
    job = replace(_plan(root, target).job, proxy=read_proxy(target), batches={"selection": (n,)})
    return Cost(n, sum(row.hours for row in trial_rows(job)))


def _plan(root: Path, config: Config) -> Plan:
    external = config.objective.external and not config.tasks.paths
    files = {} if external else task_files(config.tasks)
    tasks = {name: check_task(name, path, config.tasks) for name, path in files.items()}
    quiet = replace(config, tasks=replace(config.tasks, contamination="off"))  # it looks into the corpus
    return make_plan(root, quiet, tasks, machine_of(config.run.workers, config.run.device))
