"""Quality scorers: texts → one or more numbers for each, by name.

"heuristics" is the share of the Gopher, C4 and FineWeb rules that a document keeps (`heuristics.py`); "fasttext" are
fastText classifiers (`fasttext.py`); "transformers:MODEL" is a sequence classifier of the hub's form
(`transformers.py`); "students" are those that `climb train-quality` made (`student.py`). Any `package.module:function`
gives what its author likes. A function with several scores names them in an attribute `names`; without it the
function's own name is the score's.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.registry import load, names
from openclimb.config.schema import QualitySettings
from openclimb.errors import ConfigError
from openclimb.quality.heuristics import MOST_CHARS, rules_kept

Scores = NDArray[np.float32]  # shape (n, n_scores)
Vectors = NDArray[np.float32]  # shape (n, dim), rows of unit norm
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
GPU_SHARE = 0.25  # of a GPU that a process with a model on it takes
STUDENTS = "students"  # the folder of a workspace that `climb train-quality` makes
MODELS = ("transformers", "students")  # scorers that take what stands behind a colon


@dataclass(frozen=True)
class Place:
    """What scorers are loaded from beside their settings: the workspace, consent to models' code, the embedder.

    `embedding`: the fingerprint of the embedder whose vectors the scorers will be given; "" where it is not known yet.
    """

    root: Path = Path()
    trust_remote_code: bool = False
    embedding: str = ""


NOWHERE = Place()


@dataclass(frozen=True)
class Scorer:
    """A function to scores of shape (n, len(names)), from texts or from their vectors, and the scores' names."""

    names: tuple[str, ...]
    function: Callable[[Any], Any]
    on_vectors: bool = False  # the function takes the documents' vectors, which the label pass has anyway
    gpu_share: float = 0.0  # of a GPU that a process with it takes, where there is one

    def __call__(self, texts: Sequence[str], vectors: Vectors | None = None) -> Scores:
        """Return the scores of the texts, checked; a score sees the first 20,000 characters of a document.

        `vectors`: those of the texts, shape (n, dim); needed where `on_vectors`. Raises ConfigError for other scores
        than one row a text, ValueError where vectors are needed and there are none.
        """
        if self.on_vectors and vectors is None:
            raise ValueError(f"the scorer of {', '.join(self.names)} needs the vectors of the texts")
        given = vectors if self.on_vectors else [text[:MOST_CHARS] for text in texts]
        scores = np.asarray(self.function(given), dtype=np.float32)
        scores = scores[:, None] if scores.ndim == 1 else scores
        if scores.shape != (len(texts), len(self.names)) or not np.isfinite(scores).all():
            raise ConfigError(
                f"the scorer of {', '.join(self.names)} gave an array of shape {scores.shape} for {len(texts)} texts",
                f"it must give finite numbers of shape ({len(texts)}, {len(self.names)})",
            )
        return scores


def load_scorers(settings: QualitySettings, place: Place = NOWHERE) -> list[Scorer]:
    """Return the scorers of the settings.

    Raises ConfigError for an unknown scorer, a model file that is missing or none, and a name used twice;
    MissingDependency for a library that is not there.
    """
    scorers: list[Scorer] = []
    for name in settings.scorers:
        kind, argument = split_name(name)
        function = load("scorer", kind)
        if kind in names("scorer"):
            scorers += function(settings, argument, place)
        else:
            given = getattr(function, "names", (getattr(function, "__name__", name.rpartition(":")[2]),))
            scorers.append(Scorer(tuple(given), function))
    counts = Counter([*RESERVED, *score_names(scorers)])
    twice = sorted(name for name in set(score_names(scorers)) if counts[name] > 1)
    if twice:
        raise ConfigError(f"quality: the score name '{twice[0]}' is taken", "give the scorer another name")
    return scorers


def split_name(name: str) -> tuple[str, str]:
    """Return a scorer's name and what stands behind its colon: "transformers:MODEL" → ("transformers", "MODEL").

    `package.module:function` is one name.
    """
    kind, _, argument = name.partition(":")
    return (kind, argument) if kind in MODELS else (name, "")


def scorer_files(settings: QualitySettings, root: Path) -> dict[str, str]:
    """Return what each scorer with files reads, by a name for people: a path, which need not exist.

    Scores change with the content of these; `root` is the workspace.
    """
    found = {f"fasttext {name}": place.partition("#")[0] for name, place in settings.fasttext.items()}
    for name in settings.scorers:
        kind, argument = split_name(name)
        if kind == "transformers":
            found[name] = argument
        elif kind == "students":
            found[name] = str((Path(argument).expanduser() if argument else root) / STUDENTS / "models")
    return found


def score_names(scorers: Sequence[Scorer]) -> list[str]:
    """Return the names of all scores, in the order of the columns."""
    return [name for scorer in scorers for name in scorer.names]


def rules(_settings: QualitySettings, _argument: str, _place: Place) -> list[Scorer]:
    return [Scorer(("heuristics",), rules_kept)]
