"""What is asked of mixtures besides the caps: constraints on weights, least scores of tasks, goals of a front."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from openclimb.settings import Config, ConstraintsSettings


@dataclass(frozen=True)
class Required:
    """What every mixture, or the score of the answer, must keep."""

    constraints: ConstraintsSettings = field(default_factory=ConstraintsSettings)
    at_least: Mapping[str, float] = field(default_factory=dict)  # task → least score
    goals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # goal → task → weight, for a front

    def task_weights(self, given: Mapping[str, float]) -> dict[str, float]:
        """Return the tasks' weights in the objective: a task with a least score has none unless it is given one."""
        return {**dict.fromkeys(self.at_least, 0.0), **given}


def required_of(config: Config) -> Required:
    """Return what the settings require."""
    tasks = config.tasks
    goals = {name: {task: tasks.weights.get(task, 1.0) for task in members} for name, members in tasks.goals.items()}
    return Required(config.constraints, tasks.at_least, goals)
