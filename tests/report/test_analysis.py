"""Mixture analysis: mean weights by iteration, and domains beside the tasks that they are like."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import openclimb
from openclimb.report.analysis import similarity_table, weights_by_iteration
from openclimb.report.facts import read_facts
from openclimb.stats.compare import rank_correlation


def test_weights_are_the_means_of_each_iterations_mixtures(finished: Path) -> None:
    found = weights_by_iteration(read_facts(finished))
    assert found is not None
    assert list(found.columns) == ["natural", "iteration 1", "iteration 2", "iteration 3", "found"]
    trials = [trial for trial in openclimb.open(finished).trials() if (trial.role, trial.iteration) == ("search", 1)]
    expected = np.mean([[trial.mixture.as_dict()[name] for name in found.domains] for trial in trials], axis=0)
    assert found.columns["iteration 2"] == pytest.approx(expected.tolist())
    assert all(sum(column) == pytest.approx(1.0, abs=1e-4) for column in found.columns.values())
    assert found.columns["found"] == sorted(found.columns["found"])


def test_without_trials_of_a_search_there_are_no_iterations(finished: Path) -> None:
    facts = read_facts(finished)
    by_hand = [replace(trial, role="external") for trial in facts.trials]
    assert weights_by_iteration(replace(facts, trials=by_hand)) is None
    assert weights_by_iteration(replace(facts, trials=[])) is None


def test_custom_domains_have_their_natural_weights_from_the_answer(finished: Path) -> None:
    facts = replace(read_facts(finished), domains=[])
    found, answer = weights_by_iteration(facts), facts.answer
    assert found is not None
    assert answer is not None
    assert dict(zip(found.domains, found.columns["natural"], strict=True)) == {
        row.name: row.natural for row in answer.domains
    }
    bare = weights_by_iteration(replace(facts, answer=None))
    assert bare is not None
    assert list(bare.columns) == ["iteration 1", "iteration 2", "iteration 3"]


def test_similarity_stands_beside_weight_and_worth(finished: Path) -> None:
    facts = read_facts(finished)
    table, answer = similarity_table(facts), facts.answer
    assert answer is not None
    assert table["tasks"] == ["speech", "stories"]
    assert [row["weight"] for row in table["rows"]] == sorted((row.weight for row in answer.domains), reverse=True)
    for i in range(2):
        assert sum(row["nearest"][i] for row in table["rows"]) == 1
        best = max(table["rows"], key=lambda row: row["cosines"][i])
        assert best["nearest"][i]
    expected = rank_correlation(
        {row["name"]: row["cosines"][0] for row in table["rows"]},
        {row.name: row.weight / row.natural for row in answer.domains},
    )
    assert table["correlations"]["rank correlation with weight ÷ natural"][0] == expected


def test_before_the_answer_there_is_similarity_alone(finished: Path) -> None:
    table = similarity_table(replace(read_facts(finished), answer=None))
    assert table["correlations"] == {}
    assert all(row["weight"] is None for row in table["rows"])


def test_a_workspace_of_before_has_no_table(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    (root / "tokens" / "similarity.csv").unlink()
    assert similarity_table(read_facts(root)) == {}
