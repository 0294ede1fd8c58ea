"""The dataset: shards in which reading in order is the mixture, for a token budget.

Reads the input files, `labels/`, `domains/`, `tokens/tokenizer.json` and `mixture/`. Writes, beside OUT until it is
whole, `OUT.partial/`: pieces/unit-00012.parquet (the texts that are needed, tokenised, in order) and the shards made
from them; then `OUT/`: data/, README.md, mixture.json, mixture.csv, megatron.txt, record.json. No step holds more
than one stretch of a unit or one shard in memory, and finished pieces and shards survive a kill.
"""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.load import format_count
from openclimb.config.schema import Config
from openclimb.corpus.contamination import documents_left_out
from openclimb.corpus.domains import read_domains
from openclimb.corpus.pack import pick_rate
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.reading.units import read_units
from openclimb.corpus.select_documents import DocumentChoice
from openclimb.engines.engine import Engine
from openclimb.errors import ConfigError, DomainError, WorkspaceError
from openclimb.export.card import dataset_card, megatron_line
from openclimb.export.pieces import Work, make_pieces, piece_schema, row_groups
from openclimb.export.plan import SHIFT, Counts, DomainPlan, choose_extras, interleave, plan_domain, quotas, window
from openclimb.export.writers import find_writer
from openclimb.mixture import Domain
from openclimb.progress import Progress
from openclimb.workspace.damage import SHOWN, find_damage
from openclimb.workspace.files import JOBS, atomic, file_checksum, read_json, sweep, versions, write_json, write_text
from openclimb.workspace.results import Answer, read_answer
from openclimb.workspace.tables import mixture_table, read_rows

SHARD_BYTES = 128_000_000  # of text in a shard
TOLERANCE = 0.001  # of a realised share against the one asked for
ESTIMATE = 1.05  # token counts in labels are estimates; repetitions are told to be too many only beyond this


def export(
    root: Path,
    config: Config,
    token_budget: int,
    out: Path,
    format: str,
    engine: Engine,
    progress: Progress,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Write the dataset of `token_budget` tokens to `out` and return what was written.

    An export that was interrupted goes on; a finished one with the same settings is compared with its checksums and
    returned as it is.
    Raises ConfigError for a format that no writer has, WorkspaceError when `out` holds something else or was damaged,
    DomainError when the budget would repeat a domain more than `target.max_repetitions` times, InputError when
    documents that were labelled cannot be read any more.
    """
    find_writer(format)
    if token_budget < 1:
        raise ConfigError(f"a dataset of {token_budget} tokens is empty", "give --tokens a budget, such as 10B")
    domains = read_domains(root / "domains")
    answer = read_answer(root)
    weights = list(answer.weights.values())
    asked = asked_for(root, config, token_budget, format, shard_bytes)
    if (done := _done_before(out, asked)) is not None:
        progress.note(f"{out}: done before, reused")
        return done
    quota = quotas(weights, token_budget)
    _check_repetitions(domains, quota, token_budget, config)
    if small := name_small(domains, weights, quota, config.proxy.sequence):
        progress.note(small)

    partial_out = _begin(out, asked)
    sweep(partial_out)
    work, counts = _read_enough(root, config, domains, quota, partial_out, format, engine, progress)
    plans = [
        plan_domain(quota[d], counts.tokens[d], work.choice.rates[d] >= 1) if quota[d] else DomainPlan(0)
        for d in range(len(domains))
    ]
    _choose_last(work, plans, counts)
    n_shards = max(1, round(_n_bytes(work, counts, quota) / shard_bytes))
    written = _make_shards(
        work, read_units(root / "corpus", config.corpus, config.tokens.tokenizer), plans, n_shards, engine, progress
    )
    facts = _facts(domains, weights, written, token_budget)
    shutil.rmtree(work.pieces)
    shutil.rmtree(partial_out / "shards")
    _complete(partial_out, out, asked, facts, answer, dataset_card(facts, answer.sentence, config, format))
    return facts


def asked_for(
    root: Path, config: Config, token_budget: int, format: str, shard_bytes: int = SHARD_BYTES
) -> dict[str, Any]:
    """Return what decides an export's bytes: two with the same are the same."""
    return {
        "mixture": read_answer(root).weights,
        "token_budget": token_budget,
        "format": format,
        "shard_bytes": shard_bytes,
        "seed": config.seed,
        "tokens": read_json(root / "tokens" / "record.json")["fingerprint"],
    }


def _read_enough(
    root: Path,
    config: Config,
    domains: Sequence[Domain],
    quota: Sequence[int],
    partial_out: Path,
    format: str,
    engine: Engine,
    progress: Progress,
) -> tuple[Work, Counts]:
    """Make pieces that hold every domain's quota; return them with exact counts."""
    units, heldout, slack = (
        read_units(root / "corpus", config.corpus, config.tokens.tokenizer),
        config.tokens.heldout,
        1.0,
    )
    left_out = documents_left_out(root, config.tasks)
    while True:
        rates = (*_rates(root / "domains", domains, quota, heldout, slack), 0.0)
        work = Work(
            DocumentChoice(root / "labels", root / "domains", heldout, config.seed, rates, left_out),
            root / "tokens" / "tokenizer.json",
            config.corpus,
            tuple(domain.name for domain in domains),
            partial_out / f"pieces-{slack:g}",
            partial_out / "data",
            format,
        )
        counts = make_pieces(work, units, engine, progress)
        found = counts.tokens.sum(axis=1)
        if all(rates[d] >= 1 or found[d] >= quota[d] for d in range(len(domains))):
            return work, counts
        shutil.rmtree(work.pieces)
        slack *= 2  # the labels' estimate was far off: read more documents


def _complete(
    partial_out: Path, out: Path, asked: dict[str, Any], facts: dict[str, Any], answer: Answer, card: str
) -> None:
    """Write what stands beside the shards, the record last, and give the export its name."""
    shutil.rmtree(partial_out / JOBS, ignore_errors=True)
    write_json(partial_out / "mixture.json", {**facts, "search": answer.sentence})
    write_text(partial_out / "mixture.csv", mixture_table(facts["domains"]))
    write_text(partial_out / "megatron.txt", megatron_line(facts["domains"]))
    write_text(partial_out / "README.md", card)
    paths = sorted(path for path in partial_out.rglob("*") if path.is_file() and path.name != "recipe.json")
    files = {
        str(path.relative_to(partial_out)): {"bytes": path.stat().st_size, "checksum": file_checksum(path)}
        for path in paths
    }
    record = {"asked": asked, "facts": facts, "files": files, "versions": versions()}
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


def _check_repetitions(domains: Sequence[Domain], quota: Sequence[int], token_budget: int, config: Config) -> None:
    most = config.target.max_repetitions * ESTIMATE / (1 - config.tokens.heldout)
    over = {d.name: q / d.n_tokens for d, q in zip(domains, quota, strict=True) if q > most * d.n_tokens}
    if over:
        listed = ", ".join(f"{name} ({times:.1f} times)" for name, times in over.items())
        fits = token_budget * config.target.max_repetitions / max(over.values())
        raise DomainError(
            f"{format_count(token_budget)} tokens would repeat more than target.max_repetitions = "
            f"{config.target.max_repetitions:g} times: {listed}",
            f"export at most {format_count(int(fits) // 1000 * 1000)} tokens, or set target.token_budget = "
            f'"{format_count(token_budget)}" and search again under the caps that follow from it',
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


def _n_bytes(work: Work, counts: Counts, quota: Sequence[int]) -> float:
    """Return about how many bytes of text the dataset has: each domain's bytes a token, times its quota."""
    import pyarrow.parquet as pq

    n_bytes = np.zeros(len(quota))
    for path in sorted(work.pieces.glob("unit-*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["domain", "bytes"])
            n_bytes[rows.column("domain")[0].as_py()] += float(rows.column("bytes").to_numpy().sum())
    return float((n_bytes / np.maximum(1, counts.tokens.sum(axis=1)) * np.array(quota)).sum())


def _make_shards(
    work: Work,
    units: Sequence[Unit],
    plans: Sequence[DomainPlan],
    n_shards: int,
    engine: Engine,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Write every shard that is not there yet; return what each holds."""
    notes = work.data.parent / "shards"
    names = {unit.number: unit.name for unit in units}
    progress.start("write shards", n_shards, "shards")
    waiting = [shard for shard in range(n_shards) if not (notes / f"{shard:05d}.json").is_file()]
    progress.advance(n_shards - len(waiting))
    make = partial(_make_shard, work, names, tuple(plans), n_shards)
    for _ in engine.map(make, waiting, folder=work.data.parent):
        progress.advance()
    written = [read_json(notes / f"{shard:05d}.json") for shard in range(n_shards)]
    progress.finish(f"{sum(sum(row['tokens']) for row in written):,} tokens")
    return written


def _make_shard(work: Work, names: dict[int, str], plans: tuple[DomainPlan, ...], n_shards: int, shard: int) -> None:
    """Write one shard: the copies whose place lies in it, interleaved; then a note of what it holds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts: list[Any] = []
    places: list[NDArray[np.float64]] = []
    for path in sorted(work.pieces.glob("unit-*.parquet")):
        unit = int(path.stem.removeprefix("unit-"))
        wanted = partial(_may_hold, plans, n_shards, shard)
        for d, table in row_groups(path, wanted, piece_schema().names):
            order = table.column("order").to_numpy()
            for number, mine in plans[d].copies(order, n_shards, shard):
                part = table.take(pa.array(mine))
                part = part.append_column("repetition", pa.array(np.full(len(mine), number, dtype=np.int16)))
                parts.append(part.append_column("unit", pa.array(np.full(len(mine), unit, dtype=np.int32))))
                places.append(plans[d].places(order[mine], number))
    tokens, documents = np.zeros(len(plans), np.int64), np.zeros(len(plans), np.int64)
    rows = None
    if parts:
        together = pa.concat_tables(parts)
        domain = together.column("domain").to_numpy()
        n_tokens = together.column("tokens").to_numpy().astype(np.int64)
        rows = together.take(pa.array(interleave(domain, np.concatenate(places), n_tokens)))
        np.add.at(tokens, domain, n_tokens)
        np.add.at(documents, domain, 1)
        domain_names = pa.array(work.names)
        files = pa.array([names.get(i, "") for i in range(max(names) + 1)])
        columns = {
            "text": rows.column("text"),
            "id": rows.column("id"),
            "domain": pc.take(domain_names, rows.column("domain")),
            "tokens": rows.column("tokens"),
            "repetition": rows.column("repetition"),
            "source_file": pc.take(files, rows.column("unit")),
            "position": rows.column("position"),
        }
        rows = pa.table(columns)
    writer = find_writer(work.format)
    path = work.data / f"shard-{shard:05d}-of-{n_shards:05d}{writer.suffix}"
    n_bytes = 0
    if rows is not None:
        n_bytes = int(rows.column("text").nbytes)
        with atomic(path) as temporary:
            writer.write(rows, temporary)
    note = {"file": path.name, "tokens": tokens.tolist(), "documents": documents.tolist(), "bytes": n_bytes}
    write_json(work.data.parent / "shards" / f"{shard:05d}.json", note)


def _may_hold(plans: Sequence[DomainPlan], n_shards: int, shard: int, domain: int, low: int, high: int) -> bool:
    return bool(plans[domain].quota) and plans[domain].may_hold(low, high, n_shards, shard)


def _facts(
    domains: Sequence[Domain],
    weights: Sequence[float],
    written: Sequence[dict[str, Any]],
    token_budget: int,
) -> dict[str, Any]:
    """Return what was written, and how near its shares are to the mixture's."""
    tokens = np.sum([row["tokens"] for row in written], axis=0)
    documents = np.sum([row["documents"] for row in written], axis=0)
    realised = tokens / max(1, tokens.sum())
    n_tokens = np.array([domain.n_tokens for domain in domains], dtype=np.float64)
    natural = n_tokens / n_tokens.sum()
    rows = [
        {
            "name": domain.name,
            "weight": float(weights[d]),
            "realised": float(realised[d]),
            "natural": float(natural[d]),
            "cap": domain.cap,
            "tokens": int(tokens[d]),
            "documents": int(documents[d]),
            "repetitions": float(tokens[d] / domain.n_tokens),
        }
        for d, domain in enumerate(domains)
    ]
    difference = float(np.abs(realised - np.asarray(weights)).max())
    return {
        "token_budget": token_budget,
        "tokens": int(tokens.sum()),
        "documents": int(documents.sum()),
        "shards": [row["file"] for row in written if sum(row["documents"])],
        "text_bytes": sum(row["bytes"] for row in written),
        "largest_difference": difference,
        "within_tolerance": difference <= TOLERANCE,
        "domains": rows,
    }
