"""`climb train-quality` from end to end: students that are kept and refused, and the label pass that they score in."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.clustering.embed import load_embedder
from openclimb.clustering.fit import fit
from openclimb.clustering.label import label
from openclimb.config.schema import QualitySettings
from openclimb.corpus.labels import read_labels
from openclimb.corpus.reading.units import read_units, survey
from openclimb.engines.local import LocalEngine
from openclimb.errors import InputError, WorkspaceError
from openclimb.progress import Progress
from openclimb.quality.scorers import Place, load_scorers
from openclimb.quality.training import train as training
from openclimb.recipes import current_recipes
from openclimb.testing.fixtures import complaint, make_tiny_workspace
from openclimb.workspace.context import StageContext
from openclimb.workspace.records import Workspace

SCALES = {"code": 1, "manual": 4, "names": 2}


class Notes(Progress):
    """Progress that remembers notes and labels."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.labels: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, label: str, total: int | None = None, unit: str = "") -> None:
        self.labels.append(label)


def write_labels(path: Path, texts: Sequence[tuple[str, str]], scales: Sequence[str]) -> Path:
    """Write labels that follow from the kind of text, of "noise" from nothing."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for kind, text in texts:
            known = {"edu": SCALES[kind] + int(rng.integers(0, 2)), "noise": int(rng.integers(0, 6))}
            file.write(json.dumps({"text": text, "scores": {name: known[name] for name in scales}}) + "\n")
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, tiny_tasks: Path) -> Path:
    """A workspace with clusters, as a run leaves it before the label pass."""
    root = make_tiny_workspace(tmp_path_factory.mktemp("students") / "run", corpus_file, tiny_tasks)
    workspace = Workspace(root)
    config = workspace.config()
    recipes = current_recipes(workspace, config)
    context = StageContext(root, LocalEngine(1), Progress(), config.seed)
    corpus = workspace.make(recipes["corpus"], context, survey, config.corpus, config.tokens.tokenizer)
    units = read_units(corpus, config.corpus, config.tokens.tokenizer)
    workspace.make(
        recipes["clusters"], context, fit, units, config.corpus, config.embed, config.clusters, config.tokens
    )
    return root


@pytest.fixture(scope="module")
def trained(root: Path, texts: list[tuple[str, str]]) -> tuple[dict[str, Any], Notes, Path]:
    """Students of both kinds and scales; what was told, and the labels."""
    path = root / "annotations" / "labels.jsonl"
    path.parent.mkdir()
    write_labels(path, texts, ("edu", "noise"))
    notes = Notes()
    return openclimb.open(root).train_quality(progress=notes), notes, path


Trained = tuple[dict[str, Any], Notes, Path]


def test_a_student_that_learns_is_kept_and_one_of_noise_is_refused(trained: Trained, root: Path) -> None:
    facts, notes, _ = trained
    edu, noise = facts["scales"]
    assert (edu["scale"], noise["scale"]) == ("edu", "noise")
    assert edu["chosen"] in ("head", "fasttext")
    assert noise["chosen"] == ""
    assert {one["kind"] for one in edu["students"]} == {"fasttext", "head"}
    for one in edu["students"]:
        assert one["rank_correlation_interval"][0] > 0.6
        assert one["absolute_error"] < 0.8 * one["constant_absolute_error"]
    refused = [note for note in notes.notes if note.startswith("refused: ")]
    assert sorted(note.split(": ")[1] for note in refused) == ["fasttext of noise", "head of noise"]
    assert all("no better than a constant" in note for note in refused)
    means = [row["label"] for row in edu["calibration"]]
    assert means[-1] - means[0] > 2
    assert sum(row["n"] for row in edu["by_cluster"]) > 200
    assert len(edu["misses"]) == 10
    report = (root / "students" / "report.md").read_text()
    assert "## edu" in report
    assert "- head is refused: no better than a constant" in report.partition("## noise")[2]
    assert not (root / "students" / "work").exists()


def test_one_line_in_the_settings_has_them_score(trained: Trained, root: Path, tmp_path: Path) -> None:
    workspace = Workspace(root)
    config = workspace.config()
    toml = workspace.config_path.read_text()
    before = current_recipes(workspace, config)["labels"].fingerprint
    workspace.config_path.write_text(toml.replace('scorers = ["heuristics"]', 'scorers = ["heuristics", "students"]'))
    try:
        config = workspace.config()
        recipe = current_recipes(workspace, config)["labels"]
        assert recipe.fingerprint != before
        assert main(["plan", str(root)]) == 0
        units = read_units(root / "corpus", config.corpus, config.tokens.tokenizer)
        context = StageContext(tmp_path, LocalEngine(1), Progress())
        facts = label(context, units, root / "clusters", config.corpus, config.embed, config.quality)
        assert facts["scores"] == ["heuristics", "edu"]
        rows = [row for _, table in read_labels(tmp_path) for row in table.to_pylist()]
        lines = Path(config.corpus.paths[0]).read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        vectors = load_embedder(config.embed, root / "clusters")(texts)
        scorer = load_scorers(config.quality, Place(root))[1]
        assert [row["edu"] for row in rows] == pytest.approx(scorer(texts, vectors)[:, 0].tolist(), abs=1e-4)
        # Other students make the labels stale.
        table = root / "students" / "models" / "students.json"
        kept = table.read_text()
        table.write_text(kept.replace("edu", "education"))
        assert current_recipes(workspace, config)["labels"].inputs != recipe.inputs
        table.write_text(kept)
        assert current_recipes(workspace, config)["labels"].inputs == recipe.inputs
    finally:
        workspace.config_path.write_text(toml)


def test_the_same_labels_are_not_trained_on_again_and_others_move_the_students_aside(
    trained: Trained, root: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    facts, _, _ = trained
    notes = Notes()
    assert openclimb.open(root).train_quality(progress=notes) == facts
    assert notes.notes == ["students: done before, reused"]
    other = write_labels(tmp_path / "other.jsonl", texts[:150], ["edu"])
    found = openclimb.open(root).train_quality(other, "head", notes)
    assert "students of other labels or settings are in students.old-1/ now" in notes.notes
    assert found["labels"] == 150
    assert [one["kind"] for one in found["scales"][0]["students"]] == ["head"]
    assert (root / "students.old-1" / "models" / "students.json").is_file()


def test_a_run_that_was_stopped_embeds_no_text_again(
    root: Path, texts: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "BLOCK", 64)
    path = write_labels(tmp_path / "more.jsonl", texts[:200], ["edu"])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_clusters", stop)
        with pytest.raises(KeyboardInterrupt):
            openclimb.open(root).train_quality(path, "head")
    work = root / "students.partial" / "work"
    times = {one.name: one.stat().st_mtime_ns for one in work.glob("vectors-*.npy")}
    assert len(times) == 4
    seen: list[dict[str, int]] = []
    original = training._clusters

    def look(blocks: list[Path]) -> Any:
        seen.append({one.name: one.stat().st_mtime_ns for one in blocks})
        return original(blocks)

    monkeypatch.setattr(training, "_clusters", look)
    openclimb.open(root).train_quality(path, "head")
    assert seen == [times]


def test_where_no_student_is_kept_the_error_names_the_scale_and_the_report(
    root: Path, texts: list[tuple[str, str]], tmp_path: Path
) -> None:
    path = write_labels(tmp_path / "noise.jsonl", texts, ["noise"])
    with pytest.raises(InputError, match="no student is better than a constant: noise") as caught:
        openclimb.open(root).train_quality(path, "head")
    assert "report.md" in caught.value.fix
    assert (root / "students.partial" / "report.md").is_file()


def test_a_fitted_embedder_is_needed_for_heads_alone(
    tmp_path: Path, corpus_file: Path, tiny_tasks: Path, texts: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openclimb.quality.training.fasttext.BUCKETS", 1000)
    fresh = make_tiny_workspace(tmp_path / "fresh", corpus_file, tiny_tasks)
    path = write_labels(tmp_path / "labels.jsonl", texts[:150], ["edu"])
    with pytest.raises(WorkspaceError, match="the embedder is not fitted yet") as caught:
        openclimb.open(fresh).train_quality(path)
    assert "--student fasttext" in caught.value.fix
    found = openclimb.open(fresh).train_quality(path, "fasttext")
    assert found["scales"][0]["chosen"] == "fasttext"
    assert found["scales"][0]["by_cluster"] == []
    (scorer,) = load_scorers(QualitySettings(("students",)), Place(fresh))
    code, manual = (np.mean(scorer([text for kind, text in texts if kind == which])) for which in ("code", "manual"))
    assert manual - code > 1


def test_the_command_prints_a_table_and_the_line_for_the_settings(
    root: Path, texts: list[tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_labels(tmp_path / "labels.jsonl", texts[:160], ["edu"])
    command = ["train-quality", str(root), "--labels", str(path), "--student", "head", "--quiet"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].split()[:4] == ["scale", "student", "rank", "correlation"]
    assert said.splitlines()[1].split()[:2] == ["edu", "head"]
    assert 'scorers = ["students"]' in said
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "students"
    assert main(["train-quality", str(root), "--labels", str(tmp_path / "none.jsonl")]) == 1
    assert "climb annotate" in complaint(capsys.readouterr().err)
