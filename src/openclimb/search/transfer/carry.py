"""Old trials in a new search: what was learnt over other domains, carried to the present ones.

A mixture over old domains is a mixture over new ones as far as tokens tell: a domain that was split gives its weight to
the parts in proportion to their tokens, domains that were joined add theirs, a new domain without an old part has none.
What of an old domain is in no new one keeps a column of its own, with cap 0: the predictor may learn what that weight
was worth, and no proposal has any. The old scores speak of shape, not of level: with the first scores of the new search
each task's difference in level is estimated and taken out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Domain, Weights
from openclimb.search.acquisition.spec import SearchSpec
from openclimb.search.predictors.gp import GaussianProcess
from openclimb.search.propose import one_thread
from openclimb.search.space.search_space import SearchSpace
from openclimb.search.transfer.domain_map import DomainMap
from openclimb.search.transfer.frozen import FrozenGroup, frozen_group
from openclimb.workspace.observations import LOW_FIDELITY, PENDING, TRANSFERRED, Observation
from openclimb.workspace.trials import Trial

Floats = NDArray[np.float64]

GONE = "gone: "  # begins the name of the column of what is in no new domain
LEAST_GONE = 0.02  # a smaller part of an old domain that is in no new one is left out, and the rest renormalised
MOST_BLURRED = 0.5  # an old trial whose mixture is blurred by more than this (total variation) is left out
LEVEL_SD = 1.0  # source deviation of the difference in level, in deviations of the old scores


@dataclass(frozen=True)
class OldTrial:
    """A completed trial of another workspace."""

    source: str  # of each workspace whose level may differ
    number: int
    seed: int
    weights: tuple[float, ...]  # over the old domains
    scores: Mapping[str, float]
    blurred: float = 0.0  # when it came from a still older workspace: how badly that one's domains told its mixture


@dataclass(frozen=True)
class TransferSpace(SearchSpace):
    """A search space with the observations of another workspace, and with weights of its own."""

    expand: Weights = field(default_factory=lambda: np.eye(0))  # (n_searched, n_domains)
    reduce: Weights = field(default_factory=lambda: np.eye(0))  # (n_domains, n_searched)
    old: tuple[Observation, ...] = ()  # over the searched domains
    sources: tuple[str, ...] = ()  # of each old trial: the workspaces whose levels may differ
    blurred: tuple[float, ...] = ()
    named: tuple[str, ...] = ()  # tasks that the settings give a weight or a threshold
    sentence: str = ""  # which old trials inform the search
    free: "TransferSpace | None" = None  # with a frozen group: the same old trials, every weight by itself

    @property
    def whole(self) -> SearchSpace:
        """The space in which every mixture over the domains can be told, also one that a frozen group cannot have."""
        return self.free or self

    @property
    def described(self) -> str:
        """Which old trials inform the search."""
        return self.sentence

    def weighing(self, task_weights: Mapping[str, float]) -> "TransferSpace":
        """Return the same with other weights of the tasks in the objective."""
        spec = replace(self.spec, task_weights=dict(task_weights))
        return replace(self, spec=spec, free=self.free and self.free.weighing(task_weights))

    def with_low_fidelity(self, observations: Sequence[Observation]) -> "TransferSpace":
        """Return the same with low-fidelity scores; a frozen group cannot tell most of them and has none."""
        if self.free:
            return replace(self, free=self.free.with_low_fidelity(observations))
        return replace(self, low_fidelity=tuple(observations))

    def described_as(self, sentence: str) -> "TransferSpace":
        """Return the same with that sentence."""
        return replace(self, sentence=sentence, free=self.free and replace(self.free, sentence=sentence))

    def observations(self, trials: Sequence[Trial]) -> list[Observation]:
        """Return all that is known over the searched domains, old trials with their level corrected.

        Of these only tasks that both have count. As long as no trial has a score and the old ones lack a task that the
        settings name, they stand back.
        """
        own = [self._searched(one) for one in super().observations(trials)]
        scored = [one for one in own if one.source not in (LOW_FIDELITY, PENDING) and one.domains == self._names]
        tasks = sorted({task for one in scored for task in one.scores})
        if not tasks and not set(self.named) <= {task for one in self.old for task in one.scores}:
            return own
        carried = [_only(one, tasks) for one in self.old] if tasks else list(self.old)
        found = []
        for place in dict.fromkeys(self.sources):
            rows = [one for one, source in zip(carried, self.sources, strict=True) if source == place and one.scores]
            shift = level_shift(rows, scored)
            found += [
                replace(one, scores={task: score + shift.get(task, 0.0) for task, score in one.scores.items()})
                for one in rows
            ]
        return own + found

    def expanded(self, weights: Weights) -> Weights:
        """Return mixtures over the domains (n, n_domains) from searched ones (n, n_searched)."""
        rows: Weights = np.asarray(weights) @ self.expand
        return rows

    def reduced(self, weights: Weights) -> Weights:
        """Return mixtures over the domains (n, n_domains) as searched ones (n, n_searched)."""
        rows: Weights = np.asarray(weights) @ self.reduce
        return rows

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(domain.name for domain in self.spec.domains)

    def _searched(self, one: Observation) -> Observation:
        weight = one.mixture.as_dict()
        if set(weight) != {domain.name for domain in self.domains}:
            return one  # the search reports that it does not fit
        row = np.array([weight[domain.name] for domain in self.domains])
        return replace(one, domains=self._names, weights=tuple(self.reduced(row).tolist()))


def transfer_space(
    trials: Sequence[OldTrial],
    domain_map: DomainMap,
    answer: Weights,
    spec: SearchSpec,
    mode: str = "free",
    named: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> TransferSpace:
    """Return the space of the search that `spec` asks for, informed by old trials.

    `answer` (n_old,): the old answer, whose ratios a frozen group keeps. In mode `frozen` the untouched domains move as
    one, so that the search has as many dimensions as there are changed domains; where there are fewer than two
    untouched ones the mode is `free`. Raises ConfigError for constraints that a frozen group cannot keep. `named` are
    the tasks that the settings name, `tasks` those of the new search where they are known.
    """
    group = frozen_group(spec, domain_map.untouched, answer) if mode == "frozen" else None
    free = None
    if group:
        free = transfer_space(trials, domain_map, answer, spec, "free", named, tasks)
    else:
        n = len(spec.domains)
        group = FrozenGroup(spec, np.eye(n), np.eye(n))
    weights = np.array([trial.weights for trial in trials]).reshape(len(trials), len(domain_map.old))
    mapped, blurred, gone = carry(weights, domain_map, group)
    before = np.array([trial.blurred for trial in trials])
    blurred = 1.0 - (1.0 - blurred) * (1.0 - before)
    ghosts = tuple(Domain(GONE + domain_map.old[i], 1, 0.0) for i in gone)
    searched = (*group.spec.domains, *ghosts)
    pad = np.zeros((len(spec.domains), len(ghosts)))
    shared = [bool(not tasks or set(trial.scores) & set(tasks)) for trial in trials]
    kept = [i for i in range(len(trials)) if blurred[i] <= MOST_BLURRED and shared[i]]
    names = tuple(domain.name for domain in searched)
    return TransferSpace(
        spec.domains,
        replace(group.spec, domains=searched),
        expand=np.concatenate([group.expand, pad.T]),
        reduce=np.concatenate([group.reduce, pad], axis=1),
        old=tuple(_observation(trials[i], names, mapped[i], tasks) for i in kept),
        sources=tuple(trials[i].source for i in kept),
        blurred=tuple(blurred[kept].tolist()),
        named=tuple(named),
        free=free,
    )


def carry(weights: Weights, domain_map: DomainMap, group: FrozenGroup) -> tuple[Weights, Floats, list[int]]:
    """Return old mixtures (n, n_old) as mixtures over the searched domains and what is gone, and how blurred each is.

    Blurred: the total variation between the old mixture and what comes back when the carried one is read as a mixture
    over the old domains. Splits and parts that are gone blur nothing; domains that were joined do, by how far their
    weights were from their tokens' proportion, and so do domains that were cut anew. Also returned: the old domains
    that have a column for what is gone, in the order of the columns.
    """
    forward, rest = domain_map.forward, domain_map.gone
    gone = [i for i in range(len(rest)) if rest[i] >= LEAST_GONE and weights[:, i].any()]
    columns = np.zeros((len(rest), len(gone)))
    columns[gone, range(len(gone))] = rest[gone]
    mapped = np.concatenate([weights @ forward @ group.reduce, weights @ columns], axis=1)
    total = mapped.sum(1, keepdims=True)
    mapped = mapped / np.maximum(total, 1e-300)
    known = mapped[:, : len(group.spec.domains)] @ group.expand
    back = known @ domain_map.backward
    back[:, gone] += mapped[:, len(group.spec.domains) :]
    blurred = 0.5 * (np.abs(weights - back).sum(1) + np.maximum(1.0 - back.sum(1), 0.0))
    return mapped, np.where(total[:, 0] > 0, np.clip(blurred, 0.0, 1.0), 1.0), gone


@one_thread
def level_shift(old: Sequence[Observation], own: Sequence[Observation]) -> dict[str, float]:
    """Return for each task what to add to old scores: the difference in level that the new search's scores show.

    A Gaussian process on the old trials predicts the new ones; the shift is the generalised least-squares mean of what
    is left (Rasmussen and Williams 2006, section 2.7), so that trials far from all old ones, whose scores may differ
    for other reasons, count little and once. Its source is normal round 0 with LEVEL_SD.
    """
    tasks = sorted({task for trial in old for task in trial.scores} & {task for trial in own for task in trial.scores})
    shift: dict[str, float] = {}
    for rows, columns in _alike(old, own, tasks):
        before, after = ([trial for trial, one in zip(side, some, strict=True) if one] for side, some in rows)
        process = GaussianProcess(0.5).fit(_weights(before), _scores(before, columns))
        new = _weights(after)
        left = (_scores(after, columns) - process.predict(new)[0]) / process.spread
        covariance = process.covariance(new) + np.exp(2 * process.theta[3]) * np.eye(len(new))
        solved = np.linalg.solve(covariance + 1e-9 * np.eye(len(new)), np.column_stack([np.ones(len(new)), left]))
        level = solved[:, 1:].sum(0) / (solved[:, 0].sum() + LEVEL_SD**-2)
        shift |= dict(zip(columns, (level * process.spread).tolist(), strict=True))
    return shift


def _alike(
    old: Sequence[Observation], own: Sequence[Observation], tasks: Sequence[str]
) -> list[tuple[tuple[tuple[Sequence[Observation], tuple[bool, ...]], ...], list[str]]]:
    """Return groups of tasks that the same trials have, each with its trials: they share one fit."""
    groups: dict[tuple[tuple[bool, ...], tuple[bool, ...]], list[str]] = {}
    for task in tasks:
        has = (tuple(_known(trial, task) for trial in old), tuple(_known(trial, task) for trial in own))
        if any(has[0]) and any(has[1]):
            groups.setdefault(has, []).append(task)
    return [(((old, first), (own, second)), columns) for (first, second), columns in groups.items()]


def _known(trial: Observation, task: str) -> bool:
    return bool(np.isfinite(trial.scores.get(task, np.nan)))


def _weights(trials: Sequence[Observation]) -> Weights:
    return np.array([trial.weights for trial in trials])


def _scores(trials: Sequence[Observation], tasks: Sequence[str]) -> Floats:
    return np.array([[trial.scores[task] for task in tasks] for trial in trials])


def _only(trial: Observation, tasks: Sequence[str]) -> Observation:
    return replace(trial, scores={task: score for task, score in trial.scores.items() if task in tasks})


def _observation(old: OldTrial, domains: tuple[str, ...], weights: Weights, tasks: Sequence[str]) -> Observation:
    scores = {task: score for task, score in old.scores.items() if not tasks or task in tasks}
    return Observation(TRANSFERRED, domains, tuple(weights.tolist()), scores, old.seed, f"{old.source} {old.number}")
