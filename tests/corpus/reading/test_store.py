"""Stores that fail: what passes is waited for and changes nothing, what does not stops the run with its cause."""

import contextlib
import gzip
import http.server
import json
import re
import threading
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading import store
from openclimb.corpus.reading.parse import Document
from openclimb.corpus.reading.read import Unit, read_unit
from openclimb.corpus.reading.units import list_files, read_units, survey
from openclimb.engines.local import LocalEngine
from openclimb.errors import InputError
from openclimb.progress import Progress
from openclimb.workspace.context import StageContext

MODES = ("busy", "reset", "short")


class Store:
    """A web server of the files in a folder on 127.0.0.1, which fails some of the requests that it gets."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.share, self.answer, self.tells_size = folder, 0.0, 0, True
        self.sends_parts = True
        self.rng, self.failed = np.random.default_rng(0), 0
        store_ = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.serve(body=False)

            def do_GET(self) -> None:
                self.serve(body=True)

            def serve(self, body: bool) -> None:
                mode = store_.fault()
                if mode == "reset":
                    self.close_connection = True
                    return
                path = store_.folder / Path(self.path.partition("?")[0]).name
                status = store_.answer or (503 if mode == "busy" else 200 if path.is_file() else 404)
                if status != 200:
                    self.send_error(status)
                    return
                data = path.read_bytes()
                wanted = self.headers.get("Range", "") if store_.sends_parts else ""
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
                part = data[int(asked[1]) : int(asked[2]) + 1 if asked[2] else None] if asked else data
                self.send_response(206 if asked else 200)
                if store_.tells_size:
                    self.send_header("Content-Length", str(len(part)))
                    self.send_header("Accept-Ranges", "bytes" if store_.sends_parts else "none")
                if asked:
                    start = int(asked[1])
                    self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
                self.end_headers()
                if body:
                    with contextlib.suppress(ConnectionError):  # whoever read it went away
                        self.wfile.write(part[: len(part) // 2] if mode == "short" else part)
                    self.close_connection = mode == "short"

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def fault(self) -> str:
        """Return how the next request fails, or ""."""
        fails = bool(self.rng.random() < self.share)
        self.failed += fails
        return str(self.rng.choice(MODES)) if fails else ""


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(store, "PAUSE", 0.001)
    (tmp_path / "data").mkdir()
    served = Store(tmp_path / "data")
    thread = threading.Thread(target=served.server.serve_forever, daemon=True)
    thread.start()
    yield served
    served.server.shutdown()
    served.server.server_close()


def units_of(settings: CorpusSettings, out: Path) -> list[Unit]:
    out.mkdir()
    survey(StageContext(out, LocalEngine(1), Progress()), settings)
    return read_units(out, settings)


def read_all(settings: CorpusSettings, out: Path) -> list[tuple[int, str]]:
    found = [one for unit in units_of(settings, out) for one in read_unit(unit, settings)]
    assert all(isinstance(one, Document) for one in found)
    return [(one.position, one.text) for one in found if isinstance(one, Document)]


def write_parquet(path: Path, texts: list[str]) -> None:
    pq.write_table(pa.table({"text": texts}), path, row_group_size=500)


def write_lines(path: Path, texts: list[str]) -> None:
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(1)
    return [f"{i} " + rng.bytes(2000).hex() for i in range(3000)]  # 12 MB: some requests a file


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_store_that_fails_one_request_in_three_changes_nothing(
    name: str, web: Store, texts: list[str], tmp_path: Path
) -> None:
    (write_parquet if name.endswith("parquet") else write_lines)(web.folder / name, texts)
    settings = CorpusSettings(paths=(f"{web.url}/{name}",))
    whole = read_all(settings, tmp_path / "whole")
    assert [text for _, text in whole] == texts
    web.share = 1 / 3
    for again in range(4):
        assert read_all(settings, tmp_path / f"again-{again}") == whole
    assert web.failed > 5


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_failing_server_that_sends_no_parts_gives_the_same(
    name: str, web: Store, texts: list[str], tmp_path: Path
) -> None:
    write_lines(web.folder / name, texts)
    web.sends_parts = False
    web.share = 1 / 3
    settings = CorpusSettings(paths=(f"{web.url}/{name}",))
    assert [text for _, text in read_all(settings, tmp_path / "corpus")] == texts
    web.rng = np.random.default_rng(1)
    assert [text for _, text in read_all(settings, tmp_path / "again")] == texts
    assert web.failed > 2


def test_each_document_is_asked_for_once(web: Store, texts: list[str], tmp_path: Path) -> None:
    write_lines(web.folder / "a.jsonl", texts)
    settings = CorpusSettings(paths=(f"{web.url}/a.jsonl",))
    (unit,) = units_of(settings, tmp_path / "corpus")
    web.share = 1 / 3
    asked: list[int] = []

    def every_second(position: int) -> bool:
        asked.append(position)
        return len(asked) % 2 == 1

    found = [one.text for one in read_unit(unit, settings, every_second) if isinstance(one, Document)]
    assert found == texts[::2]
    assert len(asked) == len(set(asked)) == len(texts)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [(503, "503"), (403, "permission denied"), (401, "permission denied"), (404, "the file is gone")],
)
def test_what_does_not_pass_stops_the_run_with_file_and_cause(
    answer: int, cause: str, web: Store, texts: list[str], tmp_path: Path
) -> None:
    write_lines(web.folder / "a.jsonl", texts)
    settings = CorpusSettings(paths=(f"{web.url}/a.jsonl?token=hidden",))
    (unit,) = units_of(settings, tmp_path / "corpus")
    web.answer = answer
    with pytest.raises(InputError, match=rf"a\.jsonl cannot be read: .*{cause}") as caught:
        list(read_unit(unit, settings))
    assert "hidden" not in caught.value.message + caught.value.fix
    if answer != 404:
        with pytest.raises(InputError, match=cause):
            list_files(settings)


def test_a_server_that_is_gone_stops_the_run(web: Store, texts: list[str], tmp_path: Path) -> None:
    write_lines(web.folder / "a.jsonl", texts)
    settings = CorpusSettings(paths=(f"{web.url}/a.jsonl",))
    (unit,) = units_of(settings, tmp_path / "corpus")
    web.server.shutdown()
    web.server.server_close()
    with pytest.raises(InputError, match=r"a\.jsonl cannot be read: .*onnect"):
        list(read_unit(unit, settings))


def test_only_what_may_pass_is_tried_again() -> None:
    assert store.tries(ConnectionResetError(), remote=False) == store.TRIES
    assert store.tries(OSError(5, "Input/output error"), remote=True) == store.TRIES
    assert store.tries(OSError(5, "Input/output error"), remote=False) == 1
    assert store.tries(PermissionError(), remote=False) == 1
    assert store.tries(PermissionError(), remote=True) == store.FEW_TRIES
    assert store.tries(FileNotFoundError(), remote=True) == 1
    assert store.tries(ValueError("protocol not known"), remote=True) == 1
    refused = RuntimeError("denied")
    refused.response = {"ResponseMetadata": {"HTTPStatusCode": 403}}  # type: ignore[attr-defined]
    assert store.tries(refused, remote=True) == store.FEW_TRIES
    wrapped = RuntimeError("failed")
    wrapped.__cause__ = HTTPError("http://x", 400, "bad", Message(), None)
    assert store.tries(wrapped, remote=True) == 1


def test_a_message_holds_no_secret_of_an_address() -> None:
    text = "GET 's3://key:secret@host/a/b.jsonl?X-Amz-Signature=1&b=2' failed, see https://h/p?q#f"
    assert store.without_secrets(text) == "GET 's3://host/a/b.jsonl' failed, see https://h/p"


def test_signed_addresses_are_read_and_their_names_hold_no_secret(web: Store, tmp_path: Path) -> None:
    write_lines(web.folder / "a.jsonl", ["one", "two"])
    write_lines(web.folder / "b.jsonl.gz", ["three"])
    places = [f"{web.url}/a.jsonl?key=1", f"{web.url}/b.jsonl.gz?key=2", f"{web.url}/a.jsonl?key=3"]
    files = list_files(CorpusSettings(paths=tuple(places)))
    assert [file.format for file in files] == ["jsonl", "jsonl", "jsonl.gz"]
    assert len({file.name for file in files}) == 3
    assert not any("key" in file.name for file in files)
    assert files[2].name == "b.jsonl.gz"
    assert len(read_all(CorpusSettings(paths=tuple(places)), tmp_path / "corpus")) == 5


def test_a_file_of_unknown_size_is_refused(web: Store) -> None:
    write_lines(web.folder / "a.jsonl", ["one"])
    web.tells_size = False
    with pytest.raises(InputError, match=r"does not say how large http://.*a\.jsonl is"):
        list_files(CorpusSettings(paths=(f"{web.url}/a.jsonl?key=1",)))
