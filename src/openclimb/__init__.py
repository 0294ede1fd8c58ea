"""Openclimb: find the best pre-training data mixture for a corpus and a goal, and write it out.

The library is the command line: ``openclimb.open("my-run").run()`` returns the answer.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openclimb.api import OpenWorkspace
    from openclimb.export.verify import Verified
    from openclimb.mixture import Weights
    from openclimb.progress import Progress
    from openclimb.search.predictors.predictor import Predictor

__version__ = "0.1.0"


def open(path: str | Path) -> "OpenWorkspace":
    """Open the workspace in a folder; `climb init` (or `openclimb.init`) makes one."""
    from openclimb.api import OpenWorkspace

    return OpenWorkspace(Path(path))


def init(path: str | Path, scale: str = "laptop", **sections: dict[str, Any]) -> "OpenWorkspace":
    """Make a workspace from a scale's presets and changed settings: ``init("r", corpus={"paths": ["a.jsonl"]})``."""
    from openclimb.api import create
    from openclimb.config.load import from_dict

    return create(path, from_dict({"scale": scale, **sections}))


def fit_predictor(weights: "Weights", scores: "Weights", name: str = "auto") -> "Predictor":
    """Fit a predictor on mixtures (n, n_domains) and one task's scores (n,): `predict(weights)` → mean, deviation.

    Raises SearchError when no score is finite, ConfigError when the predictor is not known.
    """
    from openclimb.search.predictors.predictor import fit_predictor

    return fit_predictor(weights, scores, name)


def verify(out: str | Path, progress: "Progress | None" = None) -> "Verified":
    """Read an exported dataset alone, a folder or a URL, and return what of it is not as its record says.

    Raises WorkspaceError where there is no finished export.
    """
    from openclimb.api import verify

    return verify(out, progress)
