"""Which documents are in no domain, no training and no export, besides those of pruned clusters: contaminated ones and
duplicates, where the settings leave them out.

Reads `unit-00012.parquet` of `contamination/` and `duplicates/`, which have the positions of such documents.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import Config
from openclimb.corpus import contamination, duplicates
from openclimb.corpus.custom_domains import has_custom_domains


def folders_left_out(root: Path, config: Config) -> tuple[Path, ...]:
    """Return the folders that say which documents of a workspace are left out."""
    names = [contamination.FOLDER] if config.tasks.contamination == "documents" and config.tasks.paths else []
    names += [duplicates.FOLDER] if finds_duplicates(config) else []
    return tuple(root / name for name in names)


def finds_duplicates(config: Config) -> bool:
    """Return whether duplicates are looked for and left out; never where the domains are given without a corpus."""
    return config.corpus.dedup != "none" and not has_custom_domains(config)


def is_left_out(folders: Sequence[Path], number: int, labels: Any) -> NDArray[np.bool_]:
    """Return for each row of a unit's labels (with `position`, where there are folders) whether one names it."""
    import pyarrow.parquet as pq

    found = np.zeros(labels.num_rows, dtype=np.bool_)
    for folder in folders:
        named = pq.read_table(folder / f"unit-{number:05d}.parquet", columns=["position"])
        found |= np.isin(labels.column("position").to_numpy(), named.column("position").to_numpy())
    return found
