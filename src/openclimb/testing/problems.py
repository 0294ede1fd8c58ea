"""Objectives with a known optimum: where a search can be judged in seconds, without training anything.

Each problem has domains with caps, tasks whose scores follow a law of the mixture, and noise like that of trials.
`simulate` plays the whole search on it; its regret is the best possible objective minus that of the mixture it found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from openclimb.baselines.baseline import answer_of
from openclimb.config.registry import names as built_in
from openclimb.config.schema import SearchSettings
from openclimb.errors import ConfigError, nearest
from openclimb.mixture import Domain, Weights, natural
from openclimb.search.acquisition.spec import SearchSpec, make_spec
from openclimb.search.propose import finalists, next_batch
from openclimb.search.space.simplex import bounds, draw, fill
from openclimb.workspace.observations import OWN, Observation

Floats = NDArray[np.float64]

POLISH_STARTS = 4


@dataclass(frozen=True)
class Problem:
    """A simulated objective: the mean of the tasks' scores, higher is better."""

    name: str
    domains: tuple[Domain, ...]
    score: Callable[[Weights], Floats]  # (n, n_domains) → (n, n_tasks), without noise
    noise: Callable[[Weights], Floats]  # (n, n_domains) → standard deviation of every task's score, (n, 1)
    optimum: Weights  # (n_domains,)

    def objective(self, weights: Weights) -> Floats:
        """Return the noise-free objective (n,) of weights (n, n_domains)."""
        values: Floats = self.score(np.atleast_2d(weights)).mean(1)
        return values

    def regret(self, weights: Weights) -> float:
        """Return the best possible objective minus that of the weights (n_domains,), in units of the objective's spread

        over random feasible mixtures: 0 is perfect, about 1 to 2 is the typical random mixture.
        """
        floors, caps = bounds(self.domains)
        spread = self.objective(draw(500, natural(self.domains), floors, caps, np.random.default_rng(0))).std()
        return float((self.objective(self.optimum)[0] - self.objective(weights)[0]) / spread)

    def observe(self, weights: Weights, rng: Generator) -> list[dict[str, float]]:
        """Return the noisy scores by task of a trial of each mixture."""
        exact = self.score(weights)
        seen = exact + self.noise(weights) * rng.standard_normal(exact.shape)
        return [{f"task-{j}": float(value) for j, value in enumerate(row)} for row in seen]


def make_problem(
    kind: str, n_domains: int, seed: int = 0, *, noise: float = 0.1, max_repetitions: float = 4.0
) -> Problem:
    """Return a problem of a kind in PROBLEMS. `noise` is in units of the scores' spread over random mixtures.

    The target budget is as large as all tokens together, so the caps of small domains bind.
    """
    if kind not in PROBLEMS:
        raise ConfigError(
            f"problem '{kind}' is not known{nearest(kind, PROBLEMS)}", f"use one of: {', '.join(PROBLEMS)}"
        )
    rng = np.random.default_rng([seed, n_domains, sorted(PROBLEMS).index(kind)])
    tokens = np.round(1e8 * np.exp(1.2 * rng.standard_normal(n_domains))).astype(int)
    room = max_repetitions * tokens / tokens.sum()
    domains = tuple(
        Domain(f"domain-{i:02d}", int(n), float(min(1.0, cap)))
        for i, (n, cap) in enumerate(zip(tokens, room, strict=True))
    )
    floors, caps = bounds(domains)
    score, optimum = PROBLEMS[kind](domains, rng)
    if optimum is None:
        optimum = polish(lambda weights: score(weights).mean(1), domains, rng)
    sample = draw(400, natural(domains), floors, caps, rng)
    size = noise * score(sample).std(0).mean()

    def deviation(weights: Weights) -> Floats:
        far = (
            np.abs(weights - natural(domains)).sum(1, keepdims=True)
            if kind == "uneven"
            else np.full((len(weights), 1), 0.5)
        )
        return size * (0.25 + 1.5 * far)

    return Problem(f"{kind}-{n_domains}", domains, score, deviation, optimum)


def polish(value: Callable[[Weights], Floats], domains: Sequence[Domain], rng: Generator) -> Weights:
    """Return the feasible mixture (n_domains,) of highest value: SLSQP from the best of many draws."""
    from scipy.optimize import minimize

    floors, caps = bounds(domains)
    pool = draw(4000, natural(domains), floors, caps, rng)
    starts = pool[np.argsort(-value(pool), kind="stable")[:POLISH_STARTS]]
    size = max(float(value(pool).std()), 1e-12)
    step = 1e-6
    best, best_value = starts[0], float(value(starts[:1])[0])

    def slope(weights: Weights) -> Floats:
        moved = np.maximum(weights + step * np.eye(len(weights)), 0.0)
        slopes: Floats = -(value(moved) - value(weights[None])) / step / size
        return slopes

    for start in starts:
        found = minimize(
            lambda weights: -float(value(np.maximum(weights, 0.0)[None])[0]) / size,
            start,
            jac=slope,
            method="SLSQP",
            bounds=list(zip(floors, caps, strict=True)),
            constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like}],
            options={"maxiter": 200, "ftol": 1e-9},
        )
        feasible = fill(np.maximum(found.x, 0.0), floors, caps)
        if float(value(feasible[None])[0]) > best_value:
            best, best_value = feasible, float(value(feasible[None])[0])
    return best


def simulate(
    problem: Problem,
    search: SearchSettings,
    seed: int = 0,
    pick_seeds: int = 0,
    low_fidelity: Sequence[Observation] = (),
) -> tuple[Weights, list[Observation]]:
    """Play the search on a problem; return the weights it answers with (n_domains,) and what it measured.

    `low-fidelity scores` are cheap scores of mixtures, from which the prediction starts.
    With `pick_seeds` the finalists are measured so often more and the best mean answers; without, the first finalist
    does. A baseline (`search.proposer`) answers in its own way.
    """
    names = tuple(domain.name for domain in problem.domains)
    trials: list[Observation] = []
    for iteration, n in enumerate(search.trials):
        weights = next_batch([*trials, *low_fidelity], make_spec(problem.domains, search), n, iteration, seed)
        rng = np.random.default_rng([seed, iteration, 1])
        for row, scores in zip(weights, problem.observe(weights, rng), strict=True):
            trials.append(Observation(OWN, names, tuple(row.tolist()), scores, seed, len(trials) + 1))
    if search.proposer in built_in("baseline"):
        rng = np.random.default_rng([seed, 3])
        spec = SearchSpec(tuple(problem.domains), search.predictor)
        return answer_of(search.proposer, spec, trials, rng), trials
    compared = finalists([*trials, *low_fidelity], make_spec(problem.domains, search), 3, seed)
    found = np.array([weights for role, weights in compared if role == "finalist"])
    if pick_seeds:
        rng = np.random.default_rng([seed, 2])
        means = [
            [np.mean(list(one.values())) for one in problem.observe(np.repeat(row[None], pick_seeds, 0), rng)]
            for row in found
        ]
        return found[int(np.mean(means, axis=1).argmax())], trials
    return found[0], trials


def _law(domains: Sequence[Domain], rng: Generator, *, spread: float = 1.0) -> tuple[Callable[[Weights], Floats], None]:
    """Loss E + 1/Σ C·w^γ, each task with its own C and γ."""
    d = len(domains)
    use = np.exp(spread * rng.standard_normal((6, d)))
    gamma = rng.uniform(0.2, 0.7, 6)

    def score(weights: Weights) -> Floats:
        return np.stack(
            [-1.0 / (0.05 + np.maximum(weights, 0.0) ** g @ c) * c.mean() for g, c in zip(gamma, use, strict=True)],
            axis=1,
        )

    return score, None


def _bowl(domains: Sequence[Domain], center: Weights, rng: Generator, flat: float = 0.0) -> Callable[[Weights], Floats]:
    """Minus a squared distance of √w from √center in which domains interact; within `flat` of it all are equal."""
    d = len(domains)
    turn = [np.eye(d) + 0.7 * rng.standard_normal((d, d)) / np.sqrt(d) for _ in range(3)]

    def score(weights: Weights) -> Floats:
        off = np.sqrt(np.maximum(weights, 0.0)) - np.sqrt(center)
        return np.stack([-np.maximum(((off @ one) ** 2).sum(1) - flat, 0.0) for one in turn], axis=1)

    return score


def _interactions(domains: Sequence[Domain], rng: Generator) -> tuple[Callable[[Weights], Floats], Weights]:
    floors, caps = bounds(domains)
    center = fill(rng.dirichlet(np.ones(len(domains))), floors, caps)
    return _bowl(domains, center, rng), center


def _sparse(domains: Sequence[Domain], rng: Generator) -> tuple[Callable[[Weights], Floats], Weights]:
    floors, caps = bounds(domains)
    ranked = np.argsort(-caps)
    shares = rng.dirichlet(np.full(3, 3.0))
    used = rng.permutation(ranked[: max(3, len(domains) // 3)])[:3]
    if caps[used].sum() < 1.0:  # three cannot carry the whole weight: as few of the largest as can, with room to spare
        used = ranked[: 1 + np.searchsorted(np.cumsum(caps[ranked]), 1.2)]
        shares = rng.dirichlet(np.full(len(used), 3.0))
    raw = np.zeros(len(domains))
    raw[used] = shares
    center = fill(raw, floors, caps)
    return _bowl(domains, center, rng), center


def _plateau(domains: Sequence[Domain], rng: Generator) -> tuple[Callable[[Weights], Floats], Weights]:
    floors, caps = bounds(domains)
    center = fill(rng.dirichlet(np.ones(len(domains))), floors, caps)
    return _bowl(domains, center, rng, flat=0.05), center


def _conflict(domains: Sequence[Domain], rng: Generator) -> tuple[Callable[[Weights], Floats], None]:
    """Tasks that want different, few domains: every gain of one costs another."""
    return _law(domains, rng, spread=2.5)


PROBLEMS: dict[str, Callable[[Sequence[Domain], Generator], tuple[Callable[[Weights], Floats], Weights | None]]] = {
    "law": _law,
    "interactions": _interactions,
    "sparse": _sparse,
    "plateau": _plateau,
    "conflict": _conflict,
    "uneven": _law,
}
