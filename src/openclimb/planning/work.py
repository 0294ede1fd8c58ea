"""What a run has to do, counted from the settings: documents, tokens, trials, FLOPs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from openclimb.config.schema import Config, ProxySettings, TasksSettings
from openclimb.config.sizes import n_parameters
from openclimb.corpus.custom_domains import has_custom_domains
from openclimb.corpus.pack import HELDOUT_TOKENS, n_pooled, n_read, pick_rate
from openclimb.corpus.reading.size import CorpusSize
from openclimb.mixture import Domain, caps
from openclimb.search.selection.halving import most_batches
from openclimb.tasks.items import PartSize

BYTES_A_DOCUMENT = 4000  # where only the one or the other is given
DOMAINS = 24  # where nothing says how many there will be
UNIT_BYTES = 64_000_000  # as `corpus.reading.units` cuts the input

Tasks = Mapping[str, Mapping[str, PartSize]]  # task → part → size


@dataclass(frozen=True)
class Proxy:
    """What is counted of a proxy: its settings with the shape of a checkpoint, its vocabulary and parameters."""

    settings: ProxySettings
    vocab_size: int
    parameters: int

    @property
    def training_flops(self) -> float:
        """FLOPs of training on one token: 6 a parameter, and attention's 12 · depth · width · sequence.

        As Chowdhery et al. 2022 count them.
        """
        shape = self.settings
        return 6.0 * self.parameters + 12.0 * shape.depth * shape.width * shape.sequence

    def reading_flops(self, context: float, answer: float) -> float:
        """Return the FLOPs of scoring an answer of so many tokens behind a context: forward only.

        The layers read all tokens; the output matrix is multiplied at those of the answer alone.
        """
        shape, head = self.settings, self.vocab_size * self.settings.width
        length = context + answer
        layers = 2.0 * (self.parameters - head) + 4.0 * shape.depth * shape.width * length
        return length * layers + 2.0 * head * answer


def proxy_of(config: Config, settings: ProxySettings, vocab_size: int = 0, parameters: int = 0) -> Proxy:
    """Return what is counted of the settings' proxy; `settings`, entries and parameters are those of a checkpoint."""
    vocab_size = vocab_size or config.tokens.vocab_size
    return Proxy(settings, vocab_size, parameters or n_parameters(settings.width, settings.depth, vocab_size))


def tokens_a_byte(vocab_size: int) -> float:
    """Return the tokens of a byte of English for a vocabulary: 1/2.8 with 2,048 entries, 1/4.4 with 50,304."""
    return 1.0 / (2.8 + 0.35 * (math.log2(max(256, vocab_size)) - 11.0))


def evaluation_flops(proxy: Proxy, tasks: Tasks, settings: TasksSettings, rate: float, report: bool) -> float:
    """Return the FLOPs of scoring one proxy on the search items and, with `report`, on report items and held-out text.

    `rate`: tokens a byte. Bits per byte of search items need their right option alone.
    """
    flops = 0.0
    for parts in tasks.values():
        for part, size in parts.items():
            if not size.items or (part == "report" and not report):
                continue
            gold = part == "search" and settings.metric == "bpb"
            context, answer = (size.gold_contexts, size.gold) if gold else (size.contexts, size.options)
            flops += size.items * proxy.reading_flops(rate * context / size.items, rate * answer / size.items)
    if report:
        length = min(4 * proxy.settings.sequence, 2048)
        flops += HELDOUT_TOKENS / length * proxy.reading_flops(0, length)
    return flops


def given_size(documents: int, n_bytes: int) -> CorpusSize:
    """Return the size of a corpus that cannot be listed yet; what is not given follows from BYTES_A_DOCUMENT."""
    n_documents = float(documents or max(1, round(n_bytes / BYTES_A_DOCUMENT)))
    text = float(n_bytes or n_documents * BYTES_A_DOCUMENT)
    head = min(text, 2000.0 * n_documents)
    return CorpusSize(n_documents, text, text, head, max(1, round(text / UNIT_BYTES)))


def assumed_domains(config: Config, n_tokens: float) -> list[Domain]:
    """Return equal domains for a corpus that has none yet: as many as are merged to, else DOMAINS."""
    n = config.domains.merge_to or DOMAINS
    each = max(1, round(n_tokens / n))
    limits = caps([each] * n, config.target.token_budget, config.target.max_repetitions).tolist()
    return [Domain(f"domain-{i}", each, cap) for i, cap in enumerate(limits)]


@dataclass(frozen=True)
class Packed:
    """What packing reads and writes: documents and bytes of text that are tokenised, tokens kept, tokens of a trial."""

    documents: float
    text_bytes: float
    tokens: float
    read: float  # different tokens that a trial of the natural mixture reads


def packed(config: Config, corpus: CorpusSize, domains: list[Domain]) -> Packed:
    """Return what `corpus.pack` does with domains of these sizes."""
    total = sum(domain.n_tokens for domain in domains)
    read = [n_read(domain, config.proxy.token_budget, config.target.token_budget) for domain in domains]
    needed = [min(n_pooled(n), domain.n_tokens) for n, domain in zip(read, domains, strict=True)]
    share = corpus.documents / max(1, total)
    documents = sum(
        share * domain.n_tokens * pick_rate(need, domain.n_tokens, round(share * domain.n_tokens))
        for need, domain in zip(needed, domains, strict=True)
    )
    documents += min(1.0, HELDOUT_TOKENS / max(1, total)) * corpus.documents
    documents = min(documents, corpus.documents)
    text = corpus.text_bytes * documents / max(1.0, corpus.documents)
    return Packed(documents, text, float(sum(needed) + min(HELDOUT_TOKENS, total)), float(sum(read)))


def by_hand(config: Config) -> bool:
    """Return whether trials are trained elsewhere and completed one by one: there is neither corpus nor trainer."""
    return has_custom_domains(config) and not config.objective.external


def batches(config: Config) -> dict[str, list[int]]:
    """Return the trials that run beside each other, by row of the plan: one number a batch.

    Trials that are completed by hand are those of the search alone.
    """
    search = list(config.search.trials)
    if by_hand(config):
        return {"search": search}
    replicates = [config.search.replicates] if config.search.replicates else []
    return {"replicates": replicates, "search": search, "selection": most_batches(config.selection)}
