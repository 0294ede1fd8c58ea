"""Rivals as their authors run them: fits and answers beside numbers that follow from the published rules alone.

RegMix: regression.ipynb and synthesize_mixture.py of sail-sg/regmix. The recipe: 5_mixture.py, 8_predict.py and e2e.sh
of NVIDIA NeMo Curator's Nemotron-CLIMB tutorial. Olmix: olmix/fit/utils.py and law.py of allenai/olmix.
"""

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from openclimb.baselines import baseline as base
from openclimb.baselines.baseline import answer_of, natural_draws, predicted
from openclimb.baselines.fits.exponential_law import log_linear
from openclimb.baselines.fits.trees import Trees, n_held_out, recipe_trees, regmix_trees
from openclimb.baselines.olmix import olmix_loss
from openclimb.baselines.recipe import recipe_rounds
from openclimb.config.schema import SearchSettings
from openclimb.errors import SearchError
from openclimb.mixture import Domain, Weights, natural
from openclimb.search.acquisition.spec import SearchSpec, make_spec
from openclimb.search.history import read_history
from openclimb.search.propose import next_batch
from openclimb.search.space.region import region_of
from openclimb.stats.noise import folds_of
from openclimb.testing.fixtures import make_domains, make_observation, smooth_observations
from openclimb.workspace.observations import Observation

Floats = NDArray[np.float64]
PUBLISHED = {"objective": "regression", "metric": ["l1", "l2"], "learning_rate": 0.01, "seed": 42, "verbosity": -1}
RECIPE = {**PUBLISHED, "lambda_l1": 1.0, "lambda_l2": 1.0, "max_depth": 4, "min_data_in_leaf": 5}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """RegMix and the recipe predict 100,000 draws; some thousands show the same."""
    monkeypatch.setattr(base, "DRAWS", 4000)
    monkeypatch.setattr(base, "CHUNK", 1000)


def table(n: int, d: int = 6) -> tuple[Weights, Floats]:
    rng = np.random.default_rng(n)
    weights = rng.dirichlet(np.ones(d), n)
    return weights, -3.0 - 0.5 * ((np.sqrt(weights) - 0.3) ** 2).sum(1) + 0.01 * rng.standard_normal(n)


def agree(ours: Floats, theirs: Floats) -> None:
    """Sums in another order have other rounding errors, by which a tie between two splits may fall otherwise."""
    assert np.median(np.abs(ours - theirs)) < 1e-6
    assert ours == pytest.approx(theirs, abs=1e-3)


def by_lightgbm(weights: Weights, scores: Floats, settings: dict[str, Any], patience: int) -> lightgbm.Booster:
    """Fit LightGBM by its authors' settings, with the rows held out that ours holds out."""
    order = np.random.default_rng(42).permutation(len(scores))
    held, kept = np.split(order, [len(order) - int(0.9 * len(order))])
    data = lightgbm.Dataset(weights[kept], scores[kept])
    check = lightgbm.Dataset(weights[held], scores[held], reference=data)
    stop = lightgbm.early_stopping(patience, verbose=False)
    return lightgbm.train(settings, data, 1000, valid_sets=[check], callbacks=[stop])


@pytest.mark.parametrize(("n", "rows"), [(512, None), (112, 4), (29, 3), (8, 3)])
def test_regmix_fits_as_its_notebook_with_the_rows_a_leaf_in_proportion(n: int, rows: int | None) -> None:
    weights, scores = table(n)
    trees = regmix_trees().fit(weights, scores)
    settings = PUBLISHED if rows is None else {**PUBLISHED, "min_data_in_leaf": rows}  # 20 is LightGBM's default
    of, _ = folds_of(weights, 5)
    folds = [(np.flatnonzero(of != fold), np.flatnonzero(of == fold)) for fold in range(5)]
    stop = lightgbm.early_stopping(3, verbose=False)  # by runs that a fit has not seen
    unit = (scores - scores.mean()) / scores.std()  # without penalties the unit decides nothing but rounding errors
    errors = lightgbm.cv(settings, lightgbm.Dataset(weights, unit), 1000, folds=folds, callbacks=[stop])
    theirs = lightgbm.train(settings, lightgbm.Dataset(weights, unit), len(errors["valid l2-mean"]))
    new = np.random.default_rng(0).dirichlet(np.ones(6), 200)
    agree(trees.predict(new)[0], theirs.predict(new) * scores.std() + scores.mean())
    assert not trees.constant
    assert np.ptp(theirs.predict(new)) > 0


def test_regmix_never_answers_by_a_constant() -> None:
    domains = make_domains(6)
    trials = smooth_observations(domains, 29)
    answer_of("regmix", SearchSpec(tuple(domains)), trials[:8], np.random.default_rng(0))
    with pytest.raises(SearchError, match="cannot learn from 7 trials") as caught:
        answer_of("regmix", SearchSpec(tuple(domains)), trials[:7], np.random.default_rng(0))
    assert "at least 8," in caught.value.fix
    with pytest.raises(SearchError, match=r"the recipe cannot learn from 12 trials") as caught:
        answer_of("recipe", SearchSpec(tuple(domains), "recipe"), trials[:12], np.random.default_rng(0))
    assert "at least 13," in caught.value.fix
    answer_of("recipe", SearchSpec(tuple(domains), "recipe"), trials[:13], np.random.default_rng(0))


def test_trees_without_a_split_are_a_constant_even_where_rows_suffice() -> None:
    weights = np.repeat([[0.5, 0.5]], 30, axis=0)  # one mixture with 30 seeds: nothing to split at
    trees = regmix_trees().fit(weights, np.random.default_rng(0).normal(size=30))
    assert trees.splits(30)
    assert trees.constant


@pytest.mark.parametrize("n", [28, 64, 112, 300])
def test_the_recipe_fits_as_its_script_on_standardised_scores(n: int) -> None:
    weights, scores = table(n)
    trees = recipe_trees().fit(weights, scores)
    held = n - int(0.9 * n)
    theirs = by_lightgbm(weights, (scores - scores.mean()) / scores.std(), RECIPE, patience=min(20, held))
    new = np.random.default_rng(0).dirichlet(np.ones(6), 200)
    agree(trees.predict(new)[0], theirs.predict(new) * scores.std() + scores.mean())
    assert n_held_out(n, 0.1) == held


def test_the_recipe_plays_rounds_of_4_2_1() -> None:
    assert [recipe_rounds(n) for n in (112, 28, 29, 24, 7)] == [
        (64, 32, 16),
        (16, 8, 4),
        (17, 8, 4),
        (15, 6, 3),
        (4, 2, 1),
    ]
    for n in range(1, 300):
        rounds = recipe_rounds(n)
        assert sum(rounds) == n
        assert min(rounds) > 0
        if n >= 28:
            assert np.abs(np.array(rounds) / n - np.array([4, 2, 1]) / 7).max() < 0.07


def fit_of(make: Callable[[], Trees], trials: list[Observation], domains: list[Domain]) -> Trees:
    history = read_history(trials, domains, {}).aggregated()
    return make().fit(history.weights, history.scores[:, 0])


def test_answers_are_the_mean_of_the_best_128_and_the_single_best() -> None:
    domains = make_domains(6)
    trials = smooth_observations(domains, 60)
    pool = natural_draws(region_of(domains), np.random.default_rng(5))
    means = predicted(fit_of(regmix_trees, trials, domains), pool)
    best = pool[np.argsort(-means, kind="stable")[:128]].mean(0)
    assert answer_of("regmix", SearchSpec(tuple(domains)), trials, np.random.default_rng(5)) == pytest.approx(
        best, abs=2e-4
    )
    means = predicted(fit_of(recipe_trees, trials, domains), pool)
    best = pool[int(means.argmax())]
    assert answer_of("recipe", SearchSpec(tuple(domains), "recipe"), trials, np.random.default_rng(5)) == pytest.approx(
        best, abs=2e-4
    )


@pytest.mark.parametrize("name", ["regmix", "recipe"])
def test_first_draws_over_15_times_natural_are_thrown_away(name: str) -> None:
    domains = [Domain(f"d{i}", tokens) for i, tokens in enumerate((10, 10, 20, 500, 1000, 2000))]
    drawn = next_batch([], make_spec(domains, SearchSettings(proposer=name, predictor="recipe")), 64, 0, 0)
    limits = np.minimum(1.0, 15 * natural(domains))
    assert (drawn <= limits + 1e-4).all()
    assert (np.abs(drawn - limits)[:, :3] < 1e-3).sum() < 4  # cut draws would stand on the limit


def olmix_law(weights: Weights, losses: Floats) -> tuple[float, Floats]:
    """Return log c and t of L = c + exp(w · t) by Huber's loss with δ = 0.02, the best of Olmix's kind of starts."""
    rng = np.random.default_rng(0)

    def huber(theta: Floats) -> float:
        off = np.abs(np.exp(theta[0]) + np.exp(np.minimum(weights @ theta[1:], 50.0)) - losses)
        return float(np.where(off <= 0.02, 0.5 * off**2, 0.02 * (off - 0.01)).sum())

    starts = [np.concatenate([[c], 0.1 * rng.random(weights.shape[1])]) for c in np.linspace(-2.0, 1.5, 10)]
    fits = [minimize(huber, start, method="L-BFGS-B", options={"maxiter": 2000, "maxfun": 10**5}) for start in starts]
    theta = min(fits, key=lambda fit: float(fit.fun)).x
    return float(theta[0]), theta[1:]


def olmix_table(domains: list[Domain], n: int = 40) -> tuple[Weights, Floats, list[Observation]]:
    """Return weights, losses (n, 2) in bits per byte with noise and an outlier, and the trials."""
    rng = np.random.default_rng(3)
    d = len(domains)
    weights = rng.dirichlet(np.ones(d), n)
    slopes = rng.normal(-0.5, 1.0, (d, 2))
    losses = 1.2 + np.exp(weights @ slopes) + 0.01 * rng.standard_normal((n, 2))
    losses[5] += 0.5
    rows = [{f"task-{j}": -float(value) for j, value in enumerate(row)} for row in losses]
    return weights, losses, [make_observation(i + 1, domains, weights[i], row) for i, row in enumerate(rows)]


def test_olmix_fits_its_law_by_hubers_loss_in_bits_per_byte() -> None:
    domains = make_domains(5)
    weights, losses, _ = olmix_table(domains)
    new = np.random.default_rng(1).dirichlet(np.ones(5), 200)
    for column in losses.T:
        log_c, t = olmix_law(weights, column)
        ours = -log_linear().fit(weights, -column).predict(new)[0]
        assert ours == pytest.approx(np.exp(log_c) + np.exp(new @ t), abs=0.01)


def test_olmix_answers_with_the_least_mean_loss_plus_a_twentieth_of_the_divergence() -> None:
    domains = make_domains(5)
    weights, losses, trials = olmix_table(domains)
    laws = [olmix_law(weights, column) for column in losses.T]
    share = natural(domains)

    def objective(at: Weights) -> float:
        inside = np.maximum(at, 1e-12)
        return float(np.mean([np.exp(at @ t) for _, t in laws]) + 0.05 * (inside @ np.log(inside / share)))

    sums = {"type": "eq", "fun": lambda at: at.sum() - 1.0}
    theirs = minimize(
        objective, share, method="SLSQP", bounds=[(0, 1)] * 5, constraints=[sums], options={"ftol": 1e-12}
    ).x
    ours = answer_of("olmix", SearchSpec(tuple(domains)), trials, np.random.default_rng(0))
    assert 0.5 * np.abs(ours - theirs).sum() < 0.02
    assert 0.5 * np.abs(ours - share).sum() > 0.05
    assert objective(ours) == pytest.approx(objective(theirs), abs=1e-3)


def test_olmix_of_accuracies_does_not_depend_on_their_unit() -> None:
    domains = make_domains(5)
    *_, trials = olmix_table(domains)
    found = []
    for unit in (1.0, 100.0):
        completed = [
            make_observation(
                t.name, domains, t.weights, {name: unit * (5.0 + value) for name, value in t.scores.items()}
            )
            for t in trials
        ]
        loss = olmix_loss(read_history(completed, domains, {}), natural(domains))
        found.append(answer_of("olmix", SearchSpec(tuple(domains)), completed, np.random.default_rng(0)))
        assert np.isfinite(loss(found[-1])[0])
    assert found[0] == pytest.approx(found[1], abs=0.01)
