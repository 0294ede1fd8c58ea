"""What rounds among the finalists save or gain against the same seeds for all, and whether the claim's interval holds.

    python bench/pick.py [--quick] [--seeds 5] [--repeats 12]

Searches on simulated problems of known optimum end in finalists; each way to pick is then played many times on them,
with noise of seeds as large, a fifth and a twentieth of the problem's. Writes bench/results/pick.json.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from _results import write_results
from openclimb.config.schema import SearchSettings
from openclimb.search.acquisition.spec import make_spec
from openclimb.search.history import read_history
from openclimb.search.predictors.objective import fit_objective
from openclimb.search.propose import finalists, one_thread
from openclimb.search.selection.halving import FEWEST, Prior, finished, play, posterior_of
from openclimb.stats.intervals import estimate
from openclimb.stats.paired import draw_means, score_table
from openclimb.testing.problems import Problem, make_problem, simulate

Floats = NDArray[np.float64]
Scores = list[dict[int, float]]

PROBLEMS = (("law", 8), ("interactions", 8), ("sparse", 12), ("plateau", 8), ("conflict", 8), ("uneven", 12))
SEEDS = 3  # rounds, and seeds of the claim
SURE = 0.9
CHAINS = 4  # of the model of noise: 400 draws a margin
LUCK = 3.0  # a seed's luck, common to all mixtures, in units of a trial's own noise


@dataclass(frozen=True)
class Case:
    """The finalists of one search, then natural and uniform: what they are worth, and what the search says of them."""

    true: Floats
    regret: Floats
    noise: Floats
    prior: Prior


@dataclass(frozen=True)
class Played:
    """One way to pick, played once."""

    choice: int
    n_trials: int
    choosing: Scores  # by mixture and seed
    confirmed: Scores


@one_thread
def make_case(problem: Problem, n_finalists: int, trials: list, seed: int) -> Case:  # type: ignore[type-arg]
    """Return the contest that a search ends in."""
    search = SearchSettings()
    compared = finalists(trials, make_spec(problem.domains, search), n_finalists, seed)
    rows = np.array([row for _, row in compared])
    predictor = fit_objective(read_history(trials, problem.domains, {}), search.predictor)
    n_tasks = problem.score(rows[:1]).shape[1]
    return Case(
        problem.objective(rows),
        np.array([problem.regret(row) for row in rows]),
        problem.noise(rows)[:, 0] / np.sqrt(n_tasks),
        Prior(*predictor.true_score(rows), predictor.objective_noise),
    )


class World:
    """Trials of a case's mixtures, with one noise."""

    def __init__(self, case: Case, size: float, rng: Generator) -> None:
        self.case, self.noise, self.rng = case, size * case.noise, rng
        self.luck: dict[int, float] = {}

    def measure(self, row: int, seed: int) -> float:
        """Return a trial's score: the mixture's, the luck of the seed, and its own noise."""
        if seed not in self.luck:
            self.luck[seed] = LUCK * float(self.noise.mean()) * self.rng.standard_normal()
        return float(self.case.true[row] + self.luck[seed] + self.noise[row] * self.rng.standard_normal())


def same_for_all(case: Case, world: World, believed: bool) -> Played:
    """Every finalist and baseline with SEEDS seeds; the best mean, or what is believed best, answers."""
    scores: Scores = [{seed: world.measure(row, seed) for seed in range(SEEDS)} for row in range(len(case.true))]
    value = posterior_of(case.prior, scores).mean if believed else [np.mean(list(one.values())) for one in scores]
    return Played(int(np.argmax(value)), SEEDS * len(scores), scores, scores)


def in_rounds(case: Case, world: World, with_baselines: bool) -> Played:
    """Rounds, then a claim with fresh seeds of the one that is left and of the baselines.

    `with_baselines`: they play in the rounds, whose winner answers. Otherwise the finalists play alone, and which of
    the three answers follows from all trials, the claim's too.
    """
    n = len(case.true) - 2
    playing = n + 2 if with_baselines else n
    scores: Scores = [{} for _ in case.true]
    prior = Prior(case.prior.mean[:playing], case.prior.deviation[:playing], case.prior.noise)
    seeds = list(range(SEEDS))
    left: tuple[int, ...] = tuple(range(playing))
    while True:
        tables = [{seed: {"goal": value} for seed, value in one.items()} for one in scores[:playing]]
        rounds = play(prior, tables, seeds, {"goal": 1.0}, {}, SURE, 0)
        left = rounds[-1].left if rounds else left
        if finished(rounds, SEEDS):
            break
        for row in left:
            scores[row][len(rounds)] = world.measure(row, len(rounds))
    answers = list(dict.fromkeys((left[0], n, n + 1)))
    confirmed: Scores = [
        {seed: world.measure(row, seed) for seed in range(SEEDS, 2 * SEEDS)} if row in answers else {}
        for row in range(n + 2)
    ]
    every = [{**a, **b} for a, b in zip(scores, confirmed, strict=True)]
    mean = posterior_of(case.prior, every).mean
    choice = left[0] if with_baselines else max(answers, key=lambda row: mean[row])
    return Played(choice, sum(map(len, every)), scores, confirmed)


WAYS: dict[str, Callable[[Case, World], Played]] = {
    "same seeds, best mean": lambda case, world: same_for_all(case, world, False),
    "same seeds, believed": lambda case, world: same_for_all(case, world, True),
    "rounds, the claim chooses too": lambda case, world: in_rounds(case, world, False),
    "rounds with baselines (ours)": lambda case, world: in_rounds(case, world, True),
}


def judge(case: Case, played: Played, noise: float) -> dict[str, float]:
    """Return the trials, the regret, and the margin to natural's error (in noises) and whether its interval holds."""
    natural = len(case.true) - 2
    facts = {"trials": float(played.n_trials), "regret": float(case.regret[played.choice])}
    if played.choice == natural:
        return facts
    confirmed = [played.choice, natural]
    rest = [one for one in played.choosing if one and played.choosing is not played.confirmed]
    scores = score_table([*(played.confirmed[row] for row in confirmed), *rest])
    drawn = draw_means(scores, np.random.default_rng(0), paired=True, chains=CHAINS)
    assert drawn is not None
    margin = estimate(drawn[:, 0] - drawn[:, 1])
    truth = float(case.true[played.choice] - case.true[natural])
    return {**facts, "bias": (margin.mean - truth) / noise, "holds": float(margin.low <= truth <= margin.high)}


def main() -> None:
    """Play, print a table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two problems, one seed, few repeats, nothing written")
    parser.add_argument("--seeds", type=int, default=5, help="searches of each problem")
    parser.add_argument("--repeats", type=int, default=12, help="contests of each search")
    options = parser.parse_args()
    problems, n_seeds, repeats = (PROBLEMS[:2], 1, 4) if options.quick else (PROBLEMS, options.seeds, options.repeats)
    cases = []
    for kind, n_domains in problems:
        for seed in range(n_seeds):
            problem = make_problem(kind, n_domains, seed, noise=0.2)
            _, trials = simulate(problem, SearchSettings(), seed)
            cases.append([make_case(problem, n, trials, seed) for n in (FEWEST + 1, 2 * FEWEST)])
    rows = []
    print(f"{'noise':>5}  {'finalists':>9}  {'way':<30}  trials  regret    se      bias   95 % holds")
    for size in (1.0, 0.2, 0.05):
        for place in range(2):
            for way, function in WAYS.items():
                found: dict[str, list[float]] = {}
                for i, pair in enumerate(cases):
                    case = pair[place]
                    scaled = Prior(case.prior.mean, case.prior.deviation, size * case.prior.noise)
                    case = Case(case.true, case.regret, case.noise, scaled)
                    for repeat in range(repeats):
                        world = World(case, size, np.random.default_rng([i, repeat]))
                        facts = judge(case, function(case, world), float(world.noise.mean()))
                        for name, value in facts.items():
                            found.setdefault(name, []).append(value)
                mean = {name: float(np.mean(values)) for name, values in found.items()}
                error = float(np.std(found["regret"]) / np.sqrt(len(cases)))
                n = len(cases[0][place].true) - 2
                print(
                    f"{size:5.2f}  {n:9}  {way:<30}  {mean['trials']:6.1f}  {mean['regret']:.4f}  {error:.4f}  "
                    f"{mean['bias']:+.3f}  {mean['holds']:.1%}"
                )
                case_name = f"{way}, {n} finalists, noise {size:g}"
                rows += [{"case": case_name, "metric": name, "value": round(v, 4)} for name, v in mean.items()]
    if not options.quick:
        print(write_results("selection", rows))


if __name__ == "__main__":
    main()
