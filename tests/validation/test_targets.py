"""Targets: which tokens they read, packed only where something is to be trained, and the same items in any of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from openclimb.engines.local import LocalEngine
from openclimb.errors import ConfigError
from openclimb.objectives.run import read_items
from openclimb.progress import Progress
from openclimb.recipes import current_recipes, trial_data
from openclimb.validation.compare import check_shape, target_of
from openclimb.validation.judge import Mixture
from openclimb.validation.targets import Targets
from openclimb.workspace.records import Workspace


def targets(root: Path, out: Path, *, exact: bool = False) -> Targets:
    config = Workspace(root).config()
    data = trial_data(current_recipes(Workspace(root), config))
    return Targets(root, config, data, out, LocalEngine(1), Progress(), exact=exact)


def test_a_longer_target_reads_more_and_a_shorter_one_only_where_it_is_asked_for(
    finished: Path, tmp_path: Path
) -> None:
    mine, exact = targets(finished, tmp_path), targets(finished, tmp_path, exact=True)
    longer, shorter, deeper = (
        target_of(mine.config, given) for given in ({"token_budget": 9000}, {"token_budget": 4096}, {"depth": 2})
    )
    assert mine.data_of(longer) == exact.data_of(longer) != mine.data
    assert mine.data_of(shorter) == mine.data != exact.data_of(shorter)
    assert mine.data_of(deeper) == exact.data_of(deeper) == mine.data


def test_tokens_are_packed_for_what_is_to_be_trained_and_the_items_are_the_same(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    mine = targets(root, tmp_path / "out")
    mixture = Mixture("even", (0.25,) * 4)
    longer = target_of(mine.config, {"token_budget": 9000})
    found = mine.with_seeds(longer, [mixture], [5], "test", "targets")["even"]
    own = mine.with_seeds(mine.config, [mixture], [5], "test", "proxies")["even"]
    items = read_items(tmp_path / "out" / "trials", [*found, *own])
    first, second = (items[trial.number] for trial in (*found, *own))
    assert {name: len(values) for name, values in first.items()} == {name: len(v) for name, v in second.items()}
    assert (tmp_path / "out" / f"tokens-{mine.data_of(longer)}").is_dir()
    mine.clear()
    assert mine.with_seeds(longer, [mixture], [5], "test", "targets")["even"] == found
    assert not list((tmp_path / "out").glob("tokens-*"))


def test_a_shape_that_cannot_be_is_told(finished: Path) -> None:
    config = Workspace(finished).config()
    with pytest.raises(ConfigError, match="an even multiple"):
        check_shape(replace(config, proxy=replace(config.proxy, width=50, heads=4)))
