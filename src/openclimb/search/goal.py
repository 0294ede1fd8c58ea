"""The weights of the tasks in the objective, and the replicates of the natural mixture that measure its noise."""

from collections.abc import Sequence

from openclimb import seeds
from openclimb.config.schema import Config
from openclimb.errors import ConfigError
from openclimb.mixture import Domain
from openclimb.search.acquisition.spec import settings_weights
from openclimb.search.space.region import natural_mixture
from openclimb.stats.signal_to_noise import weighed
from openclimb.workspace.trials import Proposal, Trial

ROLE = "replicate"


def check_weighting(config: Config) -> None:
    """Raise ConfigError when tasks are to be weighed by a signal whose noise nothing measures."""
    if config.tasks.weighting == "signal" and config.search.replicates < 2:
        raise ConfigError(
            f"tasks.weighting = 'signal' needs the noise of trials; search.replicates is {config.search.replicates}",
            "set search.replicates to 3 or more",
        )


def replicates(domains: Sequence[Domain], config: Config) -> list[Proposal]:
    """Return the trials of the natural mixture that measure the noise: one a seed."""
    weights = tuple(natural_mixture(domains, config.constraints).tolist())
    fresh = seeds.replicates(config.seed, config.search.replicates)
    return [Proposal(ROLE, 0, weights, seed, ROLE) for seed in fresh]


def goal_of(config: Config, trials: Sequence[Trial]) -> dict[str, float]:
    """Return the tasks' weights in the objective under the settings and, where they ask for it, these trials."""
    given = settings_weights(config.tasks)
    searched = [trial for trial in trials if trial.role == "search"]
    return weighed(given, searched, [trial for trial in trials if trial.role == ROLE], config.tasks.weighting)
