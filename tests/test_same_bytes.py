"""A small search and its dataset are what they were before the code moved: the same mixture, the same bytes.

`data/before.json` was made by that code from the same settings: mixture.json, and checksums of the exported files (of
the shards' lines, as the compression may change with its library), on a processor with AVX-512. Others round another
way, and a search then draws other mixtures: there the answer must be about as good. Keys that have other names now are
in RENAMED.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import zstandard

import openclimb
from openclimb.workspace.files import read_json
from openclimb.workspace.results import MIXTURE
from openclimb.workspace.trials import Trial

BEFORE = json.loads((Path(__file__).parent / "data" / "before.json").read_text())
LIKES = {"first": {"novel": 1.0, "manners": 0.6, "proofs": 0.1}, "second": {"novel": 0.7, "manual": 0.5}}
RENAMED = {
    "contest": "candidates",
    "prior": "transfer",
    "outside": "external",
    "old": "transferred",
    "pick": "selection",
}
WORDS = {"beyond_noise"}  # gone: the margin's `comparison` says it


def score(trial: Trial, folder: Path) -> dict[str, float]:
    """Two tasks that like different domains, with some luck of the seed and of the mixture."""
    weights = trial.mixture.as_dict()
    luck = 0.005 * math.sin(12.9898 * (trial.seed + 1) + 78.233 * weights["novel"])
    return {
        task: sum(likes.get(name, 0.2) * weight**0.5 for name, weight in weights.items()) + sign * luck
        for (task, likes), sign in zip(LIKES.items(), (1, -0.5), strict=True)
    }


def like_the_machine_of_before() -> bool:
    """Return whether products of matrices come out as there to the last bit, from which the fits of predictors go."""
    information = Path("/proc/cpuinfo")
    return information.is_file() and " avx512f " in information.read_text()


def differences(before: Any, now: Any, place: str = "") -> list[str]:
    """Return where two JSON values differ; numbers may by a millionth."""
    if isinstance(before, dict):
        return [
            line
            for key, value in before.items()
            if key not in WORDS
            for line in differences(value, now.get(RENAMED.get(key, key)), f"{place}/{key}")
        ]
    if isinstance(before, list):
        if len(before) != len(now):
            return [f"{place}: {len(before)} and {len(now)} entries"]
        return [
            line for i, pair in enumerate(zip(before, now, strict=True)) for line in differences(*pair, f"{place}/{i}")
        ]
    if isinstance(before, float):
        return [] if now == pytest.approx(before, rel=1e-6, abs=1e-9) else [f"{place}: {before} and {now}"]
    return [] if before == now else [f"{place}: {before!r} and {now!r}"]


def test_a_small_run_and_its_dataset_are_those_of_before(tmp_path: Path) -> None:
    opened = openclimb.init(
        tmp_path / "run",
        scale="demo",
        corpus={"paths": [str(Path(__file__).parent / "data" / "corpus.jsonl")], "domains": "column:domain"},
        objective={"kind": f"{__name__}:score"},
        target={"token_budget": 100_000},
        tokens={"vocab_size": 512, "heldout": 0.05},
        proxy={"width": 32, "depth": 1, "heads": 2, "sequence": 32, "batch": 8, "token_budget": 8192},
        search={"trials": [8, 4, 4], "low_fidelity": ""},
        selection={"finalists": 2, "seeds": 2},
        run={"workers": 1},
    )
    answer = opened.run()
    if not like_the_machine_of_before():
        found = read_json(tmp_path / "run" / MIXTURE)
        assert {RENAMED.get(key, key) for key in BEFORE["mixture"]} - WORDS <= set(found)
        assert found["expected"] == pytest.approx(BEFORE["mixture"]["expected"], abs=0.02)
        return
    assert differences(BEFORE["mixture"], read_json(tmp_path / "run" / MIXTURE)) == []
    assert [row.weight for row in answer.domains] == [row["weight"] for row in BEFORE["mixture"]["domains"]]
    out = tmp_path / "out"
    opened.export(20_000, out, "jsonl.zst")
    for name, checksum in BEFORE["files"].items():
        data = (out / name).read_bytes()
        if name.endswith(".zst"):
            with zstandard.ZstdDecompressor().stream_reader(data) as stream:
                data = stream.read()
        assert hashlib.sha256(data).hexdigest() == checksum, name
