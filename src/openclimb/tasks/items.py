"""Tasks: JSONL files of items, tokenised once, split by hash into a search part and a report part.

An item is {"context", "options": [...], "gold"}; or {"contexts": [...], "continuation", "gold"} where the contexts
differ and the continuation is the same; or {"text"}. A task is a file; its name is the file's stem. Reads
`tasks.paths`. Writes `tokens/tasks/<task>.npz` and tasks.json.
"""

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from openclimb.config.schema import TasksSettings
from openclimb.config.task_presets import REPORTED
from openclimb.corpus.reading.store import open_store, patiently, read_file
from openclimb.corpus.reading.text import parse_json, whole
from openclimb.corpus.tokenizer import encode_pairs, ends_of, load_tokenizer
from openclimb.errors import ConfigError, InputError, nearest
from openclimb.masking import without_secrets
from openclimb.printable import one_line
from openclimb.progress import Progress
from openclimb.workspace.files import atomic, fingerprint, write_json

SEARCH_SHARE = 0.5  # of a task's items, by hash, that the search sees
HELDOUT = "heldout"  # stands among the tasks in reports: the scores of the held-out text


@dataclass(frozen=True)
class Item:
    """One question: pairs of context and continuation, which of them is right, and its hash."""

    pairs: tuple[tuple[str, str], ...]
    gold: int
    hash: float  # uniform in 0…1, from the item's content


def task_files(settings: TasksSettings) -> dict[str, str]:
    """Return {task: path} of the files that `tasks.paths` match.

    Raises when none match, two share a name, or one has a name that cannot be used.
    """
    if not settings.paths:
        raise ConfigError(
            "tasks.paths is empty: there is nothing to optimise for", "name JSONL files, one a task, in climb.toml"
        )
    found: dict[str, str] = {}
    for pattern in settings.paths:
        filesystem, paths = patiently(pattern, partial(_matches, pattern))
        if not paths:
            raise InputError(
                f"no task file matches '{pattern}'", "name JSONL files, one a task; `climb tasks` makes some"
            )
        for file in sorted(paths):
            name = Path(without_secrets(file)).name.removesuffix(".jsonl")
            check_name(name)
            if found.setdefault(name, filesystem.unstrip_protocol(file)) != filesystem.unstrip_protocol(file):
                raise InputError(
                    f"two task files are named '{name}'", "rename one of them: a task is known by its file's name"
                )
    named = {"weights": settings.weights, "thresholds": settings.thresholds, "report_only": settings.report_only}
    named |= {f"goals.{name}": members for name, members in settings.goals.items()}
    for setting, names in named.items():
        for name in names:
            if name not in found:
                raise ConfigError(
                    f"tasks.{setting} names '{name}', which is no task{nearest(name, found)}",
                    f"tasks are: {', '.join(found)}",
                )
    if not set(found) - set(reported(settings)):
        raise ConfigError(
            "every task is report_only: there is nothing to optimise for", "take one out of tasks.report_only"
        )
    return found


def _matches(pattern: str) -> tuple[Any, list[str]]:
    """Return the file system of a path, folder, glob or URL, and the files that it stands for."""
    filesystem, path = open_store(pattern)
    return filesystem, list(filesystem.glob(f"{path}/*.jsonl" if filesystem.isdir(path) else path))


def check_name(name: str) -> None:
    """Raise InputError for a name that no task may have."""
    if name == HELDOUT:
        raise InputError(
            f"a task is named '{HELDOUT}', as the held-out text is in reports",
            f"rename its file {HELDOUT}.jsonl; in a YAML file of the harness, write task: OTHER_NAME",
        )


def reported(settings: TasksSettings) -> tuple[str, ...]:
    """Return the tasks that are reported and never optimised: those named, and those of the preset."""
    return tuple(dict.fromkeys((*settings.report_only, *REPORTED[settings.preset])))


def search_tasks(settings: TasksSettings) -> list[str]:
    """Return the tasks that the search sees, sorted: all but those that are only reported."""
    return sorted(set(task_files(settings)) - set(reported(settings)))


def task_fingerprint(settings: TasksSettings) -> str:
    """Return the fingerprint of the content of all task files ("" when no tasks are set)."""
    if not settings.paths:
        return ""
    files = task_files(settings)
    return fingerprint(
        [[name, hashlib.blake2b(read_file(path), digest_size=16).hexdigest()] for name, path in files.items()]
    )


@dataclass(frozen=True)
class PartSize:
    """How much there is to read in a part of a task: items, and bytes of their texts."""

    items: int
    gold: int  # bytes of the right options
    gold_contexts: int  # bytes of the contexts before them
    options: int  # bytes of all options
    contexts: int  # bytes of all contexts: one that options share counts once


def check_task(name: str, path: str, settings: TasksSettings) -> dict[str, PartSize]:
    """Return {part: its size} after reading and checking a task file. Changes nothing."""
    return {part: _size(items) for part, items in split(name, read_items(path), settings).items()}


def _size(items: Sequence[Item]) -> PartSize:
    gold = [item.pairs[item.gold] for item in items]
    return PartSize(
        len(items),
        sum(_bytes(option) for _, option in gold),
        sum(_bytes(context) for context, _ in gold),
        sum(_bytes(option) for item in items for _, option in item.pairs),
        sum(_bytes(context) for item in items for context in {context for context, _ in item.pairs}),
    )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def pack_tasks(
    settings: TasksSettings,
    tokenizer: Path,
    out: Path,
    progress: Progress,
    left_out: Mapping[str, Collection[float]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Tokenise the items of every task into `out`; return {task: {part: items}}.

    `left_out`: {task: hashes of items that stand in the corpus and are not to be scored}.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = task_files(settings)
    progress.start("tasks", len(files), "tasks")
    facts = {}
    for name, path in files.items():
        parts = without(name, split(name, read_items(path), settings), left_out.get(name, ()))
        arrays: dict[str, NDArray[Any]] = {}
        for part, items in parts.items():
            arrays |= {f"{part}/{key}": array for key, array in tokenised(items, tokenizer).items()}
        with atomic(out / f"{name}.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        facts[name] = {part: len(items) for part, items in parts.items()}
        progress.advance()
    write_json(out / "tasks.json", facts)
    progress.finish(", ".join(map(one_line, files)))
    return facts


def read_items(path: str) -> list[Item]:
    """Return the items of a task file. Raises InputError with file and line for what cannot be used."""
    try:
        data = read_file(path)
    except InputError as error:
        raise InputError(error.message, "put that right, or take the file out of tasks.paths in climb.toml") from error
    items = []
    for number, line in enumerate(io.BytesIO(data), 1):
        if line.strip():
            try:
                raw = parse_json(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: not a JSON line: {error}", "correct that line") from None
            items.append(_item(raw, line, f"{path}, line {number}"))
    return items


def split(name: str, items: Sequence[Item], settings: TasksSettings) -> dict[str, list[Item]]:
    """Return the items of each part, chosen by hash, at most `max_items` in each.

    Raises InputError when a part that is needed has no items left.
    """
    share = 0.0 if name in reported(settings) else SEARCH_SHARE
    ordered = sorted(items, key=lambda item: item.hash)
    parts = {
        "search": [item for item in ordered if item.hash < share][: settings.max_items],
        "report": [item for item in ordered if item.hash >= share][: settings.max_items],
    }
    for part, found in parts.items():
        if not found and not (part == "search" and share == 0.0):
            raise InputError(
                f"task '{name}' has {len(items)} items, and none is left for the {part} part",
                "add items, or name the task in tasks.report_only",
            )
    return parts


def without(name: str, parts: Mapping[str, list[Item]], hashes: Collection[float]) -> dict[str, list[Item]]:
    """Return the parts of a task without the items of these hashes. Raises InputError when none is left of a part."""
    kept = {part: [item for item in items if item.hash not in hashes] for part, items in parts.items()}
    for part, items in parts.items():
        if items and not kept[part]:
            raise InputError(
                f"task '{name}': all {len(items)} items of its {part} part stand in the corpus",
                'set tasks.contamination to "documents" or "report", or take the task out of tasks.paths',
            )
    return kept


def search_items(
    settings: TasksSettings, left_out: Mapping[str, Collection[float]] = MappingProxyType({})
) -> dict[str, list[Item]]:
    """Return the items of each task that the search sees; none of a task that is only reported. See `pack_tasks`."""
    return {
        name: without(name, split(name, read_items(path), settings), left_out.get(name, ()))["search"]
        for name, path in task_files(settings).items()
    }


def tokenised(items: Sequence[Item], tokenizer: Path) -> dict[str, NDArray[Any]]:
    """Return flat arrays of the items' pairs: tokens, lengths and context lengths (n_pairs), bytes, chars, item, gold.

    A context is preceded by the token that the tokenizer puts first (where it has none, by the end token), so that an
    empty one conditions on a document's beginning. Context and continuation are tokenised as one text and cut after as
    many tokens as the context alone has; white space at the end of a context goes with the continuation. Both as in
    lm-evaluation-harness, and so are the characters that an option is normalised by: its own, without the space that
    parts it from the context.
    """
    loaded = load_tokenizer(tokenizer)
    start = ends_of(tokenizer).start
    pairs = [_joined(context, continuation) for item in items for context, continuation in item.pairs]
    wholes, n_tokens = encode_pairs(loaded, pairs)
    cuts = [min(n, len(whole) - 1) for n, whole in zip(n_tokens, wholes, strict=True)]
    rows = [([start, *whole], 1 + cut) for whole, cut in zip(wholes, cuts, strict=True)]
    n_chars = [max(1, len(option.removeprefix(" "))) for item in items for _, option in item.pairs]
    return {
        "tokens": np.concatenate([np.array(tokens, dtype=np.int32) for tokens, _ in rows])
        if rows
        else np.empty(0, np.int32),
        "lengths": np.array([len(tokens) for tokens, _ in rows], dtype=np.int32),
        "contexts": np.array([n for _, n in rows], dtype=np.int32),
        "bytes": np.array([max(1, len(text.encode("utf-8", "replace"))) for _, text in pairs], dtype=np.int32),
        "chars": np.array(n_chars, dtype=np.int32),
        "item": np.repeat(np.arange(len(items), dtype=np.int32), [len(item.pairs) for item in items]),
        "gold": np.array([item.gold for item in items], dtype=np.int32),
    }


def gold_pairs(packed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the items with their right option alone: all that bits per byte need, and a quarter of the work."""
    right = np.searchsorted(packed["item"], np.arange(len(packed["gold"]))) + packed["gold"]
    starts = np.cumsum(packed["lengths"]) - packed["lengths"]
    lengths = packed["lengths"][right]
    spans = [packed["tokens"][start : start + n] for start, n in zip(starts[right], lengths, strict=True)]
    return {
        "tokens": np.concatenate(spans) if spans else packed["tokens"][:0],
        "lengths": lengths,
        "contexts": packed["contexts"][right],
        "bytes": packed["bytes"][right],
        "chars": packed["chars"][right],
        "item": np.arange(len(right), dtype=np.int32),
        "gold": np.zeros(len(right), dtype=np.int32),
    }


def _item(raw: Any, line: bytes, where: str) -> Item:
    if not isinstance(raw, dict):
        raise InputError(f"{where}: not a JSON object", 'write {"context": …, "options": […], "gold": 0}')
    if "text" in raw:
        pairs, gold = [("", raw["text"])], cast("Any", 0)
    elif "options" in raw:
        pairs, gold = [(raw.get("context", ""), option) for option in _listed(raw["options"])], raw.get("gold")
    elif "contexts" in raw:
        pairs, gold = [(context, raw.get("continuation")) for context in _listed(raw["contexts"])], raw.get("gold")
    else:
        raise InputError(
            f"{where}: has neither options, contexts nor text", 'write {"context": …, "options": […], "gold": 0}'
        )
    if (
        not pairs
        or any(not isinstance(text, str) for pair in pairs for text in pair)
        or any(not pair[1] for pair in pairs)
    ):
        raise InputError(f"{where}: an option is empty or not text", "give every option some text")
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(pairs):
        raise InputError(f"{where}: gold = {gold!r} is no index into its {len(pairs)} options", "count options from 0")
    digest = hashlib.blake2b(line.strip(), digest_size=8).digest()
    return Item(tuple((whole(a), whole(b)) for a, b in pairs), gold, int.from_bytes(digest, "little") / 2.0**64)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _joined(context: str, continuation: str) -> tuple[str, str]:
    """Move white space at the end of a context to the continuation: byte-level tokens carry their leading space."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation
