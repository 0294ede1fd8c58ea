"""The region of allowed mixtures: caps from repetitions and the user's [constraints], and how a draw is bent into it.

A mixture is allowed when floor ≤ weight ≤ cap for each domain, the sum over each group of domains is within its limits,
at most so many domains have any weight, and the weights sum to 1. Without groups and such a limit (a plain region) all
of it is `sample.py`; a group's limits are met by scaling its members and the others in turn (iterative proportional
fitting, which keeps proportions and zeros where it can), a number of domains by keeping the largest weights.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.config.schema import ConstraintsSettings
from openclimb.errors import ConfigError, DomainError, nearest
from openclimb.mixture import Domain, Weights, natural, uniform
from openclimb.search.space.feasibility import Limit, clash, solve
from openclimb.search.space.simplex import GRID, bounds, draw_raw, fill, project, round_weights

TOLERANCE = 1e-6  # of every limit; rounding and bending keep to less, so that no later sum steps over it
ROUNDED, BENT = 0.5e-6, 1e-7
ROUNDS = 30  # of scaling groups in turn; more than one are needed where groups overlap
N_ANCHORS = 16  # allowed mixtures at corners of the region, for draws that scaling does not bring in
FINEST = 4  # times that the grid is made ten times finer for a mixture that a coarser one takes out of its groups


@dataclass(frozen=True, eq=False)
class Region:
    """The allowed mixtures over some domains."""

    share: Weights  # the natural mixture (n_domains,); it may itself not be allowed
    floors: Weights
    caps: Weights
    members: NDArray[np.bool_]  # (n_groups, n_domains)
    low: Weights  # (n_groups,)
    high: Weights
    most: int  # domains with any weight
    limits: tuple[Limit, ...]

    @property
    def plain(self) -> bool:
        """Whether floors and caps are all there is."""
        return not len(self.members) and self.most >= len(self.share)

    @functools.cached_property
    def anchors(self) -> Weights:
        """Allowed mixtures (N_ANCHORS, n_domains) at corners of the region."""
        rng = np.random.default_rng(0)
        d = len(self.share)
        rows = [solve(self.limits, d, rng.standard_exponential(d)) for _ in range(N_ANCHORS)]
        corners = np.array([row for row in rows if row is not None])
        caps = np.where(corners > 0, self.caps, 0.0) if self.most < d else np.broadcast_to(self.caps, corners.shape)
        return _scale_groups(fill(corners, self.floors, caps), self, caps)  # the solver's own errors are larger


def region_of(domains: Sequence[Domain], constraints: ConstraintsSettings | None = None) -> Region:
    """Return the region of the domains' caps and the user's constraints.

    Raises ConfigError for a constraint on an unknown domain, DomainError naming the constraints that clash.
    """
    given = constraints or ConstraintsSettings()
    pairs = [tuple(one.items()) for one in (given.floor, given.cap, given.groups)]
    return _region(tuple(domains), *pairs, given.most_domains)


@functools.lru_cache(maxsize=8)
def _region(
    domains: tuple[Domain, ...],
    floor: tuple[tuple[str, float], ...],
    cap: tuple[tuple[str, float], ...],
    groups: tuple[tuple[str, tuple[float, ...]], ...],
    most_domains: int,
) -> Region:
    _, repeated = bounds(domains)
    names = [domain.name for domain in domains]
    d = len(names)
    one_of = np.eye(d, dtype=bool)
    limits = [
        Limit(f"at most {cap:.3g} of {name} by repetitions", one_of[i], 0.0, cap, "repetitions")
        for i, (name, cap) in enumerate(zip(names, repeated.tolist(), strict=True))
        if cap < 1
    ]
    given = [("floor", name, value, 1.0) for name, value in floor]
    given += [("cap", name, 0.0, value) for name, value in cap]
    for what, name, low, high in given:
        value = high if what == "cap" else low
        limits.append(Limit(f"{what}.{name} = {value:g}", one_of[_find(what, name, names)], low, high))
    floors, caps = np.zeros(d), np.ones(d)
    for one in limits:
        floors[one.members] = np.maximum(floors[one.members], one.low)
        caps[one.members] = np.minimum(caps[one.members], one.high)
    grouped = [_group(text, ends, names) for text, ends in groups]
    limits += grouped
    most = min(most_domains or d, d)
    if most < d:
        limits.append(Limit(f"most_domains = {most}", np.ones(d, dtype=bool), 0.0, float(most), "most"))
    region = Region(
        natural(domains),
        floors,
        np.maximum(floors, caps),
        np.array([one.members for one in grouped]).reshape(len(grouped), d),
        np.array([one.low for one in grouped]),
        np.array([one.high for one in grouped]),
        most,
        tuple(limits),
    )
    if (floor or cap or not region.plain) and solve(limits, d) is None:
        raise DomainError(
            f"no mixture meets the constraints: {clash(limits, d)} clash",
            "loosen one of them under [constraints] in climb.toml",
        )
    return region


def bend(raw: Weights, region: Region) -> Weights:
    """Return allowed mixtures in place of the rows of `raw` (non-negative), near them. Shape as given."""
    rows = np.atleast_2d(fill(raw, region.floors, region.caps))
    if not region.plain and len(rows):
        rows = _scale_groups(rows, region, np.broadcast_to(region.caps, rows.shape))
        if region.most < rows.shape[1]:
            caps = _kept(rows, region)
            rows = _scale_groups(fill(np.where(caps > 0, rows, 0.0), region.floors, caps), region, caps)
        out = ~allowed(rows, region, BENT)
        if out.any():
            rows[out] = _pull_in(rows[out], region)
    return rows.reshape(np.shape(raw))


def allowed(weights: Weights, region: Region, within: float = TOLERANCE) -> NDArray[np.bool_]:
    """Return whether each row (n, n_domains) is in the region, within a tolerance."""
    sums = weights @ region.members.T
    inside = ((weights >= region.floors - within) & (weights <= region.caps + within)).all(1)
    inside &= ((sums >= region.low - within) & (sums <= region.high + within)).all(1)
    return inside & (np.abs(weights.sum(1) - 1.0) <= within) & ((weights > 0).sum(1) <= region.most)


def rounded(weights: Weights, region: Region) -> Weights:
    """Return the allowed mixtures on the grid (`sample.round_weights`); finer where a group's limits need it."""
    if region.plain:
        return round_weights(weights, region.floors, region.caps)
    rows = []
    for row in np.atleast_2d(weights):
        caps = np.where((row > 0) | (region.floors > 0), region.caps, 0.0) if region.most < len(row) else region.caps
        tries = [round_weights(row, region.floors, caps, GRID)]
        while not allowed(tries[-1][None], region, ROUNDED)[0] and len(tries) <= FINEST:
            tries.append(round_weights(row, region.floors, caps, GRID * 10 ** len(tries)))
        rows.append(tries[-1] if allowed(tries[-1][None], region, ROUNDED)[0] else row)
    return np.array(rows).reshape(np.shape(weights))


def draw_in(n: int, region: Region, rng: Generator, near: Weights | None = None) -> Weights:
    """Return n allowed mixtures, broad and sparse, and local ones where `near` is given. Not rounded."""
    return bend(draw_raw(n, region.share, rng, near), region)


def by_name(domains: Sequence[Domain]) -> tuple[list[Domain], list[int]]:
    """Return the domains by name, and for each given one its place there: draws do not depend on the order given."""
    order = sorted(range(len(domains)), key=lambda i: domains[i].name)
    back = sorted(range(len(domains)), key=lambda i: order[i])
    return [domains[i] for i in order], back


def _find(what: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ConfigError(
            f"constraints.{what} names '{name}', which is no domain{nearest(name, names)}",
            f"domains are: {', '.join(names)}",
        )
    return names.index(name)


def _group(text: str, ends: Sequence[float], names: Sequence[str]) -> Limit:
    """Return the limit of a group written as "a+b" = [low, high]; a domain's own name may hold a plus."""
    members = np.zeros(len(names), dtype=bool)
    pieces = text.split("+")
    while pieces:
        ends_at = [n for n in range(len(pieces), 0, -1) if "+".join(pieces[:n]).strip() in names]
        n = ends_at[0] if ends_at else 1  # the longest name that it begins with
        members[_find("groups", "+".join(pieces[:n]).strip(), names)] = True
        pieces = pieces[n:]
    if len(ends) != 2 or ends[0] > ends[1]:
        raise ConfigError(f"constraints.groups: '{text}' = {list(ends)} is no range", f'write "{text}" = [low, high]')
    return Limit(f'groups."{text}" = [{ends[0]:g}, {ends[1]:g}]', members, ends[0], ends[1])


def _scale_groups(rows: Weights, region: Region, caps: Weights) -> Weights:
    """Return the rows with every group's sum in its limits, where that can be reached under `caps` (n, n_domains)."""
    rows = rows.copy()
    for _ in range(ROUNDS):
        changed = False
        for members, low, high in zip(region.members, region.low, region.high, strict=True):
            others = ~members
            least = np.maximum(low, np.maximum(region.floors[members].sum(), 1.0 - caps[:, others].sum(1)))
            most = np.minimum(high, np.minimum(caps[:, members].sum(1), 1.0 - region.floors[others].sum()))
            inside = rows[:, members].sum(1)
            wanted = np.clip(inside, np.minimum(least, most), most)
            off = np.abs(wanted - inside) > 1e-12
            if off.any():
                changed = True
                for part, total in ((members, wanted[off]), (others, 1.0 - wanted[off])):
                    chosen = np.ix_(off, part)
                    rows[chosen] = _fill_to(rows[chosen], total[:, None], region.floors[part], caps[chosen])
        if not changed:
            break
    return rows


def _fill_to(raw: Weights, total: Weights, floors: Weights, caps: Weights) -> Weights:
    """As `fill`, with rows that sum to `total` (n, 1)."""
    scale = np.maximum(total, 1e-9)
    filled: Weights = fill(raw, floors / scale, caps / scale) * total
    return filled


def _kept(rows: Weights, region: Region) -> Weights:
    """Return the caps (n, n_domains) of the rows' largest weights, `region.most` of each, and 0 for the others.

    Domains with a floor are kept. Where the caps of those kept do not reach 1, domains with larger caps replace them.
    """
    forced = region.floors > 0
    rank = np.argsort(np.argsort(-(rows + 2.0 * forced), axis=1, kind="stable"), axis=1)
    kept = rank < region.most
    for _ in range(region.most):
        short = np.flatnonzero((kept * region.caps).sum(1) < 1.0 - 1e-12)
        if not len(short):
            break
        least = np.where(kept[short] & ~forced, region.caps, np.inf).argmin(1)
        most = np.where(kept[short], -np.inf, region.caps).argmax(1)
        kept[short, least], kept[short, most] = forced[least], True
    kept[kept.sum(1) > region.most] = rank[kept.sum(1) > region.most] < region.most
    return np.where(kept, region.caps, 0.0)


def _pull_in(rows: Weights, region: Region) -> Weights:
    """Return each row drawn toward an allowed mixture as far as it must be."""
    if region.most < rows.shape[1]:
        goal = region.anchors[np.abs(rows[:, None] - region.anchors[None]).sum(2).argmin(1)]
        caps = np.where(goal > 0, region.caps, 0.0)
        rows = _scale_groups(fill(np.where(goal > 0, rows, 0.0), region.floors, caps), region, caps)
    else:
        goal = np.broadcast_to(region.anchors.mean(0), rows.shape)
    sums, there = rows @ region.members.T, goal @ region.members.T
    over = np.maximum(sums - region.high, region.low - sums)
    room = np.where(sums > region.high, region.high - there, there - region.low)
    step = np.where(over > 0, over / np.maximum(over + np.maximum(room, 0.0), 1e-300), 0.0)
    share = step.max(1, initial=0.0)[:, None]
    pulled: Weights = (1.0 - share) * rows + share * goal
    return pulled


def natural_mixture(domains: Sequence[Domain], constraints: ConstraintsSettings | None = None) -> Weights:
    """Return the natural mixture (n_domains,), bent where constraints forbid it; it breaks no cap."""
    ordered, back = by_name(domains)
    region = region_of(ordered, constraints)
    if allowed(region.share[None], region)[0]:
        return region.share[back]
    return bend(region.share, region)[back]


def uniform_mixture(domains: Sequence[Domain], constraints: ConstraintsSettings | None = None) -> Weights:
    """Return equal weights (n_domains,), or an allowed mixture near them (without groups: the nearest)."""
    ordered, back = by_name(domains)
    region = region_of(ordered, constraints)
    equal = uniform(ordered)
    return (project(equal, region.floors, region.caps) if region.plain else bend(equal, region))[back]
