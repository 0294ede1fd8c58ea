"""The search loop: which of its ways a setting chooses."""

from pathlib import Path

import numpy as np
import pytest

import openclimb
from openclimb import seeds
from openclimb.baselines.baseline import answer_of
from openclimb.cli.main import main
from openclimb.corpus.custom_domains import custom_domains
from openclimb.search.acquisition.spec import spec_of
from openclimb.workspace.observations import observed
from openclimb.workspace.records import Workspace
from openclimb.workspace.tables import write_csv
from openclimb.workspace.trials import Trial


def score(trial: Trial, folder: Path) -> dict[str, float]:
    """Two tasks that like different domains; a trial's seed shifts both a little."""
    likes = np.array([[1.0, 0.5, 0.2], [0.2, 0.9, 0.4]])
    first, second = likes @ np.sqrt(np.array(trial.weights)) + 1e-3 * np.random.default_rng(trial.seed).random()
    return {"first": float(first), "second": float(second)}


@pytest.mark.parametrize("answer", ["tested", "argmax"])
def test_the_answer_is_tested_or_the_best_predicted_of_the_recipes_draws(tmp_path: Path, answer: str) -> None:
    write_csv(tmp_path / "domains.csv", ["name", "tokens"], [["web", 800], ["code", 500], ["books", 200]])
    settings = [
        f"objective.kind={__name__}:score",
        "search.trials=[8, 4]",
        "selection.finalists=2",
        "selection.seeds=2",
    ]
    sets = [word for one in (*settings, f"search.answer={answer}") for word in ("--set", one)]
    root = tmp_path / "run"
    given = ["--domains-file", str(tmp_path / "domains.csv"), "--target-tokens", "1000", "--scale", "demo"]
    assert main(["init", str(root), *given, *sets]) == 0
    assert main(["run", str(root), "--quiet"]) == 0
    found, config = openclimb.open(root).mixture(), Workspace(root).config()
    searched = [trial for trial in openclimb.open(root).trials() if trial.role == "search"]
    spec = spec_of(config, custom_domains(root, config))
    argmax = answer_of("recipe", spec, observed(searched), seeds.stream(config.seed, "answer"))
    weights = [row.weight for row in found.domains]
    assert {"natural", "uniform"} <= {row.name for row in found.mixtures}
    if answer == "argmax":
        assert found.choice == "finalist-1"
        assert not found.rounds
        np.testing.assert_allclose(weights, argmax, atol=1e-9)
    else:
        assert found.rounds
        assert np.abs(np.array(weights) - argmax).max() > 1e-4
