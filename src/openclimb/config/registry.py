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
    "annotator": {"endpoint": "quality.annotation.annotate:by_endpoint"},
    "scorer": {
        "heuristics": "quality.scorers:rules",
        "fasttext": "quality.fasttext:scorers",
        "transformers": "quality.transformers:scorers",
        "students": "quality.student:scorers",
    },
    "proposer": {
        "climb": "search.acquisition.ucb:propose_climb",
        "climb-dirichlet": "baselines.first_draws:after_dirichlet",
        "climb-random": "baselines.first_draws:after_random",
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
    "engine": {
        "local": "engines.local:make",
        "slurm": "engines.slurm:make",
        "ray": "engines.ray:make",
    },
    "writer": {
        "parquet": "export.writers.rows:PARQUET",
        "jsonl.zst": "export.writers.rows:JSON_LINES",
        "megatron": "export.writers.megatron:MEGATRON",
        "tokens": "export.writers.tokens:TOKENS",
        "mds": "export.writers.streams:MDS",
        "litdata": "export.writers.streams:LITDATA",
    },
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
    what = f"{seam.replace('_', '-')} '{name}'"
    found = load_named(name, what)
    if not callable(found) and seam not in OBJECTS:
        raise ConfigError(f"{what} is not a function", "write package.module:function")
    return found


def load_named(name: str, what: str) -> Any:
    """Return what stands at `package.module:name`. Raises ConfigError, with the cause and the way out, for any fault.

    `what` says in a message which setting names it.
    """
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module and not module.startswith(f"{error.name}."):
            raise ConfigError(
                f"{what} cannot be loaded: {module} needs {error.name}", f"install {error.name}"
            ) from None
        raise ConfigError(
            f"{what} cannot be loaded: there is no module {error.name} on Python's path",
            "name the folder that holds it: PYTHONPATH=FOLDER climb …; or install it; form: package.module:function",
        ) from None
    except Exception as error:  # a module of the user's may raise anything when it is imported
        raise ConfigError(
            f"{what} cannot be loaded: importing {module} raises {type(error).__name__}: {error}",
            f"correct it: python -c 'import {module}' must work",
        ) from None
    if not hasattr(found, attribute):
        own = "put the function into a file of its own, such as mine.py, and write mine:function"
        near = nearest(attribute, [one for one in vars(found) if not one.startswith("_")])
        raise ConfigError(
            f"{what} cannot be loaded: {module} has no '{attribute}'{near}",
            own if module == "__main__" else "write package.module:function",
        )
    return getattr(found, attribute)
