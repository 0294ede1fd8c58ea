"""Task files: every form of item, a split by hash, and errors that name file and line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, processors

from openclimb.config.schema import TasksSettings
from openclimb.corpus.tokenizer import ends_of, load_tokenizer, train_tokenizer
from openclimb.errors import ConfigError, InputError
from openclimb.progress import Progress
from openclimb.tasks import items as task_items
from openclimb.tasks.items import (
    check_task,
    pack_tasks,
    read_items,
    search_tasks,
    split,
    task_files,
    task_fingerprint,
    tokenised,
)


def check_tasks(settings: TasksSettings) -> dict[str, dict[str, int]]:
    return {name: check_task(name, path, settings) for name, path in task_files(settings).items()}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def questions(n: int) -> list[dict[str, object]]:
    return [{"context": f"Question {i}?\nAnswer:", "options": [" yes", " no"], "gold": i % 2} for i in range(n)]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    train_tokenizer(["Question one? Answer: yes, no. The quick brown fox jumps."] * 10, 300, path)
    return path


def test_the_two_parts_are_disjoint_and_do_not_depend_on_the_files_order(tmp_path: Path) -> None:
    rows = questions(200)
    parts = [
        split("t", read_items(str(write(tmp_path / "t.jsonl", *ordered))), TasksSettings(max_items=60))
        for ordered in (rows, rows[::-1])
    ]
    assert parts[0] == parts[1]
    hashes = {part: {item.hash for item in items} for part, items in parts[0].items()}
    assert hashes["search"].isdisjoint(hashes["report"])
    assert {len(found) for found in hashes.values()} == {60}


def test_a_report_only_task_has_no_search_items(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *questions(20))
    write(tmp_path / "b.jsonl", *questions(20))
    settings = TasksSettings(paths=(str(tmp_path),), report_only=("b",))
    assert {part: size.items for part, size in check_tasks(settings)["b"].items()} == {"search": 0, "report": 20}


def test_the_papers_preset_searches_three_tasks_and_reports_the_others(tmp_path: Path) -> None:
    for name in ("piqa", "arc_easy", "hellaswag", "race", "boolq", "mine"):
        write(tmp_path / f"{name}.jsonl", *questions(20))
    settings = TasksSettings(paths=(str(tmp_path),), preset="paper", report_only=("mine",))
    assert search_tasks(settings) == ["arc_easy", "hellaswag", "piqa"]
    sizes = check_tasks(settings)
    assert [sizes[name]["search"].items for name in ("race", "boolq", "mine")] == [0, 0, 0]
    assert search_tasks(replace(settings, preset="")) == ["arc_easy", "boolq", "hellaswag", "piqa", "race"]


def test_all_three_forms_are_tokenised_so_that_the_continuation_is_scored(tmp_path: Path, tokenizer: Path) -> None:
    path = write(
        tmp_path / "t.jsonl",
        {"context": "The quick", "options": [" brown fox", " no"], "gold": 0},
        {"contexts": ["The quick", "Question"], "continuation": " fox jumps.", "gold": 1},
        {"text": "The quick brown fox."},
    )
    items = read_items(str(path))
    packed = tokenised(items, tokenizer)
    loaded = load_tokenizer(tokenizer)
    assert packed["item"].tolist() == [0, 0, 1, 1, 2]
    assert packed["gold"].tolist() == [0, 1, 0]
    spans = np.split(packed["tokens"], np.cumsum(packed["lengths"])[:-1])
    texts = [loaded.decode(span[n:].tolist()) for span, n in zip(spans, packed["contexts"], strict=True)]
    assert texts == [" brown fox", " no", " fox jumps.", " fox jumps.", "The quick brown fox."]
    assert all(span[0] == ends_of(tokenizer).end for span in spans)
    assert packed["bytes"].tolist() == [len(text) for text in texts]
    assert packed["chars"].tolist() == [len(text.removeprefix(" ")) for text in texts]


def test_white_space_at_a_contexts_end_goes_with_the_continuation(tmp_path: Path, tokenizer: Path) -> None:
    spaced = read_items(str(write(tmp_path / "a.jsonl", {"context": "The quick ", "options": ["brown"], "gold": 0})))
    joined = read_items(str(write(tmp_path / "b.jsonl", {"context": "The quick", "options": [" brown"], "gold": 0})))
    one, two = tokenised(spaced, tokenizer), tokenised(joined, tokenizer)
    assert one["tokens"].tolist() == two["tokens"].tolist()
    assert one["contexts"].tolist() == two["contexts"].tolist()


def test_a_text_begins_with_what_the_tokenizer_puts_first(tmp_path: Path, tokenizer: Path) -> None:
    loaded = Tokenizer.from_file(str(tokenizer))
    first = loaded.token_to_id("Q")
    loaded.post_processor = processors.TemplateProcessing(single="Q $A", special_tokens=[("Q", first)])
    loaded.save(str(tmp_path / "other.json"))
    items = read_items(str(write(tmp_path / "a.jsonl", {"text": "The fox"})))
    assert tokenised(items, tmp_path / "other.json")["tokens"][0] == first
    assert tokenised(items, tokenizer)["tokens"][0] == ends_of(tokenizer).end


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{not json", "line 2: not a JSON line"),
        ("[1]", "line 2: not a JSON object"),
        ({"context": "a"}, "line 2: has neither options, contexts nor text"),
        ({"context": "a", "options": [], "gold": 0}, "line 2: an option is empty"),
        ({"context": "a", "options": ["x", ""], "gold": 0}, "line 2: an option is empty"),
        ({"context": "a", "options": ["x", 3], "gold": 0}, "line 2: an option is empty or not text"),
        ({"context": "a", "options": ["x", "y"], "gold": 2}, "line 2: gold = 2 is no index into its 2 options"),
        ({"context": "a", "options": ["x", "y"]}, "line 2: gold = None is no index"),
        ({"context": "a", "options": ["x", "y"], "gold": "1"}, "line 2: gold = '1' is no index"),
    ],
)
def test_an_item_that_cannot_be_used_is_told_with_its_line(tmp_path: Path, row: object, message: str) -> None:
    path = write(tmp_path / "t.jsonl", questions(1)[0], row)
    with pytest.raises(InputError) as caught:
        read_items(str(path))
    assert message in caught.value.message
    assert "t.jsonl" in caught.value.message


def test_no_items_left_after_the_split_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "t.jsonl", *questions(3))
    monkeypatch.setattr(task_items, "SEARCH_SHARE", 1.0)
    with pytest.raises(InputError, match="none is left for the report part"):
        check_tasks(TasksSettings(paths=(str(tmp_path / "t.jsonl"),)))
    (tmp_path / "t.jsonl").write_text("")
    with pytest.raises(InputError, match="has 0 items"):
        check_tasks(TasksSettings(paths=(str(tmp_path / "t.jsonl"),)))


def test_settings_that_name_no_task_are_told_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "sciq.jsonl", *questions(10))
    for settings in ({"weights": {"siq": 1.0}}, {"report_only": ("siq",)}):
        with pytest.raises(ConfigError, match="did you mean 'sciq'"):
            task_files(TasksSettings(paths=(str(tmp_path),), **settings))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="every task is report_only"):
        task_files(TasksSettings(paths=(str(tmp_path),), report_only=("sciq",)))
    with pytest.raises(InputError, match="no task file matches"):
        task_files(TasksSettings(paths=(str(tmp_path / "none*.jsonl"),)))
    with pytest.raises(ConfigError, match="tasks.paths is empty"):
        task_files(TasksSettings())
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "sciq.jsonl", *questions(10))
    with pytest.raises(InputError, match="two task files are named 'sciq'"):
        task_files(TasksSettings(paths=(str(tmp_path), str(tmp_path / "other"))))


def test_a_task_named_as_the_held_out_text_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "heldout.jsonl", *questions(10))
    with pytest.raises(InputError, match="a task is named 'heldout'") as caught:
        task_files(TasksSettings(paths=(str(tmp_path),)))
    assert caught.value.fix.startswith("rename its file heldout.jsonl")
    path.rename(tmp_path / "held.jsonl")
    assert list(task_files(TasksSettings(paths=(str(tmp_path),)))) == ["held"]


def test_packed_tasks_hold_both_parts_and_the_fingerprint_follows_the_content(tmp_path: Path, tokenizer: Path) -> None:
    path = write(tmp_path / "t.jsonl", *questions(50))
    settings = TasksSettings(paths=(str(path),))
    before = task_fingerprint(settings)
    facts = pack_tasks(settings, tokenizer, tmp_path / "out", Progress())
    assert facts["t"] == {part: size.items for part, size in check_tasks(settings)["t"].items()}
    with np.load(tmp_path / "out" / "t.npz", allow_pickle=False) as stored:
        assert len(stored["search/gold"]) == facts["t"]["search"]
    write(path, *questions(51))
    assert task_fingerprint(settings) != before
