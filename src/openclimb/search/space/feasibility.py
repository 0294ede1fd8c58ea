"""Whether any mixture meets a list of limits, by a mixed-integer programme, and which of them clash."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openclimb.mixture import Weights

SHOWN = 5  # caps from repetitions that a message names one by one
SLIGHT = 1e-9  # limits that meet in one point shall do so in floating point
OPTIMAL, INFEASIBLE = 0, 2  # of scipy.optimize.milp
DUST = 1e-6  # the solver's own tolerance


@dataclass(frozen=True, eq=False)
class Limit:
    """One limit on the sum of some weights, or on how many weights there are, and its name for people."""

    name: str
    members: NDArray[np.bool_]  # (n_domains,)
    low: float
    high: float
    kind: str = "given"  # given | repetitions | most: `high` is the number of weights


def solve(limits: Sequence[Limit], d: int, gain: Weights | None = None) -> Weights | None:
    """Return a mixture (d,) that meets the limits, of the largest weights @ gain, or None where there is none."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    sums = [one for one in limits if one.kind != "most"]
    most = min((one.high for one in limits if one.kind == "most"), default=None)
    n = d if most is None else 2 * d  # weights, then whether each domain has any
    rows = [np.r_[np.ones(d), np.zeros(n - d)], *(np.r_[one.members, np.zeros(n - d)] for one in sums)]
    low = [1.0, *(one.low - SLIGHT for one in sums)]
    high = [1.0, *(one.high + SLIGHT for one in sums)]
    if most is not None:
        # A weight is at most its own cap times whether it is there: with 1 in place of the cap the solver fails where
        # a domain's cap is near its tolerance.
        caps = np.min([np.ones(d), *(np.where(one.members, one.high, 1.0) for one in sums)], axis=0) + SLIGHT
        rows += [np.r_[np.zeros(d), np.ones(d)], *np.hstack([np.eye(d), -np.diag(caps)])]
        low += [0.0, *[-np.inf] * d]
        high += [most, *[0.0] * d]
    for options in ({}, {"presolve": False}):
        found = milp(
            np.zeros(n) if gain is None else np.r_[-gain, np.zeros(n - d)],
            integrality=np.r_[np.zeros(d), np.ones(n - d)],
            bounds=Bounds(0.0, 1.0),
            constraints=LinearConstraint(np.array(rows), low, high),
            options=options,
        )
        if found.status in (OPTIMAL, INFEASIBLE):  # the solver's presolve can fail where limits nearly meet
            break
    if found.x is None:
        return None
    weights = np.where(found.x[:d] > DUST, found.x[:d], 0.0)
    return weights / weights.sum()


def clash(limits: Sequence[Limit], d: int) -> str:
    """Return the names of limits of which each is needed for there to be no mixture (an irreducible set).

    Those from repetitions are let go first, so that they are named only where they matter.
    """
    left = list(limits)
    for one in limits:
        fewer = [other for other in left if other is not one]
        if solve(fewer, d) is None:
            left = fewer
    repeated = [one for one in left if one.kind == "repetitions"]
    names = [one.name for one in left if one.kind != "repetitions"]
    if len(repeated) > SHOWN:
        total = sum(one.high for one in repeated)
        names.append(f"the caps from repetitions of {len(repeated)} domains, which sum to {total:.3g}")
    else:
        names += [one.name for one in repeated]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "they"
