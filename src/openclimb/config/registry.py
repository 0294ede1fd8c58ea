"""The one registry: what the settings may name at each seam. Anything else is `package.module:function`.

Values are where a built-in stands, so that nothing is imported before it is used.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from openclimb.errors import ConfigError, nearest

HERE = "openclimb."
OBJECTS = ("baseline", "writer")  # seams whose parts are no functions
REGISTRY: Mapping[str, Mapping[str, str]] = {
    "embedder": {
        "model2vec": "clustering.embed:static",
        "sentence-transformers": "clustering.embed:transformer",
        "hashing": "clustering.embed:hashing",
    },
    "scorer": {"heuristics": "quality.scorers:rules", "fasttext": "quality.scorers:fasttext"},
    "proposer": {
        "climb": "search.acquisition.ucb:propose_climb",
        "pareto": "search.acquisition.pareto:propose_pareto",
        "natural": "baselines.natural:propose",
        "uniform": "baselines.uniform:propose",
        "best-of-n": "baselines.best_of_n:propose",
        "regmix": "baselines.regmix:propose",
        "olmix": "baselines.olmix:propose",
        "recipe": "baselines.recipe:propose",
    },
    "baseline": {
        "natural": "baselines.natural:BASELINE",
        "uniform": "baselines.uniform:BASELINE",
        "best-of-n": "baselines.best_of_n:BASELINE",
        "regmix": "baselines.regmix:BASELINE",
        "olmix": "baselines.olmix:BASELINE",
        "recipe": "baselines.recipe:BASELINE",
        "doremi": "baselines.doremi:BASELINE",
    },
    "predictor": {
        "auto": "search.predictors.ensemble:Ensemble",
        "gp": "search.predictors.gp:GaussianProcess",
        "power_law": "search.predictors.power_law:PowerLaw",
        "exponential": "baselines.fits.exponential_law:ExponentialLaw",
        "loglinear": "baselines.fits.exponential_law:log_linear",
        "ridge": "baselines.fits.ridge:Ridge",
        "lightgbm": "baselines.fits.trees:Trees",
        "recipe": "baselines.fits.trees:recipe_trees",
    },
    "low_fidelity": {
        "bigram": "search.predictors.low_fidelity_store:bigram",
        "trigram": "search.predictors.low_fidelity_store:trigram",
    },
    "writer": {"parquet": "export.writers:PARQUET", "jsonl.zst": "export.writers:JSON_LINES"},
}


def names(seam: str) -> tuple[str, ...]:
    """Return the built-in names of a seam."""
    return tuple(REGISTRY[seam])


def load(seam: str, name: str) -> Any:
    """Return what a setting names: a built-in of the seam, or what stands at `package.module:function`.

    Raises ConfigError when there is none, or no function where the seam has functions.
    """
    if name in REGISTRY[seam]:
        module, _, attribute = REGISTRY[seam][name].partition(":")
        return getattr(importlib.import_module(HERE + module), attribute)
    if ":" not in name:
        raise ConfigError(
            f"{seam.replace('_', '-')} '{name}' is not known{nearest(name, names(seam))}",
            f"use {', '.join(names(seam))} or package.module:function",
        )
    module, _, attribute = name.partition(":")
    what = f"{seam.replace('_', '-')} '{name}'"
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what} cannot be loaded: {error}", "write package.module:function") from None
    if not callable(found) and seam not in OBJECTS:
        raise ConfigError(f"{what} is not a function", "write package.module:function")
    return found
