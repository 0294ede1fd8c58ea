"""The local proxy as an objective: one process a core, or stacked on a GPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from openclimb.config.schema import ProxySettings, RunSettings, TasksSettings
from openclimb.objectives.base import Work
from openclimb.progress import silent
from openclimb.proxy.checkpoint import shaped
from openclimb.proxy.train import Job, plan_stack, run_stack
from openclimb.workspace.trials import Outcome


@dataclass(frozen=True)
class LocalProxy:
    """Trains a small model on each trial's mixture and scores it on the tasks."""

    tokens: Path
    proxy: ProxySettings
    tasks: TasksSettings
    where: RunSettings
    parts: tuple[str, ...]  # of the tasks that are scored: "search", or "search" and "report"
    note: Callable[[str], None] = silent

    def work(self, n_waiting: int, /) -> Work:
        """Return how trials are run: on a CPU one a process and core, on a GPU as many as its memory holds."""
        proxy = shaped(self.proxy)
        device, size = plan_stack(self.where.device, n_waiting, proxy, self.tokens)
        job = Job(self.tokens, proxy, self.tasks, self.parts, device, self.where, stack=size)
        if device != "cpu":  # there another process does the work, which has no view to write to
            job = replace(job, note=self.note)
        return Work(partial(_run, job), size, None if device == "cpu" else 1)


def _run(job: Job, folders: Sequence[Path]) -> list[Outcome]:
    found = run_stack(folders, job)
    return [found[folder] for folder in folders]
