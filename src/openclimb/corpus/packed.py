"""What packing says of `tokens/`, compared with the files that are there before anybody reads them."""

from pathlib import Path
from typing import Any

import numpy as np

from openclimb.corpus.select_documents import stop_if_fewer
from openclimb.workspace.files import read_json


def read_packed(folder: Path) -> dict[str, Any]:
    """Return domains.json of a folder of packed tokens.

    Raises InputError for a domain of which fewer tokens are there than were packed.
    """
    facts: dict[str, Any] = read_json(folder / "domains.json")
    for row in facts["domains"]:
        path = folder / Path(row["file"]).name
        n_there = path.stat().st_size // np.dtype(facts["dtype"]).itemsize if path.is_file() else 0
        stop_if_fewer(f"{folder.name}/{path.name}", min(n_there, row["n_tokens"]), row["n_tokens"], "packed tokens")
    return facts
