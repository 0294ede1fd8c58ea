"""The labels stage: one streaming pass over the corpus that gives every document a row beside its text.

Reads the input files and `clusters/`. Writes `labels/unit-00012.parquet` for each unit: position, cluster (−1 where
domains are ready-made), source, distance, bytes, tokens (estimated: bytes × the cluster's rate, and those of start
and end), hash of the text, and a column for each score; and `labels/rejected.jsonl`: file, position, line, reason.
A unit's file appears when it is complete and is not made again; it carries the unit's rejected documents with it.
Where tasks are given, their items are looked for in the same pass, and what was found is written to `contamination/`;
where near duplicates are looked for, the documents' signatures are written to `duplicates/`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.clustering.embed import BATCH, Embedder, embedding_fingerprint, gpu_share, load_embedder
from openclimb.clustering.kmeans import assign
from openclimb.config.load import result_settings
from openclimb.config.schema import CorpusSettings, EmbedSettings, QualitySettings
from openclimb.corpus.labels import DONE
from openclimb.corpus.reading.parse import FOLDERS, HTML, NOT_PLAIN, Document, Rejected
from openclimb.corpus.reading.read import Unit, content_hash, read_unit
from openclimb.corpus.sample import Block
from openclimb.engines.engine import Resources
from openclimb.engines.local import set_allocator
from openclimb.errors import InputError
from openclimb.progress import counted
from openclimb.quality.contamination import UnitOverlap
from openclimb.quality.duplicates import signing_unit
from openclimb.quality.scorers import Place, Scorer, load_scorers, score_names, scorer_files
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic, file_stamps, read_json, write_text

BATCH_CHARS = 1_000_000  # a batch ends early at this many characters, so that long documents do not fill the memory
KEPT_BLOCK = 4_000_000  # bytes: most of a batch is smaller; what is larger would not be reused
GROUP_ROWS = 50_000  # rows kept until they are written as one row group: about 2 MB


@dataclass
class Done:
    """What became of a unit: documents labelled, and those rejected, which are too many where it was given up."""

    n_documents: int
    rejected: list[dict[str, Any]]
    n_empty: int = 0  # documents without text
    empty_sources: dict[str, int] = field(default_factory=dict)  # those of each ready-made domain
    n_not_plain: int = 0  # records of WARC files that hold web pages, pictures and the like
    n_repaired: int = 0  # documents with halves of surrogate pairs


def label(
    context: StageContext,
    units: Sequence[Unit],
    clusters: Path,
    corpus: CorpusSettings,
    embed: EmbedSettings,
    quality: QualitySettings,
    overlap: Path | None = None,
    signatures: Path | None = None,
) -> dict[str, Any]:
    """Label every unit that has no labels yet; return the facts of the record.

    `overlap`: the folder with the index of the tasks' items, where what each unit has of them is written; `signatures`:
    the folder where the documents' signatures are written, for near duplicates.
    Raises InputError when more than `corpus.max_rejected` documents could not be read, naming the files.
    """
    out, progress = context.folder, context.progress
    work = _Work(clusters, corpus, embed, quality, out, overlap, signatures)
    scorers = load_scorers(quality, work.place)  # errors of settings come before the work
    found = {unit.number: _done_before(out, unit) for unit in units}
    done = {number: result for number, result in found.items() if result is not None}
    waiting = [unit for unit in units if unit.number not in done]
    progress.start("label documents", len(units), "units")
    progress.advance(len(done))
    rejecting = partial(_set_aside, work, units, done)
    shares = [one.gpu_share for one in scorers] + [gpu_share(embed)] * work.embeds(scorers)
    models, label_unit = Resources(gpus=max(shares, default=0.0)), partial(_label_unit, work)
    n_rejected = _n_rejected(done.values())
    for index, result in context.engine.map(label_unit, waiting, models, folder=out, lost=rejecting):
        done[waiting[index].number] = result
        n_rejected += _n_rejected([result])
        if n_rejected > corpus.max_rejected:
            break
        progress.advance()
    if n_rejected > corpus.max_rejected:
        raise _too_many(done, corpus.max_rejected, out)
    _write_rejected(done, out)
    n_documents = sum(result.n_documents for result in done.values())
    if not n_documents:
        raise InputError("the corpus holds no readable document", f"see {out / 'rejected.jsonl'}, or check corpus.text")
    progress.finish(f"{n_documents:,} documents")
    if n_rejected:
        progress.note(f"{counted(n_rejected, 'documents')} could not be read and are left out: labels/rejected.jsonl")
    n_empty, n_not_plain, n_repaired = (
        sum(getattr(one, what) for one in done.values()) for what in ("n_empty", "n_not_plain", "n_repaired")
    )
    if n_empty:
        progress.note(f"{counted(n_empty, 'documents')} without text are left out")
    if n_not_plain:
        progress.note(
            f"{counted(n_not_plain, 'records')} of WARC files are left out, as they are no plain text: {HTML}"
        )
    if n_repaired:
        progress.note(f"{counted(n_repaired, 'documents')} had half a surrogate pair, which is U+FFFD now")
    counts = {"documents": n_documents, "rejected": n_rejected, "empty": n_empty, "repaired": n_repaired}
    counts |= {"not_plain": n_not_plain} if n_not_plain else {}
    return {**counts, "units": len(units), "scores": score_names(scorers)}


@dataclass(frozen=True)
class _Work:
    """What a process needs to label units."""

    clusters: Path
    corpus: CorpusSettings
    embed: EmbedSettings
    quality: QualitySettings
    out: Path
    overlap: Path | None
    signatures: Path | None

    @property
    def place(self) -> Place:
        """What the scorers are loaded from."""
        vectors = embedding_fingerprint(self.embed, self.clusters)
        return Place(self.clusters.parent, self.embed.trust_remote_code, vectors)

    def embeds(self, scorers: Sequence[Scorer]) -> bool:
        """Whether documents are embedded: for their clusters, or for a scorer of vectors."""
        return (self.clusters / "centroids.npy").is_file() or any(one.on_vectors for one in scorers)


@dataclass(frozen=True)
class _Clustering:
    """Centroids (None where domains are ready-made), tokens a byte, and tokens around a document."""

    centroids: NDArray[np.float32] | None
    by_cluster: NDArray[np.float64]  # tokens a byte
    by_source: dict[str, float]  # where there are no clusters
    overall: float
    around: int


def _set_aside(work: _Work, units: Sequence[Unit], done: dict[int, Done], unit: Unit, how: str) -> Done:
    """Return what stands for a unit that kills its workers: all its documents are rejected, about so many.

    Its file is written, so that later stages and runs leave it out, unless these are too many.
    """
    import pyarrow.parquet as pq

    n_bytes = sum(one.n_bytes for one in units if one.number in done)
    n_documents = sum(result.n_documents for result in done.values())
    about = max(1, round(unit.n_bytes * n_documents / n_bytes)) if n_documents else 1
    rejected = {"file": unit.name, "position": unit.start, "line": None, "reason": how, "documents": about}
    result = Done(0, [rejected])
    if _n_rejected([*done.values(), result]) <= work.corpus.max_rejected:
        columns = score_names(_scorers(work))
        with (
            atomic(_path(work.out, unit)) as temporary,
            pq.ParquetWriter(temporary, _schema(columns), compression="zstd") as writer,
        ):
            _say_what_became(writer, result)
    return result


def _n_rejected(found: Iterable[Done]) -> int:
    return sum(row.get("documents", 1) for result in found for row in result.rejected)


def _say_what_became(writer: Any, done: Done) -> None:
    kept = {name: value for name, value in vars(done).items() if name != "n_documents"}
    writer.add_key_value_metadata({DONE.decode(): json.dumps(kept)})


class _TooManyRejected(Exception):
    """Ends a unit whose rejected documents alone are too many."""


def _scorers(work: _Work) -> list[Scorer]:
    """Return the scorers of the settings, kept in memory until a file changes that they read."""
    place = work.place
    files = scorer_files(work.quality, place.root).values()
    return _loaded(json.dumps(result_settings(work.quality)), place, tuple(map(file_stamps, files)))


@lru_cache(maxsize=2)
def _loaded(quality: str, place: Place, _stamps: tuple[tuple[tuple[str, int, int], ...], ...]) -> list[Scorer]:
    raw = json.loads(quality)
    return load_scorers(QualitySettings(**{**raw, "scorers": tuple(raw["scorers"])}), place)


def _clustering(clusters: Path) -> _Clustering:
    rates = read_json(clusters / "token_rates.json")
    path = clusters / "centroids.npy"
    if not path.is_file():
        return _Clustering(None, np.empty(0), rates["rates"], rates["overall"], rates["around"])
    centroids = np.load(path, allow_pickle=False)
    by_cluster = np.array([rates["rates"][str(cluster)] for cluster in range(len(centroids))])
    return _Clustering(centroids, by_cluster, {}, rates["overall"], rates["around"])


def _path(out: Path, unit: Unit) -> Path:
    return out / f"unit-{unit.number:05d}.parquet"


def _done_before(out: Path, unit: Unit) -> Done | None:
    import pyarrow.parquet as pq

    path = _path(out, unit)
    if not path.is_file():
        return None
    metadata = pq.read_metadata(path)
    kept = json.loads((metadata.metadata or {})[DONE])
    return Done(metadata.num_rows, **kept)


def _label_unit(work: _Work, unit: Unit) -> Done:
    """Label one unit and write its file; give it up when it alone has too many rejected documents."""
    import pyarrow.parquet as pq

    set_allocator(KEPT_BLOCK)
    scorers = _scorers(work)
    columns = score_names(scorers)
    clustering = _clustering(work.clusters)
    embedder = load_embedder(work.embed, work.clusters) if work.embeds(scorers) else None
    done = Done(0, [])
    if work.corpus.domains == FOLDERS:
        done.empty_sources[unit.folder] = 0  # also of a folder without any document
    overlap = UnitOverlap(work.overlap, unit) if work.overlap else None
    rows: list[Any] = []
    n_rows = 0
    try:
        with (
            atomic(_path(work.out, unit)) as temporary,
            pq.ParquetWriter(temporary, _schema(columns), compression="zstd") as writer,
            signing_unit(work.signatures, unit) if work.signatures else nullcontext() as sign,  # its file comes first
        ):
            for batch in _batches(unit, work.corpus, BATCH, done):
                rows.append(_label_batch(batch, clustering, embedder, scorers))
                n_rows += len(batch)
                if overlap:
                    overlap.look(batch)
                if sign:
                    sign(batch)
                if n_rows >= GROUP_ROWS:
                    writer.write_table(_joined(rows))
                    rows, n_rows = [], 0
            if rows:
                writer.write_table(_joined(rows))
            _say_what_became(writer, done)
            if overlap:
                overlap.write()  # first: a unit that has labels was looked at
    except _TooManyRejected:
        pass  # `label` raises for them
    return done


def _batches(unit: Unit, corpus: CorpusSettings, n: int, done: Done) -> Iterator[list[Document]]:
    """Yield the documents of a unit n at a time, fewer when they are long; count them and the others in `done`."""
    batch: list[Document] = []
    n_chars = 0
    for found in read_unit(unit, corpus):
        if isinstance(found, Rejected):
            if found.left_out == NOT_PLAIN:
                done.n_not_plain += 1
                continue
            if found.left_out:
                done.n_empty += 1
                if found.source:
                    done.empty_sources[found.source] = done.empty_sources.get(found.source, 0) + 1
                continue
            done.rejected.append({name: getattr(found, name) for name in ("file", "position", "line", "reason")})
            if len(done.rejected) > corpus.max_rejected:
                raise _TooManyRejected
            continue
        done.n_documents += 1
        done.n_repaired += found.repaired
        batch.append(found)
        n_chars += len(found.text)
        if len(batch) >= n or n_chars >= BATCH_CHARS:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch


def _label_batch(
    batch: list[Document], clustering: _Clustering, embedder: Embedder | None, scorers: Sequence[Scorer]
) -> Any:
    """Return the rows of a batch as a pyarrow table."""
    import pyarrow as pa

    texts = [document.text for document in batch]
    n_bytes = np.fromiter((len(text.encode("utf-8", "replace")) for text in texts), dtype=np.int64)
    vectors = embedder(texts) if embedder else None
    if vectors is None or clustering.centroids is None:
        cluster, distance = np.full(len(batch), -1, dtype=np.int32), np.zeros(len(batch), dtype=np.float32)
        rate = np.array([clustering.by_source.get(document.source, clustering.overall) for document in batch])
    else:
        cluster, distance = assign(vectors, clustering.centroids)
        rate = clustering.by_cluster[cluster]
    scores = [scorer(texts, vectors) for scorer in scorers]
    columns = [
        np.fromiter((document.position for document in batch), dtype=np.int64),
        cluster,
        pa.array([document.source for document in batch], pa.string()).dictionary_encode(),
        distance,
        n_bytes,
        np.minimum(np.rint(n_bytes * rate) + clustering.around, np.iinfo(np.int32).max).astype(np.int32),
        np.fromiter((content_hash(text) for text in texts), dtype=np.uint64),
        *(column for found in scores for column in found.T),
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=_schema(score_names(scorers)))


def clusters_of(embed: EmbedSettings, clusters: Path, block: Block) -> NDArray[np.int32]:
    """Return the cluster of each document of a sample's block, (n,); `clusters` is the folder of the finished stage."""
    centroids = np.load(clusters / "centroids.npy", allow_pickle=False)
    return assign(load_embedder(embed, clusters)(block.texts()), centroids)[0]


def embedding(embed: EmbedSettings) -> Resources:
    """Return what a process takes that embeds."""
    return Resources(gpus=gpu_share(embed))


def _schema(scores: Sequence[str]) -> Any:
    import pyarrow as pa

    fields = [
        ("position", pa.int64()),
        ("cluster", pa.int32()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("distance", pa.float32()),
        ("bytes", pa.int64()),
        ("tokens", pa.int32()),
        ("hash", pa.uint64()),
    ]
    return pa.schema([*fields, *((name, pa.float32()) for name in scores)])


def _joined(tables: list[Any]) -> Any:
    import pyarrow as pa

    return pa.concat_tables(tables).unify_dictionaries()


def _too_many(done: dict[int, Done], most: int, out: Path) -> InputError:
    """Return the error for more than `most` documents that could not be read; write which they are."""
    rejected = _write_rejected(done, out)
    files = Counter[str]()
    for row in rejected:
        files[row["file"]] += row.get("documents", 1)
    listed = ", ".join(f"{file} ({n})" for file, n in files.most_common(5))
    return InputError(
        f"more than {most} documents could not be read: {listed}; first reason: {rejected[0]['reason']}",
        f"see {out / 'rejected.jsonl'}; repair the files, or raise corpus.max_rejected and run again",
    )


def _write_rejected(done: dict[int, Done], out: Path) -> list[dict[str, Any]]:
    rejected = [row for number in sorted(done) for row in done[number].rejected]
    write_text(out / "rejected.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rejected))
    return rejected
