"""How large a corpus is, from a look into it."""

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading import size
from openclimb.corpus.reading.size import estimate_size


def write(path: Path, texts: list[str]) -> str:
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return str(path)


def test_a_small_file_of_json_lines_is_counted(tmp_path: Path) -> None:
    texts = ["é" * 1500, "b" * 10, "c" * 30]
    found = estimate_size(CorpusSettings((write(tmp_path / "a.jsonl", texts),)))
    assert (found.documents, found.text_bytes, found.head_bytes) == pytest.approx((3, 3040, 2040))
    assert found.file_bytes == (tmp_path / "a.jsonl").stat().st_size
    assert found.units == 1


def test_a_large_file_is_looked_at_in_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "RANGE", 4000)
    texts = [("x" if i < 2000 else "y") * (100 if i < 2000 else 300) for i in range(4000)]  # sorted: the end is longer
    settings = CorpusSettings((write(tmp_path / "a.jsonl", texts),))
    found = estimate_size(settings)
    assert found.documents == pytest.approx(4000, rel=0.1)
    assert found.text_bytes == pytest.approx(2000 * 400, rel=0.1)
    assert estimate_size(settings) == found


def test_parquet_says_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["word " * 20] * 5000}), path, row_group_size=1000)
    found = estimate_size(CorpusSettings((str(path),)))
    assert found.documents == pytest.approx(5000)
    assert found.text_bytes == pytest.approx(5000 * 100)


def test_each_format_is_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ["a" * 100] * 50)
    write(tmp_path / "b.jsonl.gz", ["b" * 200] * 50)
    found = estimate_size(CorpusSettings((str(tmp_path),)))
    assert found.documents == pytest.approx(100)
    assert found.text_bytes == pytest.approx(50 * 100 + 50 * 200)
    assert found.units == 2


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "b.jsonl"])
def test_a_few_megabytes_are_read_of_files_with_long_lines(name: str, tmp_path: Path) -> None:
    long = random.Random(0).randbytes(30_000_000).hex()
    short = "".join(json.dumps({"text": f"short {i}"}) + "\n" for i in range(50))
    lines = {".json": f'[{{"text": "{long}"}}]', ".csv": f"text\n{long}\n"}.get(
        Path(name).suffix, json.dumps({"text": long}) + "\n"
    )
    data = (short + lines if name == "b.jsonl" else lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    before = bytes_read()
    found = estimate_size(CorpusSettings((str(tmp_path / name),)))
    assert bytes_read() - before < 10_000_000
    assert found.file_bytes == (tmp_path / name).stat().st_size
    assert found.documents >= 1
