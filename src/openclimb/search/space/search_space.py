"""The domains that a search weighs, and what is known of their mixtures besides this workspace's trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from openclimb.mixture import Domain, Weights
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.space.region import natural_mixture, uniform_mixture
from openclimb.workspace.observations import Observation, observed
from openclimb.workspace.trials import Trial


@dataclass(frozen=True)
class SearchSpace:
    """How the domains that the search weighs stand to the workspace's own: here they are the same.

    A search that another workspace's trials inform has one of its own (`search/transfer/carry.py`).
    """

    domains: tuple[Domain, ...]  # the workspace's
    spec: SearchSpec  # over the searched domains
    low_fidelity: tuple[Observation, ...] = ()  # over the workspace's domains

    @property
    def whole(self) -> "SearchSpace":
        """The space in which every mixture over the domains can be expressed, such as the natural one."""
        return self

    @property
    def described(self) -> str:
        """What informs this search besides its own trials, in a sentence; "" where nothing does."""
        return ""

    def weighing(self, task_weights: Mapping[str, float]) -> "SearchSpace":
        """Return the same with other weights of the tasks in the objective."""
        return replace(self, spec=replace(self.spec, task_weights=dict(task_weights)))

    def with_low_fidelity(self, observations: Sequence[Observation]) -> "SearchSpace":
        """Return the same with low-fidelity scores over the workspace's domains."""
        return replace(self, low_fidelity=tuple(observations))

    def observations(self, trials: Sequence[Trial]) -> list[Observation]:
        """Return all that is known over the searched domains."""
        return [*observed(trials), *self.low_fidelity]

    def expanded(self, weights: Weights) -> Weights:
        """Return mixtures over the domains (n, n_domains) from searched ones (n, n_searched)."""
        return np.asarray(weights, dtype=np.float64)

    def reduced(self, weights: Weights) -> Weights:
        """Return mixtures over the domains (n, n_domains) as searched ones (n, n_searched)."""
        return np.asarray(weights, dtype=np.float64)

    def expanded_finalists(self, found: Sequence[tuple[str, tuple[float, ...]]]) -> list[tuple[str, tuple[float, ...]]]:
        """Return the finalists over the domains; the natural and the uniform mixture are those of all domains."""
        constraints = self.whole.spec.constraints
        beside = {
            "natural": natural_mixture(self.domains, constraints),
            "uniform": uniform_mixture(self.domains, constraints),
        }
        rows = [(role, beside[role] if role in beside else self.expanded(np.array(row))) for role, row in found]
        return [(role, tuple(row.tolist())) for role, row in rows]

    def expanded_front(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return a front (`search/acquisition/front.py`) as one over the domains."""
        names = [domain.name for domain in self.domains]
        points = [{**point, "weights": {name: point["weights"][name] for name in names}} for point in found["points"]]
        return {**found, "points": points}
