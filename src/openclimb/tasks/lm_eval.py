"""Tasks of lm-evaluation-harness as task files: their questions as the harness would ask them.

Needs the extra `eval`. A task is named as the harness knows it, or by the path of its YAML file. Data sets are fetched
as the harness fetches them; one whose YAML names local files needs no network. A YAML file may name Python functions,
which then run: name only files that you trust. Writes one JSONL file a task.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openclimb.errors import ConfigError, InputError, MissingDependency, nearest
from openclimb.tasks.items import check_name
from openclimb.workspace.files import write_text

PREFIX = "lm-eval:"
FORMS = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")


def convert_harness(names: Sequence[str], out: Path) -> dict[str, int]:
    """Write `out`/TASK.jsonl for each task of these names, groups or YAML files; return {task: items}.

    Raises MissingDependency without lm_eval, ConfigError for an unknown name, InputError for what cannot be scored
    or named so.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError:
        raise MissingDependency("lm_eval", "pip install 'openclimb[eval]'") from None

    own = all(Path(name).is_file() for name in names)
    manager = TaskManager(include_defaults=not own)  # reading the thousands of its own takes seconds
    counts = {}
    for name in names:
        for task, found in sorted(_load(manager, name).items()):
            check_name(task)
            lines = [json.dumps(item, ensure_ascii=False) for item in _items(task, found)]
            write_text(out / f"{task}.jsonl", "".join(line + "\n" for line in lines))
            counts[task] = len(lines)
    return counts


def _load(manager: Any, name: str) -> dict[str, Any]:
    """Return {task: the harness's task} for a name or the path of a YAML file."""
    if not Path(name).is_file() and name not in manager.all_tasks:
        raise ConfigError(
            f"lm-evaluation-harness knows no task '{name}'{nearest(name, manager.all_tasks)}",
            "lm_eval ls tasks lists them; or name the path of a task's YAML file",
        )
    try:
        found: dict[str, Any] = manager.load([name])["tasks"]
    except Exception as error:  # of the harness, of datasets, of the network
        raise InputError(
            f"lm-evaluation-harness cannot load '{name}': {str(error).splitlines()[0] if str(error) else repr(error)}",
            "fetch its data set where there is a network; or name a YAML file with dataset_path: json and data_files",
        ) from None
    return found


def _items(name: str, task: Any) -> Iterator[dict[str, Any]]:
    """Yield the task's questions in our form."""
    if task.OUTPUT_TYPE not in FORMS or not hasattr(task, "doc_to_choice"):
        raise InputError(
            f"task '{name}' is of the kind {task.OUTPUT_TYPE}, which is not scored by log-likelihood",
            f"take a task of the kinds {', '.join(FORMS)}",
        )
    task.build_all_requests()
    questions: dict[int, list[Any]] = {}
    for request in task.instances:
        questions.setdefault(request.doc_id, []).append(request)
    for requests in questions.values():
        requests.sort(key=lambda request: request.idx)
        pairs = [request.args for request in requests]
        if task.OUTPUT_TYPE == "loglikelihood_rolling":
            yield {"text": pairs[0][0]}
        elif task.OUTPUT_TYPE == "loglikelihood":
            yield {"context": pairs[0][0], "options": [pairs[0][1]], "gold": 0}
        else:
            yield _choice(name, task, requests[0].doc, pairs)


def _choice(name: str, task: Any, doc: Any, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    choices = task.doc_to_choice(doc)
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    gold = gold[0] if isinstance(gold, list) and len(gold) == 1 else gold
    gold = choices.index(gold) if isinstance(gold, str) and gold in choices else gold
    if not isinstance(gold, int):
        raise InputError(f"task '{name}' has a question whose right option is {gold!r}", "take a task with one of them")
    pairs = pairs[: len(choices)]  # behind them may stand the options without their question
    contexts, options = [context for context, _ in pairs], [option for _, option in pairs]
    if len(set(contexts)) == 1:
        return {"context": contexts[0], "options": options, "gold": gold}
    return {"contexts": contexts, "continuation": options[0], "gold": gold}
