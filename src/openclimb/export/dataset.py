"""The dataset: shards in which reading in order is the mixture, for a token budget.

Reads the input files, `labels/`, `domains/`, `tokens/tokenizer.json` and `mixture/`. Writes, beside OUT until it is
whole, `OUT.partial/`: pieces/unit-00012.parquet (the texts that are needed, tokenised, in order) and the shards made
from them; then `OUT/`: data/, tokenizer/, README.md, mixture.json, mixture.csv, record.json. No step holds more than
one stretch of a unit or one shard in memory, and finished pieces and shards survive a kill.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.load import format_count
from openclimb.config.schema import Config
from openclimb.corpus.domains import read_domains
from openclimb.corpus.left_out import folders_left_out
from openclimb.corpus.pack import pick_rate
from openclimb.corpus.reading.units import read_units
from openclimb.corpus.select_documents import DocumentChoice
from openclimb.corpus.tokenizer import copy_tokenizer, ends_of, load_tokenizer, tokenizer_fingerprint
from openclimb.engines.engine import Engine
from openclimb.errors import ConfigError, DomainError, WorkspaceError
from openclimb.export.card import dataset_card
from openclimb.export.pieces import Work, make_pieces, row_groups
from openclimb.export.plan import SHIFT, Counts, DomainPlan, choose_extras, plan_domain, quotas, window
from openclimb.export.shards import cut_shards, make_shards
from openclimb.export.writers.writer import find_writer
from openclimb.mixture import Domain
from openclimb.progress import Progress
from openclimb.workspace.damage import SHOWN, find_damage
from openclimb.workspace.files import JOBS, file_checksum, read_json, sweep, versions, write_json, write_text
from openclimb.workspace.results import Answer, read_answer
from openclimb.workspace.tables import mixture_table, read_rows

SHARD_BYTES = 128_000_000  # of text in a shard
MOST_SHARD_BYTES = 1_000_000_000  # which is held in memory
TOKENIZER = "tokenizer/tokenizer.json"
TOLERANCE = 0.001  # of a realised share against the one asked for
ESTIMATE = 1.05  # token counts in labels are estimates; repetitions are told to be too many only beyond this


@dataclass(frozen=True)
class ExportSpec:
    """What is asked of an export."""

    token_budget: int  # in the tokens of `tokenizer`
    format: str = "parquet"
    by_domain: bool = False  # each shard holds one domain, in place of the mixture
    tokenizer: str = ""  # path of a tokenizer.json; the workspace's own when empty
    seed: int | None = None  # of the documents' order; the workspace's when None
    shard_bytes: int = SHARD_BYTES  # of text in a shard


def export(
    root: Path, config: Config, spec: ExportSpec, out: Path, engine: Engine, progress: Progress
) -> dict[str, Any]:
    """Write a dataset to `out` and return what was written.

    An export that was interrupted goes on; a finished one with the same settings is compared with its checksums and
    returned as it is.
    Raises ConfigError for a format that no writer has or a tokenizer that cannot be read, WorkspaceError when `out`
    holds something else or was damaged, DomainError when the budget would repeat a domain more than
    `target.max_repetitions` times, InputError when documents that were labelled cannot be read any more.
    """
    writer = find_writer(spec.format)
    if spec.token_budget < 1:
        raise ConfigError(f"a dataset of {spec.token_budget} tokens is empty", "give --tokens a budget, such as 10B")
    if not 0 < spec.shard_bytes <= MOST_SHARD_BYTES:
        raise ConfigError(
            f"a shard of {spec.shard_bytes / 1e6:g} MB of text cannot be made",
            f"give --shard-mb a number from 1 to {MOST_SHARD_BYTES // 10**6}",
        )
    domains = read_domains(root / "domains")
    answer = read_answer(root)
    weights = list(answer.weights.values())
    asked = asked_for(root, config, spec)
    if (done := _done_before(out, asked)) is not None:
        progress.note(f"{out}: done before, reused")
        return done
    quota = quotas(weights, spec.token_budget)
    names = [domain.name for domain in domains]
    n_tokens = np.array([domain.n_tokens for domain in domains], dtype=np.float64)
    if not spec.tokenizer:
        _check_repetitions(names, n_tokens * (1 - config.tokens.heldout), quota, spec, config)
    if small := name_small(domains, weights, quota, config.proxy.sequence):
        progress.note(small)

    partial_out = _begin(out, asked)
    sweep(partial_out)
    copy_tokenizer(_tokenizer(root, spec), partial_out / TOKENIZER)
    work, counts = _read_enough(root, config, domains, quota, partial_out, spec, engine, progress)
    if spec.tokenizer:
        n_tokens = _own_counts(counts.tokens.sum(axis=1), work.choice, n_tokens)
        try:
            _check_repetitions(names, n_tokens * (1 - config.tokens.heldout), quota, spec, config)
        except DomainError:
            shutil.rmtree(partial_out)  # which another budget would find, and refuse
            raise
    plans = [
        plan_domain(quota[d], counts.tokens[d], work.choice.rates[d] >= 1) if quota[d] else DomainPlan(0)
        for d in range(len(domains))
    ]
    _choose_last(work, plans, counts)
    shards = cut_shards(names, _n_bytes(work, counts, quota), spec.shard_bytes, spec.by_domain)
    units = read_units(root / "corpus", config.corpus, config.tokens.tokenizer)
    written = make_shards(work, units, plans, shards, engine, progress)
    caps = [domain.cap for domain in domains]
    facts = _facts(names, weights, caps, n_tokens, written, spec, describe_tokenizer(partial_out / TOKENIZER))
    if writer.finish:
        writer.finish(partial_out, [note for note in written if sum(note["documents"])])
    shutil.rmtree(work.pieces)
    shutil.rmtree(partial_out / "shards")
    card = dataset_card(facts, answer.sentence, config, asked["seed"])
    _complete(partial_out, out, asked, facts, written, answer, card)
    return facts


def asked_for(root: Path, config: Config, spec: ExportSpec) -> dict[str, Any]:
    """Return what decides an export's bytes: two with the same are the same."""
    tokenizer = tokenizer_fingerprint(str(_tokenizer(root, spec))) if spec.tokenizer else ""
    return {
        "mixture": read_answer(root).weights,
        "token_budget": spec.token_budget,
        "format": spec.format,
        "by_domain": spec.by_domain,
        "shard_bytes": spec.shard_bytes,
        "seed": config.seed if spec.seed is None else spec.seed,
        "tokenizer": tokenizer,
        "tokens": read_json(root / "tokens" / "record.json")["fingerprint"],
    }


def _tokenizer(root: Path, spec: ExportSpec) -> Path:
    """Return the tokenizer.json whose tokens count. Raises ConfigError where the one that was named cannot be used."""
    if not spec.tokenizer:
        return root / "tokens" / "tokenizer.json"
    path = Path(spec.tokenizer).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"--tokenizer: there is no file {path}", "name a tokenizer.json, or the folder of one")
    ends_of(path)
    return path.absolute()


def describe_tokenizer(path: Path) -> dict[str, Any]:
    """Return what a reader of tokens must know: `vocab_size`, `end` and `start`, which is None where there is none."""
    before, (end,) = ends_of(path).around
    size = max(load_tokenizer(path).get_vocab(with_added_tokens=True).values()) + 1
    return {"vocab_size": int(size), "end": end, "start": before[0] if before else None}


def _read_enough(
    root: Path,
    config: Config,
    domains: Sequence[Domain],
    quota: Sequence[int],
    partial_out: Path,
    spec: ExportSpec,
    engine: Engine,
    progress: Progress,
) -> tuple[Work, Counts]:
    """Make pieces that hold every domain's quota; return them with exact counts."""
    units = read_units(root / "corpus", config.corpus, config.tokens.tokenizer)
    heldout, slack = config.tokens.heldout, 1.0
    seed = config.seed if spec.seed is None else spec.seed
    tokenizer = partial_out / TOKENIZER
    left_out = folders_left_out(root, config)
    while True:
        rates = (*_rates(root / "domains", domains, quota, heldout, slack), 0.0)
        work = Work(
            DocumentChoice(root / "labels", root / "domains", heldout, seed, rates, left_out),
            tokenizer,
            describe_tokenizer(tokenizer) if find_writer(spec.format).tokens else {},
            config.corpus,
            tuple(domain.name for domain in domains),
            partial_out / f"pieces-{slack:g}",
            partial_out / "data",
            spec.format,
        )
        counts = make_pieces(work, units, engine, progress)
        found = counts.tokens.sum(axis=1)
        if all(rates[d] >= 1 or found[d] >= quota[d] for d in range(len(domains))):
            return work, counts
        shutil.rmtree(work.pieces)
        slack *= 2  # the labels' estimate was far off, or another tokenizer makes fewer tokens: read more documents


def _own_counts(counted: NDArray[np.int64], choice: DocumentChoice, estimates: NDArray[np.float64]) -> NDArray[Any]:
    """Return each domain's tokens, held-out documents included, in those of another tokenizer than the search's.

    `counted` (n_domains,) were read; where a domain was read in part they stand for the rest, and one of which
    nothing was read has as many more or fewer as the others have.
    """
    rates = np.array(choice.rates[:-1])
    read = rates > 0
    own = counted / np.where(read, rates * (1 - choice.heldout), 1.0)
    return np.where(read, own, estimates * own[read].sum() / max(1.0, estimates[read].sum()))


def _complete(
    partial_out: Path,
    out: Path,
    asked: dict[str, Any],
    facts: dict[str, Any],
    written: Sequence[dict[str, Any]],
    answer: Answer,
    card: str,
) -> None:
    """Write what stands beside the shards, the record last, and give the export its name."""
    shutil.rmtree(partial_out / JOBS, ignore_errors=True)
    write_json(partial_out / "mixture.json", {**facts, "search": answer.sentence})
    write_text(partial_out / "mixture.csv", mixture_table(facts["domains"]))
    write_text(partial_out / "README.md", card)
    paths = sorted(path for path in partial_out.rglob("*") if path.is_file() and path.name != "recipe.json")
    files = {
        str(path.relative_to(partial_out)): {"bytes": path.stat().st_size, "checksum": file_checksum(path)}
        for path in paths
    }
    record = {"asked": asked, "facts": facts, "shards": written, "files": files, "versions": versions()}
    write_json(partial_out / "record.json", record)
    (partial_out / "recipe.json").unlink()
    os.rename(partial_out, out)


def _done_before(out: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Return the facts of a finished export with the same settings; None when there is nothing at `out` yet."""
    partial_out = out.with_name(out.name + ".partial")
    if (partial_out / "record.json").is_file() and not out.exists():
        (partial_out / "recipe.json").unlink(missing_ok=True)
        os.rename(partial_out, out)  # killed just before its last step
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    record = read_json(out / "record.json") if (out / "record.json").is_file() else {}
    if record.get("asked") != asked:
        _refuse(out, record.get("asked", {}), asked)
    if damage := find_damage(out.parent, out.name, True):
        listed = "; ".join(f"{one.file} {one.what}" for one in damage[:SHOWN])
        raise WorkspaceError(f"{listed}: not as it was written", f"move {out} away, and export again")
    facts: dict[str, Any] = record["facts"]
    return facts


def _begin(out: Path, asked: dict[str, Any]) -> Path:
    """Return the folder to work in, with what was asked in it; pieces of a killed export are still there."""
    partial_out = out.with_name(out.name + ".partial")
    recipe = partial_out / "recipe.json"
    if recipe.is_file():
        if read_json(recipe) != asked:
            _refuse(partial_out, read_json(recipe), asked)
    elif partial_out.exists() and any(partial_out.glob("[!.]*")):
        _refuse(partial_out, {}, asked)
    if out.exists():
        out.rmdir()  # empty: `_done_before` saw to it
    write_json(recipe, asked)
    return partial_out


def _refuse(folder: Path, then: dict[str, Any], asked: dict[str, Any]) -> None:
    differs = [name for name in asked if then and then.get(name) != asked[name]]
    what = f"holds an export with another {', '.join(differs)}" if differs else "holds something that is no export"
    raise WorkspaceError(f"{folder} {what}", "choose another --out, or move that folder away")


def _check_repetitions(
    names: Sequence[str], n_tokens: NDArray[np.float64], quota: Sequence[int], spec: ExportSpec, config: Config
) -> None:
    """Raise DomainError where the quotas repeat a domain's tokens (n_domains,), no held-out ones, too often."""
    most = config.target.max_repetitions * ESTIMATE
    over = {name: q / n for name, q, n in zip(names, quota, n_tokens, strict=True) if q > most * n}
    if over:
        listed = ", ".join(f"{name} ({times * (1 - config.tokens.heldout):.1f} times)" for name, times in over.items())
        fits = spec.token_budget * config.target.max_repetitions / max(over.values()) / (1 - config.tokens.heldout)
        raise DomainError(
            f"{format_count(spec.token_budget)} tokens would repeat more than target.max_repetitions = "
            f"{config.target.max_repetitions:g} times: {listed}",
            f"export at most {format_count(int(fits) // 1000 * 1000)} tokens, or set target.token_budget = "
            f'"{format_count(spec.token_budget)}" and search again under the caps that follow from it',
        )


def name_small(domains: Sequence[Domain], weights: Sequence[float], quota: Sequence[int], sequence: int) -> str:
    """Return a sentence that names the domains whose weight is not zero and whose quota is under a sequence, or ""."""
    small = [
        f"{domain.name} ({n} tokens)"
        for domain, weight, n in zip(domains, weights, quota, strict=True)
        if weight > 0 and n < sequence
    ]
    return f"less than one sequence of {sequence} tokens at this budget: {', '.join(small)}" if small else ""


def _rates(
    folder: Path, domains: Sequence[Domain], quota: Sequence[int], heldout: float, slack: float
) -> tuple[float, ...]:
    """Return for each domain the share of its documents that must be read to meet its quota almost surely."""
    n_documents = [int(row["documents"]) for row in read_rows(folder / "domains.csv")]
    return tuple(
        0.0 if not q else pick_rate(round(q * slack / (1 - heldout)), domain.n_tokens, n)
        for q, domain, n in zip(quota, domains, n_documents, strict=True)
    )


def _choose_last(work: Work, plans: Sequence[DomainPlan], counts: Counts) -> None:
    """Complete the plans: read the documents about each domain's cut and choose those that meet its quota."""
    windows = [window(plan, counts.documents[d]) if plan.quota else (0, 0) for d, plan in enumerate(plans)]
    rows: list[tuple[list[NDArray[Any]], list[NDArray[Any]]]] = [([], []) for _ in plans]
    for path in sorted(work.pieces.glob("unit-*.parquet")):
        for d, table in row_groups(
            path, lambda d, low, high: _overlap(windows[d], low, high), ["domain", "order", "tokens"]
        ):
            order = table.column("order").to_numpy()
            bucket = (order >> SHIFT).astype(np.int64)
            inside = (bucket >= windows[d][0]) & (bucket < windows[d][1])
            rows[d][0].append(order[inside])
            rows[d][1].append(table.column("tokens").to_numpy()[inside])
    for plan, (orders, tokens) in zip(plans, rows, strict=True):
        if orders:
            plan.extras = choose_extras(plan, np.concatenate(orders), np.concatenate(tokens))


def _overlap(buckets: tuple[int, int], low: int, high: int) -> bool:
    return (low >> int(SHIFT)) < buckets[1] and (high >> int(SHIFT)) >= buckets[0]


def _n_bytes(work: Work, counts: Counts, quota: Sequence[int]) -> NDArray[np.float64]:
    """Return about how many bytes of text each domain has in the dataset: its bytes a token, times its quota."""
    import pyarrow.parquet as pq

    n_bytes = np.zeros(len(quota))
    for path in sorted(work.pieces.glob("unit-*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["domain", "bytes"])
            n_bytes[rows.column("domain")[0].as_py()] += float(rows.column("bytes").to_numpy().sum())
    return n_bytes / np.maximum(1, counts.tokens.sum(axis=1)) * np.array(quota)


def _facts(
    names: Sequence[str],
    weights: Sequence[float],
    caps: Sequence[float],
    n_tokens: NDArray[np.float64],
    written: Sequence[dict[str, Any]],
    spec: ExportSpec,
    tokenizer: dict[str, Any],
) -> dict[str, Any]:
    """Return what was written, and how near its shares are to the mixture's."""
    tokens = np.sum([row["tokens"] for row in written], axis=0)
    documents = np.sum([row["documents"] for row in written], axis=0)
    copies = np.max([row["copies"] for row in written], axis=0)
    realised = tokens / max(1, tokens.sum())
    natural = n_tokens / n_tokens.sum()
    rows = [
        {
            "name": name,
            "weight": float(weights[d]),
            "realised": float(realised[d]),
            "natural": float(natural[d]),
            "cap": caps[d],
            "tokens": int(tokens[d]),
            "documents": int(documents[d]),
            "repetitions": float(tokens[d] / n_tokens[d]),
            "copies": int(copies[d]),
        }
        for d, name in enumerate(names)
    ]
    difference = float(np.abs(realised - np.asarray(weights)).max())
    return {
        "token_budget": spec.token_budget,
        "format": spec.format,
        "by_domain": spec.by_domain,
        "tokenizer": {"own": not spec.tokenizer, **tokenizer},
        "tokens": int(tokens.sum()),
        "documents": int(documents.sum()),
        "shards": [row["file"] for row in written if sum(row["documents"])],
        "text_bytes": sum(row["bytes"] for row in written),
        "largest_difference": difference,
        "within_tolerance": difference <= TOLERANCE,
        "domains": rows,
    }
