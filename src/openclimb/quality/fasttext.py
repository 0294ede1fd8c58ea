"""fastText classifiers as scorers: the expected label of a text, its likeliest one, or one label's probability."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.config.schema import QualitySettings
from openclimb.errors import ConfigError, MissingDependency, nearest
from openclimb.quality.scorers import Place, Scorer, Scores

PUNCTUATION = re.compile(r"([.!?,'/()])")  # what fastText's own preparation script sets apart


def normalise(text: str) -> str:
    """Return a text as NVIDIA's recipe gives it to fastText, so that its classifiers see what they were trained on.

    A newline becomes "<newline>", which clings to its neighbours as it does there; punctuation stands apart; letters
    are small; white space is squeezed.
    """
    return " ".join(PUNCTUATION.sub(r" \1 ", text.replace("\n", "<newline>")).lower().split())


def scorers(settings: QualitySettings, _argument: str, _place: Place) -> list[Scorer]:
    if not settings.fasttext:
        raise ConfigError(
            "quality.scorers has fasttext, but quality.fasttext names no model",
            'write fasttext = { education = "path/to/model.bin" }',
        )
    return [
        Scorer((name,), partial(_normalised_scores, *_classifier(name, path), settings.label))
        for name, path in settings.fasttext.items()
    ]


def load_model(path: Path, where: str) -> Any:
    """Return a fastText model. Raises ConfigError where `path` holds none; `where` says which setting named it."""
    try:
        import fasttext as library
    except ImportError:
        raise MissingDependency("fasttext", "pip install 'openclimb[fasttext]'") from None
    try:
        return library.load_model(str(path))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}", "give a classifier made by fastText") from None


def _classifier(name: str, place: str) -> tuple[Any, dict[str, float]]:
    """Load "path" (labels are numbers) or "path#label" (the score is that label's probability)."""
    path, _, wanted = place.partition("#")
    if not Path(path).expanduser().is_file():
        raise ConfigError(
            f"quality.fasttext.{name}: there is no file '{path}'", "give the path of a .bin or .ftz model"
        )
    model = load_model(Path(path).expanduser(), f"quality.fasttext.{name}")
    labels = labels_of(model)
    if wanted:
        if wanted not in labels:
            raise ConfigError(
                f"quality.fasttext.{name}: '{path}' has no label '{wanted}'{nearest(wanted, labels)}",
                f"its labels are: {', '.join(sorted(labels)[:20])}",
            )
        return model, {f"__label__{wanted}": 1.0}
    try:
        return model, values_of(labels)
    except ValueError:
        listed = ", ".join(sorted(labels)[:20])
        raise ConfigError(
            f"quality.fasttext.{name}: the labels of '{path}' are not numbers: {listed}",
            f'say whose probability is the score: {name} = "{path}#{sorted(labels)[0]}"',
        ) from None


def labels_of(model: Any) -> list[str]:
    """Return the labels of a classifier, without their prefix."""
    labels, _ = model.predict("a", k=-1, threshold=-1.0)
    return [label.removeprefix("__label__") for label in labels]


def values_of(labels: Sequence[str]) -> dict[str, float]:
    """Return the number that each label stands for, by its name in the model. Raises ValueError where one is none."""
    return {f"__label__{label}": float(label) for label in labels}


def _normalised_scores(model: Any, values: Mapping[str, float], which: str, texts: Sequence[str]) -> Scores:
    return label_scores(model, values, which, [normalise(text) for text in texts])


def label_scores(model: Any, values: Mapping[str, float], which: str, texts: Sequence[str]) -> Scores:
    """Return a score for each normalised text, shape (n, 1).

    `which`: "expected" for the sum of value × probability over all labels, "argmax" for the value of the likeliest.
    Where `values` has one label alone, the score is its probability.
    """
    scores = np.zeros((len(texts), 1), dtype=np.float32)
    for row, text in enumerate(texts):
        labels, probabilities = model.predict(text, k=-1, threshold=-1.0)
        if which == "argmax" and len(values) > 1:
            scores[row] = values[labels[int(np.argmax(probabilities))]] if len(labels) else min(values.values())
            continue
        total = sum(probabilities) or 1.0  # a text without a known word has no probabilities
        scores[row] = sum(values.get(label, 0.0) * p for label, p in zip(labels, probabilities, strict=True)) / total
    return scores
