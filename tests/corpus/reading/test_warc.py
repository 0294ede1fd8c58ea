"""WARC files, written by warcio as crawlers write them: text is read, web pages are counted, damage is told."""

import gzip
import io
import json
from pathlib import Path

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from openclimb.cli.main import main
from openclimb.clustering.fit import fit
from openclimb.clustering.label import label
from openclimb.config.schema import (
    ClustersSettings,
    CorpusSettings,
    EmbedSettings,
    QualitySettings,
    TokensSettings,
)
from openclimb.corpus.reading import parse
from openclimb.corpus.reading.parse import HTML, NOT_PLAIN, Document, Rejected
from openclimb.corpus.reading.read import read_unit
from openclimb.corpus.reading.units import check_inputs, read_units, survey
from openclimb.engines.local import LocalEngine
from openclimb.errors import InputError
from openclimb.progress import Progress
from openclimb.testing.fixtures import make_tiny_workspace
from openclimb.workspace.context import StageContext

pytestmark = pytest.mark.filterwarnings(  # warcio leaves its temporary files open
    "ignore:Unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
PAGE = ("text/html; charset=utf-8", b"<html><p>Not extracted.</p></html>")


class Archive:
    """A WARC file in memory; records are written one after the other, each a gzip member of its own."""

    def __init__(self, compressed: bool = True) -> None:
        self.sink = io.BytesIO()
        self.writer = WARCWriter(self.sink, gzip=compressed)
        self.writer.write_record(self.writer.create_warcinfo_record("a.warc", {"software": "a crawler"}))

    def add(self, kind: str, content: bytes, mime: str = "text/plain", url: str = "http://a.org/1") -> "Archive":
        """Write a record of text or of anything else."""
        payload = io.BytesIO(content)
        record = self.writer.create_warc_record(url, kind, payload=payload, warc_content_type=mime)
        self.writer.write_record(record)
        return self

    def answer(self, mime: str, body: bytes, status: str = "200 OK", **more: str) -> "Archive":
        """Write what a web server answered, and what it was asked."""
        fields = [("Content-Type", mime), *((name.replace("_", "-"), value) for name, value in more.items())]
        head = StatusAndHeaders(status, fields, protocol="HTTP/1.1")
        record = self.writer.create_warc_record("http://a.org/2", "response", io.BytesIO(body), http_headers=head)
        asked = StatusAndHeaders("GET / HTTP/1.1", [("Host", "a.org")], is_http_request=True)
        self.writer.write_record(self.writer.create_warc_record("http://a.org/2", "request", http_headers=asked))
        self.writer.write_record(record)
        return self

    def save(self, path: Path) -> Path:
        """Write the file."""
        path.write_bytes(self.sink.getvalue())
        return path


def read(path: Path, out: Path, **settings: str) -> tuple[list[Document], list[Rejected]]:
    corpus = CorpusSettings(paths=(str(path),), **settings)
    (out / "stage").mkdir(exist_ok=True)
    survey(StageContext(out / "stage", LocalEngine(1), Progress()), corpus)
    found = [one for unit in read_units(out / "stage") for one in read_unit(unit, corpus)]
    return [one for one in found if isinstance(one, Document)], [one for one in found if isinstance(one, Rejected)]


@pytest.mark.parametrize("name", ["a.warc", "a.wet", "a.warc.gz", "CC-MAIN-0.warc.wet.gz"])
def test_extracted_text_and_plain_text_are_documents(name: str, tmp_path: Path) -> None:
    archive = Archive(name.endswith("gz")).add("conversion", "Größer.\nAs it goes.\n".encode())
    archive.add("metadata", b"fetchTimeMs: 7", "application/warc-fields").add("resource", b"Terms.", "text/plain")
    archive.answer("text/plain", b"As it was sent.").add("conversion", b" \r\n").answer(*PAGE)
    archive.add("resource", b"\x89PNG", "image/png")
    documents, rejected = read(archive.save(tmp_path / name), tmp_path, id="id", domains="column:url")
    texts = ["Größer.\nAs it goes.\n", "Terms.", "As it was sent."]
    assert [(d.position, d.text) for d in documents] == list(zip((1, 3, 5), texts, strict=True))
    assert [d.source for d in documents] == ["http://a.org/1", "http://a.org/1", "http://a.org/2"]
    assert len({d.id for d in documents}) == 3
    assert all(d.id.startswith("urn:uuid:") for d in documents)
    assert [(one.reason, one.left_out) for one in rejected] == [
        ("'text' is empty", "empty"),
        ("text/html", NOT_PLAIN),
        ("image/png", NOT_PLAIN),
    ]


def test_the_text_goes_by_the_column_of_the_settings(tmp_path: Path) -> None:
    path = Archive().add("conversion", b"As it goes.").save(tmp_path / "a.warc.gz")
    documents, _ = read(path, tmp_path, text="body")
    assert [(d.text, d.id) for d in documents] == [("As it goes.", "a.warc.gz:1")]
    with pytest.raises(InputError, match=r"no column 'host'; it has: url, id, text"):
        check_inputs(CorpusSettings(paths=(str(path),), domains="column:host"))


def test_answers_are_decoded_as_their_server_says(tmp_path: Path) -> None:
    text = "größer und größer, " * 20
    chunks = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (b"one, ", b"two", b""))
    archive = Archive().answer("text/plain; charset=ISO-8859-1", text.encode("latin-1"))
    archive.answer("Text/Plain;charset=none-such", text.encode())
    archive.answer("text/plain", gzip.compress(text.encode()), Content_Encoding="gzip")
    archive.answer("text/plain", text.encode(), Content_Encoding="gzip")  # unpacked, and the field kept
    archive.answer("text/plain", chunks, Transfer_Encoding="chunked")
    archive.answer("text/plain", b"Three in one piece", Transfer_Encoding="chunked")
    documents, rejected = read(archive.save(tmp_path / "a.warc.gz"), tmp_path)
    assert [d.text for d in documents] == [text] * 4 + ["one, two", "Three in one piece"]
    assert not rejected


def test_what_cannot_be_read_of_an_answer_is_rejected_or_left_out(tmp_path: Path) -> None:
    packed = gzip.compress(b"as it goes " * 50)
    archive = Archive().answer("text/plain", b"caf\xe9").answer("text/plain", packed[:-9], Content_Encoding="gzip")
    archive.answer("text/plain", b"5\r\nabc", Transfer_Encoding="chunked")
    archive.answer("text/plain", b"5\r\nabcde\r\n", Transfer_Encoding="chunked")
    archive.answer("text/plain", b"gone", "404 Not Found").answer("text/plain", b"?", Content_Encoding="br")
    documents, rejected = read(archive.save(tmp_path / "a.warc.gz"), tmp_path)
    assert not documents
    assert [(one.reason[:22], one.left_out) for one in rejected] == [
        ("the text is not utf-8:", ""),
        ("its packed data end ea", ""),
        ("its chunks end early", ""),
        ("its chunks end early", ""),
        ("an answer without succ", NOT_PLAIN),
        ("text/plain packed by b", NOT_PLAIN),
    ]


def test_a_record_over_the_limit_is_rejected_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse, "MOST_BYTES", 1_000_000)
    archive = Archive().add("conversion", b"x" * 1_000_001).add("conversion", b"last")
    archive.answer("text/plain", gzip.compress(b"x" * 1_000_001), Content_Encoding="gzip")
    documents, rejected = read(archive.save(tmp_path / "a.warc.gz"), tmp_path)
    assert [d.text for d in documents] == ["last"]
    assert [one.reason for one in rejected] == ["longer than 1 MB"] * 2


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_that_is_cut_short_anywhere_is_told(compressed: bool, tmp_path: Path) -> None:
    archive = Archive(compressed).add("conversion", b"As it goes. " * 9).add("conversion", b"And so on. " * 9)
    data, texts = archive.sink.getvalue(), {"As it goes. " * 9, "And so on. " * 9}
    path, told, passed = tmp_path / ("a.warc.gz" if compressed else "a.warc"), 0, 0
    step = 11 if compressed else 29
    for stop in range(1, len(data), step):
        path.write_bytes(data[:stop])
        try:
            documents, _ = read(path, tmp_path)
        except InputError as error:
            told += "cannot be read: it is damaged or cut short" in error.message
        else:
            passed += 1  # cut between two records, or in the empty lines there
            assert {d.text for d in documents} <= texts
    assert passed <= 2
    assert told + passed == len(range(1, len(data), step))


def test_damaged_headers_are_told(tmp_path: Path) -> None:
    head = b"WARC/1.0\r\nWARC-Type: conversion\r\n"
    for data, what in (
        (b"as it goes\r\n", "where its record 0 should begin"),
        (head + b"\r\n", "record 0 does not say how long it is"),
        (head + b"Content-Length: -3\r\n\r\n", "record 0 does not say how long it is"),
        (head + b"Content-Length: 4\r\n\r\nas it goes\r\n\r\n", "where its record 1 should begin"),
        (head + b"A: " + b"x" * 70_000 + b"\r\n\r\n", "the header of its record 0 has a line that is too long"),
        (head + b"A: b\r\n" * 2000, "the header of its record 0 has too many lines"),
    ):
        (tmp_path / "a.warc").write_bytes(data)
        with pytest.raises(InputError, match=what):
            read(tmp_path / "a.warc", tmp_path)


def test_pages_are_counted_and_an_archive_of_pages_alone_is_told(
    tmp_path: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = Archive()
    for i in range(40):
        archive.add("conversion", f"As it goes {i}".encode()).answer(*PAGE)
    corpus = CorpusSettings(paths=(str(archive.save(tmp_path / "a.warc.gz")),), max_rejected=0)
    at = {name: StageContext(tmp_path / name, LocalEngine(1), Notes()) for name in ("corpus", "clusters", "labels")}
    for context in at.values():
        context.folder.mkdir()
    survey(at["corpus"], corpus)
    units = read_units(tmp_path / "corpus")
    hashing = EmbedSettings(embedder="hashing")
    fit(at["clusters"], units, corpus, hashing, ClustersSettings(k=2), TokensSettings(vocab_size=300))
    facts = label(at["labels"], units, tmp_path / "clusters", corpus, hashing, QualitySettings())
    assert [facts[name] for name in ("documents", "rejected", "not_plain")] == [40, 0, 40]
    assert f"40 records of WARC files are left out, as they are no plain text: {HTML}" in at["labels"].progress.said

    Archive().answer(*PAGE).save(tmp_path / "pages.warc.gz")
    root = make_tiny_workspace(tmp_path / "run", tmp_path / "pages.warc.gz", tiny_tasks)
    assert main(["plan", str(root)]) == 0
    assert f"no plain text at the beginning of pages.warc.gz: {HTML}" in capsys.readouterr().out
    assert main(["plan", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["inputs"]["pages"] == "pages.warc.gz"
    assert main(["run", str(root), "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "the corpus holds no readable document" in said
    assert HTML in said


class Notes(Progress):
    """Keeps what a person is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)
