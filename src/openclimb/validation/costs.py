"""What an ablation or a scaling run will take, before it begins: trials and hours, with the rates of `climb plan`."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from openclimb.config.schema import Config
from openclimb.planning.cost import Job, rows_of, trial_rows
from openclimb.planning.machine import machine_of
from openclimb.planning.plan import make_plan, read_proxy
from openclimb.planning.work import batches
from openclimb.tasks.items import check_task, task_files

SEARCH = ("replicates", "search", "selection", "predictions")  # rows of a plan that are of the stage mixture


@dataclass(frozen=True)
class Cost:
    """Trials at most, and hours on this machine as it is set up in [run]."""

    trials: int = 0
    hours: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.trials + other.trials, self.hours + other.hours)


class Costs:
    """Costs with other settings, by the sizes of one workspace: its corpus, domains and tasks are looked at once."""

    def __init__(self, root: Path, config: Config) -> None:
        external = config.objective.external and not config.tasks.paths
        files = {} if external else task_files(config.tasks)
        tasks = {name: check_task(name, path, config.tasks) for name, path in files.items()}
        quiet = replace(config, tasks=replace(config.tasks, contamination="off"))  # a plan would look for it
        self.job: Job = make_plan(root, quiet, tasks, machine_of(config.run.workers, config.run.device)).job

    def of_run(self, config: Config, stages: Collection[str]) -> Cost:
        """Return what `climb run` with these settings takes for these stages."""
        job = replace(self.job, config=config, proxy=read_proxy(config), batches=batches(config))
        rows = [row for row in rows_of(job) if ("mixture" if row.stage in SEARCH else row.stage) in stages]
        return Cost(sum(row.trials for row in rows), sum(row.hours for row in rows))

    def of_targets(self, target: Config, n: int) -> Cost:
        """Return what n targets take that run beside each other and are scored on search and report items."""
        job = replace(self.job, config=target, proxy=read_proxy(target), batches={"selection": (n,)})
        return Cost(n, sum(row.hours for row in trial_rows(job)))
