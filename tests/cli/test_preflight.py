"""`climb plan` finds what a run would stop on after minutes, all at once, each with its fix."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from openclimb.cli.main import main
from openclimb.testing.fixtures import complaint, make_tiny_workspace


@pytest.fixture
def planned(tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that plans a tiny workspace with changed settings and returns its complaint, or "" for none."""

    def plan(corpus: Path = tiny_corpus, /, **changes: dict[str, object]) -> str:
        root = make_tiny_workspace(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", corpus, tiny_tasks, **changes)
        if main(["plan", str(root)]) == 0:
            return ""
        return complaint(capsys.readouterr().err)

    return plan


@pytest.mark.parametrize(
    ("section", "settings", "message", "fix"),
    [
        (
            "embed",
            {"embedder": "model2vec", "model": "no/such/folder"},
            "there is no folder 'no/such/folder'",
            "hashing",
        ),
        ("embed", {"embedder": "no_such_module:f"}, "there is no module no_such_module", "PYTHONPATH=FOLDER"),
        ("embed", {"embedder": "json:dump"}, "", ""),
        ("embed", {"embedder": "json:dmup"}, "json has no 'dmup' (did you mean 'dump'?)", "package.module:function"),
        ("embed", {"embedder": "string:digits"}, "is not a function", "package.module:function"),
        (
            "quality",
            {"scorers": ["faulty:score"]},
            "importing faulty raises ZeroDivisionError",
            "python -c 'import faulty'",
        ),
        ("quality", {"scorers": ["fasttext"]}, "names no model", "fasttext = {"),
        ("quality", {"scorers": ["students"]}, "has students, and there are none in", "climb train-quality"),
        ("quality", {"scorers": ["transformers:no such model"]}, "there is no folder 'no such model'", "on the hub"),
        ("search", {"predictor": "needy:fit"}, "needy needs no_such_library", "install no_such_library"),
        ("search", {"proposer": "pareto"}, "a front has two goals, not 0", "two different goals"),
        ("tasks", {"weighting": "signal"}, "needs the noise of trials", "search.replicates"),
        ("objective", {"kind": "__main__:score"}, "__main__ has no 'score'", "a file of its own"),
        ("objective", {"command": ["no-such-trainer"]}, "there is no program 'no-such-trainer'", "whole path"),
        ("objective", {"command": ["./train.sh"]}, "there is no program './train.sh'", "whole path"),
        ("objective", {"kind": "command"}, "objective.command is empty", "command"),
        ("proxy", {"width": 33, "heads": 2}, "must be an even multiple of proxy.heads = 2", "set proxy.width to 32"),
        ("tokens", {"tokenizer": "none.json"}, "there is no file none.json", "tokenizer.json"),
    ],
)
def test_a_plan_finds_what_a_run_would_stop_on(
    section: str,
    settings: dict[str, object],
    message: str,
    fix: str,
    planned: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "faulty.py").write_text("1 / 0\n")
    (tmp_path / "needy.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = planned(**{section: settings})
    assert message in said
    assert fix in said
    assert bool(said) == bool(message)


def test_a_gpu_that_is_not_there_is_found(planned: Any) -> None:
    if torch.cuda.is_available():
        assert planned(run={"device": "cuda"}) == ""
    else:
        assert "a CUDA device is not installed\nfix: set device = 'cpu' or 'auto'" in planned(run={"device": "cuda"})


@pytest.mark.parametrize("name", ["array.jsonl", "array.jsonl.gz"])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_named_jsonl_is_found(name: str, indent: int | None, planned: Any, tmp_path: Path) -> None:
    data = json.dumps([{"text": "a b c"}, {"text": "d e f"}], indent=indent).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    said = planned(tmp_path / name)
    assert f"{name} is one JSON array, not JSON lines" in said
    assert "jq -c '.[]'" in said


def test_all_faults_are_told_at_once_each_with_its_fix(planned: Any, tmp_path: Path, tiny_tasks: Path) -> None:
    for name, text in (("one", '{"text": "a"}\n'), ("none", ""), ("broken", "{\n")):
        (tmp_path / f"{name}.jsonl").write_text(text)
    said = planned(
        tmp_path / "nothing-*.jsonl",
        tasks={"paths": [str(tiny_tasks), *(str(tmp_path / f"{name}.jsonl") for name in ("one", "none", "broken"))]},
        search={"predictor": "gq:x"},
        objective={"kind": "proxy", "command": []},
        proxy={"heads": 3},
    )
    assert said.startswith("error: 6 things would stop the run:\n  1. no file matches")
    for message in (
        "task 'one' has 1 items, and none is left for the",
        "task 'none' has 0 items",
        "broken.jsonl, line 1: not a JSON line",
        "there is no module gq",
        "proxy.width = 32 must be an even multiple of proxy.heads = 3",
    ):
        assert message in said
    assert said.count("     fix: ") == 6


def test_what_is_done_is_not_asked_for_again(finished: Path, tmp_path: Path) -> None:
    """Labels made where the embedder was installed are used where it is not."""
    from openclimb.cli.preflight import preflight
    from openclimb.config.load import with_changes
    from openclimb.errors import ConfigError
    from openclimb.workspace.records import Workspace

    config = with_changes(Workspace(finished).config(), {"embed": {"embedder": "gone:f"}})
    assert preflight(finished, config, frozenset({"labels"}))[0]["files"] == 1
    with pytest.raises(ConfigError, match="there is no module gone"):
        preflight(finished, config, frozenset())


def test_near_duplicates_need_rensa(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(corpus={"dedup": "near"}) == ""
    monkeypatch.setattr("openclimb.cli.preflight.find_spec", lambda name: None)
    assert "openclimb[dedup]" in planned(corpus={"dedup": "near"})
