"""Read a dataset with its trainer's own package, in the environment that has it: a JSON list a document, on stdout.

python read.py megatron PREFIX … | mds FOLDER | litdata FOLDER
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any


def megatron(*prefixes: str) -> Iterator[Any]:
    """Yield the ids of each document."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    for prefix in prefixes:
        assert IndexedDataset.exists(prefix)
        dataset = IndexedDataset(prefix, mmap=True)
        assert dataset.document_indices.tolist() == list(range(len(dataset) + 1))
        for i in range(len(dataset)):
            yield [dataset[i].tolist(), int(dataset.sequence_lengths[i])]


def mds(folder: str) -> Iterator[Any]:
    """Yield each row as it comes in an unshuffled pass."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    try:  # streaming imports it
        import torchvision  # noqa: F401
    except RuntimeError:  # its wheel is of CUDA and torch of the CPU: it has no operators, but asks for these two
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=folder, shuffle=False, num_canonical_nodes=1, batch_size=1)
    yield from dataset


def litdata(folder: str) -> Iterator[Any]:
    """Yield each row as it comes in an unshuffled pass."""
    from litdata import StreamingDataset

    with tempfile.TemporaryDirectory() as cache:
        yield from StreamingDataset(folder, cache_dir=cache, shuffle=False)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    readers = {"megatron": megatron, "mds": mds, "litdata": litdata}
    for row in readers[sys.argv[1]](*sys.argv[2:]):
        print(json.dumps(row, default=int))
