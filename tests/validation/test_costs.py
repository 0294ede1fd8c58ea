"""What an ablation or a scaling run takes, before it begins."""

from pathlib import Path

import pytest

from openclimb.validation.ablation.ablate import Ablation, cost
from openclimb.validation.ablation.variants import variants_of
from openclimb.validation.compare import target_of
from openclimb.validation.costs import Cost, Costs
from openclimb.workspace.records import Workspace


def test_more_trials_and_tokens_take_longer_and_shared_stages_nothing(finished: Path) -> None:
    config = Workspace(finished).config()
    costs = Costs(finished, config)
    few, many, longer = (
        costs.of_targets(target_of(config, given), n)
        for given, n in (({}, 3), ({}, 300), ({"token_budget": 100_000}, 300))
    )
    assert (few.trials, many.trials) == (3, 300)
    assert few.hours < many.hours < longer.hours
    assert costs.of_run(config, ()) == Cost()
    search = costs.of_run(config, {"mixture"})
    assert search.trials >= 8
    assert 0 < search.hours < costs.of_run(config, {"mixture", "labels", "clusters"}).hours
    assert few + many == Cost(303, pytest.approx(few.hours + many.hours))


def test_a_variant_costs_what_it_does_not_share(finished: Path) -> None:
    workspace = Workspace(finished)
    config = workspace.config()
    plan = Ablation({"search.trials": [[40]], "clusters.k": [6]}, config, 4)
    trials, clusters = (one.title for one in variants_of(config, plan.over, finished))
    found = cost(workspace, plan)
    assert found[trials].trials == found[clusters].trials + 40 - 8
    assert found["judge"].trials == 4 * 5
    assert found[clusters].hours > Costs(finished, config).of_run(config, {"mixture"}).hours
