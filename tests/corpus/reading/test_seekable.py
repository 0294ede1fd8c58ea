"""Seekable zstd is cut into units that hold each document once; large files that cannot be cut are named."""

import gzip
import hashlib
import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from openclimb.cli.plan_text import large_lines
from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading import units as units_module
from openclimb.corpus.reading.parse import Document
from openclimb.corpus.reading.read import Unit, read_unit
from openclimb.corpus.reading.seekable import SEEKABLE, SKIPPABLE
from openclimb.corpus.reading.units import check_inputs, read_units, survey
from openclimb.engines.local import LocalEngine
from openclimb.errors import InputError
from openclimb.progress import Progress
from openclimb.workspace.context import StageContext


def write(path: Path, text: bytes, frame: int, *, checksums: bool = False, table: bool = True) -> Path:
    """Write text as frames of so many bytes, with the table of zstd's contrib/seekable_format."""
    pieces = [text[i : i + frame] for i in range(0, len(text), frame)]
    packed = [zstandard.ZstdCompressor().compress(piece) for piece in pieces]
    entries = b"".join(
        struct.pack("<II", len(one), len(piece)) + (b"\0" * 4 if checksums else b"")
        for one, piece in zip(packed, pieces, strict=True)
    )
    footer = struct.pack("<IBI", len(pieces), 0x80 if checksums else 0, SEEKABLE)
    end = struct.pack("<II", SKIPPABLE, len(entries) + len(footer)) + entries + footer
    path.write_bytes(b"".join(packed) + (end if table else b""))
    return path


def lines(n: int) -> bytes:
    return "".join(json.dumps({"text": f"document {i} " + "é" * (i % 70)}) + "\n" for i in range(n)).encode()


def surveyed(path: Path, out: Path) -> tuple[list[Unit], CorpusSettings]:
    settings = CorpusSettings(paths=(str(path),))
    out.mkdir()
    survey(StageContext(out, LocalEngine(1), Progress()), settings)
    return read_units(out), settings


def texts(units: list[Unit], settings: CorpusSettings) -> list[str]:
    return [one.text for unit in units for one in read_unit(unit, settings) if isinstance(one, Document)]


@pytest.mark.parametrize("checksums", [False, True])
@pytest.mark.parametrize("suffix", [".jsonl.zst", ".json.zst"])
def test_a_seekable_file_is_cut_and_no_document_is_lost(
    suffix: str, checksums: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units_module, "UNIT_BYTES", 20_000)
    text = lines(2000)
    units, settings = surveyed(write(tmp_path / f"a{suffix}", text, 7001, checksums=checksums), tmp_path / "out")
    assert len(units) == -(-len(text) // 20_000) > 5
    assert sum(unit.n_bytes for unit in units) == len(text)
    assert texts(units, settings) == [json.loads(line)["text"] for line in text.splitlines()]
    found = [one.position for unit in units for one in read_unit(unit, settings)]
    assert found == sorted(set(found))
    assert text[found[-1] :].count(b"\n") == 1  # a place is the byte in the text


def test_files_without_a_table_or_of_another_shape_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, "UNIT_BYTES", 20_000)
    text = lines(2000)
    rows = [json.loads(line)["text"] for line in text.splitlines()]
    array = b"[" + b",".join(text.splitlines()) + b"]"
    for name, data, table in (
        ("plain.jsonl.zst", text, False),
        ("array.json.zst", array, True),
        ("wide.jsonl.zst", text.decode().encode("utf-16"), True),
    ):
        units, settings = surveyed(write(tmp_path / name, data, 7001, table=table), tmp_path / f"out-{name}")
        assert len(units) == 1, name
        assert texts(units, settings) == rows, name


def test_a_frame_that_is_damaged_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, "UNIT_BYTES", 20_000)
    path = write(tmp_path / "a.jsonl.zst", lines(2000), 7001)
    units, settings = surveyed(path, tmp_path / "out")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="damaged or cut short"):
        texts(units, settings)


ROWS = [{"text": f"document {i} {hashlib.sha512(str(i).encode()).hexdigest()}"} for i in range(2000)]


def test_only_files_that_cannot_be_cut_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    (tmp_path / "plain.jsonl").write_bytes(lines)
    (tmp_path / "array.json").write_text(json.dumps(ROWS))
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(lines, 0))
    (tmp_path / "small.jsonl.gz").write_bytes(gzip.compress(lines[:900], 0))
    write(tmp_path / "seekable.jsonl.zst", lines, 5000)
    write(tmp_path / "frames.jsonl.zst", lines, 5000, table=False)
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "groups.parquet", row_group_size=50, compression="none", use_dictionary=False)
    pq.write_table(table, tmp_path / "one-group.parquet", compression="none", use_dictionary=False)
    settings = CorpusSettings(paths=(str(tmp_path),))
    assert check_inputs(settings)["large_units"] == []
    monkeypatch.setattr(units_module, "UNIT_BYTES", 10_000)
    monkeypatch.setattr(units_module, "LARGE_UNIT", 60_000)
    found = {row["name"]: row["bytes"] for row in check_inputs(settings)["large_units"]}
    assert sorted(found) == ["array.json", "frames.jsonl.zst", "one-group.parquet", "packed.jsonl.gz"]
    assert found["array.json"] == (tmp_path / "array.json").stat().st_size
    assert found["packed.jsonl.gz"] == 3 * (tmp_path / "packed.jsonl.gz").stat().st_size


def test_the_plan_names_the_largest_and_counts_the_others() -> None:
    assert large_lines([]) == []
    rows = [{"name": f"{i}.jsonl.gz", "bytes": i * 10**9} for i in range(2, 7)]
    first = large_lines(rows)[0]
    assert "6.jsonl.gz (about 6 GB of text), 5.jsonl.gz" in first
    assert "2.jsonl.gz" not in first
    assert first.endswith("and 2 more")
