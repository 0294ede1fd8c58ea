"""Cheap stand-ins for a trial: how well they rank mixtures, what they cost, and how many trials they replace.

    python bench/cheap.py --corpus FILES --tasks FILES --root RUN [--quick]

Makes a workspace of scale `demo` in RUN and trains the first batch of a search, a design that fills the region, as full
trials, some of them again with another seed. Then come the stand-ins: models merged from one component a domain, n-gram
models, and these as low-fidelity scores of the search. RUN is kept and gone on with.
Writes bench/results/cheap.json (not with --quick).
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import openclimb
from _cheap_merge import merged
from _cheap_tables import ranks, replaced
from _results import write_results
from openclimb.config.schema import Config, SearchSettings
from openclimb.corpus.domains import read_domains
from openclimb.engines.local import LocalEngine
from openclimb.mixture import Weights, natural
from openclimb.objectives.run import TrialRunner
from openclimb.progress import PlainProgress
from openclimb.search.acquisition.spec import make_spec
from openclimb.search.predictors.low_fidelity import LowFidelity, read_low_fidelity
from openclimb.search.predictors.low_fidelity_store import low_fidelity
from openclimb.search.predictors.ngram import count_ngrams
from openclimb.search.propose import next_batch
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import read_json
from openclimb.workspace.trials import Proposal, Trial

Floats = NDArray[np.float64]

MERGES = ((0.5, 0.125), (0.5, 0.25))  # shares of the token budget that the trunk and each component read
AGAIN = 100  # added to the seed of the second trial of a mixture
SIZES, QUICK_SIZES = (24, 6), (12, 4)  # mixtures, and those of them that are trained again
ONE = {
    "search": {"trials": [1], "proposer": "natural"},
    "selection": {"finalists": 1, "seeds": 2},
}  # what makes the tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", default=[])
    parser.add_argument("--tasks", nargs="+", default=[])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    config = workspace(options.root, options.corpus, options.tasks, options.quick)
    full = Full.of(*full_trials(options.root, config, QUICK_SIZES if options.quick else SIZES))
    rows = table(options.root, config, full)
    for row in rows:
        beside = f"{row['reference']:>9.3f}" if row.get("reference") is not None else ""
        print(f"{row['case']:<28} {row['metric']:<72} {row['value']:>9.3f} {beside}")
    if not options.quick:
        write_results("cheap", rows)


@dataclass(frozen=True)
class Full:
    """Full trials of n mixtures: one seed of each, and another of the first ones."""

    trials: tuple[Trial, ...]
    tasks: tuple[str, ...]
    weights: Weights  # (n, n_domains)
    scores: Floats  # (n, n_tasks)
    again: Floats  # (n_again, n_tasks)

    @classmethod
    def of(cls, trials: list[Trial], again: list[Trial]) -> "Full":
        """Read them from their folders."""
        tasks = tuple(sorted(trials[0].scores))
        scores, more = (np.array([[t.scores[task] for task in tasks] for t in some]) for some in (trials, again))
        return cls(tuple(trials), tasks, np.array([trial.weights for trial in trials]), scores, more)

    @property
    def mean(self) -> Floats:
        """Mean of the full trials of each mixture, (n, n_tasks)."""
        found = self.scores.copy()
        found[: len(self.again)] = (found[: len(self.again)] + self.again) / 2
        return found


def table(root: Path, config: Config, full: Full) -> list[dict[str, Any]]:
    """Return all rows: cost and rank correlation of each stand-in, and the trials that low-fidelity scores replace."""
    n = len(full.again)
    rows = ranks(full.again, full.scores[:n], full.tasks, "full trial, another seed")
    like = replace(full.trials[0], weights=tuple(natural(read_domains(root / "domains")).tolist()))
    merges = {pair: merged(root, config, like, full.weights, full.tasks, *pair) for pair in MERGES}
    each = np.mean([one.each for one in merges.values()])  # of evaluating
    units = [(trunk + len(full.weights[0]) * part, one.fixed) for (trunk, part), one in merges.items()]
    training = sum(seconds for _, seconds in units) / sum(unit for unit, _ in units)
    rows.append({"case": "full trial", "metric": "seconds of one core", "value": round(training + each, 2)})

    def cost(case: str, fixed: float, mixture: float) -> None:
        for label, seconds in (("fixed", fixed), ("a mixture", mixture)):
            share = float(seconds / (training + each))
            rows.append({"case": case, "metric": f"cost in full trials, {label}", "value": round(share, 5)})

    for (trunk, part), one in merges.items():
        rows += ranks(one.scores, full.mean, full.tasks, f"merged, {trunk:g} + {part:g}")
        cost(f"merged, {trunk:g} + {part:g}", one.fixed, one.each)
    low_fidelity = {}
    for order, name in ((2, "bigram"), (3, "trigram")):
        began = time.process_time()
        counted = count_ngrams(root / "tokens", config.proxy.token_budget, order)
        middle = time.process_time()
        scores = counted.scores(full.weights)
        end = time.process_time()
        rows += ranks(scores, full.mean, full.tasks, name)
        cost(name, middle - began, (end - middle) / len(scores))
        low_fidelity[name] = _hint(root, config, full, name)
        smooth = low_fidelity[name].at(full.weights, np.arange(len(full.tasks)))
        rows += ranks(smooth, full.mean, full.tasks, f"{name}, as a low-fidelity score")
    return rows + replaced(full.weights, full.scores, full.mean, full.tasks, low_fidelity)


def _hint(root: Path, config: Config, full: Full, name: str) -> LowFidelity:
    config = replace(config, search=replace(config.search, low_fidelity=name))
    domains = read_domains(root / "domains")
    trials = low_fidelity(root, config, domains)
    found = read_low_fidelity(trials, full.trials[0].domains, full.tasks)
    assert found is not None
    return found


def workspace(root: Path, corpus: list[str], tasks: list[str], quick: bool) -> Config:
    """Make the workspace up to its packed tokens where it is not yet; return its settings."""
    if not (root / "climb.toml").exists():
        proxy = {"token_budget": 50_000} if quick else {}
        openclimb.init(
            root,
            scale="demo",
            corpus={"paths": corpus},
            tasks={"paths": tasks},
            embed={"embedder": "hashing"},
            proxy=proxy,
            run={"workers": 1},
            **ONE,
        )
    opened = openclimb.open(root)
    if not (root / "tokens" / "record.json").exists():
        opened.run(PlainProgress())
    return opened.config


def full_trials(root: Path, config: Config, sizes: tuple[int, int]) -> tuple[list[Trial], list[Trial]]:
    """Return the trials of the first batch, and of the first of them with another seed."""
    rows = next_batch([], make_spec(read_domains(root / "domains"), SearchSettings()), sizes[0], 0, config.seed)
    first = train(root, config, rows, config.seed, "first batch")
    return first, train(root, config, rows[: sizes[1]], config.seed + AGAIN, "another seed")


def train(root: Path, config: Config, rows: Weights, seed: int, label: str) -> list[Trial]:
    """Return the completed trials of these mixtures, trained where they are not yet."""
    proposals = [Proposal("search", 0, tuple(row), seed, "climb") for row in rows.tolist()]
    data = read_json(root / "tokens" / "record.json")["fingerprint"]
    context = StageContext(root, LocalEngine(1), PlainProgress(), seed)
    domains = read_domains(root / "domains")
    return TrialRunner(root / "trials", root, config, domains, root / "tokens", data, context).run(proposals, label)


if __name__ == "__main__":
    main()
