"""Tasks of lm-evaluation-harness, from local YAML files; without the extra `eval`, only that its absence is told."""

import importlib.util
import json
from pathlib import Path

import pytest

from openclimb.cli.main import main
from openclimb.errors import ConfigError, InputError, MissingDependency
from openclimb.tasks.items import read_items
from openclimb.tasks.lm_eval import convert_harness

HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not HAS_HARNESS, reason="needs the extra eval")
YAML = """task: local
dataset_path: json
dataset_kwargs:
  data_files: {data}
output_type: {kind}
test_split: train
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
{more}
"""
CHOICE = 'doc_to_choice: "{{choices}}"\ndoc_to_target: gold\n'
ROWS = [
    {"question": "Two and two?", "choices": ["three", "four"], "gold": 1},
    {"question": "Up?", "choices": ["sky", "earth", "sea"], "gold": 0},
]


def task_yaml(folder: Path, kind: str = "multiple_choice", more: str = CHOICE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "local.yaml").write_text(YAML.format(data=folder / "data.json", kind=kind, more=more))
    return folder / "local.yaml"


@pytest.mark.skipif(HAS_HARNESS, reason="the harness is here")
def test_without_the_extra_the_line_that_installs_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MissingDependency, match="lm_eval is not installed"):
        convert_harness(["arc_easy"], tmp_path)
    assert main(["tasks", "lm-eval:arc_easy", str(tmp_path)]) == 1
    assert "openclimb[eval]" in capsys.readouterr().err


@needs_harness
def test_a_choice_task_becomes_items_as_the_harness_asks_them(tmp_path: Path) -> None:
    assert main(["tasks", f"lm-eval:{task_yaml(tmp_path)}", str(tmp_path / "out")]) == 0
    lines = (tmp_path / "out" / "local.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"context": "Question: Two and two?\nAnswer:", "options": [" three", " four"], "gold": 1},
        {"context": "Question: Up?\nAnswer:", "options": [" sky", " earth", " sea"], "gold": 0},
    ]
    assert len(read_items(str(tmp_path / "out" / "local.jsonl"))) == 2


@needs_harness
def test_a_continuation_and_a_text_become_items_without_options(tmp_path: Path) -> None:
    target = 'doc_to_choice: "{{choices}}"\ndoc_to_target: " {{choices[gold]}}"\n'
    for kind in ("loglikelihood", "loglikelihood_rolling"):
        convert_harness([str(task_yaml(tmp_path / kind, kind, target))], tmp_path / kind)
    first = json.loads((tmp_path / "loglikelihood" / "local.jsonl").read_text().splitlines()[0])
    assert first == {"context": "Question: Two and two?\nAnswer:", "options": [" four"], "gold": 0}
    text = json.loads((tmp_path / "loglikelihood_rolling" / "local.jsonl").read_text().splitlines()[0])
    assert text == {"text": " four"}


@needs_harness
def test_what_cannot_be_scored_or_loaded_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'arc_easy'"):
        convert_harness(["arc_esy"], tmp_path)
    generating = task_yaml(tmp_path / "a", "generate_until", 'doc_to_target: "{{choices[gold]}}"\n')
    with pytest.raises(InputError, match="generate_until, which is not scored"):
        convert_harness([str(generating)], tmp_path)
    several = task_yaml(tmp_path / "b", more='doc_to_choice: "{{choices}}"\ndoc_to_target: "[0, 1]"\n')
    with pytest.raises(InputError, match="whose right option is"):
        convert_harness([str(several)], tmp_path)
    broken = task_yaml(tmp_path / "c")
    (tmp_path / "c" / "data.json").unlink()
    with pytest.raises(InputError, match="cannot load"):
        convert_harness([str(broken)], tmp_path)
    named = task_yaml(tmp_path / "d")
    named.write_text(named.read_text().replace("task: local", "task: heldout"))
    with pytest.raises(InputError, match="a task is named 'heldout'"):
        convert_harness([str(named)], tmp_path)
