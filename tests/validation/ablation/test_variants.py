"""The variants of an ablation: their settings, and what they share with the base."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from openclimb.config.load import with_changes
from openclimb.config.scales import preset
from openclimb.errors import ConfigError, StaleError
from openclimb.validation.ablation.variants import make_variant, result_of, stages_to_make, variants_of
from openclimb.workspace.records import Workspace

HERE = Path()
BEFORE_SEARCH = {"corpus", "clusters", "labels", "contamination", "domains", "tokens"}


def test_each_value_is_a_variant_and_the_workspaces_own_is_not() -> None:
    config = preset("demo")
    over = {
        "search.trials": [[16], [8, 5, 3], [8, 8]],
        "clusters.k": [12, 24],
        "init": ["design", "dirichlet", "random"],
        "seed": [0, 7],
    }
    found = variants_of(config, over, HERE)
    assert [one.title for one in found] == [
        "search.trials = [16]",
        "search.trials = [8, 8]",
        "clusters.k = 12",
        "init = dirichlet",
        "init = random",
        "seed = 7",
    ]
    assert [one.name for one in found] == [
        "search.trials-16",
        "search.trials-8-8",
        "clusters.k-12",
        "init-dirichlet",
        "init-random",
        "seed-7",
    ]
    assert [one.config.search.proposer for one in found[3:5]] == ["climb-dirichlet", "climb-random"]


def test_a_proxys_size_leaves_the_tokenizer_and_a_width_brings_its_rate() -> None:
    config = preset("demo")
    size, width = variants_of(config, {"proxy.size": ["5M"], "proxy.width": [128]}, HERE)
    assert (size.config.proxy.width, size.config.tokens) == (256, config.tokens)
    assert width.config.proxy.learning_rate == pytest.approx(config.proxy.learning_rate / 2**1.5, rel=2e-3)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"search.trails": [[4]]}, r"no setting 'search.trails' \(did you mean 'search.trials'"),
        ({"search.trials": [16]}, "search.trials = 16 has the wrong type"),
        ({"clusters.k": [24]}, "clusters.k has no value that differs"),
        ({"run.workers": [1, 2]}, "changes a result"),
        ({"clusters.k": [12, 12]}, "clusters.k = 12 is named twice"),
        ({"init": ["randam"]}, "did you mean 'random'"),
        ({"seed": [-1]}, "seed = -1 is no seed"),
        ({}, "nothing has no value"),
    ],
)
def test_what_cannot_be_compared_is_told(over: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        variants_of(preset("demo"), over, HERE)


def test_the_first_design_of_another_search_cannot_be_chosen() -> None:
    other = with_changes(preset("demo"), {"search": {"proposer": "best-of-n"}})
    with pytest.raises(ConfigError, match="search.proposer is 'best-of-n'"):
        variants_of(other, {"init": ["random"]}, HERE)


def test_a_commands_files_are_found_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    config = with_changes(preset("demo"), {"objective": {"command": ["python", "train.py", "-v"]}})
    (one,) = variants_of(config, {"search.trials": [[4]]}, tmp_path)
    assert one.config.objective.command == ("python", str((tmp_path / "train.py").resolve()), "-v")


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_stages_that_do_not_change_are_shared(finished: Path, tmp_path: Path) -> None:
    base = Workspace(shutil.copytree(finished, tmp_path / "run"))
    config = base.config()
    over = {"search.trials": [[5]], "clusters.k": [6], "proxy.token_budget": [16_384], "proxy.size": ["0.5M"]}
    trials, clusters, budget, size = variants_of(config, over, base.root)
    assert stages_to_make(base, trials) == {"mixture"}
    assert stages_to_make(base, clusters) == {*BEFORE_SEARCH, "mixture"} - {"corpus"}
    assert stages_to_make(base, budget) == {"domains", "tokens", "mixture"}

    there = make_variant(base, config, trials, [], False)
    assert result_of(there.config()) == result_of(trials.config)
    for name in ("tokens/record.json", "tokens/tokenizer.json", "clusters/centroids.npy", "domains/domains.csv"):
        assert inode(there.root / name) == inode(base.root / name), name
    assert not (there.root / "mixture").exists()
    assert not (there.root / "trials").exists()

    first = make_variant(base, config, size, [], False)  # 128 tokens a sequence: other domains and tokens
    assert {path.name for path in first.root.iterdir() if path.is_dir()} == BEFORE_SEARCH - {"domains", "tokens"}
    there = make_variant(base, config, clusters, [trials, size], False)
    assert {path.name for path in there.root.iterdir() if path.is_dir()} == {"corpus"}


def test_a_variant_of_other_settings_is_told_and_moved_aside(finished: Path, tmp_path: Path) -> None:
    base = Workspace(shutil.copytree(finished, tmp_path / "run"))
    config = base.config()
    (variant,) = variants_of(config, {"search.trials": [[5]]}, base.root)
    there = make_variant(base, config, variant, [], False)
    elsewhere = with_changes(config, {"run": {"device": "cpu"}})
    (moved,) = variants_of(elsewhere, {"search.trials": [[5]]}, base.root)
    assert make_variant(base, elsewhere, moved, [], False).config().run.device == "cpu"  # changes no result
    other = with_changes(config, {"selection": {"seeds": 3}})
    (changed,) = variants_of(other, {"search.trials": [[5]]}, base.root)
    with pytest.raises(StaleError, match="search.trials-5 is of other settings"):
        make_variant(base, other, changed, [], False)
    assert make_variant(base, other, changed, [], True).config().selection.seeds == 3
    assert (there.root.with_name(f"{there.root.name}.old-1") / "climb.toml").is_file()
