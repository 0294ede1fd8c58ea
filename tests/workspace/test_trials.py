"""Trials on disk: one number for life, an identity, and only ever added."""

from pathlib import Path

import pytest

from openclimb.errors import SearchError
from openclimb.workspace.trials import (
    ATTEMPTS,
    Proposal,
    Trial,
    ask,
    claim,
    fail,
    fitting,
    open_trials,
    read_trial,
    read_trials,
    reopen,
    tell,
    trial_folder,
)

PROXY = {"width": 8, "token_budget": 1000}


def propose(*weights: float, seed: int = 0) -> Proposal:
    return Proposal("search", 0, weights, seed, "climb")


def test_asking_again_gives_the_same_trials(tmp_path: Path) -> None:
    first = ask(tmp_path, [propose(0.5, 0.5), propose(1.0, 0.0)], ["a", "b"], PROXY, "data")
    again = ask(tmp_path, [propose(1.0, 0.0), propose(0.2, 0.8)], ["a", "b"], PROXY, "data")
    assert [trial.number for trial in first] == [1, 2]
    assert [trial.number for trial in again] == [2, 3]
    assert [trial.number for trial in read_trials(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("seed", "proxy", "data"), [(1, PROXY, "data"), (0, {**PROXY, "width": 16}, "data"), (0, PROXY, "other")]
)
def test_another_seed_proxy_or_data_is_another_trial(
    tmp_path: Path, seed: int, proxy: dict[str, int], data: str
) -> None:
    ask(tmp_path, [propose(0.5, 0.5)], ["a", "b"], PROXY, "data")
    assert ask(tmp_path, [propose(0.5, 0.5, seed=seed)], ["a", "b"], proxy, data)[0].number == 2


def test_a_trial_goes_from_asked_to_told(tmp_path: Path) -> None:
    folder = trial_folder(tmp_path, ask(tmp_path, [propose(0.5, 0.5)], ["a", "b"], PROXY, "data")[0].number)
    assert read_trial(folder).state == "waiting"
    claim(folder)
    assert (folder / "claim.json").exists()
    tell(folder, {"scores": {"piqa": -1.5}})
    trial = read_trial(folder)
    assert (trial.state, trial.scores, trial.mixture.as_dict()) == ("done", {"piqa": -1.5}, {"a": 0.5, "b": 0.5})
    assert not (folder / "claim.json").exists()
    tell(folder, {"scores": {"piqa": -1.5}})  # the same again changes nothing
    with pytest.raises(SearchError, match="already"):
        tell(folder, {"scores": {"piqa": 0.0}})
    with pytest.raises(SearchError, match="already"):
        fail(folder, "late")
    assert read_trial(folder).scores == {"piqa": -1.5}


def test_a_failure_is_kept_and_retried_once(tmp_path: Path) -> None:
    folder = trial_folder(tmp_path, ask(tmp_path, [propose(0.5, 0.5)], ["a", "b"], PROXY, "data")[0].number)
    for attempt in range(ATTEMPTS):
        assert read_trial(folder).state == "waiting"
        fail(folder, f"loss is not a number, attempt {attempt}")
    trial = read_trial(folder)
    assert (trial.state, trial.failure) == ("failed", f"loss is not a number, attempt {ATTEMPTS - 1}")


def test_a_last_failure_is_not_retried_and_scores_may_still_come(tmp_path: Path) -> None:
    folder = trial_folder(tmp_path, ask(tmp_path, [propose(0.5, 0.5)], ["a", "b"], PROXY, "data")[0].number)
    fail(folder, "node lost", last=True)
    assert (read_trial(folder).state, read_trial(folder).failure) == ("failed", "node lost")
    tell(folder, {"scores": {"piqa": -1.5}})
    assert read_trial(folder).state == "done"


def failed_trials(folder: Path, n: int) -> list[Trial]:
    """Ask for n trials and let every attempt at them fail."""
    asked = ask(folder, [propose(1 - 0.1 * i, 0.1 * i) for i in range(n)], ["a", "b"], PROXY, "data")
    for trial in asked * ATTEMPTS:
        fail(trial_folder(folder, trial.number), "disk full")
    return asked


def states(folder: Path) -> list[str]:
    return [trial.state for trial in read_trials(folder)]


def test_trials_that_all_failed_may_be_tried_again(tmp_path: Path) -> None:
    asked = failed_trials(tmp_path, 3)
    fail(trial_folder(tmp_path, 3), "node lost", last=True)
    assert open_trials(tmp_path, asked) == [trial_folder(tmp_path, number) for number in (1, 2, 3)]
    assert states(tmp_path) == ["waiting", "waiting", "failed"]  # by hand stays by hand
    assert read_trial(trial_folder(tmp_path, 1)).failure == "disk full"
    fail(trial_folder(tmp_path, 1), "disk full")
    assert states(tmp_path) == ["waiting", "waiting", "failed"]  # two attempts in this run, too


def test_trials_that_the_search_went_on_without_stay_failed_until_asked_for(tmp_path: Path) -> None:
    asked = failed_trials(tmp_path, 3)
    tell(trial_folder(tmp_path, 2), {"scores": {"piqa": -1.5}})
    fail(trial_folder(tmp_path, 3), "node lost", last=True)
    open_trials(tmp_path, asked)
    assert states(tmp_path) == ["failed", "done", "failed"]
    assert reopen(tmp_path, read_trials(tmp_path)) == [1]
    assert states(tmp_path) == ["waiting", "done", "failed"]


def test_only_trials_of_the_present_settings_fit(tmp_path: Path) -> None:
    failed_trials(tmp_path, 2)
    ask(tmp_path, [propose(0.5, 0.5)], ["a", "b"], {**PROXY, "width": 16}, "data")
    assert [trial.number for trial in fitting(tmp_path, PROXY, "data")] == [1, 2]
    assert fitting(tmp_path, PROXY, "other") == []


def test_only_trials_of_these_data_are_read(tmp_path: Path) -> None:
    ask(tmp_path, [propose(0.5, 0.5)], ["a", "b"], PROXY, "old")
    ask(tmp_path, [propose(0.5, 0.5)], ["a", "b"], PROXY, "new")
    assert [trial.data for trial in read_trials(tmp_path, "new")] == ["new"]
    assert read_trials(tmp_path / "none") == []
