"""The settings: one frozen dataclass a section of `climb.toml`.

Every setting carries its explanation, from which `climb init` writes the commented file and the reference is generated.
A stage is given its own section, never the whole. A setting marked `where` says where work runs, not what comes out,
and stays out of fingerprints.
"""

import dataclasses
from dataclasses import dataclass, fields
from typing import Any, TypedDict, Unpack

from openclimb.config.registry import names
from openclimb.config.sizes import SHAPES
from openclimb.config.task_presets import REPORTED

TOKENS = 10**18  # the most of any budget; what is more is a slip of the pen
MANY = 10**12
SCORE = 1e15  # of a task or a quality score, in either direction
SEEDS = (0, 2_000_000_000)  # with those that derive from them they fit the 32 bits that k-means has for one


class Checks(TypedDict, total=False):
    """What is asked of a setting's value."""

    choices: tuple[str, ...]
    low: float | None
    high: float | None
    where: bool  # says where or how fast the work runs; it changes no result
    open_choice: bool  # allows `package.module:function` beside the choices
    count: bool  # allows "40B"
    some: bool  # not empty
    words: bool  # one text is cut into words as a shell would


UNCHECKED: Checks = {
    "choices": (),
    "low": None,
    "high": None,
    "where": False,
    "open_choice": False,
    "count": False,
    "some": False,
    "words": False,
}


def setting(default: Any, doc: str, **checks: Unpack[Checks]) -> Any:
    """Declare a setting: its default, explanation and what is asked of its value."""
    metadata = {**UNCHECKED, "doc": doc, **checks}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class CorpusSettings:
    """The documents to mix: where they are and how to read them."""

    paths: tuple[str, ...] = setting(
        (), "files, folders, globs or fsspec URLs of Parquet, Arrow, JSON, CSV, plain text or WARC"
    )
    text: str = setting("text", "column that holds the text of a document, or a path such as messages.content")
    id: str = setting("", "column that holds a document's id; empty: its place (file and position)")
    domains: str = setting("", 'ready-made domains: "column:NAME" or "folders"; empty: domains are found by clustering')
    dedup: str = setting(
        "none",
        "documents that repeat an earlier one are left out of training and export: exact: word for word; near: also "
        "with small changes (MinHash; pip install 'openclimb[dedup]'); none: nobody looks",
        choices=("none", "exact", "near"),
    )
    max_rejected: int = setting(100, "more unreadable documents than this stop the run", low=0, high=MANY, where=True)


@dataclass(frozen=True)
class EmbedSettings:
    """How a document becomes a vector."""

    embedder: str = setting(
        "model2vec",
        "static model (CPU), transformer (GPU), or fitted here without any download",
        choices=names("embedder"),
        open_choice=True,
    )
    model: str = setting("minishlab/potion-base-8M", "folder or hub name of the model; unused by hashing")
    revision: str = setting("", "commit, tag or branch of a hub's model; empty: the newest")
    max_tokens: int = setting(
        0,
        "of a document that sentence-transformers reads; 0: what its first 2,000 characters give",
        low=0,
        high=1_000_000,
    )
    trust_remote_code: bool = setting(
        False,
        "run Python code that comes with the model, or with a classifier of quality.scorers; read it before, and pin "
        "it with revision",
        where=True,
    )


@dataclass(frozen=True)
class ClustersSettings:
    """The k-means clustering that is fitted on a sample."""

    k: int = setting(0, "clusters to fit (K_init); 0: from the size of the corpus", low=0, high=1_000_000)
    sample: int = setting(100_000, "documents drawn uniformly to fit on", low=1, high=10**9)


@dataclass(frozen=True)
class QualitySettings:
    """What scores a document for quality."""

    scorers: tuple[str, ...] = setting(
        ("heuristics",),
        'any of "heuristics" (documented signals), "fasttext", "students" (of climb train-quality; students:FOLDER: of '
        'another workspace), "transformers:MODEL" (a sequence classifier: folder or hub name), or '
        "`package.module:function`",
    )
    fasttext: dict[str, str] = setting(
        {}, "name → path of a fastText .bin or .ftz classifier (path#label: that label's probability)"
    )
    label: str = setting(
        "expected",
        "score of fastText, classifiers and students whose labels are numbers: the expected label, or the likeliest "
        "(the recipe's)",
        choices=("expected", "argmax"),
    )


@dataclass(frozen=True)
class DomainsSettings:
    """How clusters become the domains that a mixture weighs."""

    prune_below: dict[str, float] = setting(
        {}, "score → least token-weighted mean a cluster must have to be kept", low=-SCORE, high=SCORE
    )
    prune_quantile: dict[str, float] = setting(
        {}, "score → share of the clusters, lowest first, to prune", low=0.0, high=1.0
    )
    merge_to: int = setting(
        0, "merge by Ward linkage until this many domains are left; 0: by merge_distance", low=0, high=1_000_000
    )
    merge_distance: float = setting(
        1.5, "merge clusters nearer than this (Ward linkage) when merge_to is 0", low=0.0, high=1e6
    )
    centroids: str = setting(
        "unit",
        "what is merged: unit: directions of the clusters; raw: means of their documents' vectors, as the paper has "
        "them, which are shorter where a cluster is wide",
        choices=("unit", "raw"),
    )
    min_share: float = setting(
        0.002, "a domain with a smaller share of the tokens joins its nearest", low=0.0, high=0.5
    )


@dataclass(frozen=True)
class TargetSettings:
    """The training run that the mixture is for."""

    token_budget: int = setting(40_000_000_000, "tokens the target model is trained on", low=1, high=TOKENS, count=True)
    max_repetitions: float = setting(4.0, "most times any domain may be repeated at that budget", low=0.01, high=1e6)


@dataclass(frozen=True)
class TokensSettings:
    """The tokenizer and the token arrays that proxies read."""

    tokenizer: str = setting("", "path of a tokenizer.json; empty: a byte-level BPE trained on the sample")
    vocab_size: int = setting(4096, "entries of the trained tokenizer", low=260, high=1_000_000)
    heldout: float = setting(0.01, "share of the documents, by hash, kept out of all training", low=0.0, high=0.5)


@dataclass(frozen=True)
class TasksSettings:
    """What a good model is: the tasks, and which part of them the search may see."""

    paths: tuple[str, ...] = setting((), "JSONL files or globs, one a task: context, options, gold; or text")
    metric: str = setting(
        "bpb",
        "score of a choice task: bits per byte of the gold answers (all bits ÷ all bytes, sign changed), accuracy, "
        "length-normalised, or the margin over the best wrong answer (bits per byte)",
        choices=("bpb", "accuracy", "accuracy_norm", "margin"),
    )
    weights: dict[str, float] = setting({}, "task → weight in the objective; empty: all equal", low=0.0, high=1e6)
    weighting: str = setting(
        "equal",
        "signal: weights are multiplied by each task's signal to noise, as the first iteration and search.replicates "
        "show it",
        choices=("equal", "signal"),
    )
    thresholds: dict[str, float] = setting(
        {},
        "task → threshold of the answer; such a task is in the objective only if weights names it",
        low=-SCORE,
        high=SCORE,
    )
    preset: str = setting(
        "",
        "paper: of the paper's twelve tasks PIQA, ARC-Easy and HellaSwag are optimised, the others are in report_only",
        choices=tuple(REPORTED),
        where=True,  # what follows from it is what changes the result
    )
    report_only: tuple[str, ...] = setting((), "tasks that are reported and never optimised")
    goals: dict[str, tuple[str, ...]] = setting({}, "goal → its tasks; two of them span a front of mixtures")
    max_items: int = setting(1000, "most items of a task in each of the two parts, by hash", low=1, high=10**9)
    contamination: str = setting(
        "report",
        "items that stand in the corpus (13 words in a row, short ones whole): report: they are counted; documents: "
        "the documents that hold them are left out of training and export; items: they are left out of the tasks; "
        "off: nobody looks",
        choices=("report", "documents", "items", "off"),
    )


@dataclass(frozen=True)
class ProxySettings:
    """The small model of a trial and its training run."""

    size: str = setting(
        "",
        "parameters, from which width to learning_rate and tokens.vocab_size follow where they are not given; "
        "empty: as they stand",
        choices=("", *SHAPES),
        where=True,  # what follows from it is what changes the result
    )
    checkpoint: str = setting(
        "",
        "folder or hub name of a Llama-form model to train on from, with its tokenizer and shape; "
        "empty: from random weights",
    )
    width: int = setting(96, "hidden size", low=8, high=65_536)
    depth: int = setting(3, "layers", low=1, high=1000)
    heads: int = setting(3, "attention heads; width is divided among them", low=1, high=1024)
    sequence: int = setting(128, "tokens a sequence", low=8, high=1_048_576)
    batch: int = setting(8, "sequences a step", low=1, high=1_000_000)
    token_budget: int = setting(500_000, "tokens a proxy is trained on", low=1, high=TOKENS, count=True)
    learning_rate: float = setting(5.3e-3, "peak learning rate of AdamW for the hidden matrices", low=0.0, high=10.0)


@dataclass(frozen=True)
class ObjectiveSettings:
    """What scores a trial: the local proxy, or a trainer of your own."""

    kind: str = setting(
        "auto",
        "the local proxy, a command, or a function (trial, folder) → {task: score}; auto: the command if one is given",
        choices=("auto", "proxy", "command"),
        open_choice=True,
    )
    command: tuple[str, ...] = setting(
        (),
        "program that trains and scores one trial, run in the workspace's folder: CLIMB_TRIAL is the path of a JSON "
        "file that says what; scores.json in its `output` folder is the result",
        words=True,
    )
    timeout: float = setting(
        0.0, "seconds after which a command and its processes are killed; 0: never", low=0.0, high=1e8, where=True
    )
    parallel: int = setting(1, "trials that a command or function runs at once", low=1, high=10_000, where=True)

    @property
    def resolved(self) -> str:
        """What `kind` comes to: proxy, command, or the name of a function."""
        return self.kind if self.kind != "auto" else "command" if self.command else "proxy"

    @property
    def external(self) -> bool:
        """Whether something else than the local proxy scores trials."""
        return self.resolved != "proxy"


@dataclass(frozen=True)
class SearchSettings:
    """The loop: propose mixtures, run trials, learn."""

    trials: tuple[int, ...] = setting((16, 8, 4), "trials in each iteration", low=1, high=100_000, some=True)
    proposer: str = setting(
        "climb",
        "climb: ours; pareto: ours along the front of the two tasks.goals; to compare with: climb-dirichlet and "
        "climb-random (ours after a first design drawn as the recipe's, or evenly over all mixtures), recipe (its "
        "draws), regmix and olmix (their first draws), best-of-n (draws under the caps), natural and uniform (that "
        "mixture alone)",
        choices=names("proposer"),
        open_choice=True,
    )
    predictor: str = setting(
        "auto",
        "mixture → score; auto: two Gaussian processes and a power law, weighed for each task by trials left out",
        choices=names("predictor"),
        open_choice=True,
    )
    answer: str = setting(
        "tested",
        "tested: the best predicted mixtures are trained again beside natural and uniform, and the best is the answer; "
        "argmax: the best predicted of 100,000 draws, as the recipe has it, with nothing to decide",
        choices=("tested", "argmax"),
    )
    transfer: str = setting(
        "free",
        "after `climb init --from`: free: every weight moves; frozen: domains that did not change keep their ratios",
        choices=("free", "frozen"),
    )
    low_fidelity: str = setting(
        "",
        "cheap scores of many mixtures, which predictions start from: of a bigram or trigram model of the packed "
        "tokens; empty: none",
        choices=("", *names("low_fidelity")),
    )
    replicates: int = setting(
        0,
        "trials of the natural mixture with other seeds that run first, to measure the noise of a trial",
        low=0,
        high=1000,  # their seeds end where those of targets begin
    )


@dataclass(frozen=True)
class ConstraintsSettings:
    """What every mixture must keep, besides the caps from repetitions."""

    floor: dict[str, float] = setting({}, "domain → least weight", low=0.0, high=1.0)
    cap: dict[str, float] = setting({}, "domain → largest weight", low=0.0, high=1.0)
    groups: dict[str, tuple[float, ...]] = setting(
        {}, '"domain+domain" → [least, largest] sum of their weights', low=0.0, high=1.0
    )
    most_domains: int = setting(0, "most domains with any weight; 0: no limit", low=0, high=1_000_000)


@dataclass(frozen=True)
class SelectionSettings:
    """How the answer is chosen and checked."""

    finalists: int = setting(3, "best predicted mixtures that are measured again, in rounds", low=1, high=10_000)
    seeds: int = setting(
        3,
        "most rounds of finalists, natural and uniform; and fresh seeds for the one that is left and natural",
        low=2,
        high=400,  # rounds and confirmation end below the seeds of replicates
    )
    sure: float = setting(0.9, "probability of being the best at which no further round is played", low=0.0, high=1.0)


@dataclass(frozen=True)
class RunSettings:
    """Where the work runs. Nothing here changes a result by more than rounding does."""

    engine: str = setting(
        "local",
        "where units and trials run: local: processes here; slurm, ray: see [engine]; or package.module:function",
        choices=names("engine"),
        open_choice=True,
        where=True,
    )
    workers: int = setting(0, "local processes; 0: one a core", low=0, high=10_000, where=True)
    device: str = setting("auto", "where proxies train and models embed", choices=("auto", "cpu", "cuda"), where=True)
    keep_models: str = setting(
        "none",
        "which trained proxies are kept in trials/NNNN/model, for transformers: none, those with report scores, or all",
        choices=("none", "finalists", "all"),
        where=True,
    )
    bf16: bool = setting(
        True,
        "on a CPU with bf16 tiles (Intel AMX), train with products in bf16 and sums in fp32, as a GPU always does",
        where=True,
    )
    save_seconds: float = setting(
        60.0,
        "least seconds between two states of a trial, from which it goes on when it was killed; large ones are written "
        "less often, in at most 2 % of the time",
        low=0.0,
        high=1e8,
        where=True,
    )


@dataclass(frozen=True)
class EngineSettings:
    """Workers on other machines, for run.engine = "slurm" or "ray". Nothing here changes a result."""

    jobs: int = setting(
        0, "workers at once; 0: with ray as many as the cluster holds, with slurm 8", low=0, high=10_000, where=True
    )
    cpus: int = setting(1, "cores of a worker", low=1, high=1024, where=True)
    gpus: float = setting(
        0.0,
        "GPUs of a worker that trains or embeds; with ray also a part of one, which several small stacks share",
        low=0.0,
        high=1.0,
        where=True,
    )
    memory_gb: float = setting(4.0, "memory of a worker", low=0.1, high=100_000, where=True)
    minutes: int = setting(
        240,
        "slurm: a job's time limit; what runs then is saved and goes on in the next",
        low=1,
        high=525_600,
        where=True,
    )
    partition: str = setting("", "slurm: partition", where=True)
    account: str = setting("", "slurm: account", where=True)
    lines: tuple[str, ...] = setting((), 'slurm: more options of sbatch, as "--qos=high"', where=True)
    setup: tuple[str, ...] = setting(
        (), "slurm: lines of shell before a worker starts, as 'module load cuda'", where=True
    )
    cancel: bool = setting(
        False, "slurm: end the jobs when Ctrl-C or TERM ends this command; else they go on", where=True
    )
    address: str = setting(
        "", 'ray: address of a cluster, "auto" for the one of this machine; empty: start one', where=True
    )


@dataclass(frozen=True)
class Config:
    """All settings of a workspace."""

    scale: str = "laptop"
    seed: int = 0
    corpus: CorpusSettings = dataclasses.field(default_factory=CorpusSettings)
    embed: EmbedSettings = dataclasses.field(default_factory=EmbedSettings)
    clusters: ClustersSettings = dataclasses.field(default_factory=ClustersSettings)
    quality: QualitySettings = dataclasses.field(default_factory=QualitySettings)
    domains: DomainsSettings = dataclasses.field(default_factory=DomainsSettings)
    target: TargetSettings = dataclasses.field(default_factory=TargetSettings)
    tokens: TokensSettings = dataclasses.field(default_factory=TokensSettings)
    tasks: TasksSettings = dataclasses.field(default_factory=TasksSettings)
    proxy: ProxySettings = dataclasses.field(default_factory=ProxySettings)
    objective: ObjectiveSettings = dataclasses.field(default_factory=ObjectiveSettings)
    search: SearchSettings = dataclasses.field(default_factory=SearchSettings)
    constraints: ConstraintsSettings = dataclasses.field(default_factory=ConstraintsSettings)
    selection: SelectionSettings = dataclasses.field(default_factory=SelectionSettings)
    run: RunSettings = dataclasses.field(default_factory=RunSettings)
    engine: EngineSettings = dataclasses.field(default_factory=EngineSettings)


SECTIONS: dict[str, type[Any]] = {
    f.name: f.default_factory  # type: ignore[misc]
    for f in fields(Config)
    if f.default_factory is not dataclasses.MISSING
}
