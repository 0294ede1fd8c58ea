"""Constrained domains for property tests (hypothesis), and the check that mixtures keep the constraints."""

import dataclasses

import numpy as np
from hypothesis import strategies as st

from openclimb.config.schema import ConstraintsSettings
from openclimb.mixture import Domain, Weights

shares = st.floats(0.0, 1.0, allow_subnormal=False)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Domain], ConstraintsSettings]:
    """Return domains and constraints that a hidden mixture meets, some of them tightly."""
    d = draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hidden = rng.dirichlet(np.full(d, 0.5))
    n_used = draw(st.integers(1, d))
    hidden[np.argsort(-hidden)[n_used:]] = 0.0
    hidden /= hidden.sum()
    slack = [draw(shares) for _ in range(3)]
    domains = [Domain(f"d{i:02d}", 1 + int(rng.integers(1, 1000)), 1.0) for i in range(d)]
    if draw(st.booleans()):  # caps from repetitions
        domains = [
            dataclasses.replace(one, cap=float(min(1.0, hidden[i] + slack[0] * rng.random() + 1e-6)))
            for i, one in enumerate(domains)
        ]
        short = 1.0 - sum(one.cap for one in domains)
        domains = [dataclasses.replace(one, cap=min(1.0, one.cap + max(0.0, short))) for one in domains]
    names = [one.name for one in domains]
    some = rng.permutation(d)[: draw(st.integers(0, min(3, d)))]
    floor = {names[i]: float(hidden[i] * slack[1]) for i in some}
    cap = {names[i]: float(min(1.0, hidden[i] + slack[2] * 0.5)) for i in rng.permutation(d)[: draw(st.integers(0, 2))]}
    for i in rng.permutation(d)[: draw(st.integers(0, 1))]:  # a fixed weight
        floor[names[i]] = cap[names[i]] = float(hidden[i])
    groups: dict[str, tuple[float, ...]] = {}
    for _ in range(draw(st.integers(0, 3))):
        members = rng.permutation(d)[: draw(st.integers(1, d))]
        total, wide = min(1.0, float(hidden[members].sum())), draw(st.sampled_from([0.0, 0.05, 0.5]))
        groups["+".join(names[i] for i in members)] = (max(0.0, total - wide), min(1.0, total + wide))
    most = draw(st.sampled_from([0, n_used, min(d, n_used + 1)]))
    return domains, ConstraintsSettings(floor, cap, groups, most)


def holds(weights: Weights, domains: list[Domain], constraints: ConstraintsSettings) -> None:
    """Check the rows against the constraints as they are written, not as the region reads them."""
    at = {domain.name: i for i, domain in enumerate(domains)}
    assert np.isfinite(weights).all()
    assert np.abs(weights.sum(1) - 1.0).max() < 2e-6
    assert (weights >= 0).all()
    assert (weights <= np.array([domain.cap for domain in domains]) + 2e-6).all()
    for name, value in constraints.floor.items():
        assert (weights[:, at[name]] >= value - 2e-6).all()
    for name, value in constraints.cap.items():
        assert (weights[:, at[name]] <= value + 2e-6).all()
    for text, (low, high) in constraints.groups.items():
        sums = weights[:, [at[name] for name in text.split("+")]].sum(1)
        assert (sums >= low - 2e-6).all()
        assert (sums <= high + 2e-6).all()
    if constraints.most_domains:
        assert ((weights > 0).sum(1) <= constraints.most_domains).all()
