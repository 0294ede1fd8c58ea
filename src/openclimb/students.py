"""`climb train-quality`: the students of a workspace, `students/`, from labels of its documents.

Reads a file of labels, `clusters/` where there are some (the fitted embedder, the centroids) and climb.toml. Students
of other labels are moved aside, never deleted.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.clustering.embed import embedding_fingerprint, gpu_share, load_embedder
from openclimb.clustering.kmeans import assign
from openclimb.config.schema import EmbedSettings
from openclimb.engines.engine import Engine
from openclimb.errors import ConfigError, WorkspaceError, nearest
from openclimb.progress import Progress
from openclimb.quality.scorers import STUDENTS
from openclimb.quality.student import KINDS
from openclimb.quality.training.labels import read_lines
from openclimb.quality.training.report import read_report
from openclimb.quality.training.train import Embedding, Placed, train_students
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import file_checksum, sweep
from openclimb.workspace.records import Recipe, Workspace

VERSION = 1
LABELS = Path("annotations") / "labels.jsonl"  # in the workspace; `climb annotate` makes it


def train(workspace: Workspace, path: Path | None, kind: str, engine: Engine, progress: Progress) -> dict[str, Any]:
    """Train the students of the labels in a file (None: the workspace's annotations) and return report.json.

    `kind`: "fasttext" or "head"; "" for both. What was made of the same labels is not made again. Raises InputError for
    labels that cannot be used and where no student is better than a constant, WorkspaceError where the embedder is
    still to be fitted.
    """
    if kind and kind not in KINDS:
        raise ConfigError(f"there is no student '{kind}'{nearest(kind, KINDS)}", f"use one of: {', '.join(KINDS)}")
    config, root = workspace.config(), workspace.root
    path = path or root / LABELS
    next(read_lines(path), None)  # a file that is not there is named before the work
    kinds = (kind,) if kind else KINDS
    embedding = _embedding(config.embed, root / "clusters") if "head" in kinds else None
    inputs = {"labels": file_checksum(path), **({"embedder": embedding.fingerprint} if embedding else {})}
    recipe = Recipe(STUDENTS, VERSION, {"student": list(kinds)}, inputs)
    with workspace.hold(note=progress.note):
        sweep(root)
        workspace.recover(STUDENTS)
        if workspace.state(recipe).state == "stale":
            for moved in workspace.set_aside(STUDENTS):
                progress.note(f"students of other labels or settings are in {moved.name}/ now")
        context = StageContext(root, engine, progress, config.seed)
        return read_report(workspace.make(recipe, context, train_students, path, kinds, embedding))


def _embedding(settings: EmbedSettings, clusters: Path) -> Embedding:
    """Return the embedder of the workspace. Raises WorkspaceError where it is still to be fitted."""
    found = embedding_fingerprint(settings, clusters)
    if not found:
        raise WorkspaceError(
            f"heads read the documents' vectors, and the embedder is not fitted yet: there is no {clusters}",
            f"climb run {clusters.parent} first, or --student fasttext",
        )
    return Embedding(found, partial(place, settings, clusters), gpu_share(settings))


def place(settings: EmbedSettings, clusters: Path, texts: Sequence[str]) -> Placed:
    """Return the vectors of texts and, where there are centroids, their clusters, as the label pass finds them."""
    vectors = load_embedder(settings, clusters)(texts)
    path = clusters / "centroids.npy"
    return vectors, assign(vectors, np.load(path, allow_pickle=False))[0] if path.is_file() else None
