"""The streaming pass: a row for each document whatever the workers, resumable, with the rejected ones told."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from openclimb.clustering.domains import make_domains
from openclimb.clustering.fit import fit
from openclimb.clustering.label import label
from openclimb.config.schema import (
    ClustersSettings,
    CorpusSettings,
    DomainsSettings,
    EmbedSettings,
    QualitySettings,
    TargetSettings,
    TokensSettings,
)
from openclimb.corpus.domains import read_domains
from openclimb.corpus.labels import read_labels
from openclimb.corpus.reading.read import Unit, content_hash
from openclimb.corpus.reading.units import read_units, survey
from openclimb.corpus.tokenizer import encode_batch, load_tokenizer
from openclimb.engines.local import LocalEngine
from openclimb.errors import DomainError, InputError
from openclimb.progress import Progress
from openclimb.testing.fixtures import survey_pieces
from openclimb.workspace.context import StageContext
from openclimb.workspace.tables import read_rows

EMBED = EmbedSettings(embedder="hashing")
TOKENS = TokensSettings(vocab_size=400)
SILENT = Progress()


@pytest.fixture(scope="module")
def fitted(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CorpusSettings, list[Unit], Path]:
    root = tmp_path_factory.mktemp("label")
    corpus = CorpusSettings(paths=(str(corpus_file),))
    units = survey_pieces(corpus, root / "corpus", 5)
    (root / "clusters").mkdir()
    fit(StageContext(root / "clusters", LocalEngine(1), SILENT), units, corpus, EMBED, ClustersSettings(k=6), TOKENS)
    return corpus, units, root / "clusters"


def labelled(
    fitted: tuple[CorpusSettings, list[Unit], Path], out: Path, workers: int = 1, **changes: object
) -> dict[str, object]:
    corpus, units, clusters = fitted
    corpus = replace(corpus, **changes)  # type: ignore[arg-type]
    return label(StageContext(out, LocalEngine(workers), SILENT), units, clusters, corpus, EMBED, QualitySettings())


def test_every_document_has_its_row(fitted: tuple[CorpusSettings, list[Unit], Path], tmp_path: Path) -> None:
    facts = labelled(fitted, tmp_path)
    corpus, _, clusters = fitted
    lines = Path(corpus.paths[0]).read_bytes().splitlines(keepends=True)
    texts = [json.loads(line)["text"] for line in lines]
    tables = [table for _, table in read_labels(tmp_path)]
    rows = [row for table in tables for row in table.to_pylist()]
    counts = {"documents": len(lines), "rejected": 0, "empty": 0, "repaired": 0}
    assert facts == {**counts, "units": 5, "scores": ["heuristics"]}
    assert [row["position"] for row in rows] == np.cumsum([0, *map(len, lines[:-1])]).tolist()
    assert [row["bytes"] for row in rows] == [len(text.encode()) for text in texts]
    assert [row["hash"] for row in rows] == [content_hash(text) for text in texts]
    assert {row["cluster"] for row in rows} == set(range(6))
    assert all(0 <= row["heuristics"] <= 1 and 0 <= row["distance"] <= 2 for row in rows)
    exact = sum(map(len, encode_batch(load_tokenizer(clusters / "tokenizer.json"), texts))) + len(texts)
    assert sum(row["tokens"] for row in rows) == pytest.approx(exact, rel=0.02)


def test_workers_and_batches_change_nothing(fitted: tuple[CorpusSettings, list[Unit], Path], tmp_path: Path) -> None:
    labelled(fitted, tmp_path / "one")
    labelled(fitted, tmp_path / "two", workers=2)
    for (_, one), (_, two) in zip(read_labels(tmp_path / "one"), read_labels(tmp_path / "two"), strict=True):
        assert one.equals(two)


def test_finished_units_survive_a_kill(fitted: tuple[CorpusSettings, list[Unit], Path], tmp_path: Path) -> None:
    labelled(fitted, tmp_path)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "unit-00003.parquet").unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("unit-*")}
    labelled(fitted, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == kept


def test_a_token_that_the_tokenizer_puts_first_is_counted(
    fitted: tuple[CorpusSettings, list[Unit], Path], with_start: Callable[[Path], int], tmp_path: Path
) -> None:
    corpus, units, clusters = fitted
    path = Path(shutil.copy(clusters / "tokenizer.json", tmp_path / "tokenizer.json"))
    with_start(path)
    (tmp_path / "clusters").mkdir()
    tokens = TokensSettings(tokenizer=str(path))
    fit(
        StageContext(tmp_path / "clusters", LocalEngine(1), SILENT), units, corpus, EMBED, ClustersSettings(k=6), tokens
    )
    labelled((corpus, units, tmp_path / "clusters"), tmp_path / "two")
    labelled(fitted, tmp_path / "one")
    for (_, one), (_, two) in zip(read_labels(tmp_path / "one"), read_labels(tmp_path / "two"), strict=True):
        assert (two.column("tokens").to_numpy() == one.column("tokens").to_numpy() + 1).all()


def test_a_classifier_whose_file_was_written_anew_is_read_anew(
    fitted: tuple[CorpusSettings, list[Unit], Path], write_fasttext: Callable[..., Path], tmp_path: Path
) -> None:
    corpus, units, clusters = fitted
    means = []
    for weight in (1.0, 8.0):
        path = write_fasttext("one.bin", {"__label__0": {"the": weight}, "__label__5": {}})
        os.utime(path, ns=(0, int(weight)))
        quality = QualitySettings(("fasttext",), {"one": str(path)})
        label(StageContext(tmp_path / str(weight), LocalEngine(1), SILENT), units, clusters, corpus, EMBED, quality)
        rows = [row for _, table in read_labels(tmp_path / str(weight)) for row in table.to_pylist()]
        means.append(np.mean([row["one"] for row in rows]))
    assert means[0] > means[1] + 0.01


def spoiled(corpus_file: Path, folder: Path, bad: Sequence[bytes]) -> Path:
    lines = corpus_file.read_bytes().splitlines(keepends=True)
    path = folder / "spoiled.jsonl"
    path.write_bytes(b"".join([*lines[:10], *bad, *lines[10:20]]))
    return path


BAD = [b'{"text": 3}\n', b"{not json\n", b'{"text": true}\n', b'{"other": "x"}\n', b'{"text": "\xff"}\n']


def test_rejected_documents_are_listed_with_file_place_and_reason(
    fitted: tuple[CorpusSettings, list[Unit], Path], corpus_file: Path, tmp_path: Path
) -> None:
    path = spoiled(corpus_file, tmp_path, BAD)
    corpus = CorpusSettings(paths=(str(path),), max_rejected=5)
    units = survey_pieces(corpus, tmp_path / "corpus", 2)
    facts = label(
        StageContext(tmp_path / "out", LocalEngine(1), SILENT), units, fitted[2], corpus, EMBED, QualitySettings()
    )
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert (facts["documents"], facts["rejected"]) == (20, 5)
    assert len(rejected) == 5
    assert all(
        set(row) == {"file", "position", "line", "reason"} and row["file"] == "spoiled.jsonl" for row in rejected
    )
    first = sum(map(len, path.read_bytes().splitlines(keepends=True)[:10]))
    assert rejected[0]["position"] == first

    (tmp_path / "out" / "rejected.jsonl").unlink()  # as if killed just before the record: nothing is forgotten
    label(StageContext(tmp_path / "out", LocalEngine(1), SILENT), units, fitted[2], corpus, EMBED, QualitySettings())
    assert len((tmp_path / "out" / "rejected.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize("pieces", [1, 4])
def test_too_many_rejected_documents_stop_the_run_and_the_files_are_named(
    pieces: int, fitted: tuple[CorpusSettings, list[Unit], Path], corpus_file: Path, tmp_path: Path
) -> None:
    corpus = CorpusSettings(paths=(str(spoiled(corpus_file, tmp_path, BAD)),), max_rejected=4)
    units = survey_pieces(corpus, tmp_path / "corpus", pieces)
    with pytest.raises(InputError, match=r"more than 4 documents could not be read: spoiled\.jsonl \(5\)") as caught:
        label(
            StageContext(tmp_path / "out", LocalEngine(1), SILENT), units, fitted[2], corpus, EMBED, QualitySettings()
        )
    assert "max_rejected" in caught.value.fix
    assert len((tmp_path / "out" / "rejected.jsonl").read_text().splitlines()) == 5
    more = replace(corpus, max_rejected=5)
    facts = label(
        StageContext(tmp_path / "out", LocalEngine(1), SILENT), units, fitted[2], more, EMBED, QualitySettings()
    )
    assert facts["documents"] == 20


def test_a_corpus_without_any_readable_document_is_told(
    fitted: tuple[CorpusSettings, list[Unit], Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").write_text('{"text": " "}\n')
    corpus = CorpusSettings(paths=(str(tmp_path / "empty.jsonl"),))
    units = survey_pieces(corpus, tmp_path / "corpus")
    with pytest.raises(InputError, match="no readable document"):
        label(
            StageContext(tmp_path / "out", LocalEngine(1), SILENT), units, fitted[2], corpus, EMBED, QualitySettings()
        )


def test_ready_made_domains_are_labelled_without_embedding(corpus_file: Path, tmp_path: Path) -> None:
    corpus = CorpusSettings(paths=(str(corpus_file),), domains="column:kind")
    units = survey_pieces(corpus, tmp_path / "corpus", 2)
    (tmp_path / "clusters").mkdir()
    unused = EmbedSettings(model="/nowhere/at/all")
    fit(StageContext(tmp_path / "clusters", LocalEngine(1), SILENT), units, corpus, unused, ClustersSettings(), TOKENS)
    label(
        StageContext(tmp_path / "labels", LocalEngine(1), SILENT),
        units,
        tmp_path / "clusters",
        corpus,
        unused,
        QualitySettings(),
    )
    assert not (tmp_path / "clusters" / "centroids.npy").exists()
    rows = [row for _, table in read_labels(tmp_path / "labels", ["cluster", "source"]) for row in table.to_pylist()]
    assert {row["cluster"] for row in rows} == {-1}
    assert {row["source"] for row in rows} == {"code", "manual", "names"}


class Notes(Progress):
    """Keeps what a person is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("domains", ["column:kind", "folders"])
def test_a_domain_whose_documents_have_no_text_is_named(
    domains: str, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    rows = [{"text": text, "kind": kind} for kind, text in texts]
    rows += [{"text": " \n", "kind": "hollow"}] * 3 + [{"text": "", "kind": "names"}]
    for kind in {row["kind"] for row in rows}:
        (tmp_path / "data" / kind).mkdir(parents=True)
        mine = [json.dumps(row) + "\n" for row in rows if row["kind"] == kind]
        (tmp_path / "data" / kind / "a.jsonl").write_text("".join(mine))
    if domains == "folders":
        (tmp_path / "data" / "void").mkdir()
        (tmp_path / "data" / "void" / "a.jsonl").touch()
    corpus = CorpusSettings(paths=(str(tmp_path / "data"),), domains=domains)
    stages = {name: tmp_path / name for name in ("corpus", "clusters", "labels", "domains")}
    for folder in stages.values():
        folder.mkdir()
    notes = Notes()
    at = {name: StageContext(folder, LocalEngine(1), notes) for name, folder in stages.items()}
    survey(at["corpus"], corpus)
    units = read_units(stages["corpus"])
    fit(at["clusters"], units, corpus, EMBED, ClustersSettings(), TOKENS)
    label(at["labels"], units, stages["clusters"], corpus, EMBED, QualitySettings())
    target = TargetSettings(token_budget=1000)
    facts = make_domains(at["domains"], stages["clusters"], stages["labels"], DomainsSettings(), target)
    void = ["void"] if domains == "folders" else []
    assert facts["without_text"] == ["hollow", *void]
    assert f"domains whose documents have no text; left out: {', '.join(['hollow', *void])}" in notes.said
    assert "4 documents without text are left out" in notes.said
    reasons = {row["cluster"]: row["reason"] for row in read_rows(stages["domains"] / "clusters.csv")}
    expected = {"hollow": "no text in its 3 documents", "code": "", "manual": "", "names": ""}
    assert reasons == expected | dict.fromkeys(void, "no documents")
    assert {domain.name for domain in read_domains(stages["domains"])} == {"code", "manual", "names"}


def test_one_domain_beside_one_without_text_is_not_enough(tmp_path: Path) -> None:
    rows = [{"text": f"as it goes {i}", "kind": "words"} for i in range(30)] + [{"text": "", "kind": "hollow"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = CorpusSettings(paths=(str(tmp_path / "a.jsonl"),), domains="column:kind")
    units = survey_pieces(corpus, tmp_path / "corpus")
    for name in ("clusters", "labels", "domains"):
        (tmp_path / name).mkdir()
    at = partial(StageContext, engine=LocalEngine(1), progress=SILENT)
    clusters, labels = tmp_path / "clusters", tmp_path / "labels"
    fit(at(clusters), units, corpus, EMBED, ClustersSettings(), TOKENS)
    label(at(labels), units, clusters, corpus, EMBED, QualitySettings())
    with pytest.raises(DomainError, match="one domain is left, .*; left out, without text: hollow") as caught:
        make_domains(at(tmp_path / "domains"), clusters, labels, DomainsSettings(), TargetSettings(token_budget=100))
    assert "corpus.text" in caught.value.fix


def test_long_units_are_written_in_row_groups(
    fitted: tuple[CorpusSettings, list[Unit], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(fitted, tmp_path / "one")
    monkeypatch.setattr("openclimb.clustering.label.GROUP_ROWS", 32)
    monkeypatch.setattr("openclimb.clustering.label.BATCH", 16)
    labelled(fitted, tmp_path / "two")
    path = tmp_path / "two" / "unit-00000.parquet"
    assert pq.read_metadata(path).num_row_groups > 1
    assert pq.read_table(path).equals(pq.read_table(tmp_path / "one" / "unit-00000.parquet"))


def test_documents_without_text_are_no_faults_and_halves_of_pairs_are_counted(
    fitted: tuple[CorpusSettings, list[Unit], Path], tmp_path: Path
) -> None:
    path = tmp_path / "corpus.jsonl"
    lines = ['{"text": "Some text."}', *['{"text": " "}'] * 7, r'{"text": "half \ud83d"}', "{broken"]
    path.write_text("\n".join(lines))
    corpus = CorpusSettings(paths=(str(path),), max_rejected=1)
    units = survey_pieces(corpus, tmp_path / "corpus", 2)
    (tmp_path / "out").mkdir()
    context = StageContext(tmp_path / "out", LocalEngine(1), SILENT)
    for _ in range(2):  # the second time from what is done
        facts = label(context, units, fitted[2], corpus, EMBED, QualitySettings())
        assert [facts[name] for name in ("documents", "rejected", "empty", "repaired")] == [2, 1, 7, 1]
