"""What is searched: over which domains, what is predicted from what, and what mixtures and scores must keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from openclimb.config.schema import Config, ConstraintsSettings, SearchSettings, TasksSettings
from openclimb.mixture import Domain
from openclimb.search.space.region import Region, by_name, region_of

Goals = Mapping[str, Mapping[str, float]]  # goal → task → weight


@dataclass(frozen=True)
class SearchSpec:
    """What proposers, predictors and baselines are asked for, besides the observations."""

    domains: tuple[Domain, ...]
    predictor: str = "auto"
    proposer: str = "climb"
    task_weights: Mapping[str, float] = field(default_factory=dict)  # in the objective; a task that is absent has 1
    constraints: ConstraintsSettings = field(default_factory=ConstraintsSettings)  # besides the caps
    thresholds: Mapping[str, float] = field(default_factory=dict)  # task → threshold of the answer
    goals: Goals = field(default_factory=dict)  # of a front

    @property
    def region(self) -> Region:
        """The mixtures that may be proposed. Raises DomainError when there are none."""
        return region_of(self.domains, self.constraints)

    def by_name(self) -> tuple["SearchSpec", list[int]]:
        """Return the same with the domains by name, and where each domain of this one stands there."""
        ordered, back = by_name(self.domains)
        return replace(self, domains=tuple(ordered)), back


def make_spec(
    domains: Sequence[Domain],
    search: SearchSettings,
    task_weights: Mapping[str, float] | None = None,
    constraints: ConstraintsSettings | None = None,
    thresholds: Mapping[str, float] | None = None,
    goals: Goals | None = None,
) -> SearchSpec:
    """Return the spec of a search over these domains by the settings of [search]."""
    return SearchSpec(
        tuple(domains),
        search.predictor,
        search.proposer,
        dict(task_weights or {}),
        constraints or ConstraintsSettings(),
        dict(thresholds or {}),
        goals or {},
    )


def spec_of(config: Config, domains: Sequence[Domain], task_weights: Mapping[str, float] | None = None) -> SearchSpec:
    """Return the spec by the settings of a workspace; `task_weights` None: those of the settings."""
    tasks = config.tasks
    goals = {name: {task: tasks.weights.get(task, 1.0) for task in members} for name, members in tasks.goals.items()}
    weights = settings_weights(tasks) if task_weights is None else task_weights
    return make_spec(domains, config.search, weights, config.constraints, tasks.thresholds, goals)


def settings_weights(tasks: TasksSettings) -> dict[str, float]:
    """Return the tasks' weights in the objective: a task with a threshold has none unless the settings give it one."""
    return {**dict.fromkeys(tasks.thresholds, 0.0), **tasks.weights}
