"""A plan that one can budget with: what each stage costs, what is assumed, and what finished stages really took.

Reads `climb.toml`, what finished stages counted, and a few places of the input files. Writes nothing in the workspace.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclimb.config.load import format_count
from openclimb.config.schema import Config
from openclimb.corpus.custom_domains import custom_domains, has_custom_domains
from openclimb.corpus.domains import read_domains
from openclimb.corpus.reading.size import CorpusSize, estimate_size
from openclimb.planning import rates
from openclimb.planning.cost import Job, Row, Stack, as_json, elsewhere, export_row, rows_of, stack_of, total
from openclimb.planning.embedder import embedder_of
from openclimb.planning.machine import Machine
from openclimb.planning.real import Real
from openclimb.planning.work import Proxy, Tasks, assumed_domains, batches, proxy_of, tokens_a_byte
from openclimb.quality.contamination import SampleOverlap
from openclimb.workspace.files import read_json
from openclimb.workspace.tables import read_csv

NOTHING = Real({}, {}, False)
LOOKED, GIVEN, COUNTED = "a look into the files", "as given", "as labelled"


@dataclass(frozen=True)
class Plan:
    """The rows of a plan, their sums, and what they rest on."""

    job: Job
    rows: tuple[Row, ...]
    export: Row | None
    total: Row
    stack: Stack | None
    known: str  # how the corpus' size is known; empty without a corpus
    assumptions: tuple[str, ...]
    overlap: Mapping[str, Any]  # of the tasks with the documents looked at; empty where nobody looked


def make_plan(
    root: Path, config: Config, tasks: Tasks, machine: Machine, given: CorpusSize | None = None, done: Real = NOTHING
) -> Plan:
    """Return the plan of a workspace on a machine.

    `given`: the size of a corpus that cannot be listed yet. `done`: what the workspace did; where there is an answer,
    the selection counts as many trials as it took.
    """
    proxy, rate = read_proxy(config), tokens_a_byte(config.tokens.vocab_size)
    corpus, known = None, ""
    overlap = _sample_overlap(config) if not given else None
    if has_custom_domains(config):
        domains = custom_domains(root, config)
    else:
        rate = _measured_rate(root) or rate
        corpus, known = (given, GIVEN) if given else _size(root, config, overlap)
        known_domains = (root / "domains" / "record.json").is_file() and not given
        domains = read_domains(root / "domains") if known_domains else assumed_domains(config, rate * corpus.text_bytes)
    counts = batches(config) | ({"selection": done.batches["selection"]} if _selected(done) else {})
    job = Job(config, machine, proxy, corpus, tuple(domains), tasks, rate, counts)
    rows = rows_of(job)
    stack = stack_of(job) if machine.card else None
    assumed = tuple(_assumptions(job, known, _selected(done)))
    found = overlap.facts() if overlap else {}
    return Plan(job, tuple(rows), export_row(job), total(rows), stack, known, assumed, found)


def _sample_overlap(config: Config) -> SampleOverlap | None:
    """Return what looks for the tasks' items in the documents that a plan meets, where the run will look for them."""
    on = config.tasks.contamination != "off" and config.tasks.paths and not has_custom_domains(config)
    return SampleOverlap(config.tasks) if on else None


def _selected(done: Real) -> bool:
    return done.answered and "selection" in done.batches


def read_proxy(config: Config) -> Proxy:
    """Return what is counted of the proxy; of a checkpoint in a local folder, which is checked here too."""
    folder = Path(config.proxy.checkpoint).expanduser()
    if config.proxy.checkpoint and folder.is_dir():  # one of a hub is not fetched for a plan
        from openclimb.proxy.checkpoint import read_checkpoint, shaped

        found = read_checkpoint(folder)
        return proxy_of(config, shaped(config.proxy), found.vocab_size, found.n_parameters)
    return proxy_of(config, config.proxy)


def _measured_rate(root: Path) -> float:
    """Return the tokens a byte that the clusters stage counted; 0 where it is not done."""
    folder = root / "clusters"
    return float(read_json(folder / "token_rates.json")["overall"]) if (folder / "record.json").is_file() else 0.0


def _size(root: Path, config: Config, overlap: SampleOverlap | None) -> tuple[CorpusSize, str]:
    """Return the size of the corpus, and how it is known: what was labelled, or a look into the files."""
    found = estimate_size(config.corpus, config.tokens.tokenizer, overlap.look if overlap else None)
    if not (root / "domains" / "record.json").is_file():
        return found, LOOKED
    rows = read_csv(root / "domains" / "clusters.csv", ("documents", "bytes"))
    documents, text = (float(sum(int(row[name] or 0) for row in rows)) for name in ("documents", "bytes"))
    head = found.head_bytes / max(1.0, found.documents) * documents
    return CorpusSize(documents, found.file_bytes, text, head, found.units), COUNTED


def _assumptions(job: Job, known: str, selected: bool) -> list[str]:
    """Return what the rows rest on, a sentence each."""
    lines = _corpus_lines(job, known) + _machine_lines(job.machine)
    lines.append("trials of a batch run beside each other, and the next batch waits for the last of them")
    if elsewhere(job.config):
        size = f"{job.proxy.parameters / 1e6:.3g}M parameters"
        lines.append(f"trials run elsewhere: counted as the training of the proxy of [proxy], {size}")
    elif not job.tasks:
        lines.append("there are no tasks yet: evaluation is left out")
    if not selected and "selection" in job.batches:
        lines.append("selection: at most; it ends early where one mixture is sure to be the best")
    if job.corpus:
        budget = format_count(job.config.target.token_budget)
        lines.append(f"export: a command of its own, here for the target's {budget} tokens; not in the sum")
    return lines


def _corpus_lines(job: Job, known: str) -> list[str]:
    """Return what is assumed of the documents and of what embeds them; nothing without a corpus."""
    if not job.corpus:
        return []
    lines = {
        LOOKED: ["documents and their text: from a look into some places of the files"],
        GIVEN: ["documents and bytes of text: as given; the files are not looked at"],
        COUNTED: [],
    }[known]
    lines.append(f"{len(job.domains)} domains, {1 / job.rate:.2g} bytes of text a token")
    lines.append("files come as fast as they are worked on: a slow store or disk is not counted")
    if job.config.corpus.domains:
        return lines
    embedder = embedder_of(job.config.embed)
    if not embedder.known:
        like = "MiniLM" if embedder.depth else "a static model"
        lines.append(f"the embedder '{embedder.title}' is not known: it counts as {like}")
    if job.machine.card and embedder.depth:
        share = f"{rates.CARD_EMBED:.1%} of the card's peak"
        lines.append(f"documents are embedded at {share}, as in MiniLM's shape in fp32; larger models reach more")
    return lines


def _machine_lines(machine: Machine) -> list[str]:
    """Return what the speed of the cores and cards rests on."""
    core, card = machine.core, machine.card
    how = "by the table" if core.processor in rates.KNOWN else "as measured here, once"
    lines = [
        f"a core: the rates of bench/results (label, proxy), × {core.products_share:.2f} for products and "
        f"× {core.text_share:.2f} for text on this processor ({core.processor}, {how})"
    ]
    if card:
        how = "as measured on it" if card.measured else "not measured: at the shares of its peak that an H100 reaches"
        lines.append(f"{card.title}, {card.peak / 1e12:.0f} TFLOP/s in bf16: {how} (bench/results/gpu.json)")
    if machine.unknown:
        lines.append(f"this machine's {machine.unknown} is not in the table: trials count as on the cores; give --gpu")
    if machine.gpus > 1:
        lines.append(f"{machine.gpus} cards share the documents, and the trials of a batch")
    return lines


def plan_facts(plan: Plan, took: Mapping[str, float]) -> dict[str, Any]:
    """Return a plan as `climb plan --json` prints it; `took`: seconds that stages really took, by row."""
    machine, corpus = plan.job.machine, plan.job.corpus
    rows = [{**as_json(row), "real_hours": took[row.stage] / 3600 if row.stage in took else None} for row in plan.rows]
    stages = [row.stage for row in plan.rows]
    real_hours = sum(took[stage] for stage in stages) / 3600 if took.keys() >= set(stages) else None
    whole = {**as_json(plan.total), "real_hours": real_hours}
    return {
        "machine": {
            "described": machine.described,
            "cores": machine.cores,
            "gpus": machine.gpus,
            "gpu": machine.card.title if machine.card else "",
            "gpu_measured": machine.card.measured if machine.card else None,
            "this_machine": machine.here,
        },
        "corpus": {
            "documents": round(corpus.documents),
            "bytes": round(corpus.file_bytes),
            "text_bytes": round(corpus.text_bytes),
            "known": plan.known,
        }
        if corpus
        else None,
        "rows": rows,
        "total": whole,
        "gpu_hours_held": plan.total.hours * machine.gpus,
        "export": as_json(plan.export) if plan.export else None,
        "stack": {"models": plan.stack.models, "rows": plan.stack.rows} if plan.stack else None,
        "assumptions": list(plan.assumptions),
    }
