"""Old trials in a new search: what was learnt over other domains, carried to the present ones.

A mixture over old domains is a mixture over new ones as far as tokens tell: a domain that was split gives its weight to
the parts in proportion to their tokens, domains that were joined add theirs, a new domain without an old part has none.
What of an old domain is in no new one keeps a column of its own, with cap 0: the predictor may learn what that weight
was worth, and no proposal has any. The old scores speak of shape, not of level: with the first scores of the new search
each task's difference in level is estimated and taken out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Domain, Weights
from openclimb.search.baselines import natural_mixture, uniform_mixture
from openclimb.search.block import Block, as_block
from openclimb.search.domain_map import DomainMap
from openclimb.search.gp import GaussianProcess
from openclimb.search.hint import ROLE as HINT
from openclimb.search.loop import one_thread
from openclimb.search.required import Required
from openclimb.trials import Trial

Floats = NDArray[np.float64]

ROLE = "old"  # of a trial that comes from another workspace; its number is negative
GONE = "gone: "  # begins the name of the column of what is in no new domain
LEAST_GONE = 0.02  # a smaller part of an old domain that is in no new one is left out, and the rest renormalised
MOST_BLURRED = 0.5  # an old trial whose mixture is blurred by more than this (total variation) is left out
LEVEL_SD = 1.0  # prior deviation of the difference in level, in deviations of the old scores


@dataclass(frozen=True)
class OldTrial:
    """A told trial of another workspace."""

    source: str  # of each workspace whose level may differ
    number: int
    seed: int
    weights: tuple[float, ...]  # over the old domains
    scores: Mapping[str, float]
    blurred: float = 0.0  # when it came from a still older workspace: how badly that one's domains told its mixture


@dataclass(frozen=True)
class Reuse:
    """The domains that the search weighs, how they stand to the workspace's own, and the old trials over them."""

    domains: tuple[Domain, ...]  # the workspace's
    searched: tuple[Domain, ...]
    expand: Weights  # (n_searched, n_domains): a searched mixture times this is a mixture over the domains
    reduce: Weights  # (n_domains, n_searched)
    required: Required
    old: tuple[Trial, ...] = ()
    sources: tuple[str, ...] = ()  # of each old trial
    blurred: tuple[float, ...] = ()
    named: tuple[str, ...] = ()  # tasks that the settings give a weight or a least score
    said: str = ""  # which old trials inform the search, in plain words
    free: "Reuse | None" = None  # where untouched domains move as one: the same old trials, every weight by itself
    hints: tuple[Trial, ...] = ()  # cheap scores (`search/hint.py`); a block has none

    def informed(self, told: Sequence[Trial]) -> list[Trial]:
        """Return the trials over the searched domains, and the old ones with their level put right.

        Only tasks that both have count. As long as nothing is told and the old trials lack a task that the settings
        name, they stand back.
        """
        if self.plain:
            return [*told, *self.hints]
        own = [self._searched_trial(trial) for trial in (*told, *self.hints)]
        scored = [t for t in own if _has_scores(t) and t.domains == self._names and t.role != HINT]
        tasks = sorted({task for trial in scored for task in trial.scores})
        if not tasks and not set(self.named) <= {task for trial in self.old for task in trial.scores}:
            return own
        carried = [_only(trial, tasks) for trial in self.old] if tasks else list(self.old)
        found = []
        for source in dict.fromkeys(self.sources):
            rows = [trial for trial, one in zip(carried, self.sources, strict=True) if one == source and trial.scores]
            shift = level_shift(rows, scored)
            found += [
                replace(trial, scores={task: score + shift.get(task, 0.0) for task, score in trial.scores.items()})
                for trial in rows
            ]
        return own + found

    @property
    def plain(self) -> bool:
        """Whether there are no old trials and the search weighs the domains themselves."""
        return not self.old and self.searched == self.domains

    @property
    def whole(self) -> "Reuse":
        """What forecasts any mixture over the domains, also one that a block cannot have, such as the natural one."""
        return self.free or self

    def expanded(self, weights: Weights) -> Weights:
        """Return mixtures over the domains (n, n_domains) from searched ones (n, n_searched)."""
        rows: Weights = np.asarray(weights) @ self.expand
        return rows

    def reduced(self, weights: Weights) -> Weights:
        """Return mixtures over the domains (n, n_domains) as searched ones (n, n_searched)."""
        rows: Weights = np.asarray(weights) @ self.reduce
        return rows

    def expanded_finalists(self, found: Sequence[tuple[str, tuple[float, ...]]]) -> list[tuple[str, tuple[float, ...]]]:
        """Return the finalists over the domains; the natural and the uniform mixture are those of all domains."""
        if self.plain:
            return list(found)
        constraints = self.whole.required.constraints
        beside = {
            "natural": natural_mixture(self.domains, constraints),
            "uniform": uniform_mixture(self.domains, constraints),
        }
        expanded = [(role, beside[role] if role in beside else self.expanded(np.array(row))) for role, row in found]
        return [(role, tuple(row.tolist())) for role, row in expanded]

    def own_diagnostics(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return diagnostics in which single trials are the new search's; the fit and its errors are those of all."""
        if self.plain:
            return dict(found)
        forecast = [row for row in found["forecast"] if row["trial"] > 0]
        return {
            **found,
            "trials": [number for number in found["trials"] if number > 0],
            "old_trials": sum(number < 0 for number in found["trials"]),
            "forecast": forecast,
            "best_measured": max((row["measured"] for row in forecast), default=found["best_measured"]),
        }

    def own_front(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return a front (`search/front.py`) as one over the domains."""
        names = [domain.name for domain in self.domains]
        points = [
            {
                **point,
                "weights": {name: point["weights"][name] for name in names},
                "nearest_trial": self.label(point["nearest_trial"]),
            }
            for point in found["points"]
        ]
        return {**found, "points": points}

    def saying(self, said: str) -> "Reuse":
        """Return the same with that sentence."""
        return replace(self, said=said, free=self.free and replace(self.free, said=said))

    def hinted(self, hints: Sequence[Trial]) -> "Reuse":
        """Return the same with hints over the workspace's domains; a block cannot tell most of them and has none."""
        if self.free:
            return replace(self, free=self.free.hinted(hints))
        return replace(self, hints=tuple(hints))

    def label(self, number: int) -> int | str:
        """Return a trial's number; of an old one the workspace and the number that it had there."""
        return next((trial.identity for trial in self.old if trial.number == number), number)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(domain.name for domain in self.searched)

    def _searched_trial(self, trial: Trial) -> Trial:
        weight = trial.mixture.as_dict()
        if set(weight) != {domain.name for domain in self.domains}:
            return trial  # the search says that it does not fit
        row = np.array([weight[domain.name] for domain in self.domains])
        return replace(trial, domains=self._names, weights=tuple(self.reduced(row).tolist()))


def without_old(domains: Sequence[Domain], required: Required) -> Reuse:
    """Return the search without old trials: it weighs the domains themselves."""
    same = np.eye(len(domains))
    return Reuse(tuple(domains), tuple(domains), same, same, required)


def reuse_old(
    trials: Sequence[OldTrial],
    domain_map: DomainMap,
    answer: Weights,
    domains: Sequence[Domain],
    required: Required,
    mode: str = "free",
    named: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> Reuse:
    """Return the search that old trials inform. `answer` (n_old,): the old answer, whose ratios a block keeps.

    In mode `block` the untouched domains move as one, so that the search has as many dimensions as there are changed
    domains; where there are fewer than two untouched ones the mode is `free`. Raises ConfigError for constraints that a
    block cannot keep. `named` are the tasks that the settings name, `tasks` those of the new search where they are
    known.
    """
    block = as_block(domains, required, domain_map.untouched, answer) if mode == "block" else None
    free = None
    if block:
        free = reuse_old(trials, domain_map, answer, domains, required, "free", named, tasks)
    else:
        n = len(domains)
        block = Block(tuple(domains), np.eye(n), np.eye(n), required)
    weights = np.array([trial.weights for trial in trials]).reshape(len(trials), len(domain_map.old))
    mapped, blurred, gone = carry(weights, domain_map, block)
    before = np.array([trial.blurred for trial in trials])
    blurred = 1.0 - (1.0 - blurred) * (1.0 - before)
    ghosts = tuple(Domain(GONE + domain_map.old[i], 1, 0.0) for i in gone)
    searched = (*block.domains, *ghosts)
    pad = np.zeros((len(domains), len(ghosts)))
    told = [bool(not tasks or set(trial.scores) & set(tasks)) for trial in trials]
    kept = [i for i in range(len(trials)) if blurred[i] <= MOST_BLURRED and told[i]]
    names = tuple(domain.name for domain in searched)
    return Reuse(
        tuple(domains),
        searched,
        np.concatenate([block.expand, pad.T]),
        np.concatenate([block.reduce, pad], axis=1),
        block.required,
        tuple(_trial(-1 - i, trials[i], names, mapped[i], tasks) for i in kept),
        tuple(trials[i].source for i in kept),
        tuple(blurred[kept].tolist()),
        tuple(named),
        free=free,
    )


def carry(weights: Weights, domain_map: DomainMap, block: Block) -> tuple[Weights, Floats, list[int]]:
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
    mapped = np.concatenate([weights @ forward @ block.reduce, weights @ columns], axis=1)
    total = mapped.sum(1, keepdims=True)
    mapped = mapped / np.maximum(total, 1e-300)
    known = mapped[:, : len(block.domains)] @ block.expand
    back = known @ domain_map.backward
    back[:, gone] += mapped[:, len(block.domains) :]
    blurred = 0.5 * (np.abs(weights - back).sum(1) + np.maximum(1.0 - back.sum(1), 0.0))
    return mapped, np.where(total[:, 0] > 0, np.clip(blurred, 0.0, 1.0), 1.0), gone


@one_thread
def level_shift(old: Sequence[Trial], own: Sequence[Trial]) -> dict[str, float]:
    """Return for each task what to add to old scores: the difference in level that the new search's scores show.

    A Gaussian process on the old trials forecasts the new ones; the shift is the generalised least-squares mean of what
    is left (Rasmussen and Williams 2006, section 2.7), so that trials far from all old ones, whose scores may differ
    for other reasons, count little and once. Its prior is normal round 0 with LEVEL_SD.
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
    old: Sequence[Trial], own: Sequence[Trial], tasks: Sequence[str]
) -> list[tuple[tuple[tuple[Sequence[Trial], tuple[bool, ...]], ...], list[str]]]:
    """Return groups of tasks that the same trials have, each with its trials: they share one fit."""
    groups: dict[tuple[tuple[bool, ...], tuple[bool, ...]], list[str]] = {}
    for task in tasks:
        has = (tuple(_known(trial, task) for trial in old), tuple(_known(trial, task) for trial in own))
        if any(has[0]) and any(has[1]):
            groups.setdefault(has, []).append(task)
    return [(((old, first), (own, second)), columns) for (first, second), columns in groups.items()]


def _known(trial: Trial, task: str) -> bool:
    return bool(np.isfinite(trial.scores.get(task, np.nan)))


def _weights(trials: Sequence[Trial]) -> Weights:
    return np.array([trial.weights for trial in trials])


def _scores(trials: Sequence[Trial], tasks: Sequence[str]) -> Floats:
    return np.array([[trial.scores[task] for task in tasks] for trial in trials])


def _has_scores(trial: Trial) -> bool:
    return any(np.isfinite(value) for value in trial.scores.values())


def _only(trial: Trial, tasks: Sequence[str]) -> Trial:
    return replace(trial, scores={task: score for task, score in trial.scores.items() if task in tasks})


def _trial(number: int, old: OldTrial, domains: tuple[str, ...], weights: Weights, tasks: Sequence[str]) -> Trial:
    return Trial(
        number=number,
        role=ROLE,
        iteration=0,
        domains=domains,
        weights=tuple(weights.tolist()),
        seed=old.seed,
        token_budget=0,
        data=old.source,
        proposer=ROLE,
        identity=f"{old.source} {old.number}",
        scores={task: score for task, score in old.scores.items() if not tasks or task in tasks},
    )
