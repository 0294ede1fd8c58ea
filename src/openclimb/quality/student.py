"""Students as scorers: the models of `students/`, which `climb train-quality` made of labels.

"students" are those of the workspace, "students:FOLDER" those of another one. Reads `students/models/`: students.json
(which student each scale has), heads.npz (linear heads on the documents' vectors) and a .bin of fastText a scale.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import QualitySettings
from openclimb.errors import ConfigError
from openclimb.quality.fasttext import label_scores, labels_of, load_model, normalise, values_of
from openclimb.quality.scorers import STUDENTS, Place, Scorer, Scores, Vectors
from openclimb.workspace.files import read_json, write_json

MODELS, TABLE, HEADS = "models", "students.json", "heads.npz"
KINDS = ("fasttext", "head")
MOST_CHARS = 2000  # of a document that a student reads, as the embedder does: about 512 tokens
PREFIX = "__label__"  # a word that begins so would be a label to fastText


@dataclass(frozen=True)
class Student:
    """Which model scores a scale: its kind, the numbers that its labels are, and its file in `models/`."""

    scale: str
    kind: str  # of KINDS
    values: tuple[float, ...]
    file: str


def prepared(text: str) -> str:
    """Return a text as fastText students are trained on it and score it: its beginning, normalised, on one line."""
    return normalise(plain(text).replace(PREFIX, "label"))


def plain(text: str) -> str:
    """Return the beginning of a text that students read, with nothing that UTF-8 cannot write."""
    return text[:MOST_CHARS].encode("utf-8", "replace").decode()


def write_table(models: Path, students: Sequence[Student], embedding: str) -> None:
    """Write students.json, last: which student each scale has. `embedding`: fingerprint of what heads are given."""
    write_json(models / TABLE, {"embedding": embedding, "students": [asdict(one) for one in students]})


def scorers(settings: QualitySettings, argument: str, place: Place) -> list[Scorer]:
    root = Path(argument).expanduser() if argument else place.root
    models = root / STUDENTS / MODELS
    if not (models / TABLE).is_file():
        raise ConfigError(
            f"quality.scorers has students, and there are none in {models.parent}",
            f"climb annotate {root}, then climb train-quality {root}; or climb train-quality {root} --labels FILE",
        )
    table = read_json(models / TABLE)
    students = [Student(row["scale"], row["kind"], tuple(row["values"]), row["file"]) for row in table["students"]]
    heads = [one for one in students if one.kind == "head"]
    found = [_fasttext_scorer(models, students, settings.label)] if len(heads) < len(students) else []
    if heads:
        if place.embedding and table["embedding"] != place.embedding:
            raise ConfigError(
                f"the students of {heads[0].scale} in {models.parent} read the vectors of another embedder than [embed]"
                " names",
                f"climb train-quality {place.root} with their labels; or train them there with --student fasttext",
            )
        found.append(_head_scorer(models, heads, settings.label))
    return found


def _fasttext_scorer(models: Path, students: Sequence[Student], which: str) -> Scorer:
    read = [one for one in students if one.kind == "fasttext"]
    loaded = [load_model(models / one.file, f"the student of {one.scale}") for one in read]
    pairs = [(model, values_of(labels_of(model))) for model in loaded]
    return Scorer(tuple(one.scale for one in read), partial(_read_scores, pairs, which))


def _read_scores(models: Sequence[tuple[Any, dict[str, float]]], which: str, texts: Sequence[str]) -> Scores:
    normal = [prepared(text) for text in texts]
    return np.concatenate([label_scores(model, values, which, normal) for model, values in models], axis=1)


def _head_scorer(models: Path, heads: Sequence[Student], which: str) -> Scorer:
    with np.load(models / HEADS, allow_pickle=False) as arrays:
        weights, intercepts = arrays["weights"], arrays["intercepts"]
    values = [np.array(one.values) for one in heads]
    return Scorer(tuple(one.scale for one in heads), partial(head_scores, weights, intercepts, values, which), True)


def head_scores(
    weights: NDArray[np.float32],
    intercepts: NDArray[np.float32],
    values: Sequence[NDArray[np.float64]],
    which: str,
    vectors: Vectors,
) -> Scores:
    """Return the scores of linear heads, shape (n, n_heads), between the least and the largest label of each.

    `weights`: (n_heads, dim); `values`: the labels of each head, ascending. With "argmax", the nearest label.
    """
    scores = vectors @ weights.T + intercepts
    for column, labels in enumerate(values):
        scores[:, column] = np.clip(scores[:, column], labels[0], labels[-1])
        if which == "argmax":
            middles = (labels[1:] + labels[:-1]) / 2
            scores[:, column] = labels[np.searchsorted(middles, scores[:, column])]
    return np.asarray(scores, dtype=np.float32)
