"""How often 95 % intervals of a margin hold the truth, and how wide they are, with trial noise of many kinds.

    python bench/coverage.py [--quick] [--replications 400]

Margins of the first mixture over the second and over the last, which stands for uniform. `ours` is the model of
`stats/paired.py`; `pooled` is Student's interval with one standard deviation for all mixtures, as it was before.
Writes bench/results/coverage.json. Widths are medians.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from _results import write_results
from openclimb.stats.intervals import LEVEL, estimate
from openclimb.stats.noise import seed_noise
from openclimb.stats.paired import draw_means

Floats = NDArray[np.float64]

LUCK = 3.0  # standard deviation of a seed's luck, common to all mixtures, in that of a trial's noise
OUTLIER = 8.0  # size of uniform's one bad trial
RANGE = 3.0  # largest over smallest scale of a mixture's noise
CHAINS, KEEP = 4, 100  # fewer than in use: 400 draws a table
AT_ONCE = 100  # tables that are drawn side by side


def _contaminated(share: float, times: float) -> Callable[[Generator, int, int, int], Floats]:
    def draw(rng: Generator, n: int, m: int, s: int) -> Floats:
        size = np.where(rng.random((n, m, s)) < share, times, 1.0)
        return size * rng.standard_normal((n, m, s))

    return draw


def _one_outlier(rng: Generator, n: int, m: int, s: int) -> Floats:
    noise = rng.standard_normal((n, m, s))
    noise[:, -1, 0] += OUTLIER * rng.choice((-1.0, 1.0), n)
    return noise


def _scales(rng: Generator, n: int, m: int, s: int) -> Floats:
    """Return normal noise with a scale of its own for each mixture, log-uniform over RANGE."""
    scale = np.exp(rng.uniform(-0.5, 0.5, (n, m, 1)) * np.log(RANGE))
    return np.asarray(scale * rng.standard_normal((n, m, s)))


KINDS: dict[str, Callable[[Generator, int, int, int], Floats]] = {
    "normal": lambda rng, n, m, s: rng.standard_normal((n, m, s)),
    "t, 3 degrees of freedom": lambda rng, n, m, s: rng.standard_t(3, (n, m, s)),
    "5 % of trials × 5": _contaminated(0.05, 5.0),
    "10 % of trials × 10": _contaminated(0.10, 10.0),
    "one outlier in uniform": _one_outlier,
    "a scale for each mixture": _scales,
}


def _full(m: int, s: int) -> NDArray[np.bool_]:
    return np.ones((m, s), dtype=bool)


def _uneven() -> NDArray[np.bool_]:
    """Return found and natural with five seeds of the claim, uniform with two; four others in rounds of their own."""
    there = np.zeros((7, 10), dtype=bool)
    there[:2, :5] = there[6, :2] = True
    there[2:4, 5:] = there[4:6, 5:6] = True
    return there


SHAPES = {
    "2 mixtures × 2 seeds": _full(2, 2),
    "3 mixtures × 3 seeds": _full(3, 3),
    "3 mixtures × 5 seeds": _full(3, 5),
    "3 mixtures × 10 seeds": _full(3, 10),
    "8 mixtures × 3 seeds": _full(8, 3),
    "12 mixtures × 2 seeds": _full(12, 2),
    "uneven": _uneven(),
}


@dataclass(frozen=True)
class Found:
    """Whether intervals of one margin held the truth, and their widths: one number a replication."""

    holds: NDArray[np.bool_]
    width: Floats

    @property
    def coverage(self) -> float:
        """Share of the intervals that hold the truth."""
        return float(self.holds.mean())


def simulated(kind: str, there: NDArray[np.bool_], n: int, rng: Generator) -> Floats:
    """Return scores (n, n_mixtures, n_seeds) of mixtures that are all the same, NaN where there is no trial."""
    m, s = there.shape
    scores = KINDS[kind](rng, n, m, s) + LUCK * rng.standard_normal((n, 1, s))
    return np.where(there, scores, np.nan)


def ours(scores: Floats, others: Sequence[int], rng: Generator) -> list[tuple[float, float]]:
    """Return the intervals (low, high) of mixture 0 minus each of `others` in each table, table by table."""
    ends = []
    for first in range(0, len(scores), AT_ONCE):
        drawn = draw_means(scores[first : first + AT_ONCE], rng, paired=True, chains=CHAINS, keep=KEEP)
        assert drawn is not None
        for table in drawn:
            found = [estimate(table[:, 0] - table[:, other]) for other in others]
            ends += [(one.low, one.high) for one in found]
    return ends


def pooled(scores: Floats, others: Sequence[int], _rng: Generator) -> list[tuple[float, float]]:
    """Return the same by Student's t with the residuals of all mixtures and seeds pooled."""
    from scipy.stats import t

    ends = []
    for table in scores:
        noise, freedom = seed_noise([_by_seed(row) for row in table], paired=True)
        for other in others:
            difference = table[0] - table[other]
            difference = difference[np.isfinite(difference)]
            half = float(t.ppf(0.5 + LEVEL / 2, freedom)) * noise * np.sqrt(2.0 / len(difference))
            ends.append((float(difference.mean() - half), float(difference.mean() + half)))
    return ends


METHODS = {"ours": ours, "pooled": pooled}


def _by_seed(row: Floats) -> dict[int, float]:
    return {seed: float(value) for seed, value in enumerate(row) if np.isfinite(value)}


def measure(method: str, kind: str, shape: str, n: int, seed: int = 0) -> dict[str, Found]:
    """Return margin → what n replications found; methods see the same scores."""
    there = SHAPES[shape]
    scores = simulated(kind, there, n, np.random.default_rng(seed))
    others = list(dict.fromkeys((1, len(there) - 1)))
    ends = np.array(METHODS[method](scores, others, np.random.default_rng(seed + 1)))
    ends = ends.reshape(n, len(others), 2)
    names = ["found − natural", "found − uniform"]
    return {
        name: Found((ends[:, i, 0] <= 0) & (ends[:, i, 1] >= 0), ends[:, i, 1] - ends[:, i, 0])
        for i, name in enumerate(names[: len(others)])
    }


def main() -> None:
    """Simulate, print a table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shape, 40 replications, nothing written")
    parser.add_argument("--replications", type=int, default=400)
    options = parser.parse_args()
    shapes, n = (["3 mixtures × 3 seeds"], 40) if options.quick else (list(SHAPES), options.replications)
    rows = []
    print(f"{'design':<22} {'noise':<26} {'margin':<16} coverage  pooled   width  pooled")
    for shape in shapes:
        for kind in KINDS:
            found = {method: measure(method, kind, shape, n) for method in METHODS}
            for margin, one in found["ours"].items():
                old = found["pooled"][margin]
                widths = float(np.median(one.width)), float(np.median(old.width))
                print(
                    f"{shape:<22} {kind:<26} {margin:<16} {one.coverage:8.1%} {old.coverage:7.1%} "
                    f"{widths[0]:7.2f} {widths[1]:7.2f}",
                    flush=True,
                )
                case = f"{shape}, {kind}, {margin}"
                rows += [
                    {"case": case, "metric": "coverage", "value": one.coverage, "reference": old.coverage},
                    {"case": case, "metric": "width", "value": round(widths[0], 3), "reference": round(widths[1], 3)},
                ]
    if not options.quick:
        print(write_results("coverage", [{"case": "all", "metric": "replications", "value": n}, *rows]))


if __name__ == "__main__":
    main()
