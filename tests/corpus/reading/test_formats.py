"""What files hold, as people have it: nested columns, encodings, dialects of CSV and JSON, plain text, token ids."""

import codecs
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading import tables
from openclimb.corpus.reading import units as units_module
from openclimb.corpus.reading.parse import EMPTY, Document, Rejected
from openclimb.corpus.reading.read import Unit, read_unit
from openclimb.corpus.reading.units import check_inputs, read_units, survey
from openclimb.corpus.tokenizer import END, load_tokenizer, train_tokenizer
from openclimb.engines.local import LocalEngine
from openclimb.errors import ConfigError, InputError
from openclimb.progress import Progress
from openclimb.workspace.context import StageContext


def units_of(settings: CorpusSettings, out: Path, tokenizer: str = "") -> list[Unit]:
    out.mkdir(exist_ok=True)
    survey(StageContext(out, LocalEngine(1), Progress()), settings, tokenizer)
    return read_units(out, tokenizer=tokenizer)


def read(path: Path, out: Path, tokenizer: str = "", **settings: str) -> tuple[list[Document], list[Rejected]]:
    corpus = CorpusSettings(paths=(str(path),), **settings)
    found = [one for unit in units_of(corpus, out / "stage", tokenizer) for one in read_unit(unit, corpus)]
    return [one for one in found if isinstance(one, Document)], [one for one in found if isinstance(one, Rejected)]


def write_rows(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".feather":
        feather.write_feather(pa.Table.from_pylist(rows), str(path))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


TABLES = (".parquet", ".feather", ".json", ".jsonl")


@pytest.mark.parametrize("suffix", TABLES)
def test_nested_columns_are_named_by_their_path(suffix: str, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "bot", "content": None}, {"role": "bot", "content": "So."}]
    rows = [{"messages": turns, "meta": {"id": f"d{i}", "set": {"name": "talk"}}} for i in range(3)]
    path = write_rows(tmp_path / f"a{suffix}", rows)
    columns = {"text": "messages.content", "id": "meta.id", "domains": "column:meta.set.name"}
    documents, rejected = read(path, tmp_path, **columns)
    assert [(d.text, d.id, d.source) for d in documents] == [("Why?\nSo.", f"d{i}", "talk") for i in range(3)]
    assert not rejected


@pytest.mark.parametrize("suffix", TABLES)
def test_a_column_whose_name_holds_dots_and_a_list_of_texts(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"a{suffix}", [{"a.b": ["one", "two"], "a": {"b": "other"}}])
    assert [d.text for d in read(path, tmp_path, text="a.b")[0]] == ["one\ntwo"]


@pytest.mark.parametrize("suffix", TABLES)
def test_a_text_column_that_holds_no_text_is_told_before_the_run(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"a{suffix}", [{"text": [{"role": "user", "content": "x"}]}])
    with pytest.raises(InputError, match=r"'text' is a struct, not text.* as text\.(role|content)"):
        check_inputs(CorpusSettings(paths=(str(path),)))
    with pytest.raises(InputError, match=r"no column 'text\.contents'"):
        check_inputs(CorpusSettings(paths=(str(path),), text="text.contents"))
    if suffix in (".parquet", ".feather"):
        write_rows(path, [{"text": 7}])
        with pytest.raises(InputError, match="'text' is int, not text"):
            check_inputs(CorpusSettings(paths=(str(path),)))


def test_parquet_with_a_page_that_fills_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"id": ["a"] * 20, "text": ["some words " * 1000] * 20})
    for name, pages in (("large", 1 << 20), ("small", 1000)):
        pq.write_table(
            table, tmp_path / f"{name}.parquet", use_dictionary=False, data_page_size=pages, write_batch_size=1
        )
    monkeypatch.setattr("openclimb.corpus.reading.tables.MOST_PAGE", 100_000)
    assert len(read(tmp_path / "small.parquet", tmp_path)[0]) == 20
    with pytest.raises(InputError, match=r"large\.parquet cannot be read: a page of its column 'text'"):
        read(tmp_path / "large.parquet", tmp_path)


ARROW_TYPES = [
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ARROW_TYPES)
def test_arrow_text_of_any_string_type_is_read(kind: pa.DataType, stream: bool, tmp_path: Path) -> None:
    texts = ["größer", "as it goes", None, "größer"]
    table = pa.table({"n": range(4), "text": pa.array(texts, kind), "also": pa.array(texts)})
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=2)
    documents, rejected = read(tmp_path / "a.arrow", tmp_path)
    assert [(d.text, d.position) for d in documents] == [("größer", 0), ("as it goes", 1), ("größer", 3)]
    assert [one.position for one in rejected] == [2]


def test_the_first_version_of_feather_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(64))
    with pytest.raises(InputError, match="Feather's first version"):
        check_inputs(CorpusSettings(paths=(str(tmp_path / "a.feather"),)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", '{"text": "größer 日本"}\n{"text": "so \U0001f600"}\n'),
        (".json", '[{"text": "größer 日本"},\n {"text": "so \U0001f600"}]'),
        (".csv", "id,text\n1,größer 日本\n2,so \U0001f600\n"),
        (".tsv", "id\ttext\r\n1\tgrößer 日本\r\n2\tso \U0001f600\r\n"),
    ],
)
def test_text_with_a_byte_order_mark_is_read_in_any_encoding(
    suffix: str, content: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (tmp_path / f"a{suffix}").write_bytes(mark + content.encode(encoding))
    monkeypatch.setattr(units_module, "UNIT_BYTES", 30)
    documents, rejected = read(tmp_path / f"a{suffix}", tmp_path)
    assert [d.text for d in documents] == ["größer 日本", "so \U0001f600"]
    assert not rejected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_plain_text_is_a_document(encoding: str, tmp_path: Path) -> None:
    text = "Größer.\r\n\nAs it goes.\n"
    (tmp_path / "law").mkdir()
    (tmp_path / "law" / "a.txt").write_bytes(text.encode(encoding))
    (tmp_path / "law" / "b.md").write_bytes(b"caf\xe9")
    (tmp_path / "law" / "c.md").write_bytes(b"")
    documents, rejected = read(tmp_path / "law" / "*", tmp_path, text="body", id="id")
    assert [(d.text, d.id, d.position) for d in documents] == [(text, "a.txt:0", 0)]
    assert [(one.file, one.left_out) for one in rejected] == [("b.md", ""), ("c.md", EMPTY)]
    with pytest.raises(InputError, match=r"no column 'domain'"):
        check_inputs(CorpusSettings(paths=(str(tmp_path / "law"),), domains="column:domain"))


def test_half_a_surrogate_pair_is_replaced_and_counted_in_every_text(tmp_path: Path) -> None:
    half = "cut \ud83d".encode("utf-16-le", "surrogatepass")
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF16_LE + half)
    (tmp_path / "b.csv").write_bytes(codecs.BOM_UTF16_LE + "text\n".encode("utf-16-le") + half)
    (tmp_path / "c.jsonl").write_bytes(
        codecs.BOM_UTF16_LE + '{"text": "'.encode("utf-16-le") + half + '"}'.encode("utf-16-le")
    )
    (tmp_path / "d.json").write_text(r'[{"text": "cut \ud83d"}, {"text": "\ud83d\ude00", "x": NaN}]')
    documents, rejected = read(tmp_path, tmp_path)
    assert [(d.text, d.repaired) for d in documents] == [("cut \ufffd", True)] * 4 + [("\U0001f600", False)]
    assert not rejected


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('id,text\n1,"a, ""b""\nc"\n\n2,d\n', ['a, "b"\nc', "d"]),
        ("text;id\na, b;1\r\nc;2\r\n", ["a, b", "c"]),
        ("text\na\nb", ["a", "b"]),
        ('text|n\n5" disk|1\nb|2', ['5" disk', "b"]),
        ("id,text\r1,old Mac\r2,b\r", ["old Mac", "b"]),
        ('"text","n"\n"a\r\nb",1\n', ["a\r\nb"]),
    ],
)
def test_dialects_of_csv(content: str, texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode())
    documents, rejected = read(tmp_path / "a.csv", tmp_path)
    assert [d.text for d in documents] == texts
    assert [d.position for d in documents] == list(range(len(texts)))
    assert not rejected


def test_rows_of_csv_that_cannot_be_meant_are_rejected_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\n1,a, b\n"2\n2",c\n3\n4,caf\xe9\n5,d\n')
    documents, rejected = read(tmp_path / "a.csv", tmp_path)
    assert [(d.text, d.position) for d in documents] == [("c", 1), ("d", 4)]
    assert [(one.line, one.reason) for one in rejected] == [
        (2, "3 fields, where the header has 2"),
        (5, "1 fields, where the header has 2"),
        (6, "the row is not UTF-8"),
    ]


def test_a_quote_that_is_never_closed_takes_no_documents_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,a\n2,"b\n3,c\n4,d\n')
    with pytest.raises(InputError, match="a quote at line 3 is never closed"):
        read(tmp_path / "a.csv", tmp_path)


ODD_ARRAYS = {
    '[{"text": "a]}\\"[{,"}, {"text": "b", "x": [[1, {"y": [2]}]]}]': ['a]}"[{,', "b"],
    '\n [\n{"text": "a"}\n]\n\n': ["a"],
    "[]": [],
    '[{"text": "\\\\"},{"text":"\\\\\\""}]': ["\\", '\\"'],
}


@pytest.mark.parametrize("block", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize("content", ODD_ARRAYS)
def test_json_arrays_are_cut_at_their_elements(
    content: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openclimb.corpus.reading.lines.BLOCK", block)
    (tmp_path / "a.json").write_text(content)
    documents, rejected = read(tmp_path / "a.json", tmp_path)
    assert [d.text for d in documents] == ODD_ARRAYS[content]
    assert not rejected


def test_elements_of_an_array_that_are_no_documents_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "a"}, 7, , {"text": "b"}, {"text": }]')
    documents, rejected = read(tmp_path / "a.json", tmp_path)
    assert [(d.text, d.position) for d in documents] == [("a", 0), ("b", 3)]
    assert [one.position for one in rejected] == [1, 4]


@pytest.mark.parametrize("content", ['[{"text": "a"}', '[{"text": "a"}] [1]', '[{"text": "a'])
def test_an_array_that_does_not_end_where_the_file_does_stops_the_run(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=r"a\.json cannot be read: it is damaged|neither JSON lines nor an array"):
        read(tmp_path / "a.json", tmp_path)


def test_json_that_is_one_object_over_lines_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"text": "a"}]}, indent=1))
    with pytest.raises(InputError, match=r"a\.json holds neither JSON lines nor an array of them"):
        check_inputs(CorpusSettings(paths=(str(tmp_path),)))


def test_json_lines_named_json_are_cut_into_units_and_arrays_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"document {i}"} for i in range(50)]
    (tmp_path / "a.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    monkeypatch.setattr(units_module, "UNIT_BYTES", 300)
    units = units_of(CorpusSettings(paths=(str(tmp_path),)), tmp_path / "stage")
    assert [(unit.name, unit.format) for unit in units[-2:]] == [("a.json", "jsonl"), ("b.json", "json")]
    assert len(units) > 3
    documents, rejected = read(tmp_path / "*.json", tmp_path)
    assert [d.text for d in documents] == [row["text"] for row in rows] * 2
    assert not rejected


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(["as it goes, größer and größer"] * 3, 300, path)
    return path


@pytest.mark.parametrize("suffix", TABLES)
def test_token_ids_are_refused_or_decoded(suffix: str, tokenizer: Path, tmp_path: Path) -> None:
    loaded = load_tokenizer(tokenizer)
    texts = ["as it goes", "größer and größer"]
    end = loaded.token_to_id(END)
    rows = [{"tokens": [*loaded.encode(text).ids, end], "cluster_id": i} for i, text in enumerate(texts)]
    path = write_rows(tmp_path / f"a{suffix}", rows)
    with pytest.raises(InputError, match="no column 'text'.*'tokens' holds token ids"):
        check_inputs(CorpusSettings(paths=(str(path),)))
    corpus = CorpusSettings(paths=(str(path),), text="tokens", domains="column:cluster_id")
    with pytest.raises(InputError, match="'tokens' holds lists of whole numbers: these are token ids") as caught:
        check_inputs(corpus)
    assert "decode them first" in caught.value.fix
    assert "tokens.tokenizer" in caught.value.fix
    with pytest.raises(ConfigError, match="there is no file"):
        check_inputs(corpus, str(tmp_path / "gone.json"))
    assert check_inputs(corpus, str(tokenizer))["token_ids"] is True
    columns = {"text": "tokens", "domains": "column:cluster_id"}
    documents, rejected = read(path, tmp_path, str(tokenizer), **columns)
    assert [(d.text, d.source) for d in documents] == [("as it goes", "0"), ("größer and größer", "1")]
    assert not rejected


def test_token_ids_of_another_tokenizer_are_rejected(tokenizer: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": [1, 2]}, {"text": [50_000]}, {"text": [-1]}, {"text": "plain"}])
    documents, rejected = read(path, tmp_path, str(tokenizer))
    assert [d.position for d in documents][1:] == [path.read_bytes().index(b'{"text": "plain')]
    assert ["token id 50000 is not one" in one.reason or "token id -1" in one.reason for one in rejected] == [
        True,
        True,
    ]


BOMB = """
import sys
from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.read import Unit, read_unit
from openclimb.corpus.reading.units import check_inputs
settings, size = CorpusSettings(paths=(sys.argv[1],)), int(sys.argv[2])
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1000
def n_read():
    return int(open("/proc/self/io").read().split()[1])
before, started = n_read(), peak()
kind = check_inputs(settings)["formats"].popitem()[0]
print(n_read() - before, peak() - started)
found = list(read_unit(Unit(0, sys.argv[1], "a", kind, 0, size, size, 0, size, ""), settings))
print(peak() - started, [getattr(one, "reason", "") for one in found])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts bytes by /proc")
@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.jsonl"])
def test_two_gigabytes_in_a_line_take_little_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("zst"):  # frames by hand (RFC 8878): blocks of one repeated byte, 4 bytes for 128 kB
        head, size = b"\x28\xb5\x2f\xfd\x00" + bytes([(27 - 10) << 3]), (1 << 17) << 3
        blocks = [(size | 1 << 1 | last).to_bytes(3, "little") + b"x" for last in (0, 1)]
        path.write_bytes(head + blocks[0] * (1 << 14) + blocks[1])
    else:
        with open(path, "wb") as file:
            file.truncate(1 << 31)  # a file of zeros that takes no place on the disk
    command = [sys.executable, "-c", BOMB, str(path), str(path.stat().st_size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    plan, run = done.stdout.splitlines()
    n_read, planned = map(int, plan.split())
    assert n_read < 10_000_000
    assert planned < 250  # MB
    peak, _, reasons = run.partition(" ")
    assert int(peak) < 350
    assert reasons == "['longer than 20 MB']"


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
def test_all_pages_of_long_values_are_looked_at(version: str, codec: str, tmp_path: Path) -> None:
    """A dictionary that is full makes a writer go over to plain pages, of which the first may not be the largest."""
    texts = [f"{i} {'a word or two ' * 10_000}" for i in range(40)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": texts}), path, compression=codec, data_page_version=version, write_page_checksum=True,
        dictionary_pagesize_limit=1_000_000, write_batch_size=7,
    )  # fmt: skip
    with open(path, "rb") as file:
        column = pq.ParquetFile(path).metadata.row_group(0).column(0)
        sizes = list(tables._page_sizes(file, column))
    headers = column.total_uncompressed_size - sum(sizes)
    assert len(sizes) > 3
    assert 10 * len(sizes) < headers < 1000 * len(sizes)  # statistics of long texts are left out or cut
    assert [document.text for document in read(path, tmp_path)[0]] == texts


def test_one_long_text_of_a_dictionary_stands_once_in_the_memory(tmp_path: Path) -> None:
    texts = ["one word and another " * 250_000] * 30 + ["short"]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, dictionary_pagesize_limit=1 << 30)
    before = pa.default_memory_pool().bytes_allocated()
    with open(path, "rb") as file:
        batches = tables.parquet_batches(file, 0, 1, lambda names: names)
        first = next(batches)
        assert pa.types.is_dictionary(first.column(0).type)
        assert pa.default_memory_pool().bytes_allocated() - before < 6 * len(texts[0])  # 8 rows would have 8
        batches.close()
    assert [len(document.text) for document in read(path, tmp_path)[0]] == [len(text) for text in texts]


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("kind", ["file", "stream"])
def test_a_record_batch_that_fills_the_memory_is_refused(
    kind: str, compression: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table(
        {"text": [f"some words {i} " * 1000 for i in range(40)], "n": pa.array(["a", "b"] * 20).dictionary_encode()}
    )
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    for name, rows in (("large", 40), ("small", 5)):
        with pa.OSFile(str(tmp_path / f"{name}.arrow"), "wb") as sink, make(sink, table.schema, options=options) as out:
            out.write_table(table, max_chunksize=rows)
    sizes = {}
    for name in ("large", "small"):
        with open(tmp_path / f"{name}.arrow", "rb") as file:
            sizes[name] = list(tables._batch_sizes(file))
    n_bytes = table.column("text").nbytes
    assert n_bytes < max(sizes["large"]) < 1.1 * n_bytes
    assert sum(size > 10_000 for size in sizes["small"]) == 8
    monkeypatch.setattr(tables, "MOST_BATCH", n_bytes // 2)
    assert [one.text for one in read(tmp_path / "small.arrow", tmp_path)[0]] == table.column("text").to_pylist()
    with pytest.raises(InputError, match=r"large\.arrow cannot be read: a record batch of it has"):
        read(tmp_path / "large.arrow", tmp_path)
