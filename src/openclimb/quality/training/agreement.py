"""How students agree with labels that they were not trained on, and which of them are kept.

Equal texts count once, with the mean of their labels. Intervals are a jackknife's over BLOCKS blocks of texts (Efron &
Stein 1981), so that they hold for rank correlations, for their differences and for squared errors alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.quality.training.labels import MOST_VALUES

Floats = NDArray[np.float64]

BLOCKS = 50
LEVEL = 0.95  # of the intervals that are shown
DECILES = 10
FEW = 20  # texts of a cluster that are too few to tell
MISSES = 5  # texts shown that a student rates far too high, and far too low


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error."""

    value: float
    error: float

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the two ends, by Student's t."""
        from scipy.stats import t

        half = float(t.ppf((1 + level) / 2, BLOCKS - 1)) * self.error
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Rows:
    """Different texts in a random order: labels, the predictions of each student, the constant's, where they are."""

    labels: Floats  # (n,)
    predictions: Mapping[str, Floats]  # kind → (n,)
    constant: Floats  # (n,): the mean label of the other folds
    first: NDArray[np.intp]  # (n,): the number of the first label of each text in the file


@dataclass(frozen=True)
class Agreement:
    """How one student of one scale agrees with the labels, and whether it is kept."""

    scale: str
    kind: str
    n_texts: int
    rank_correlation: Estimate  # Spearman's
    saved: Estimate  # share of the constant's squared error that the student saves
    absolute_error: float
    constant_absolute_error: float
    refused: str  # why; empty where it is kept


def rows_of(
    labels: Floats,
    predictions: Mapping[str, Floats],
    constant: Floats,
    hashes: NDArray[np.uint64],
    at: NDArray[np.intp],
) -> Rows:
    """Return the different texts among some labels, in the order of their hashes.

    All arrays are (n,); `at` are the labels' numbers in the file.
    """
    unique, first, which, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    means = np.bincount(which.ravel(), weights=labels, minlength=len(unique)) / counts
    found = {kind: values[first] for kind, values in predictions.items()}
    return Rows(means, found, constant[first], at[first])


def agreements(scale: str, rows: Rows, n_compared: int) -> tuple[list[Agreement], str]:
    """Return how each student of a scale agrees, and the kind that is chosen; "" where all are refused.

    A student is refused unless its rank correlation and what it saves of the constant's squared error are above zero by
    intervals that hold for `n_compared` students together (Bonferroni). Of two, the head is chosen, which costs
    nothing in the label pass, unless fastText's rank correlation is higher beyond noise.
    """
    level = 1 - (1 - LEVEL) / n_compared
    blocks = np.arange(len(rows.labels)) * BLOCKS // len(rows.labels)
    kinds = list(rows.predictions)
    ranks, differences = _rank_correlations(rows, kinds, blocks)
    found = []
    for kind in kinds:
        predicted = rows.predictions[kind]
        saved = _saved(rows, predicted, blocks)
        refused = ""
        if ranks[kind].interval(level)[0] <= 0 or saved.interval(level)[0] <= 0:
            refused = f"no better than a constant: {_said(ranks[kind], saved)}"
        off, constant_off = (float(np.abs(rows.labels - one).mean()) for one in (predicted, rows.constant))
        found.append(Agreement(scale, kind, len(rows.labels), ranks[kind], saved, off, constant_off, refused))
    kept = [one.kind for one in found if not one.refused]
    if len(kept) == 2:
        return found, "fasttext" if differences.interval()[0] > 0 else "head"
    return found, kept[0] if kept else ""


def _said(rank: Estimate, saved: Estimate) -> str:
    (low, high), (least, most) = rank.interval(), saved.interval()
    return (
        f"rank correlation {rank.value:+.3f} (95 % interval {low:+.3f} to {high:+.3f}), squared error lower by "
        f"{saved.value:.1%} ({least:.1%} to {most:.1%})"
    )


def _rank_correlations(
    rows: Rows, kinds: Sequence[str], blocks: NDArray[np.intp]
) -> tuple[dict[str, Estimate], Estimate]:
    """Return Spearman's correlation of each kind with the labels, and fastText's minus the head's (0 ± 0 without)."""
    whole = np.array([spearman(rows.labels, rows.predictions[kind]) for kind in kinds])
    without = np.array(
        [
            [spearman(rows.labels[keep], rows.predictions[kind][keep]) for kind in kinds]
            for keep in (blocks != block for block in range(BLOCKS))
        ]
    )
    found = {kind: Estimate(float(whole[i]), _error(without[:, i])) for i, kind in enumerate(kinds)}
    if len(kinds) < 2:
        return found, Estimate(0.0, 0.0)
    one, other = kinds.index("fasttext"), kinds.index("head")
    return found, Estimate(float(whole[one] - whole[other]), _error(without[:, one] - without[:, other]))


def _saved(rows: Rows, predicted: Floats, blocks: NDArray[np.intp]) -> Estimate:
    """Return 1 − squared error of the student ÷ of the constant."""
    squares = [(rows.labels - one) ** 2 for one in (predicted, rows.constant)]
    mine, constant = (np.bincount(blocks, weights=each, minlength=BLOCKS) for each in squares)
    if constant.sum() == 0:
        return Estimate(0.0, 0.0)  # all labels are the same
    left = 1 - (mine.sum() - mine) / np.maximum(constant.sum() - constant, 1e-300)
    return Estimate(float(1 - mine.sum() / constant.sum()), _error(left))


def _error(without: Floats) -> float:
    """Return the jackknife's standard error from values without one block each."""
    return float(np.sqrt((len(without) - 1) * np.var(without)))


def spearman(one: Floats, other: Floats) -> float:
    """Return Spearman's rank correlation of two arrays (n,), ties by their mean rank; 0 where one is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(each) for each in (one, other)]
    centred = [each - each.mean() for each in ranks]
    norms = [float(np.sqrt(each @ each)) for each in centred]
    return float(centred[0] @ centred[1]) / (norms[0] * norms[1]) if min(norms) > 0 else 0.0


def calibration(labels: Floats, predicted: Floats) -> list[dict[str, Any]]:
    """Return the mean label by decile of the prediction, lowest first."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), DECILES)
    return [_part({}, labels, predicted, part) for part in parts if len(part)]


def by_label(labels: Floats, predicted: Floats) -> list[dict[str, Any]]:
    """Return the mean prediction by label, the nearest whole one where there are many different ones."""
    many = len(np.unique(labels)) > MOST_VALUES
    values = np.rint(labels) if many else labels
    found = [({"label": float(value)}, np.flatnonzero(values == value)) for value in np.unique(values)]
    return [{**_part({}, labels, predicted, part), **named} for named, part in found]


def by_cluster(labels: Floats, predicted: Floats, clusters: NDArray[np.int32]) -> list[dict[str, Any]]:
    """Return mean label and prediction by cluster, those with the largest difference of the two first."""
    found = [(int(one), np.flatnonzero(clusters == one)) for one in np.unique(clusters)]
    parts = [_part({"cluster": one}, labels, predicted, part) for one, part in found if len(part) >= FEW]
    return sorted(parts, key=lambda row: -abs(row["label"] - row["prediction"]))


def _part(named: dict[str, Any], labels: Floats, predicted: Floats, part: NDArray[np.intp]) -> dict[str, Any]:
    off = float(np.abs(labels[part] - predicted[part]).mean())
    means = {"label": float(labels[part].mean()), "prediction": float(predicted[part].mean())}
    return {**named, "n": len(part), **{name: round(value, 4) for name, value in (*means.items(), ("error", off))}}


def largest_misses(labels: Floats, predicted: Floats) -> NDArray[np.intp]:
    """Return the rows of the MISSES largest differences in either direction: too high first."""
    order = np.argsort(labels - predicted, kind="stable")
    most = min(MISSES, len(order) // 2)
    return np.concatenate([order[:most], order[len(order) - most :][::-1]])
