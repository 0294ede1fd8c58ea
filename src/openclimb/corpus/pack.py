"""Packs token arrays for the proxies: each domain cut so that a proxy repeats it as often as the target will.

A domain's array holds several times what one trial reads of it: each seed draws its own part, so that intervals over
seeds also cover which documents stand for a domain.

Of a corpus of many units only some are read, those of the sample and more where a domain needs them: a compressed file
is decompressed whole for any document of it.

Reads labels/, domains/ and the chosen documents of the input. Writes `tokens/`: tokenizer.json, one array a domain
(an end token after each document and, where the tokenizer puts a token of its own first, that one before),
heldout.bin and heldout.json, domains.json.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import CorpusSettings, ProxySettings, TargetSettings, TokensSettings
from openclimb.corpus.domains import read_domains
from openclimb.corpus.reading.parse import Document
from openclimb.corpus.reading.read import Unit, place_hash, read_unit
from openclimb.corpus.sample import MAX_UNITS, SPARE_UNITS
from openclimb.corpus.select_documents import DocumentChoice, stop_if_fewer
from openclimb.corpus.tokenizer import copy_tokenizer, encode_batch, ends_of, load_tokenizer
from openclimb.errors import DomainError
from openclimb.mixture import Domain
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic, file_names, write_json
from openclimb.workspace.tables import read_rows

POOL = 8  # times what a trial reads of a domain that are packed, where it has so much,
MOST_POOL = 20_000_000  # and up to so many tokens: of more, which documents they are hardly counts
HELDOUT_TOKENS = 50_000  # enough for a steady loss
SLACK = 1.15  # documents are chosen for this many times the tokens needed: counts in labels are estimates
SPARE = 1.25  # times the tokens of one sequence that the smallest domain has
BATCH = 256  # documents tokenised at once


@dataclass(frozen=True)
class _Work:
    """What a worker needs to choose and tokenise the documents of a unit."""

    choice: DocumentChoice
    tokenizer: Path
    corpus: CorpusSettings
    pieces: Path


@dataclass(frozen=True)
class Source:
    """What is packed: the units of the corpus, and the folders that say what their documents are."""

    units: Sequence[Unit]
    labels: Path
    domains: Path
    tokenizer: Path  # tokenizer.json
    corpus: CorpusSettings
    left_out: tuple[Path, ...] = ()  # the folders that say which documents are left out


def pack(
    context: StageContext, source: Source, tokens: TokensSettings, proxy: ProxySettings, target: TargetSettings
) -> dict[str, Any]:
    """Write the token arrays that proxies of this budget and sequence length read; return facts for the record.

    A trial reads at most min(tokens × proxy budget ÷ target budget, proxy budget × cap) different tokens of a domain
    (`n_read` in domains.json); POOL times as many are packed, in the order of a hash of the documents' places: a larger
    budget packs the same documents and more, where it needs no more units.
    Raises DomainError for a domain that cannot fill one sequence, InputError when labelled documents are gone.
    """
    out, progress = context.folder, context.progress
    domains = read_domains(source.domains)
    read = [n_read(domain, proxy.token_budget, target.token_budget) for domain in domains]
    _check_lengths(domains, read, proxy.sequence)
    needed = [min(n_pooled(n), domain.n_tokens) for n, domain in zip(read, domains, strict=True)]
    total = sum(domain.n_tokens for domain in domains)
    heldout_tokens = max(1, int(total * tokens.heldout))
    n_documents = [int(row["documents"]) for row in read_rows(source.domains / "domains.csv")]
    n_documents.append(round(sum(n_documents) * tokens.heldout))
    held = np.array([[*(domain.n_tokens for domain in domains), heldout_tokens], n_documents], dtype=np.float64)
    rates: tuple[float, ...] = (1.0,) * held.shape[1]
    every = DocumentChoice(source.labels, source.domains, tokens.heldout, context.seed, rates, source.left_out)
    units, held = units_read(source.units, every, np.array([*needed, HELDOUT_TOKENS]), held, context)
    rates = tuple(map(pick_rate, (*needed, HELDOUT_TOKENS), *np.rint(held).astype(np.int64).tolist()))
    copy_tokenizer(source.tokenizer, out / "tokenizer.json")
    choice = replace(every, rates=rates)
    work = _Work(choice, out / "tokenizer.json", source.corpus, out / "pieces")
    progress.start("pack", len(units), "units")
    for _ in context.engine.map(partial(_pack_unit, work), units, folder=out):
        progress.advance()
    names = file_names([domain.name for domain in domains], ("heldout",))
    written = [
        _join(work, units, index, need, out / f"{name}.bin")
        for index, (name, need) in enumerate(zip(names, needed, strict=True))
    ]
    _check_lengths(domains, [facts["n_tokens"] for facts in written], proxy.sequence)
    heldout = _join(work, units, len(domains), HELDOUT_TOKENS, out / "heldout.bin")
    write_json(out / "heldout.json", heldout)
    loaded = load_tokenizer(out / "tokenizer.json")
    rows = [
        {"name": domain.name, **facts, "n_read": min(n, facts["n_tokens"])}
        for domain, facts, n in zip(domains, written, read, strict=True)
    ]
    fixed = {
        "dtype": str(_dtype(loaded)),
        "eos": ends_of(out / "tokenizer.json").end,
        "vocab_size": loaded.get_vocab_size(),
    }
    write_json(out / "domains.json", {**fixed, "domains": rows})
    shutil.rmtree(out / "pieces", ignore_errors=True)
    progress.finish(f"{sum(row['n_tokens'] for row in rows):,} tokens")
    return {**fixed, "n_tokens": sum(row["n_tokens"] for row in rows), "n_tokens_heldout": heldout["n_tokens"]}


def units_read(
    units: Sequence[Unit],
    choice: DocumentChoice,
    needed: NDArray[np.int64],
    held: NDArray[np.float64],
    context: StageContext,
) -> tuple[Sequence[Unit], NDArray[np.float64]]:
    """Return the units to read, and the tokens and documents of each domain in them, (2, domains + 1).

    All, of which `held` says the same, where they are at most `MAX_UNITS`. Else the first in the order of a hash, which
    the sample was drawn from, and of the others in that order each that has something of a domain of which those
    before hold less than `SPARE_UNITS` times what is needed.
    """
    if len(units) <= MAX_UNITS:
        return units, held
    order = sorted(units, key=lambda unit: place_hash(unit.name, unit.start, context.seed))
    counts = np.zeros((len(order), *held.shape), dtype=np.float32)
    context.progress.start("count tokens", len(order), "units")
    for index, count in context.engine.map(choice.count, order, folder=context.folder):
        counts[index] = count
        context.progress.advance()
    context.progress.finish()
    taken = list(range(MAX_UNITS))
    found = counts[:MAX_UNITS].sum(axis=0, dtype=np.float64)
    for index in range(MAX_UNITS, len(order)):
        short = found[0] < SPARE_UNITS * needed
        if not short.any():
            break
        if counts[index, 0, short].any():
            taken.append(index)
            found += counts[index]
    return [order[index] for index in sorted(taken, key=lambda index: order[index].number)], found


def n_read(domain: Domain, proxy_token_budget: int, target_token_budget: int) -> int:
    """Return the different tokens of a domain that a trial reads: as many as make its repetitions the target's."""
    matched = domain.n_tokens * proxy_token_budget / target_token_budget
    return max(1, min(round(matched), round(proxy_token_budget * domain.cap), domain.n_tokens))


def least_tokens(proxy: ProxySettings, target: TargetSettings) -> int:
    """Return the tokens of a domain of which a trial reads one sequence, with some to spare: counts are estimates."""
    cut = max(1.0, target.token_budget / proxy.token_budget)  # to the proxy's share of the target
    return math.ceil(SPARE * (proxy.sequence + 1) * cut)


def n_pooled(n: int) -> int:
    """Return the tokens to pack of a domain of which a trial reads n."""
    return max(n, min(POOL * n, MOST_POOL))


def _check_lengths(domains: Sequence[Domain], n_tokens: Sequence[int], sequence: int) -> None:
    short = [f"{domain.name} ({n})" for domain, n in zip(domains, n_tokens, strict=True) if n < sequence + 1]
    if short:
        raise DomainError(
            f"too few tokens for one sequence of {sequence} once cut to the proxy's share of the target: "
            f"{', '.join(short)}",
            "raise proxy.token_budget or domains.min_share, merge to fewer domains, or lower proxy.sequence",
        )


def pick_rate(need: int, n_tokens: int, n_documents: int) -> float:
    """Return the share of documents to read so that they hold `need` tokens almost surely."""
    share = min(1.0, need / max(1, n_tokens))
    return min(1.0, SLACK * share + 6 * (share / max(1, n_documents)) ** 0.5 + 6 / max(1, n_documents))


def _pack_unit(work: _Work, unit: Unit) -> None:
    """Tokenise the chosen documents of a unit into pieces/unit-00012.npz; a finished piece is not made again."""
    piece = _piece(work, unit)
    if piece.is_file():
        return
    _write_piece(piece, _tokenised(work, unit, work.choice.documents(unit)), len(work.choice.rates))


def _tokenised(work: _Work, unit: Unit, chosen: dict[int, tuple[int, int]]) -> list[tuple[int, int, int, NDArray[Any]]]:
    """Return (domain, order, bytes, token ids with those of its start and end) of the chosen documents of a unit."""
    if not chosen:
        return []
    tokenizer = load_tokenizer(work.tokenizer)
    (before, after), dtype = ends_of(work.tokenizer).around, _dtype(tokenizer)
    documents = [d for d in read_unit(unit, work.corpus, chosen.__contains__) if isinstance(d, Document)]
    stop_if_fewer(unit.name, len(documents), len(chosen))
    rows = []
    for i in range(0, len(documents), BATCH):
        batch = documents[i : i + BATCH]
        for document, ids in zip(batch, encode_batch(tokenizer, [d.text for d in batch]), strict=True):
            n_bytes = len(document.text.encode("utf-8", "replace"))
            parts = [np.asarray(part, dtype=dtype) for part in (before, ids, after)]
            rows.append((*chosen[document.position], n_bytes, np.concatenate(parts)))
    return rows


def _write_piece(piece: Path, rows: list[tuple[int, int, int, NDArray[Any]]], n_groups: int) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    for group in range(n_groups):
        mine = [row for row in rows if row[0] == group]
        if mine:
            arrays[f"{group}/order"] = np.array([row[1] for row in mine], dtype=np.uint64)
            arrays[f"{group}/bytes"] = np.array([row[2] for row in mine], dtype=np.int64)
            arrays[f"{group}/lengths"] = np.array([len(row[3]) for row in mine], dtype=np.int64)
            arrays[f"{group}/tokens"] = np.concatenate([row[3] for row in mine])
    with atomic(piece) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _join(work: _Work, units: Sequence[Unit], group: int, need: int, path: Path) -> dict[str, Any]:
    """Write the first `need` tokens of a domain, its documents in their order; return what was written."""
    found: list[tuple[int, int, NDArray[Any]]] = []
    for unit in units:
        with np.load(_piece(work, unit), allow_pickle=False) as stored:
            if f"{group}/order" in stored.files:
                lengths = stored[f"{group}/lengths"]
                texts = np.split(stored[f"{group}/tokens"], np.cumsum(lengths)[:-1])
                found += zip(stored[f"{group}/order"].tolist(), stored[f"{group}/bytes"].tolist(), texts, strict=True)
    found.sort(key=lambda row: row[0])
    kept, n_tokens, n_bytes = [], 0, 0.0
    for _, size, ids in found:
        if n_tokens >= need:
            break
        part = ids[: need - n_tokens]
        kept.append(part)
        n_tokens += len(part)
        n_bytes += size * len(part) / len(ids)
    array = np.concatenate(kept) if kept else np.empty(0, dtype=_dtype(load_tokenizer(work.tokenizer)))
    with atomic(path) as temporary:
        array.tofile(temporary)
    return {"file": path.name, "n_tokens": n_tokens, "n_bytes": round(n_bytes), "n_documents": len(kept)}


def _piece(work: _Work, unit: Unit) -> Path:
    return work.pieces / f"unit-{unit.number:05d}.npz"


def _dtype(tokenizer: Any) -> np.dtype[Any]:
    return np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 65536 else np.uint32)
