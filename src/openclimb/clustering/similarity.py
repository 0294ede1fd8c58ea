"""How alike domains and tasks are to the embedder: cosines of a domain's centroid and the mean of a task's items.

Reads the model of the clusters and `domains/centroids.npy`. Writes `tokens/similarity.csv`: a row a domain, a column a
task. It informs nobody but the reader of the report.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openclimb.clustering.embed import Vectors, gpu_share, load_embedder
from openclimb.config.schema import EmbedSettings
from openclimb.engines.engine import Resources
from openclimb.tasks.items import Item
from openclimb.workspace.context import StageContext
from openclimb.workspace.tables import read_rows, write_csv

FILE = "similarity.csv"
NAME = "domain/task"  # heads the column of domains: no task can have such a name, as it is a file's
ITEMS = 300  # of a task: their mean has hardly any noise left


def write_similarity(
    context: StageContext, embed: EmbedSettings, clusters: Path, domains: Path, tasks: Mapping[str, Sequence[Item]]
) -> None:
    """Write similarity.csv: the cosine of each domain's centroid and the mean vector of each task's items.

    `tasks`: the items that the search sees; a task without any has no column. Writes nothing where domains have no
    centroids or no task has items.
    """
    path = domains / "centroids.npy"
    texts = {name: [_text(item) for item in items[:ITEMS]] for name, items in sorted(tasks.items()) if items}
    if not path.is_file() or not texts:
        return
    embed_task = partial(_mean_vector, embed, clusters)
    means = np.empty((len(texts), np.load(path, mmap_mode="r", allow_pickle=False).shape[1]), dtype=np.float32)
    share = Resources(gpus=gpu_share(embed))
    context.progress.start("compare tasks with domains", len(texts), "tasks")
    for index, mean in context.engine.map(embed_task, list(texts.values()), share, folder=context.folder):
        means[index] = mean
        context.progress.advance()
    context.progress.finish()
    if share.gpus:
        context.engine.release()  # the embedder's memory
    cosines = np.load(path, allow_pickle=False) @ means.T
    names = [row["name"] for row in read_rows(domains / "domains.csv")]
    rows = [[name, *(round(float(value), 4) for value in row)] for name, row in zip(names, cosines, strict=True)]
    write_csv(context.folder / FILE, [NAME, *texts], rows)


def _text(item: Item) -> str:
    """Return an item as text: the context and the right answer."""
    context, answer = item.pairs[item.gold]
    return f"{context}{answer}"


def _mean_vector(embed: EmbedSettings, clusters: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the mean direction of texts, shape (dim,), unit norm."""
    vectors: Vectors = load_embedder(embed, clusters)(texts)
    mean = vectors.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-30), dtype=np.float32)
