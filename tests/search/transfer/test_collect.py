"""`climb init NEW --from OLD`: a new search over changed domains starts from what the old one learnt."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.cli.text import front_text
from openclimb.errors import DomainError, SearchError, StaleError
from openclimb.search.transfer.carry import GONE, TransferSpace
from openclimb.search.transfer.store import domain_map, read_source, search_space, transfer_facts
from openclimb.testing.fixtures import complaint, make_tiny_workspace
from openclimb.workspace.files import read_json
from openclimb.workspace.tables import write_csv

SIZES = {"web": 600, "code": 300, "books": 100}
LIKES = {"web": 0.2, "code": 0.9, "books": 0.6, "math": 1.0}


def make_given(root: Path, sizes: dict[str, int]) -> Path:
    write_csv(root.with_suffix(".csv"), ["name", "tokens"], [[name, n] for name, n in sizes.items()])
    return root.with_suffix(".csv")


def score(mixture: dict[str, float], level: float = 0.0) -> dict[str, float]:
    return {
        task: level + sum(LIKES[name] * w**p for name, w in mixture.items()) for task, p in (("a", 0.5), ("b", 0.7))
    }


def ask_and_tell(root: Path, n: int, level: float = 0.0) -> list[dict[str, float]]:
    opened = openclimb.open(root)
    trials = opened.ask(n)
    for trial in trials:
        opened.tell(trial.number, score(trial.mixture.as_dict(), level))
    return [trial.mixture.as_dict() for trial in trials]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A workspace of hand-given domains with twelve completed trials."""
    root = tmp_path / "old"
    table = make_given(root, SIZES)
    assert main(["init", str(root), "--domains-file", str(table), "--target-tokens", "400"]) == 0
    ask_and_tell(root, 12)
    return root


@pytest.mark.slow
def test_a_file_of_a_new_kind_is_added_and_the_old_workspace_may_vanish(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tiny_corpus.read_text().splitlines()
    parts: dict[str, list[str]] = {"first": [], "more": []}
    for line in lines:
        parts["more" if json.loads(line)["domain"] == "novel" else "first"].append(line)
    for name, part in parts.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    old = make_tiny_workspace(
        tmp_path / "old", tmp_path / "first.jsonl", tiny_tasks, corpus={"domains": "column:domain"}
    )
    openclimb.open(old).run()
    new = tmp_path / "new"
    assert main(["init", str(new), "--from", str(old), "--corpus", str(tmp_path / "more.jsonl")]) == 0
    n = len(openclimb.open(old).trials())
    assert f"{n} trials of old will inform the search" in capsys.readouterr().out
    shutil.rmtree(old)
    assert main(["plan", str(new)]) == 0
    assert "their domains are mapped when the new ones are made" in capsys.readouterr().out
    assert main(["run", str(new), "--quiet"]) == 0
    assert main(["status", str(new)]) == 0
    assert "5 untouched; added: novel" in capsys.readouterr().out
    answer = openclimb.open(new).mixture()
    assert answer.trials["transferred"] == n
    assert answer.trials["external"] == 0
    assert {row.name for row in answer.domains} == {json.loads(line)["domain"] for line in lines}
    assert "mapped by shared documents; 100% of their tokens are here" in answer.transfer
    trials = openclimb.open(new).trials()
    first = [trial for trial in trials if trial.role == "search" and trial.iteration == 0]
    assert any(trial.mixture.as_dict()["novel"] > 0.05 for trial in first)
    found = read_json(new / "iterations" / "00" / "diagnostics.json")
    assert found["transferred"] == n
    assert all(number > 0 for number in found["trials"])
    assert "old trials of old inform the search" in (new / "report" / "index.html").read_text()
    assert openclimb.open(new).best().transferred == n
    # a third one learns from both
    third = tmp_path / "third"
    assert main(["init", str(third), "--from", str(new), "--set", "search.trials=[2]"]) == 0
    source = read_source(third)
    assert source is not None
    assert {trial.source for trial in source.trials} == {"new", "old, before"}
    assert len(source.trials) == n + len(trials)
    path = new / "climb.toml"
    path.write_text(path.read_text().replace('transfer = "free"', 'transfer = "frozen"'))
    with pytest.raises(StaleError, match=r"search\.transfer"):
        openclimb.open(new).run()


@pytest.mark.slow
def test_clusters_are_mapped_by_the_documents_they_share(finished: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert main(["init", str(new), "--from", str(finished), "--set", "domains.merge_to=3"]) == 0
    opened = openclimb.open(new)
    opened.run()
    source = read_source(new)
    assert source is not None
    domains, _ = opened._hinge()
    made = domain_map(new, opened.config, domains, source)
    assert made.forward.sum(1) == pytest.approx(np.ones(len(source.names)))
    assert made.backward.sum(1) == pytest.approx(np.ones(3))
    assert transfer_facts(new)["map"]["by"] == "documents"


@pytest.mark.slow
def test_other_documents_are_mapped_by_centroids_only_with_the_same_pretrained_embedder(
    tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tiny_corpus.read_text().splitlines()
    for name, part in (("even", lines[::2]), ("odd", lines[1::2])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    (tmp_path / "letters.py").write_text(EMBEDDER)
    monkeypatch.syspath_prepend(str(tmp_path))
    for embedder in ("hashing", "letters:embed"):
        old, new = tmp_path / f"old-{embedder[:4]}", tmp_path / f"new-{embedder[:4]}"
        make_tiny_workspace(old, tmp_path / "even.jsonl", tiny_tasks, embed={"embedder": embedder})
        openclimb.open(old).run()
        odd = f'corpus.paths=["{tmp_path / "odd.jsonl"}"]'
        assert main(["init", str(new), "--from", str(old), "--set", odd]) == 0
        if embedder == "hashing":
            with pytest.raises(DomainError, match="centroids cannot stand in"):
                openclimb.open(new).run()
        else:
            openclimb.open(new).run()
            made = transfer_facts(new)["map"]
            assert made["by"] == "centroids"
            assert made["shared"] < 0.05
            assert openclimb.open(new).best().transferred > 0


EMBEDDER = '''
import numpy as np

def embed(texts):
    """Counts of letters, unit norm."""
    rows = np.array([[text.lower().count(letter) for letter in "etaoinshrdlucmfw(){};=0123"] for text in texts])
    rows = rows + 0.01
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")
'''


def test_domains_by_hand_that_stay_split_and_appear(given: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    table = make_given(new, {"web": 600, "python": 200, "rust": 100, "math": 100})
    write_csv(tmp_path / "map.csv", ["old", "new", "share"], [["code", "python", 0.6], ["code", "rust", 0.4]])
    LIKES.update(python=0.9, rust=0.5)
    goals = 'tasks.goals={x=["a"], y=["b"]}'
    arguments = ["--domains-file", str(table), "--map", str(tmp_path / "map.csv"), "--set", goals]
    assert main(["init", str(new), "--from", str(given), *arguments]) == 0
    shutil.rmtree(given)
    answer = openclimb.open(new).best()  # nothing is told yet
    assert answer.trials == 0
    assert answer.transferred == 12
    assert "gone: books; added: math" in answer.transfer
    assert len(answer.domains) == 4
    opened = openclimb.open(new)
    space = search_space(new, opened.config, opened._hinge()[0], {})
    assert isinstance(space, TransferSpace)
    assert space.spec.domains[-1].name == GONE + "books"
    assert [sum(trial.weights) for trial in space.old] == pytest.approx([1.0] * 12)
    first = ask_and_tell(new, 6, level=-3.0)
    assert any(row["math"] > 0.05 for row in first)  # no old trial can have explored it
    ask_and_tell(new, 4, level=-3.0)
    answer = opened.best()
    assert answer.trials == 10
    weight = {row.name: row.weight for row in answer.domains}
    assert weight["math"] > 0.1
    assert answer.expected < 0  # the level is that of the new trials
    found = opened.front(["x", "y"])
    assert (found["trials"], found["transferred"]) == (10, 12)
    assert all(set(point["weights"]) == set(weight) for point in found["points"])
    assert all(sum(point["weights"].values()) == pytest.approx(1.0) for point in found["points"])
    assert "by 10 trials and 12 old ones" in front_text(found)


def test_the_untouched_domains_can_move_as_one(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new"
    table = make_given(new, {**SIZES, "math": 100})
    arguments = ["--domains-file", str(table), "--set", "search.transfer=frozen", "--target-tokens", "500"]
    assert main(["init", str(new), "--from", str(given), *arguments]) == 0
    ratios = read_source(new)
    assert ratios is not None
    rows = ask_and_tell(new, 5)
    for row in rows:
        inside = np.array([row[name] for name in SIZES])
        assert inside == pytest.approx(inside.sum() * ratios.answer, abs=1e-9)
    answer = openclimb.open(new).best()
    weight = np.array([row.weight for row in answer.domains])
    assert weight[:3] == pytest.approx(weight[:3].sum() * ratios.answer, abs=1e-9)
    capsys.readouterr()
    assert main(["best", str(new)]) == 0
    assert "from 5 trials and 12 old ones" in capsys.readouterr().out
    assert main(["status", str(new)]) == 0
    assert "12 old trials of old inform the search; their domains are mapped by name; 3 untouched; added: math" in (
        capsys.readouterr().out
    )


def test_the_domains_of_old_stay_where_none_are_given(given: Path, tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "new"), "--from", str(given), "--target-tokens", "800"]) == 0
    assert len(openclimb.open(tmp_path / "new").ask(2)[0].domains) == 3


def test_another_kind_of_trainer_is_told(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["init", str(tmp_path / "new"), "--from", str(given), "--set", "objective.command=python train.py"]) == 0
    )
    said = capsys.readouterr().out
    assert "they were trained otherwise" in said
    assert "none then" in said
    assert "none now" in said


def test_what_init_from_cannot_do_is_told_and_makes_nothing(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    table = make_given(new, {"music": 100, "poems": 200})
    empty, strange = tmp_path / "empty", tmp_path / "strange"
    main(["init", str(empty), "--domains-file", str(table), "--target-tokens", "200"])
    shutil.copytree(given, strange)
    (strange / "climb.toml").write_text(
        (strange / "climb.toml").read_text().replace("file:domains.csv", f"file:../{table.name}")
    )
    corpus = tmp_path / "corpus"
    main(["init", str(corpus), "--corpus", "a.jsonl"])
    for arguments, message in (
        (["--from", str(tmp_path / "none")], "is not a workspace"),
        (["--from", str(empty)], "no trial with scores over its present domains"),
        (["--from", str(corpus)], "no trial with scores over its present domains"),
        (["--from", str(strange)], "has its domains outside of its folder"),
        (["--from", str(given), "--domains-file", str(table)], "none of the domains of old has a part in the new ones"),
        (["--from", str(given), "--set", "tasks.metric=accuracy"], "the scores in"),
        (["--from", str(given), "--scale", "demo"], "--scale presets"),
        (["--from", str(given), "--corpus", "a.jsonl", "--domains-file", str(table)], "either a corpus or a file"),
        (["--from", str(given), "--corpus", "a.jsonl", "--map", str(table)], "--map is for domains given by hand"),
        (["--from", str(given), "--map", str(tmp_path / "none.csv")], "is missing"),
        (["--from", str(given), "--set", "constraints.floor={web=0.7, code=0.7}"], "no mixture meets the constraints"),
        (["--domains-file", str(table), "--map", str(table)], "--map says how old domains stand to new ones"),
    ):
        capsys.readouterr()
        assert main(["init", str(new), *arguments]) == 1, arguments
        assert message in complaint(capsys.readouterr().err)
        assert not new.exists()
    assert main(["init", str(given), "--from", str(given)]) == 1
    assert "is a workspace already" in complaint(capsys.readouterr().err)


def test_other_proxies_are_told_and_other_tasks_stop_the_search(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    assert main(["init", str(new), "--from", str(finished), "--set", "proxy.width=16"]) == 0
    assert "note: they were trained otherwise (width: 32 then, 16 now)" in capsys.readouterr().out
    lines = [json.dumps({"text": f"Plain text, number {i}."}) + "\n" for i in range(40)]
    (tmp_path / "other.jsonl").write_text("".join(lines))
    path = new / "climb.toml"
    line = next(line for line in path.read_text().splitlines() if line.startswith("paths") and "tasks" in line)
    path.write_text(path.read_text().replace(line, f'paths = ["{tmp_path / "other.jsonl"}"]'))
    with pytest.raises(SearchError, match="have none of this search's tasks: other"):
        openclimb.open(new).run()
