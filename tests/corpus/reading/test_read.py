"""Formats, units and URLs: every document exactly once, every damaged one told with its place and reason."""

import bz2
import csv
import functools
import gzip
import http.server
import io
import itertools
import json
import lzma
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pyarrow import feather

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading import parse as parsing
from openclimb.corpus.reading import units as survey_units
from openclimb.corpus.reading.parse import Document, Rejected
from openclimb.corpus.reading.read import document_order, place_hash, read_unit
from openclimb.corpus.reading.units import (
    changed_inputs,
    check_inputs,
    input_fingerprint,
    list_files,
    names_of,
    read_units,
    survey,
)
from openclimb.engines.local import LocalEngine
from openclimb.errors import ConfigError, InputError
from openclimb.progress import Progress
from openclimb.workspace.context import StageContext

ROWS = [{"text": f"Document {i}: " + "größer as it goes, " * (i % 37), "id": f"d{i}"} for i in range(400)]


def _lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" for i, row in enumerate(rows)).encode()


def _parquet(rows: list[dict]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=50)
    return sink.getvalue().to_pybytes()


def _arrow(rows: list[dict], stream: bool = False) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=150)
    return sink.getvalue().to_pybytes()


def _feather(rows: list[dict]) -> bytes:
    sink = pa.BufferOutputStream()
    feather.write_feather(pa.Table.from_pylist(rows), sink, compression="zstd", chunksize=150)
    return sink.getvalue().to_pybytes()


def _csv(rows: list[dict], delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


FORMATS: dict[str, Callable[[list[dict]], bytes]] = {
    ".jsonl": _lines,
    ".jsonl.gz": lambda rows: gzip.compress(_lines(rows)),
    ".jsonl.zst": lambda rows: zstandard.compress(_lines(rows)),
    ".ndjson.bz2": lambda rows: bz2.compress(_lines(rows)),
    ".jsonl.xz": lambda rows: lzma.compress(_lines(rows)),
    ".jsonl.lz4": lambda rows: pa.compress(_lines(rows), "lz4", asbytes=True),
    ".json": lambda rows: json.dumps(rows, indent=1, ensure_ascii=False).encode(),
    ".json.gz": lambda rows: gzip.compress(json.dumps(rows).encode()),
    ".csv": lambda rows: _csv(rows, ","),
    ".csv.zst": lambda rows: zstandard.compress(_csv(rows, ";")),
    ".tsv": lambda rows: _csv(rows, "\t"),
    ".parquet": _parquet,
    ".arrow": lambda rows: _arrow(rows, stream=True),
    ".file.arrow": _arrow,
    ".feather": _feather,
}
NOT_CHECKED = (".jsonl", ".csv", ".tsv")  # damaged rows of theirs are rejected one by one


def _units(
    settings: CorpusSettings, tmp_path: Path, unit_bytes: int = 0, monkeypatch: pytest.MonkeyPatch | None = None
):
    if monkeypatch:
        from openclimb.corpus.reading import units as module

        real = module._cut
        monkeypatch.setattr(module, "_cut", lambda file, _: real(file, unit_bytes))
    out = tmp_path / "corpus-stage"
    out.mkdir(exist_ok=True)
    survey(StageContext(out, LocalEngine(1), Progress()), settings)
    return read_units(out)


def _read(units, settings: CorpusSettings) -> tuple[list[Document], list[Rejected]]:
    found = [item for unit in units for item in read_unit(unit, settings)]
    return (
        [item for item in found if isinstance(item, Document)],
        [item for item in found if isinstance(item, Rejected)],
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_document_is_read_once_with_its_id(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(FORMATS[suffix](ROWS))
    settings = CorpusSettings(paths=(str(tmp_path / f"a{suffix}"),), id="id")
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert [(d.text, d.id) for d in documents] == [(row["text"], row["id"]) for row in ROWS]
    assert not rejected
    assert len({d.position for d in documents}) == len(ROWS)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("unit_bytes", [97, 1000, 12_345])
def test_units_share_the_documents_whatever_their_size(
    suffix: str, unit_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"a{suffix}").write_bytes(FORMATS[suffix](ROWS))
    settings = CorpusSettings(paths=(str(tmp_path / f"a{suffix}"),), id="id")
    units = _units(settings, tmp_path, unit_bytes, monkeypatch)
    assert len(units) > 3
    documents, _ = _read(units, settings)
    assert [d.id for d in documents] == [row["id"] for row in ROWS]
    whole, _ = _read(_units(settings, tmp_path, 10**9, monkeypatch), settings)
    assert [d.position for d in documents] == [d.position for d in whole]


def test_chosen_positions_alone_are_parsed(tmp_path: Path) -> None:
    lines = _lines(ROWS).splitlines(keepends=True)
    lines[7] = b"{not json}\n"
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    settings = CorpusSettings(paths=(str(tmp_path),))
    unit = _units(settings, tmp_path)[0]
    positions = {d.position for d in read_unit(unit, settings) if isinstance(d, Document)}
    few = sorted(positions)[:3]
    assert [d.position for d in read_unit(unit, settings, few.__contains__)] == few  # the bad line is passed over


@pytest.mark.parametrize("suffix", FORMATS)
def test_positions_lead_back_to_their_documents_in_every_format(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(FORMATS[suffix](ROWS))
    settings = CorpusSettings(paths=(str(tmp_path),), id="id")
    units = _units(settings, tmp_path)
    few = {d.position: d for d in _read(units, settings)[0][::37]}
    again = [one for unit in units for one in read_unit(unit, settings, few.__contains__)]
    assert again == list(few.values())


@pytest.fixture(params=["memory", "http"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        with fsspec.open("memory://bucket/part.jsonl", "wb") as file:
            file.write(_lines(ROWS))
        yield "memory://bucket/part.jsonl"
        fsspec.filesystem("memory").rm("bucket", recursive=True)
        return
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "part.jsonl").write_bytes(_lines(ROWS))

    class Ranges(http.server.SimpleHTTPRequestHandler):
        """Serves byte ranges, as object stores do."""

        def do_GET(self) -> None:
            data = (tmp_path / "served" / "part.jsonl").read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first = int(asked[1]) if asked else 0
            last = min(int(asked[2]) if asked and asked[2] else len(data) - 1, len(data) - 1)
            self.send_response(206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last + 1 - first))
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.end_headers()
            self.wfile.write(data[first : last + 1])

        def log_message(self, *arguments: object) -> None: ...

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Ranges, directory=str(tmp_path / "served"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/part.jsonl"
    server.shutdown()
    server.server_close()


def test_documents_are_read_from_a_url(url: str, tmp_path: Path) -> None:
    settings = CorpusSettings(paths=(url,), id="id")
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert [d.id for d in documents] == [row["id"] for row in ROWS]
    assert not rejected
    assert input_fingerprint(settings) == input_fingerprint(settings)


def test_a_changed_remote_file_is_seen() -> None:
    settings = CorpusSettings(paths=("memory://changing/*.jsonl",))
    prints = []
    for rows in (ROWS[:5], ROWS[:6]):
        with fsspec.open("memory://changing/a.jsonl", "wb") as file:
            file.write(_lines(rows))
        prints.append(input_fingerprint(settings))
    fsspec.filesystem("memory").rm("changing", recursive=True)
    assert prints[0] != prints[1]


def test_globs_folders_and_several_paths_give_each_file_once(tmp_path: Path) -> None:
    for name in ("a/x.jsonl", "a/y.jsonl", "b/z.parquet", "b/notes.doc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(_parquet(ROWS[:3]) if name.endswith("parquet") else _lines(ROWS[:3]))
    settings = CorpusSettings(paths=(str(tmp_path), str(tmp_path / "*" / "*.jsonl"), str(tmp_path / "a" / "x.jsonl")))
    assert [file.name for file in list_files(settings)] == ["a/x.jsonl", "a/y.jsonl", "b/z.parquet"]
    facts = check_inputs(settings)
    assert facts["files"] == 3
    assert facts["formats"] == {"jsonl": 2, "parquet": 1}


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    for path in ("shop/web/a.jsonl", "shop/web/deep/b.jsonl", "shop/books/c.jsonl"):
        filesystem.pipe(f"/{path}", _lines(ROWS[:3]))
    yield filesystem
    filesystem.rm("/shop", recursive=True)


def test_remote_files_are_named_below_what_they_share(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    settings = CorpusSettings(paths=("memory://shop",), domains="folders")
    assert [file.name for file in list_files(settings)] == ["books/c.jsonl", "web/a.jsonl", "web/deep/b.jsonl"]
    documents, _ = _read(_units(settings, tmp_path), settings)
    assert {document.source for document in documents} == {"books", "web"}


def test_local_and_remote_files_stand_beside_each_other(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(_lines(ROWS[3:5]))
    settings = CorpusSettings(paths=(str(tmp_path / "a.jsonl"), "memory://shop/web/*.jsonl"), id="id")
    assert len({file.name for file in list_files(settings)}) == 2
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert sorted(document.id for document in documents) == ["d0", "d1", "d2", "d3", "d4"]
    assert not rejected


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/data/x.jsonl"], ["x.jsonl"]),
        (["/data/a/x.jsonl", "/data/a/y.jsonl"], ["x.jsonl", "y.jsonl"]),
        (["/data/a/x.jsonl", "/data/ab/x.jsonl"], ["a/x.jsonl", "ab/x.jsonl"]),
        (["/data/a/b/x.jsonl", "/data/y.jsonl"], ["a/b/x.jsonl", "y.jsonl"]),
        (["/a/x.jsonl", "/y.jsonl"], ["a/x.jsonl", "y.jsonl"]),
        (["s3://one/x.jsonl", "s3://two/x.jsonl"], ["one/x.jsonl", "two/x.jsonl"]),
        (["/data/x.jsonl", "s3://one/x.jsonl"], ["data/x.jsonl", "s3://one/x.jsonl"]),
    ],
)
def test_names_begin_where_paths_part(paths: list[str], names: list[str]) -> None:
    assert list(names_of(paths).values()) == names


def test_a_name_that_looks_like_a_glob_is_read(tmp_path: Path) -> None:
    for name in ("part[1].jsonl", "part1.jsonl"):
        (tmp_path / name).write_bytes(_lines(ROWS[:3] if "[" in name else ROWS[3:5]))
    settings = CorpusSettings(paths=(str(tmp_path / "part[1].jsonl"),), id="id")
    documents, _ = _read(_units(settings, tmp_path), settings)
    assert [document.id for document in documents] == ["d0", "d1", "d2"]
    pattern = CorpusSettings(paths=(str(tmp_path / "part[0-9].jsonl"),))
    assert [file.name for file in list_files(pattern)] == ["part1.jsonl"]


def test_added_removed_and_changed_files_are_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b", "c"):
        (data / f"{name}.jsonl").write_bytes(_lines(ROWS[:5]))
    settings = CorpusSettings(paths=(str(data),))
    _units(settings, tmp_path)
    (data / "a.jsonl").write_bytes(_lines(ROWS[:6]))
    (data / "b.jsonl").unlink()
    (data / "d.jsonl").write_bytes(_lines(ROWS[:5]))
    assert changed_inputs(tmp_path / "corpus-stage", settings) == [
        "a.jsonl: changed", "b.jsonl: gone", "d.jsonl: new",
    ]  # fmt: skip


def test_a_moved_corpus_keeps_its_places(tmp_path: Path) -> None:
    orders = []
    for place in ("here", "there"):
        folder = tmp_path / place / "data"
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_bytes(_lines(ROWS))
        settings = CorpusSettings(paths=(str(folder),))
        unit = _units(settings, tmp_path / place)[0]
        positions = [d.position for d in read_unit(unit, settings) if isinstance(d, Document)]
        orders.append(document_order(unit, pa.array(positions).to_numpy(), seed=3).tolist())
    assert orders[0] == orders[1]
    assert place_hash("a.jsonl", 0, 1) != place_hash("a.jsonl", 0, 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut sho\n', "not a JSON line"),
        (b'["text"]\n', "not a JSON object but list"),
        (b'{"text": 7}\n', "'text' is int, not text"),
        (b'{"text": null}\n', "'text' is NoneType, not text"),
        (b'{"body": "x"}\n', "no column 'text'; it has: body"),
        (b'{"text": "  \\n "}\n', "'text' is empty"),
        (b'{"text": "caf\xe9"}\n', "not UTF-8"),
        (b'{"text": "' + b"x" * 1_100_000 + b'"}\n', "longer than"),
    ],
)
def test_a_bad_line_is_rejected_with_its_place_and_the_rest_is_read(
    line: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = _lines(ROWS[:20]).splitlines(keepends=True)
    lines.insert(5, line)
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    monkeypatch.setattr(parsing, "MOST_BYTES", 1_000_000)
    settings = CorpusSettings(paths=(str(tmp_path),))
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert len(documents) == 20
    assert len(rejected) == 1
    assert rejected[0].file == "a.jsonl"
    assert rejected[0].line == 6
    assert rejected[0].position == len(b"".join(lines[:5]))
    assert reason in rejected[0].reason


@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix not in NOT_CHECKED])
def test_a_file_that_was_cut_short_before_the_run_stops_it(suffix: str, tmp_path: Path) -> None:
    data = FORMATS[suffix](ROWS)
    (tmp_path / f"a{suffix}").write_bytes(data[: len(data) // 2])
    settings = CorpusSettings(paths=(str(tmp_path),))
    with pytest.raises(InputError, match=rf"a{suffix} cannot be read: it is damaged or cut short") as caught:
        _read(_units(settings, tmp_path), settings)
    assert "run again" in caught.value.fix


@pytest.mark.parametrize(
    ("fault", "suffix"),
    [
        *itertools.product(("shorter", "longer", "gone"), FORMATS),
        *(("damaged", suffix) for suffix in FORMATS if suffix not in NOT_CHECKED),
    ],
)
def test_a_file_that_changes_after_the_survey_stops_the_run(fault: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(FORMATS[suffix](ROWS))
    settings = CorpusSettings(paths=(str(tmp_path),))
    units = _units(settings, tmp_path)
    data = path.read_bytes()
    if fault == "gone":
        path.unlink()
    else:
        changed = {
            "shorter": data[: len(data) // 2],
            "longer": data + data,
            "damaged": data[:40] + bytes(len(data) - 40),
        }
        path.write_bytes(changed[fault])
    with pytest.raises(InputError, match="the file is gone" if fault == "gone" else "damaged or cut short"):
        _read(units, settings)


@pytest.mark.parametrize("window_log", [27, 28, 31])
def test_zstd_of_a_long_window_is_read(window_log: int, tmp_path: Path) -> None:
    # A frame by hand (RFC 8878): magic, no flags, window, one raw block that is the last.
    data = _lines(ROWS[:3])
    head = b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3])
    (tmp_path / "a.jsonl.zst").write_bytes(head + (1 | len(data) << 3).to_bytes(3, "little") + data)
    settings = CorpusSettings(paths=(str(tmp_path),), id="id")
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert [document.id for document in documents] == ["d0", "d1", "d2"]
    assert not rejected


def test_zstd_frames_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    half = len(ROWS) // 2
    data = zstandard.compress(_lines(ROWS[:half])) + zstandard.compress(_lines(ROWS[half:]))
    (tmp_path / "a.jsonl.zst").write_bytes(data)
    settings = CorpusSettings(paths=(str(tmp_path),), id="id")
    assert [d.id for d in _read(_units(settings, tmp_path), settings)[0]] == [row["id"] for row in ROWS]


def test_a_parquet_text_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"caf\xe9", b"fine too"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    settings = CorpusSettings(paths=(str(tmp_path),))
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert [d.text for d in documents] == ["fine", "fine too"]
    assert "not UTF-8" in rejected[0].reason


def test_no_file_matches(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches") as caught:
        list_files(CorpusSettings(paths=(str(tmp_path / "*.jsonl"),)))
    assert ".parquet" in caught.value.fix


def test_a_format_that_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(InputError, match="format of"):
        list_files(CorpusSettings(paths=(str(tmp_path / "a.docx"),)))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_missing_text_column_names_the_columns_there_are(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(FORMATS[suffix]([{"content": "x", "url": "y"}]))
    with pytest.raises(InputError, match="no column 'text'.*content, url"):
        check_inputs(CorpusSettings(paths=(str(tmp_path),)))


def test_domains_from_folders_need_folders_and_known_words(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(_lines(ROWS[:3]))
    with pytest.raises(InputError, match="all files lie in one folder"):
        check_inputs(CorpusSettings(paths=(str(tmp_path),), domains="folders"))
    with pytest.raises(ConfigError, match=r"corpus\.domains"):
        check_inputs(CorpusSettings(paths=(str(tmp_path),), domains="colum:source"))


def test_domains_come_from_a_column_or_from_folders(tmp_path: Path) -> None:
    for folder in ("law", "code"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        rows = [{**row, "source": folder.upper()} for row in ROWS[:4]]
        (tmp_path / "data" / folder / "a.jsonl").write_bytes(_lines(rows))
    for domains, expected in (("folders", {"law", "code"}), ("column:source", {"LAW", "CODE"})):
        settings = CorpusSettings(paths=(str(tmp_path / "data"),), domains=domains)
        assert {d.source for d in _read(_units(settings, tmp_path), settings)[0]} == expected


def test_folders_are_relative_to_each_given_path(tmp_path: Path) -> None:
    for path in ("a/en/x.jsonl", "a/de/y.jsonl", "b/en/z.jsonl", "b/fr/deep/w.jsonl", "b/top.jsonl"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(_lines(ROWS[:1]))
    for given, expected in (
        (["a"], ["de", "en"]),
        (["a", "b"], ["de", "en", "en", "fr", "b"]),
        (["a/en", "a/de"], ["de", "en"]),
        (["a/*/*.jsonl", "b/fr"], ["de", "en", "deep"]),
        (["a/en/x.jsonl", "b/top.jsonl"], ["en", "b"]),
    ):
        settings = CorpusSettings(paths=tuple(str(tmp_path / path) for path in given), domains="folders")
        assert [d.source for d in _read(_units(settings, tmp_path), settings)[0]] == expected, given


@pytest.mark.slow
def test_a_line_of_500_mb_is_passed_over_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    with open(tmp_path / "a.jsonl", "wb") as file:
        file.write(_lines(ROWS[:3]) + b'{"text": "')
        file.writelines(b"x" * 1_000_000 for _ in range(500))
        file.write(b'"}\n' + _lines(ROWS[3:6]))
    monkeypatch.setattr(survey_units, "UNIT_BYTES", 2_000_000_000)
    settings = CorpusSettings(paths=(str(tmp_path),))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert [d.text for d in documents] == [row["text"] for row in ROWS[:6]]
    assert "longer than 20 MB" in rejected[0].reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB; the limit is 20 MB of text


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_a_byte_order_mark_costs_no_document(suffix: str, tmp_path: Path) -> None:
    pack = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}[suffix]
    (tmp_path / f"a{suffix}").write_bytes(pack(b"\xef\xbb\xbf" + _lines(ROWS[:3])))
    settings = CorpusSettings(paths=(str(tmp_path),), id="id")
    check_inputs(settings)
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert [document.id for document in documents] == ["d0", "d1", "d2"]
    assert not rejected


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "[NaN, 1]", '"\\ud83d"', "1e999"])
def test_odd_values_in_columns_that_are_not_read_do_no_harm(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "größer", "score": {value}}}\n')
    settings = CorpusSettings(paths=(str(tmp_path),))
    check_inputs(settings)
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert [document.text for document in documents] == ["größer"]
    assert not rejected


def test_halves_of_surrogate_pairs_become_replacement_characters(tmp_path: Path) -> None:
    lines = (r'{"text": "cut \ud83d", "id": "\ude00"}', r'{"text": "\ud83d\ude00 whole", "id": "b"}', '{"text": "c"}')
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    settings = CorpusSettings(paths=(str(tmp_path),), id="id")
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert [document.text for document in documents] == ["cut \ufffd", "\U0001f600 whole", "c"]
    assert [document.repaired for document in documents] == [True, False, False]
    assert documents[0].id == "\ufffd"
    assert not rejected


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, 17, -1], ["0", "17", "-1"]),
        ([True, False, True], ["true", "false", "true"]),
        ([0.0, 3.0, 12.0], ["0", "3", "12"]),
        (["a", " b ", "日本語"], ["a", "b", "日本語"]),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_domains_may_be_whole_numbers_and_truth_values(
    values: list[object], names: list[str], suffix: str, tmp_path: Path
) -> None:
    rows = [{"text": f"text {i}", "domain": value} for i, value in enumerate(values)]
    (tmp_path / f"a{suffix}").write_bytes(FORMATS[suffix](rows))
    settings = CorpusSettings(paths=(str(tmp_path),), domains="column:domain")
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert [document.source for document in documents] == names
    assert not rejected


@pytest.mark.parametrize("value", ["null", "NaN", "0.5", "[1]", '" "'])
def test_what_names_no_domain_is_rejected(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "x", "domain": {value}}}\n')
    settings = CorpusSettings(paths=(str(tmp_path),), domains="column:domain")
    assert "no name in the domain column" in _read(_units(settings, tmp_path), settings)[1][0].reason


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)
def test_parquet_text_of_any_string_type_is_read(kind: pa.DataType, tmp_path: Path) -> None:
    texts = ["größer", "as it goes", "größer"]
    column = pa.array(texts, pa.string()).cast(kind) if kind != pa.string_view() else pa.array(texts, kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    settings = CorpusSettings(paths=(str(tmp_path),))
    documents, rejected = _read(_units(settings, tmp_path), settings)
    assert [document.text for document in documents] == texts
    assert not rejected
