"""Which documents are held out of all training and of the export: a share of them, by the hash of their content.

By content and not by place, so that copies of a document lie on the same side.
"""

import numpy as np
from numpy.typing import NDArray


def is_heldout(hashes: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Return for each content hash (n,) whether its document is held out: the lowest `share` of the hashes."""
    return hashes < np.uint64(min(share, 1.0 - 2.0**-53) * 2.0**64)
