"""The most memory that a worker takes for files made to fill it, and what `climb plan` reads of them.

    python bench/memory.py [CASE ...]

Each file is read in a process of its own as labels, packing and export read it: documents, rule signals, token ids.
Writes bench/results/memory.json, in which cases that are not asked for stay. Limits: 1 GB a worker, and a few MB of a
file for the plan.
"""

import bz2
import contextlib
import gzip
import json
import lzma
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from _results import FOLDER, write_results
from openclimb.clustering.label import Done, _batches
from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.reading.size import estimate_size
from openclimb.corpus.reading.units import check_inputs, read_units, survey
from openclimb.corpus.tokenizer import encode_batch, load_tokenizer, train_tokenizer
from openclimb.engines.local import LocalEngine
from openclimb.errors import InputError
from openclimb.progress import Progress
from openclimb.quality.heuristics import rules_kept
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import read_json

GB = 1 << 30
HEAD = b'{"text": "'
WORD = 19_000_000  # characters of the longest word that is still read


def blocks(n_bytes: int, head: bytes = HEAD, end: bytes = b'"}\n{"text": "last"}\n') -> Iterator[bytes]:
    """Yield a long line and a short one behind it."""
    yield head
    for _ in range(n_bytes >> 20):
        yield b"x" * (1 << 20)
    yield end


def plain(path: Path, n_bytes: int, **edges: bytes) -> None:
    """Write them as they are."""
    with open(path, "wb") as file:
        file.writelines(blocks(n_bytes, **edges))


def packed(opener: Callable[..., Any], n_bytes: int) -> Callable[[Path], None]:
    """Return what writes them compressed."""

    def write(path: Path) -> None:
        with opener(path, "wb") as file:
            for block in blocks(n_bytes):
                file.write(block)

    return write


def run_length_frame(path: Path) -> None:
    """Write a zstd frame of blocks of one repeated byte (RFC 8878): 4 bytes each for 128 kB, 8 GB in all."""
    block = (1 << 1 | (1 << 17) << 3).to_bytes(3, "little") + b"x"
    last = (1 << 1 | 1 | (1 << 17) << 3).to_bytes(3, "little") + b"x"
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([(27 - 10) << 3]) + block * (8 * GB >> 17) + last)


def parquet(n_rows: int, n_chars: int, use_dictionary: bool, most: int = 1 << 20) -> Callable[[Path], None]:
    """Return what writes long texts that are all alike, which pack to nothing."""

    def write(path: Path) -> None:
        table = pa.table({"text": ["y " * (n_chars // 2)] * n_rows})
        pq.write_table(
            table,
            path,
            compression="zstd",
            use_dictionary=use_dictionary,
            row_group_size=n_rows,
            dictionary_pagesize_limit=most,
        )

    return write


def wet(path: Path) -> None:
    """Write a record of extracted text, and a short one behind it."""

    def head(n_bytes: int) -> bytes:
        lines = ("WARC/1.0", "WARC-Type: conversion", "Content-Type: text/plain", f"Content-Length: {n_bytes}")
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode()

    plain(path, 2 * GB, head=head(2 * GB), end=b"\r\n\r\n" + head(4) + b"last\r\n\r\n")


def feather(n_rows: int, compression: str | None = None) -> Callable[[Path], None]:
    """Return what writes texts of 1 MB as one record batch."""

    def write(path: Path) -> None:
        table = pa.table({"text": ["y " * 500_000] * n_rows})
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)

    return write


def brackets(path: Path) -> None:
    """Write a line that becomes a great many small objects."""
    path.write_bytes(b'{"text": "a", "x": [' + b"[]," * 6_000_000 + b"0]}\n")


CASES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "one line of 2 GB": (".jsonl", lambda path: plain(path, 2 * GB)),
    "one line of 2 GB, gzip": (".jsonl.gz", packed(partial(gzip.open, compresslevel=1), 2 * GB)),
    "one line of 2 GB, zstd": (".jsonl.zst", packed(zstandard.open, 2 * GB)),
    "8 GB of one byte, zstd": (".jsonl.zst", run_length_frame),
    "one line of 1 GB, bz2": (".jsonl.bz2", packed(bz2.open, GB)),
    "one line of 1 GB, xz": (".jsonl.xz", packed(partial(lzma.open, preset=0), GB)),
    "one element of 2 GB, JSON array": (".json", lambda path: plain(path, 2 * GB, head=b"[" + HEAD, end=b'"}]')),
    "one field of 2 GB, CSV": (".csv", lambda path: plain(path, 2 * GB, head=b"text\n", end=b"\n")),
    "one text of 2 GB": (".txt", lambda path: plain(path, 2 * GB, head=b"", end=b"")),
    "one record of 2 GB, WET": (".warc.wet", wet),
    "a word of 50 MB": (".jsonl", lambda path: plain(path, 50_000_000)),
    "a word of 19 MB": (".jsonl", lambda path: plain(path, WORD)),
    "a word of 19 MB, four bytes a character": (
        ".jsonl",
        lambda path: path.write_bytes(HEAD + "\U0001f600".encode() * (WORD // 4) + b'"}\n'),
    ),
    "6M empty lists in a line": (".jsonl", brackets),
    "20 texts of 50 MB, Parquet": (".parquet", parquet(20, 50_000_000, use_dictionary=False)),
    "one text of 50 MB 200 times, Parquet": (".parquet", parquet(200, 50_000_000, use_dictionary=True)),
    "a dictionary's text of 50 MB in 200 rows, Parquet": (
        ".parquet",
        parquet(200, 50_000_000, use_dictionary=True, most=1 << 30),
    ),
    "a dictionary's text of 15 MB in 9 rows, Parquet": (
        ".parquet",
        parquet(9, 15_000_000, use_dictionary=True, most=1 << 30),
    ),
    "250 texts of 1 MB in a batch, Arrow": (".arrow", feather(250)),
    "2,000 texts of 1 MB in a batch, Arrow": (".arrow", feather(2000)),
    "2,000 texts of 1 MB in a batch, Arrow with zstd": (".arrow", feather(2000, "zstd")),
}


def measure(path: str, tokenizer: str) -> dict[str, Any]:
    """Read a file as the stages do; return the peaks of memory in MB and what was found."""
    loaded = load_tokenizer(Path(tokenizer))
    settings = CorpusSettings(paths=(path,))
    started, before = peak(), n_read()
    check_inputs(settings)
    with contextlib.suppress(InputError):  # the stages tell it
        estimate_size(settings)
    found = {"started": started, "plan_read": (n_read() - before) / 1e6, "plan": peak() - started}
    error = ""
    done = Done(0, [])
    try:
        for unit in _units(settings, Path(tokenizer).parent / "stage"):
            for batch in _batches(unit, settings, 256, done):
                texts = [document.text for document in batch]
                rules_kept(texts)
                encode_batch(loaded, texts)
    except Exception as failure:
        error = str(failure)
    return {**found, "peak": peak(), "documents": done.n_documents, "rejected": len(done.rejected), "error": error}


def _units(settings: CorpusSettings, out: Path) -> list[Unit]:
    out.mkdir(exist_ok=True)
    survey(StageContext(out, LocalEngine(1), Progress()), settings)
    return read_units(out)


def peak() -> float:
    """Return the most memory that this process took so far, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()  # getrusage counts what the parent had
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def n_read() -> int:
    """Return the bytes that this process has read from files."""
    return int(Path("/proc/self/io").read_text().split()[1])


def main() -> None:
    """Make each file, read it in a process of its own, print and write what it took."""
    asked = sys.argv[1:] or list(CASES)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder) / "tokenizer.json"
        train_tokenizer(["as it goes, one word after the other"] * 10, 512, tokenizer)
        for name in asked:
            suffix, write = CASES[name]
            path = Path(folder) / f"a{suffix}"
            write(path)
            command = [sys.executable, __file__, "--measure", str(path), str(tokenizer)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            path.unlink()
            what = found["error"] or f"{found['documents']} documents, {found['rejected']} rejected"
            print(
                f"{name:<42} peak {found['peak']:5.0f} MB, plan {found['plan_read']:4.1f} MB read: {what}", flush=True
            )
            for metric in ("peak", "plan", "plan_read"):
                reference = 1000 if metric == "peak" else found["started"] if metric == "plan" else 10
                rows.append(
                    {"case": name, "metric": f"{metric}_mb", "value": round(found[metric], 1), "reference": reference}
                )
    kept = FOLDER / "memory.json"
    before = read_json(kept)["rows"] if kept.is_file() else []
    others = [row for row in before if row["case"] in CASES and row["case"] not in asked]
    write_results("memory", sorted([*others, *rows], key=lambda row: list(CASES).index(row["case"])))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        main()
