"""The bench of evidence: a workspace of another goal trains nothing again that the goal does not change."""

import shutil
from pathlib import Path

import pytest

import openclimb
from _evidence_tables import BEGIN, END, embed
from evidence import inherit
from openclimb.testing.fixtures import make_tiny_workspace
from openclimb.workspace.trials import Trial, read_trials


def scores(root: Path, trials: list[Trial]) -> dict[str, bytes]:
    """Return what was told of trials, by identity: a trial that was trained again has other seconds."""
    return {trial.identity: (root / f"{trial.number:04d}" / "scores.json").read_bytes() for trial in trials}


@pytest.mark.slow
def test_trials_that_no_goal_changes_are_trained_once(
    finished: Path, tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path
) -> None:
    first = shutil.copytree(finished, tmp_path / "first")
    openclimb.open(first).validate(["natural", "best-of-n"], 2)
    second = tmp_path / "second"
    inherit(first, second)
    make_tiny_workspace(second, tiny_corpus, tiny_tasks, tasks={"weights": {"stories": 0.0, "speech": 1.0}})
    inherited = read_trials(second / "trials")
    assert {trial.role for trial in inherited} == {"search", "natural", "uniform"}
    before = scores(second / "trials", inherited)
    answer = openclimb.open(second).run()
    assert answer.objective.tasks == {"speech": 1.0, "stories": 0.0}
    now = scores(second / "trials", read_trials(second / "trials"))
    assert before.items() < now.items()
    table = openclimb.open(second).validate(["natural", "best-of-n"], 2)
    settings = openclimb.open(second).config
    searched = [trial for trial in read_trials(second / "trials") if trial.role == "search"]
    assert len(searched) == sum(settings.search.trials)  # what our search cost is counted right
    ours, natural, random = table.rows
    assert random.search_trials == ours.search_trials
    folder = Path("validation") / "trials"
    old, new = (scores(root / folder, read_trials(root / folder)) for root in (first, second))
    assert old.items() <= new.items()
    # Only the found mixture and the best of the random ones may be others.
    assert len(new) - len(old) <= 2 * table.seeds
    assert natural.by_seed


def test_tables_go_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    embed("new\n", page)
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(ValueError, match="lacks"):
        embed("new\n", page)
