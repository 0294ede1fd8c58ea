"""Distil a sentence-transformers model to a static one: half a minute for an embedder 30 times as fast on a CPU.

    python -m openclimb.clustering.distill MODEL OUT [--dim 256]

Each entry of the model's vocabulary is embedded by itself, and a text becomes the weighted mean of its entries
(model2vec; PCA and frequency weights after van Dongen and Tulkens, 2024).
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from openclimb.errors import ConfigError, MissingDependency, OpenclimbError


def distill(model: str, out: Path, dim: int = 256) -> None:
    """Write the static model of `model` (folder or hub name) to the folder `out`; an `out` that is there is kept."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # half a minute needs no bars
    try:
        from model2vec.distill import distill as distill_static
        from transformers.utils import logging
    except ImportError:
        raise MissingDependency("model2vec[distill]", "pip install 'openclimb[embed]'") from None
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it reports a buffer that newer releases do not keep
    if out.exists():
        return
    partial = out.with_name(f"{out.name}.partial")
    try:
        static = distill_static(model_name=model, pca_dims=dim)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"cannot load '{model}': {reason}", "give the folder of a sentence-transformers model"
        ) from None
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    static.save_pretrained(str(partial))
    partial.rename(out)


def main() -> int:
    """Parse the command line and distil."""
    parser = argparse.ArgumentParser(prog="python -m openclimb.clustering.distill", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or hub name of a sentence-transformers model")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--dim", type=int, default=256, help="dimensions of the static model")
    options = parser.parse_args()
    try:
        distill(options.model, options.out, options.dim)
    except OpenclimbError as error:
        print(f"error: {error.message}\nfix: {error.fix}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
