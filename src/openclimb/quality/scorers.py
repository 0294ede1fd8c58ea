"""Quality scorers: texts → one or more numbers for each, by name.

"heuristics" is the share of the Gopher, C4 and FineWeb rules that a document keeps (`heuristics.py`); "fasttext" is the
expected label of fastText classifiers; any `package.module:function` gives what its author likes. A function with
several scores names them in an attribute `names`; without it the function's own name is the score's.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.registry import load, names
from openclimb.config.schema import QualitySettings
from openclimb.errors import ConfigError, MissingDependency, nearest
from openclimb.quality.heuristics import MOST_CHARS, rules_kept

Scores = NDArray[np.float32]  # shape (n, n_scores)
RESERVED = (
    "position",
    "cluster",
    "source",
    "distance",
    "bytes",
    "tokens",
    "hash",
    "documents",
    "share",
    "cap",
    "domain",
)


@dataclass(frozen=True)
class Scorer:
    """A function from texts to scores of shape (n, len(names)), and the scores' names."""

    names: tuple[str, ...]
    function: Callable[[Sequence[str]], Any]

    def __call__(self, texts: Sequence[str]) -> Scores:
        """Return the scores of the texts, checked; a score sees the first 20,000 characters of a document."""
        scores = np.asarray(self.function([text[:MOST_CHARS] for text in texts]), dtype=np.float32)
        scores = scores[:, None] if scores.ndim == 1 else scores
        if scores.shape != (len(texts), len(self.names)) or not np.isfinite(scores).all():
            raise ConfigError(
                f"the scorer of {', '.join(self.names)} gave an array of shape {scores.shape} for {len(texts)} texts",
                f"it must give finite numbers of shape ({len(texts)}, {len(self.names)})",
            )
        return scores


def load_scorers(settings: QualitySettings) -> list[Scorer]:
    """Return the scorers of the settings.

    Raises ConfigError for an unknown scorer, a model file that is missing or none, and a name used twice.
    """
    scorers: list[Scorer] = []
    for name in settings.scorers:
        function = load("scorer", name)
        if name in names("scorer"):
            scorers += function(settings)
        else:
            given = getattr(function, "names", (getattr(function, "__name__", name.rpartition(":")[2]),))
            scorers.append(Scorer(tuple(given), function))
    counts = Counter([*RESERVED, *score_names(scorers)])
    twice = sorted(name for name in set(score_names(scorers)) if counts[name] > 1)
    if twice:
        raise ConfigError(f"quality: the score name '{twice[0]}' is taken", "give the scorer another name")
    return scorers


def score_names(scorers: Sequence[Scorer]) -> list[str]:
    """Return the names of all scores, in the order of the columns."""
    return [name for scorer in scorers for name in scorer.names]


def normalise(text: str) -> str:
    """Return a text as NVIDIA's recipe gives it to fastText, so that its classifiers see what they were trained on.

    A newline becomes "<newline>", which clings to its neighbours as it does there; punctuation stands apart; letters
    are small; white space is squeezed.
    """
    return " ".join(PUNCTUATION.sub(r" \1 ", text.replace("\n", "<newline>")).lower().split())


PUNCTUATION = re.compile(r"([.!?,'/()])")  # what fastText's own preparation script sets apart


def rules(_settings: QualitySettings) -> list[Scorer]:
    return [Scorer(("heuristics",), rules_kept)]


def fasttext(settings: QualitySettings) -> list[Scorer]:
    if not settings.fasttext:
        raise ConfigError(
            "quality.scorers has fasttext, but quality.fasttext names no model",
            'write fasttext = { education = "path/to/model.bin" }',
        )
    return [Scorer((name,), partial(_expected, *_classifier(name, path))) for name, path in settings.fasttext.items()]


def _classifier(name: str, place: str) -> tuple[Any, dict[str, float]]:
    """Load "path" (labels are numbers) or "path#label" (the score is that label's probability)."""
    try:
        import fasttext as library
    except ImportError:
        raise MissingDependency("fasttext-predict", "pip install 'openclimb[fasttext]'") from None
    path, _, wanted = place.partition("#")
    if not Path(path).expanduser().is_file():
        raise ConfigError(
            f"quality.fasttext.{name}: there is no file '{path}'", "give the path of a .bin or .ftz model"
        )
    try:
        model = library.load_model(str(Path(path).expanduser()))
    except ValueError as error:
        raise ConfigError(f"quality.fasttext.{name}: {error}", "give a classifier made by fastText") from None
    labels, _ = model.predict("a", k=-1, threshold=-1.0)
    labels = [label.removeprefix("__label__") for label in labels]
    if wanted:
        if wanted not in labels:
            raise ConfigError(
                f"quality.fasttext.{name}: '{path}' has no label '{wanted}'{nearest(wanted, labels)}",
                f"its labels are: {', '.join(sorted(labels)[:20])}",
            )
        return model, {f"__label__{wanted}": 1.0}
    try:
        return model, {f"__label__{label}": float(label) for label in labels}
    except ValueError:
        listed = ", ".join(sorted(labels)[:20])
        raise ConfigError(
            f"quality.fasttext.{name}: the labels of '{path}' are not numbers: {listed}",
            f'say whose probability is the score: {name} = "{path}#{sorted(labels)[0]}"',
        ) from None


def _expected(model: Any, values: dict[str, float], texts: Sequence[str]) -> Scores:
    """Return the expected label of each text: the sum of label × probability over all labels."""
    scores = np.zeros((len(texts), 1), dtype=np.float32)
    for row, text in enumerate(texts):
        labels, probabilities = model.predict(normalise(text), k=-1, threshold=-1.0)
        total = sum(probabilities) or 1.0  # a text without a known word has no probabilities
        scores[row] = sum(values.get(label, 0.0) * p for label, p in zip(labels, probabilities, strict=True)) / total
    return scores
