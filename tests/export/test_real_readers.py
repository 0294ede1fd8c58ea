"""The packages that trainers read datasets with open ours: `make test-writers`, which names their Python in READERS."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

import openclimb

pytestmark = pytest.mark.writers
READ = Path(__file__).parent / "readers" / "read.py"
MORE = {"shard_bytes": 20_000}
BUDGET = 50_000


def read(format: str, *arguments: str) -> list[Any]:
    """Return what the package of a format reads, in order."""
    command = [os.environ["READERS"], "-W", "ignore", str(READ), format, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[", "{"))]


@pytest.fixture(scope="module")
def rows(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The dataset's rows, as Parquet has them."""
    out = tmp_path_factory.mktemp("rows") / "data"
    openclimb.open(finished).export(BUDGET, out, **MORE)
    return [row for path in sorted((out / "data").iterdir()) for row in pq.read_table(path).to_pylist()]


def test_megatron_core_reads_the_documents_that_its_data_path_names(
    finished: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "data"
    facts = openclimb.open(finished).export(BUDGET, out, "megatron", **MORE)
    prefixes = [str(out / word) for word in (out / "megatron.txt").read_text().split()[2::2]]
    assert len(prefixes) == len(facts["shards"]) > 2
    tokenizer = Tokenizer.from_file(str(out / "tokenizer" / "tokenizer.json"))
    ids = [[*tokenizer.encode(row["text"], add_special_tokens=False).ids, 0] for row in rows]
    assert read("megatron", *prefixes) == [[one, len(one)] for one in ids]


@pytest.mark.parametrize("format", ["mds", "litdata"])
def test_streams_give_the_rows_in_their_order(
    format: str, finished: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "data"
    facts = openclimb.open(finished).export(BUDGET, out, format, **MORE)
    assert len(facts["shards"]) > 2
    assert read(format, str(out / "data")) == rows


@pytest.mark.parametrize("format", ["mds", "litdata"])
def test_each_domain_is_a_stream_of_its_own(
    format: str, finished: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "data"
    openclimb.open(finished).export(BUDGET, out, format, by_domain=True, **MORE)
    for folder in sorted((out / "data").iterdir()):
        found = read(format, str(folder))
        names = {row["domain"] for row in found}
        assert len(names) == 1
        expected = [row for row in rows if row["domain"] in names]
        assert sorted(found, key=lambda row: (row["position"], row["repetition"])) == sorted(
            expected, key=lambda row: (row["position"], row["repetition"])
        )
