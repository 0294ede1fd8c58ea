"""Scores of mixtures with their source: all that predictors and proposers learn from.

A trial is what runs; an observation is what was learnt of a mixture, wherever it comes from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from openclimb.mixture import Mixture
from openclimb.workspace.trials import Trial

OWN = "own"  # a trial of this workspace's search
EXTERNAL = "external"  # asked for and completed elsewhere, or imported
TRANSFERRED = "transferred"  # carried over from another workspace
LOW_FIDELITY = "low_fidelity"  # a cheap score
PENDING = "pending"  # asked for and without a score: running, or failed
EXTERNAL_ROLE = "external"  # of a trial that this workspace's search did not ask for


@dataclass(frozen=True)
class Observation:
    """Scores of one mixture, higher is better."""

    source: str
    domains: tuple[str, ...]
    weights: tuple[float, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    name: int | str = 0  # of a trial its number; of a transferred one the workspace and the number there

    @property
    def mixture(self) -> Mixture:
        """The mixture that was scored."""
        return Mixture(self.domains, self.weights)

    @property
    def scored(self) -> bool:
        """Whether any score is a number."""
        return any(np.isfinite(value) for value in self.scores.values())


def observed(trials: Iterable[Trial]) -> list[Observation]:
    """Return what trials of this workspace say."""
    found = []
    for trial in trials:
        done = any(np.isfinite(value) for value in trial.scores.values())
        source = PENDING if not done else EXTERNAL if trial.role == EXTERNAL_ROLE else OWN
        found.append(Observation(source, trial.domains, trial.weights, trial.scores, trial.seed, trial.number))
    return found
