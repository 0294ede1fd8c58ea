"""What each stage of a run costs on a machine: a row each, from the counts of `work.py` and the rates of `rates.py`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from openclimb.clustering.describe import CHARS_READ
from openclimb.clustering.fit import EXCERPT, N_TOKENIZER_TEXTS
from openclimb.clustering.kmeans import FIRST_ROUNDS, ROUNDS, STARTS, choose_k
from openclimb.clustering.trust.measure import n_halves
from openclimb.config.schema import Config
from openclimb.corpus.reading.size import CorpusSize
from openclimb.corpus.sample import KEPT_CHARS, MAX_UNITS
from openclimb.mixture import Domain
from openclimb.planning import rates
from openclimb.planning.embedder import Embedder, embedder_of
from openclimb.planning.machine import Machine
from openclimb.planning.work import Packed, Proxy, Tasks, by_hand, evaluation_flops, packed

RATE_BYTES = 4_000_000  # of texts that `clustering.fit` counts tokens of
DIM = 256  # of a static embedder's vectors
LABEL_BYTES = 30  # of a document's row in labels/, compressed
KEPT_BYTES = 300  # of a sampled document in clusters/sample.parquet
ITEM_BYTES = 10  # of an item's numbers in items.npz, compressed
TRIAL_BYTES = 7_000  # of the other files of a trial
STATE_BYTES = 12  # of a parameter in a trial's state
PARQUET = 0.45  # of the text's bytes, compressed
BASE, TORCH = 6e8, 4e8  # bytes of the first process, and of one that trains before it has a proxy


@dataclass(frozen=True)
class Row:
    """One stage of the plan; what does not apply is 0. `documents` and `n_bytes` are those that are read."""

    stage: str
    trials: int = 0
    documents: float = 0.0
    n_bytes: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0
    gpus: int = 0  # cards at work
    memory: float = 0.0  # bytes of the largest process
    gpu_memory: float = 0.0  # bytes of a card
    disk: float = 0.0  # bytes that stay

    @property
    def hours(self) -> float:
        """Hours from its start to its end."""
        return self.seconds / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours of all cards at work."""
        return self.gpus * self.hours


@dataclass(frozen=True)
class Stack:
    """How trials run on a card: proxies as one program, sequences of each in a pass, bytes of memory."""

    models: int
    rows: int
    n_bytes: float


@dataclass(frozen=True)
class Job:
    """What the rows are made from. Without a corpus the domains are given by hand."""

    config: Config
    machine: Machine
    proxy: Proxy
    corpus: CorpusSize | None
    domains: Sequence[Domain]
    tasks: Tasks
    rate: float  # tokens a byte
    batches: Mapping[str, Sequence[int]]  # row of trials → trials of each batch

    @property
    def packed(self) -> Packed:
        """What packing does, or nothing without a corpus."""
        return packed(self.config, self.corpus, list(self.domains)) if self.corpus else Packed(0, 0, 0, 0)


def rows_of(job: Job) -> list[Row]:
    """Return the rows of a plan, in the order of the run; stages that it does not have are left out."""
    rows = []
    if job.corpus:
        rows += [_corpus(job.corpus), _clusters(job, job.corpus), _labels(job, job.corpus)]
        rows += [_domains(job, job.corpus), _tokens(job, job.corpus)]
    rows += trial_rows(job)
    rows.append(_predictions(job))
    return rows


def export_row(job: Job) -> Row | None:
    """Return what `climb export` of the target's token budget costs; None without a corpus."""
    if not job.corpus:
        return None
    text = job.config.target.token_budget / job.rate
    documents = text * job.corpus.documents / max(1.0, job.corpus.text_bytes)
    core = job.machine.core
    once = min(text, job.corpus.text_bytes)  # a document that is repeated is tokenised once
    seconds = job.corpus.text_bytes / rates.SKIP + once / rates.TOKENISE + text / rates.EXPORT
    seconds = rates.START + seconds / core.text_share / job.machine.cores
    return Row("export", 0, documents, job.corpus.file_bytes, 0.0, seconds, 0, 2 * BASE, 0.0, PARQUET * text)


def total(rows: Sequence[Row]) -> Row:
    """Return the sums of hours, FLOPs, trials and disk, and the largest memory."""
    seconds = sum(row.seconds for row in rows)
    return Row(
        "all",
        sum(row.trials for row in rows),
        0.0,
        0.0,
        sum(row.flops for row in rows),
        seconds,
        0,
        max(row.memory for row in rows),
        max(row.gpu_memory for row in rows),
        sum(row.disk for row in rows),
    )


def beside(pieces: float, workers: int) -> float:
    """Return what share of the time of one worker so many take for equal pieces of work: the last one is waited for."""
    return math.ceil(pieces / workers) / pieces if pieces < 1000 * workers else 1.0 / workers


def _corpus(corpus: CorpusSize) -> Row:
    return Row("corpus", seconds=0.1 + 0.002 * corpus.units, memory=BASE, disk=100.0 * corpus.units)


def _clusters(job: Job, corpus: CorpusSize) -> Row:
    config, core, cores = job.config, job.machine.core, job.machine.cores
    n = min(float(config.clusters.sample), corpus.documents)
    mean, head = corpus.text_bytes / corpus.documents, corpus.head_bytes / corpus.documents
    looked = min(1.0, MAX_UNITS / corpus.units)
    reading = (looked * corpus.text_bytes / rates.SKIP + n * mean / rates.READ) * beside(corpus.units, cores)
    kept = min(mean, KEPT_CHARS)
    alone = min(n, N_TOKENIZER_TEXTS) * kept / rates.FIT_TOKENIZER if not config.tokens.tokenizer else 0.0
    alone += n * min(mean, CHARS_READ) / rates.WORDS + min(RATE_BYTES, n * head) / rates.TOKENISE
    embedding = flops = gpu = 0.0
    if not config.corpus.domains:
        embedder = embedder_of(config.embed)
        k = config.clusters.k or choose_k(round(corpus.documents))
        pairs = (n + n_halves(int(n), k)) * k * (STARTS * FIRST_ROUNDS + ROUNDS)
        flops = n * embedder.flops(head) + 2.0 * embedder.dim * pairs
        alone += rates.MAP * min(1.0, n / 1500)
        alone += embedder.fits * min(n, 20_000.0) * head / rates.FIT_HASHING
        clustering = pairs * embedder.dim / DIM / rates.VECTORS / core.products_share / cores
        embedding, gpu = embed_seconds(job, embedder, n, head)
        embedding += clustering
    seconds = rates.START + (reading + alone) / core.text_share + max(embedding, gpu)
    memory = BASE + n * (kept + 12.0 * DIM)
    return Row(
        "clusters", 0, n, looked * corpus.file_bytes, flops, seconds, _gpus(job, gpu), memory, 0.0, KEPT_BYTES * n
    )


def embed_seconds(job: Job, embedder: Embedder, documents: float, head: float) -> tuple[float, float]:
    """Return the seconds of embedding on all cores, and on the cards: the one or the other is 0."""
    machine, flops = job.machine, documents * embedder.flops(head)
    if embedder.rate:
        return documents * head / embedder.rate / machine.core.text_share / machine.cores, 0.0
    if machine.card:
        return 0.0, flops / (rates.CARD_EMBED * machine.card.peak * machine.gpus)
    return flops / (rates.EMBED_SHARE * machine.core.products * machine.cores), 0.0


def _labels(job: Job, corpus: CorpusSize) -> Row:
    machine = job.machine
    tasks = job.config.tasks
    looks = 1 / rates.LOOK if tasks.paths and tasks.contamination != "off" else 0.0
    signs = 1 / rates.SIGN if job.config.corpus.dedup == "near" else 0.0
    whole = corpus.text_bytes * (1 / rates.LABEL + looks + signs) / machine.core.text_share / machine.cores
    embedding = gpu = flops = 0.0
    if not job.config.corpus.domains:
        embedder = embedder_of(job.config.embed)
        head = corpus.head_bytes / corpus.documents
        embedding, gpu = embed_seconds(job, embedder, corpus.documents, head)
        flops = corpus.documents * embedder.flops(head)
    waited = beside(corpus.units, machine.cores) * machine.cores  # for the worker with the most units
    seconds = rates.START + waited * max(whole + embedding, gpu)
    return Row(
        "labels",
        0,
        corpus.documents,
        corpus.file_bytes,
        flops,
        seconds,
        _gpus(job, gpu),
        BASE,
        0.0,
        LABEL_BYTES * corpus.documents,
    )


def _gpus(job: Job, seconds: float) -> int:
    return job.machine.gpus if seconds else 0


def _domains(job: Job, corpus: CorpusSize) -> Row:
    sample = min(float(job.config.clusters.sample), corpus.documents)
    words = sample * min(corpus.text_bytes / corpus.documents, EXCERPT)
    seconds = 0.3 + (corpus.documents / rates.SUM + words / rates.WORDS) / job.machine.core.text_share
    n_bytes = LABEL_BYTES * corpus.documents
    return Row("domains", 0, corpus.documents, n_bytes, 0.0, seconds, 0, BASE + 1e8, 0.0, 1e5)


def _tokens(job: Job, corpus: CorpusSize) -> Row:
    machine, work = job.machine, job.packed
    reading = corpus.text_bytes / rates.SKIP + work.text_bytes / rates.READ + work.text_bytes / rates.TOKENISE
    items = sum(size.options + size.contexts for parts in job.tasks.values() for size in parts.values())
    seconds = reading * beside(corpus.units, machine.cores) + items / rates.TOKENISE
    size = 2.0 if job.proxy.vocab_size <= 65_536 else 4.0
    disk = size * work.tokens + 4.0 * job.rate * items
    memory = BASE + 3.0 * size * work.tokens / max(1, len(job.domains)) + corpus.text_bytes / corpus.units
    return Row(
        "tokens", 0, work.documents, corpus.file_bytes, 0.0, seconds / machine.core.text_share, 0, memory, 0.0, disk
    )


def trial_rows(job: Job) -> list[Row]:
    """Return the rows of the trials: replicates, search and selection, with the evaluation of their items."""
    rows = []
    stack = stack_of(job) if job.machine.card else None
    compiled: set[int] = set()
    first = rates.START / job.machine.core.text_share
    for stage, n_trials in job.batches.items():
        if not n_trials:
            continue
        row = _trials(job, stage, n_trials, stack, compiled)
        rows.append(replace(row, seconds=row.seconds + first))
        first = 0.0
    return rows


def _trials(job: Job, stage: str, n_trials: Sequence[int], stack: Stack | None, compiled: set[int]) -> Row:
    config, proxy, machine = job.config, job.proxy, job.machine
    shape = proxy.settings
    tokens = float(config.proxy.token_budget // shape.sequence * shape.sequence)
    report = stage == "selection"
    training = tokens * proxy.training_flops
    scoring = 0.0 if elsewhere(config) else evaluation_flops(proxy, job.tasks, config.tasks, job.rate, report)
    if stack and machine.card:
        seconds = sum(_stacks(job, n, stack, training, scoring, compiled) for n in n_trials)
        memory = BASE + TORCH
    else:
        one = trial_seconds(machine, proxy, training, scoring)
        seconds = one * sum(math.ceil(n / at_once(job)) for n in n_trials)
        memory = max(BASE + 3e8, TORCH + 20.0 * proxy.parameters + 5e7)
    n, items = (
        sum(n_trials),
        sum(size.items for parts in job.tasks.values() for part, size in parts.items() if report or part == "search"),
    )
    kept = config.run.keep_models == "all" or (config.run.keep_models == "finalists" and report)
    disk = n * (TRIAL_BYTES + ITEM_BYTES * items + (4.0 * proxy.parameters if kept else 0.0))
    return Row(
        stage,
        n,
        0.0,
        0.0,
        n * (training + scoring),
        seconds,
        machine.gpus if stack else 0,
        memory,
        stack.n_bytes if stack else 0.0,
        disk,
    )


def elsewhere(config: Config) -> bool:
    """Return whether another trainer than ours scores the trials."""
    return config.objective.external or by_hand(config)


def at_once(job: Job) -> int:
    """Return how many trials run at once on cores: as many as there are, or as an objective of the user's runs."""
    return job.config.objective.parallel if job.config.objective.external else job.machine.cores


def trial_seconds(machine: Machine, proxy: Proxy, training: float, scoring: float) -> float:
    """Return the seconds of one trial on one core, of so many FLOPs of training and of scoring."""
    width, core = proxy.settings.width, machine.core
    faster = rates.at_width(rates.TILES, width) if core.tiles else 1.0
    rate = rates.at_width(rates.TRAIN, width) * core.products_share
    return training / (rate * faster) + scoring / (rate * rates.at_width(rates.SCORE, width))


def stack_of(job: Job) -> Stack:
    """Return how trials run on one card: as many as fit, a power of two, as the run itself plans it."""
    from openclimb.proxy.stack.memory import need_of, plan, planned_bytes

    card, shape = job.machine.card, job.proxy.settings
    assert card
    each = math.ceil(max(n for counts in job.batches.values() for n in counts) / job.machine.gpus)
    need = need_of(shape, job.proxy.vocab_size)
    room = plan(need, shape, job.proxy.vocab_size, 0.98 * card.memory, 1 << (each - 1).bit_length())
    return Stack(room.stack, room.rows, planned_bytes(need, room, shape.sequence, job.proxy.vocab_size))


def _stacks(job: Job, n: int, stack: Stack, training: float, scoring: float, compiled: set[int]) -> float:
    """Return the seconds of a batch of n trials on all cards. `compiled` are the sizes of stacks that have been."""
    card, shape = job.machine.card, job.proxy.settings
    assert card
    each = math.ceil(n / job.machine.gpus)
    size = min(stack.models, 1 << (each - 1).bit_length())
    n_steps = -(-(job.config.proxy.token_budget // shape.sequence) // shape.batch)
    passes = -(-shape.batch // stack.rows)
    work = size * training / (rates.at_width(rates.CARD_TRAIN, shape.width) * card.peak)
    work = max(work, n_steps * passes * rates.CARD_STEP)
    work += size * scoring / (rates.at_width(rates.CARD_SCORE, shape.width) * card.peak)
    waited = 0.0 if size in compiled else rates.CARD_COMPILE
    compiled.add(size)
    return waited + math.ceil(each / size) * work


def _predictions(job: Job) -> Row:
    """Return the row of the low-fidelity scores, the predictors' fits and the proposals, on one core."""
    n_tasks, n_domains = max(1, len(job.tasks)), max(2, len(job.domains))
    config = job.config
    seconds = rates.PREDICT * (len(config.search.trials) + 1) * (1 + n_tasks / 6 * sum(config.search.trials) / 28)
    seconds *= max(1.0, n_domains / 16)
    memory = BASE + 3e8
    if config.search.low_fidelity and job.corpus:
        tokens = min(2e6, job.packed.read)
        seconds += tokens / rates.LOW_FIDELITY
        memory += 4.0 * n_domains * tokens
    return Row("predictions", seconds=seconds / job.machine.core.text_share, memory=memory, disk=2e5)


def as_json(row: Row) -> Mapping[str, float | str | int]:
    """Return a row as `climb plan --json` prints it."""
    return {
        "stage": row.stage,
        "trials": row.trials,
        "documents": round(row.documents),
        "bytes": round(row.n_bytes),
        "flops": row.flops,
        "hours": row.hours,
        "gpu_hours": row.gpu_hours,
        "memory_bytes": round(row.memory),
        "gpu_memory_bytes": round(row.gpu_memory),
        "disk_bytes": round(row.disk),
    }
