"""What bench/search.py compares with: simple predictors, and whole searches that play on a problem.

A search is `(problem, n_trials, seed) → weights (n_domains,)`: it measures n_trials mixtures with noise and answers
with one. All are held to the problem's caps, by `fill`, so that none is ahead by breaking them.
"""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from _search_tables import Emulated
from openclimb.baselines.recipe import recipe_rounds
from openclimb.config.schema import SearchSettings
from openclimb.mixture import Weights, natural
from openclimb.search.space.simplex import bounds, draw, fill
from openclimb.testing.problems import Problem, simulate
from openclimb.workspace.observations import OWN, Observation

Floats = NDArray[np.float64]
LOW_FIDELITY = "climb + bigram"
SearchRule = Callable[[Problem, int, int], Weights]


# ---- predictors: fit(weights, scores) then predict(weights) → mean (n,) or (n, n_tasks)


class PlainProcess:
    """scikit-learn's Gaussian process on √w: one length scale, Matérn 5/2, noise fitted, two restarts."""

    def fit(self, weights: Weights, scores: Floats) -> "PlainProcess":
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        kernel = ConstantKernel(1.0) * Matern(1.0, nu=2.5) + WhiteKernel(0.1, (1e-6, 1e1))
        made = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = made.fit(np.sqrt(weights), scores)
        return self

    def predict(self, weights: Weights) -> Floats:
        return np.asarray(self.model.predict(np.sqrt(weights)))

    def deviation(self, weights: Weights) -> Floats:
        return np.asarray(self.model.predict(np.sqrt(weights), return_std=True)[1])


class Ours:
    """A predictor of the package by name, mean only."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fit(self, weights: Weights, scores: Floats) -> "Ours":
        from openclimb.search.predictors.predictor import fit_predictor

        self.model = fit_predictor(weights, scores, self.name)
        return self

    def predict(self, weights: Weights) -> Floats:
        return self.model.predict(weights)[0]


SIMPLE: dict[str, Callable[[], Any]] = {
    "recipe": lambda: Ours("recipe"),
    "regmix": lambda: Ours("openclimb.baselines.fits.trees:regmix_trees"),
    "plain gp": PlainProcess,
    "ridge": lambda: Ours("ridge"),
    "power_law": lambda: Ours("power_law"),
    "loglinear": lambda: Ours("loglinear"),
    "lightgbm small": lambda: Ours("lightgbm"),
}


# ---- searches


@dataclass
class Play:
    """The trials of one search on a problem."""

    problem: Problem
    seed: int
    trials: list[Observation] = field(default_factory=list)

    def measure(self, weights: Weights) -> Floats:
        """Run a trial of each mixture; return their noisy objectives (n,)."""
        rng = np.random.default_rng([self.seed, len(self.trials), 7])
        observed = self.problem.observe(weights, rng)
        for row, scores in zip(weights, observed, strict=True):
            number = len(self.trials) + 1
            names = tuple(domain.name for domain in self.problem.domains)
            self.trials.append(Observation(OWN, names, tuple(row.tolist()), scores, self.seed, number))
        return np.array([np.mean(list(scores.values())) for scores in observed])


def climb(problem: Problem, n: int, seed: int, low_fidelity: Sequence[Observation] = ()) -> Weights:
    """Ours with its default settings; the answer is the first finalist, not measured again."""
    trials = (8, 5, 3) if n == 16 else recipe_rounds(n)  # 16: the demo's
    return simulate(problem, SearchSettings(trials=trials), seed, low_fidelity=low_fidelity)[0]


def hinted(problem: Problem, n: int, seed: int) -> Weights:
    """Ours, which starts from the problem's bigram scores, as `search.low_fidelity` does."""
    assert isinstance(problem, Emulated)
    return climb(problem, n, seed, problem.low_fidelity)


def baseline(name: str, *, rounds: bool = False) -> SearchRule:
    """Return a baseline of the package: its proposals, all at once or in `rounds`, and its own answer."""

    def rule(problem: Problem, n: int, seed: int) -> Weights:
        trials = recipe_rounds(n) if rounds else (n,)
        return simulate(problem, SearchSettings(trials=trials, proposer=name, predictor="recipe"), seed)[0]

    return rule


def tpe(problem: Problem, n: int, seed: int) -> Weights:
    """Optuna's TPE, one trial after another, on the logits of a softmax; starts from the natural mixture."""
    import optuna

    return _optuna(problem, n, seed, optuna.samplers.TPESampler(seed=seed, multivariate=True))


def cma_es(problem: Problem, n: int, seed: int) -> Weights:
    """Optuna's CMA-ES on the logits of a softmax; starts from the natural mixture."""
    import optuna

    return _optuna(problem, n, seed, optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=1))


def _optuna(problem: Problem, n: int, seed: int, sampler: Any) -> Weights:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    floors, caps = bounds(problem.domains)
    play, names = Play(problem, seed), [domain.name for domain in problem.domains]
    log_share = np.log(np.maximum(natural(problem.domains), 1e-4))
    seen: list[Weights] = []

    def value(trial: Any) -> float:
        logits = log_share + np.array([trial.suggest_float(name, -4.0, 4.0) for name in names])
        raw = np.exp(logits - logits.max())
        seen.append(fill(raw / raw.sum(), floors, caps))
        return float(play.measure(seen[-1][None])[0])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.enqueue_trial(dict.fromkeys(names, 0.0))
        study.optimize(value, n_trials=n)
    return seen[study.best_trial.number]


def bo_torch(problem: Problem, n: int, seed: int) -> Weights:
    """BoTorch: a Gaussian process on the mean score with its default priors, and log noisy expected improvement.

    After a random third, batches of 16 among 1000 draws on the capped simplex, half of them near the best; the answer
    is the measured mixture of best posterior.
    """
    import torch
    from botorch.acquisition import qLogNoisyExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from botorch.optim import optimize_acqf_discrete
    from botorch.sampling import SobolQMCNormalSampler
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    floors, caps = bounds(problem.domains)
    play, rng = Play(problem, seed), np.random.default_rng([seed, 14])
    weights = draw(n // 3, natural(problem.domains), floors, caps, rng)
    scores = play.measure(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while True:
            x, y = torch.tensor(weights), torch.tensor(scores)[:, None]
            model = SingleTaskGP(x, y, outcome_transform=Standardize(1))
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            if len(weights) >= n:
                means = model.posterior(x).mean.detach().numpy()[:, 0]
                return weights[int(means.argmax())]
            best = weights[np.argsort(-model.posterior(x).mean.detach().numpy()[:, 0])[:10]]
            pool = draw(1000, natural(problem.domains), floors, caps, rng, near=best)
            found, _ = optimize_acqf_discrete(
                qLogNoisyExpectedImprovement(model, x, SobolQMCNormalSampler(torch.Size([64]), seed=seed)),
                q=min(16, n - len(weights)),
                choices=torch.tensor(pool),
            )
            fresh = found.detach().numpy()
            scores = np.concatenate([scores, play.measure(fresh)])
            weights = np.concatenate([weights, fresh])


NEEDS = {"tpe": "optuna", "cma-es": "cmaes", "botorch": "botorch"}
SEARCHES: dict[str, SearchRule] = {
    "climb": climb,
    LOW_FIDELITY: hinted,
    "recipe": baseline("recipe", rounds=True),
    "regmix": baseline("regmix"),
    "olmix": baseline("olmix"),
    "best of n": baseline("best-of-n"),
    "natural": baseline("natural"),
    "uniform": baseline("uniform"),
    "tpe": tpe,
    "cma-es": cma_es,
    "botorch": bo_torch,
}


def installed_searches() -> list[str]:
    """Return the searches that can run here, and print those that cannot."""
    found = []
    for name in SEARCHES:
        package = NEEDS.get(name)
        if package and importlib.util.find_spec(package) is None:
            print(f"skipped {name}: {package} is not installed")
        else:
            found.append(name)
    return found
