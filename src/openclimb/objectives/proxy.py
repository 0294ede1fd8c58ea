"""The local proxy as an objective: one process a core, or stacked on a GPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from openclimb.config.schema import ProxySettings, RunSettings, TasksSettings
from openclimb.engines.engine import Engine, Resources
from openclimb.errors import ConfigError
from openclimb.objectives.base import Work
from openclimb.progress import silent
from openclimb.proxy.checkpoint import shaped
from openclimb.proxy.train import Job, plan_stack, run_stack
from openclimb.workspace.trials import Outcome

MOST_TOGETHER = (
    64  # trials that are handed to a GPU of another machine at once; it trains them in as many stacks as fit
)


@dataclass(frozen=True)
class LocalProxy:
    """Trains a small model on each trial's mixture and scores it on the tasks."""

    tokens: Path
    proxy: ProxySettings
    tasks: TasksSettings
    where: RunSettings
    parts: tuple[str, ...]  # of the tasks that are scored: "search", or "search" and "report"
    note: Callable[[str], None] = silent

    def work(self, n_waiting: int, engine: Engine, /) -> Work:
        """Return how trials are run: on a CPU one a process and core, on a GPU as many as its memory holds.

        Several GPUs share the trials. Those of other machines find out there how many fit. Raises ConfigError where
        run.device asks for GPUs and the engine has none.
        """
        proxy, device = shaped(self.proxy), self.where.device
        if not engine.here:
            if device == "cuda" and not engine.gpus:
                raise ConfigError(
                    "run.device is 'cuda' and workers have no GPU",
                    "set gpus = 1 in [engine], or device = 'cpu' in [run]",
                )
            device, size = ("cuda", 0) if engine.gpus and device != "cpu" else ("cpu", 1)
        else:
            device, size = plan_stack(device, n_waiting, proxy, self.tokens)
        job = Job(self.tokens, proxy, self.tasks, self.parts, device, self.where, stack=size)
        if device == "cpu":
            return Work(partial(_run, job))
        share = -(-n_waiting // max(1, engine.gpus))
        together = min(share, size or MOST_TOGETHER)
        if engine.gpus > 1 or not engine.here:
            return Work(partial(_run, replace(job, stack=0)), together, Resources(gpus=1))
        return Work(partial(_run, replace(job, note=self.note)), size, Resources(gpus=1))  # in this process


def _run(job: Job, folders: Sequence[Path]) -> list[Outcome]:
    found = run_stack(folders, job)
    return [found[folder] for folder in folders]
