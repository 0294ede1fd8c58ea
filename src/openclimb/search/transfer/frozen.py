"""The untouched domains as one frozen group: the search weighs the group and the changed domains, and nothing else.

Inside the group the domains keep the ratios of the old answer (mixture reuse: Olmix, 2602.12237), so that a search over
many domains of which few changed has few dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from openclimb.config.schema import ConstraintsSettings
from openclimb.errors import ConfigError
from openclimb.mixture import Domain, Weights
from openclimb.search.acquisition.spec import SearchSpec

GROUP = "untouched"


@dataclass(frozen=True)
class FrozenGroup:
    """What the search weighs in place of the domains."""

    spec: SearchSpec
    expand: Weights  # (n_searched, n_domains)
    reduce: Weights  # (n_domains, n_searched)


def frozen_group(spec: SearchSpec, untouched: Mapping[int, int], answer: Weights) -> FrozenGroup | None:
    """Return the group of the untouched domains (new index → old index) and the changed ones beside it.

    `answer` (n_old,) has the ratios. The group's cap is the largest weight at which none of its domains breaks its own.
    None where fewer than two domains are untouched or the old answer has no weight in them: nothing moves as one.
    Raises ConfigError for constraints that the group cannot keep.
    """
    domains = spec.domains
    inside = sorted(untouched)
    raw = np.array([answer[untouched[i]] for i in inside])
    if len(inside) < 2 or raw.sum() <= 0 or len(inside) == len(domains):
        return None
    changed = [i for i in range(len(domains)) if i not in untouched]
    ratios = dict(zip(inside, (raw / raw.sum()).tolist(), strict=True))
    name = GROUP
    while name in {domain.name for domain in domains}:
        name += "+"
    used = {i: ratio for i, ratio in ratios.items() if ratio > 0}
    cap = min(1.0, *(domains[i].cap / ratio for i, ratio in used.items()))
    group = Domain(name, sum(domains[i].n_tokens for i in inside), cap)
    n = len(domains)
    expand, reduce = np.zeros((1 + len(changed), n)), np.zeros((n, 1 + len(changed)))
    expand[0, inside] = raw / raw.sum()
    reduce[inside, 0] = 1.0
    for j, i in enumerate(changed, 1):
        expand[j, i] = reduce[i, j] = 1.0
    names = {domains[i].name: ratio for i, ratio in ratios.items()}
    constraints = _constraints(spec.constraints, name, names)
    searched = (group, *(domains[i] for i in changed))
    return FrozenGroup(replace(spec, domains=searched, constraints=constraints), expand, reduce)


def _constraints(given: ConstraintsSettings, group: str, ratios: Mapping[str, float]) -> ConstraintsSettings:
    """Return the constraints on the group that its domains' own ones amount to."""
    floors = [_share("floor", name, value, ratios[name]) for name, value in given.floor.items() if name in ratios]
    caps = [value / ratios[name] for name, value in given.cap.items() if ratios.get(name, 0.0) > 0]
    rest = {
        kind: {name: value for name, value in getattr(given, kind).items() if name not in ratios}
        for kind in ("floor", "cap")
    }
    floor = max(floors, default=0.0)
    cap = min(caps, default=1.0)
    if floor > cap + 1e-9 or floor > 1.0:
        raise ConfigError(
            f"the old answer's ratios need a weight of {floor:.3g} for the untouched domains, and leave {cap:.3g}",
            'set search.transfer = "free", or loosen [constraints] in climb.toml',
        )
    if floor > 0:
        rest["floor"][group] = floor
    if cap < 1:
        rest["cap"][group] = max(cap, floor)
    n_used = sum(ratio > 0 for ratio in ratios.values())
    most = given.most_domains and max(1, given.most_domains - n_used + 1)
    if given.most_domains and given.most_domains < n_used:
        raise ConfigError(
            f"the old answer has {n_used} of the untouched domains, more than most_domains = {given.most_domains}",
            'set search.transfer = "free", or raise constraints.most_domains',
        )
    return ConstraintsSettings(**rest, groups=_groups(given, group, ratios), most_domains=most)


def _share(kind: str, name: str, value: float, ratio: float) -> float:
    """Return the weight of the group at which a domain of it has `value`."""
    if value <= 0:
        return 0.0
    if ratio <= 0:
        raise ConfigError(
            f"constraints.{kind} wants {value:g} of '{name}', which has no weight in the old answer",
            'set search.transfer = "free": a group keeps the ratios of the old answer',
        )
    return value / ratio


def _groups(given: ConstraintsSettings, group: str, ratios: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    groups = {}
    for text, ends in given.groups.items():
        members = [name.strip() for name in text.split("+")]
        inside = [name for name in members if name in ratios]
        if inside and len(inside) < len(ratios):
            raise ConfigError(
                f"constraints.groups: '{text}' cuts through the untouched domains, which move as one",
                'set search.transfer = "free"',
            )
        others = [name for name in members if name not in ratios]
        groups["+".join([group, *others] if inside else members)] = ends
    return groups
