"""The dataset: shards in which reading in order is the mixture, for a token budget; or each document once.

Reads the input files, `labels/`, `domains/`, `tokens/tokenizer.json` and `mixture/`. Writes, beside OUT until it is
whole, `OUT.partial/`: the pieces, deals and shards of assembly/; then `OUT/`: data/, tokenizer/, README.md,
mixture.json, mixture.csv, record.json, and blend files where each shard holds one domain. No step holds more than one
stretch of a unit, one hand of a deal or one shard in memory, and what was finished survives a kill.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.config.load import format_count
from openclimb.config.schema import Config
from openclimb.corpus.domains import read_assignment_column, read_domains
from openclimb.corpus.labels import label_files
from openclimb.corpus.left_out import folders_left_out
from openclimb.corpus.pack import pick_rate
from openclimb.corpus.reading.units import read_units
from openclimb.corpus.select_documents import DocumentChoice
from openclimb.corpus.tokenizer import copy_tokenizer, ends_of, load_tokenizer, tokenizer_fingerprint
from openclimb.engines.engine import Engine
from openclimb.errors import ConfigError, DomainError
from openclimb.export.assembly.deals import make_deals
from openclimb.export.assembly.pieces import Work, find_pieces, make_pieces
from openclimb.export.assembly.plan import SHIFT, Counts, DomainPlan, choose_extras, plan_domain, quotas, window
from openclimb.export.assembly.shards import cut_shards, make_shards, places_of
from openclimb.export.blend import write_blends
from openclimb.export.card import dataset_card, name_examples
from openclimb.export.facts import TOKENIZER, ExportSpec, Sizes, describe, shares_of
from openclimb.export.folder import begin, complete, done_before
from openclimb.export.writers.writer import find_writer
from openclimb.mixture import Domain
from openclimb.progress import Progress
from openclimb.workspace.files import read_json, sweep, write_json, write_text
from openclimb.workspace.results import Answer, read_answer
from openclimb.workspace.tables import mixture_table, read_rows

MOST_SHARD_BYTES = 1_000_000_000  # which is held in memory
ESTIMATE = 1.05  # token counts in labels are estimates; repetitions are told to be too many only beyond this
NO_SCORES = ("position", "source", "bytes", "tokens")  # columns of the labels that a row of a dataset has by itself


def export(
    root: Path, config: Config, spec: ExportSpec, out: Path, engine: Engine, progress: Progress
) -> dict[str, Any]:
    """Write a dataset to `out` and return what was written.

    An export that was interrupted goes on; a finished one with the same settings is compared with its checksums and
    returned as it is.
    Raises ConfigError for a format that no writer has, a tokenizer that cannot be read or choices that exclude one
    another, WorkspaceError when `out` holds something else or was damaged, DomainError when the budget would repeat a
    domain more than `target.max_repetitions` times, InputError when documents that were labelled cannot be read.
    """
    _check(spec)
    domains = read_domains(root / "domains")
    answer = read_answer(root)
    asked = asked_for(root, config, spec)
    if (done := done_before(out, asked)) is not None:
        progress.note(f"{out}: done before, reused")
        return done
    quota = quotas(list(answer.weights.values()), spec.token_budget)
    sizes = Sizes(
        tuple(domain.name for domain in domains),
        tuple(answer.weights.values()),
        tuple(domain.cap for domain in domains),
        np.array([domain.n_tokens for domain in domains], dtype=np.float64),
    )
    if not (spec.tokenizer or spec.by_cluster):
        _check_repetitions(sizes, quota, spec, config)
    if not spec.by_cluster and (small := name_small(domains, sizes.weights, quota, config.proxy.sequence)):
        progress.note(small)

    partial_out = begin(out, asked)
    sweep(partial_out)
    copy_tokenizer(_tokenizer(root, spec), partial_out / TOKENIZER)
    work, counts = _read_enough(root, config, domains, quota, partial_out, spec, engine, progress)
    if spec.by_cluster:
        quota = [int(n) for n in counts.tokens.sum(axis=1)]
    if spec.tokenizer:
        sizes = Sizes(
            sizes.names, sizes.weights, sizes.caps, _own_counts(counts.tokens.sum(axis=1), work.choice, sizes.n_tokens)
        )
        try:
            _check_repetitions(sizes, quota, spec, config)
        except DomainError:
            shutil.rmtree(partial_out)  # which another budget would find, and refuse
            raise
    written = _build(root, config, spec, work, counts, quota, engine, progress)
    tokenizer = describe_tokenizer(partial_out / TOKENIZER)
    facts = describe(sizes, written, spec, tokenizer, work.tokenizer is not None, work.labels)
    _write_beside(partial_out, root, config, facts, written, answer, progress)
    for folder in (work.pieces, *(partial_out / name for name in ("deals", "parts", "shards"))):
        shutil.rmtree(folder, ignore_errors=True)
    complete(partial_out, out, asked, facts, written)
    return facts


def _check(spec: ExportSpec) -> None:
    """Raise ConfigError for what cannot be asked for."""
    find_writer(spec.format)
    if spec.token_budget < 1:
        raise ConfigError(f"a dataset of {spec.token_budget} tokens is empty", "give --tokens a budget, such as 10B")
    if spec.by_domain and spec.by_cluster:
        raise ConfigError(
            "--by-domain is the mixture, --by-cluster each document once: a dataset is one of them", "leave one out"
        )
    if not 0 < spec.shard_bytes <= MOST_SHARD_BYTES:
        raise ConfigError(
            f"a shard of {spec.shard_bytes / 1e6:g} MB of text cannot be made",
            f"give --shard-mb a number from 1 to {MOST_SHARD_BYTES // 10**6}",
        )


def _build(
    root: Path,
    config: Config,
    spec: ExportSpec,
    work: Work,
    counts: Counts,
    quota: Sequence[int],
    engine: Engine,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Plan the dataset and write its shards from the pieces; return what each holds."""
    plans = [
        plan_domain(quota[d], counts.tokens[d], work.choice.rates[d] >= 1) if quota[d] else DomainPlan(0)
        for d in range(len(work.names))
    ]
    _choose_last(work, plans, counts)
    n_bytes = counts.n_bytes / np.maximum(1, counts.tokens.sum(axis=1)) * np.array(quota)
    shards = cut_shards(work.names, n_bytes, spec.shard_bytes, spec.by_domain or spec.by_cluster)
    sources = make_deals(work, plans, places_of(shards, len(work.names)), engine, progress)
    units = read_units(root / "corpus", config.corpus, config.tokens.tokenizer)
    return make_shards(work, units, shards, sources, engine, progress)


def _write_beside(
    folder: Path,
    root: Path,
    config: Config,
    facts: dict[str, Any],
    written: Sequence[dict[str, Any]],
    answer: Answer,
    progress: Progress,
) -> None:
    """Write what stands beside the shards: the card, the weights, and what trainers read."""
    writer = find_writer(facts["format"])
    filled = [note for note in written if sum(note["documents"])]
    if writer.finish:
        shares = shares_of(facts, filled)
        writer.finish(folder, [{**note, "share": share} for note, share in zip(filled, shares, strict=True)])
    if facts["by_domain"] or facts["by_cluster"]:
        blend = write_blends(folder, facts, filled, writer)
        for what, why in (("tiny", "below 0.01%, which a trainer may round to nothing"), ("never", "0")):
            if blend[what]:
                progress.note(f"weights that are {why}: {', '.join(blend[what])}; see blend.json")
    about = read_rows(root / "domains" / "domains.csv")
    if facts["by_cluster"]:
        name_examples(folder, facts, filled, writer)
    write_json(folder / "mixture.json", {**facts, "search": answer.sentence})
    write_text(folder / "mixture.csv", mixture_table(facts["domains"]))
    seed = read_json(folder / "recipe.json")["seed"]
    write_text(folder / "README.md", dataset_card(facts, answer.sentence, config, seed, about))


def asked_for(root: Path, config: Config, spec: ExportSpec) -> dict[str, Any]:
    """Return what decides an export's bytes: two with the same are the same."""
    tokenizer = tokenizer_fingerprint(str(_tokenizer(root, spec))) if spec.tokenizer else ""
    return {
        "mixture": read_answer(root).weights,
        "token_budget": spec.token_budget,
        "format": spec.format,
        "by_domain": spec.by_domain,
        "by_cluster": spec.by_cluster,
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
    """Make pieces that hold every domain's quota, or all kept documents; return them with their counts."""
    units = read_units(root / "corpus", config.corpus, config.tokens.tokenizer)
    heldout, slack = config.tokens.heldout, 1.0
    seed = config.seed if spec.seed is None else spec.seed
    tokenizer = partial_out / TOKENIZER
    tokens = find_writer(spec.format).tokens
    left_out = folders_left_out(root, config)
    while True:
        rates = (*_rates(root / "domains", domains, quota, heldout, slack), 0.0)
        if spec.by_cluster:
            rates = (*(1.0 for _ in domains), 0.0)
        work = Work(
            DocumentChoice(root / "labels", root / "domains", heldout, seed, rates, left_out),
            tokenizer if tokens or spec.tokenizer or not spec.by_cluster else None,
            describe_tokenizer(tokenizer) if tokens else {},
            kept_columns(root) if spec.by_cluster else (),
            config.corpus,
            tuple(domain.name for domain in domains),
            partial_out,
            partial_out / f"pieces-{slack:g}",
            spec.format,
        )
        counts = make_pieces(work, units, engine, progress)
        found = counts.tokens.sum(axis=1)
        if all(rates[d] >= 1 or found[d] >= quota[d] for d in range(len(domains))):
            return work, counts
        shutil.rmtree(work.pieces)
        slack *= 2  # the labels' estimate was far off, or another tokenizer makes fewer tokens: read more documents


def kept_columns(root: Path) -> tuple[str, ...]:
    """Return which columns of the labels a dataset of every document has: cluster and distance where there are
    clusters, the hash of the text, and every quality score.
    """
    import pyarrow.parquet as pq

    skipped = {*NO_SCORES, *([] if read_assignment_column(root / "domains") == "cluster" else ["cluster", "distance"])}
    _, path = label_files(root / "labels")[0]
    return tuple(name for name in pq.read_schema(path).names if name not in skipped)


def _own_counts(counted: NDArray[np.int64], choice: DocumentChoice, estimates: NDArray[np.float64]) -> NDArray[Any]:
    """Return each domain's tokens, held-out documents included, in those of another tokenizer than the search's.

    `counted` (n_domains,) were read; where a domain was read in part they stand for the rest, and one of which
    nothing was read has as many more or fewer as the others have.
    """
    rates = np.array(choice.rates[:-1])
    read = rates > 0
    own = counted / np.where(read, rates * (1 - choice.heldout), 1.0)
    return np.where(read, own, estimates * own[read].sum() / max(1.0, estimates[read].sum()))


def _check_repetitions(sizes: Sizes, quota: Sequence[int], spec: ExportSpec, config: Config) -> None:
    """Raise DomainError where the quotas repeat a domain's tokens, without those of held-out documents, too often."""
    names, n_tokens = sizes.names, sizes.n_tokens * (1 - config.tokens.heldout)
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
    import pyarrow.parquet as pq

    windows = np.array(
        [window(plan, counts.documents[d]) if plan.quota else (0, 0) for d, plan in enumerate(plans)], np.int64
    )
    rows: list[tuple[list[NDArray[Any]], list[NDArray[Any]]]] = [([], []) for _ in plans]
    for path in find_pieces(work):
        for batch in pq.ParquetFile(path).iter_batches(1 << 16, columns=["domain", "order", "tokens"]):
            domain, order, tokens = (batch.column(name).to_numpy() for name in ("domain", "order", "tokens"))
            bucket = (order >> SHIFT).astype(np.int64)
            inside = (bucket >= windows[domain, 0]) & (bucket < windows[domain, 1])
            for d in np.unique(domain[inside]).tolist():
                mine = inside & (domain == d)
                rows[d][0].append(order[mine])
                rows[d][1].append(tokens[mine])
    for plan, (orders, found) in zip(plans, rows, strict=True):
        if orders:
            plan.extras = choose_extras(plan, np.concatenate(orders), np.concatenate(found))
