"""The answer is honest: right on average, silent about noise, and whole when trials fail."""

import dataclasses
import json

import numpy as np
import pytest
from trial_rows import make_domains, make_trial, smooth_trials

from openclimb.config import Config, PickSettings, TasksSettings
from openclimb.errors import SearchError
from openclimb.search.baselines import natural_mixture, uniform_mixture
from openclimb.search.measures import Items
from openclimb.search.pick import pick
from openclimb.search.statistics import seed_noise, student
from openclimb.trials import Trial

DOMAINS = make_domains(4)
N_ITEMS = 300


def make_picked(
    true: dict[str, float], noise: float, seed: int, seeds: int = 3, skip: tuple[int, ...] = ()
) -> tuple[list[Trial], Items]:
    """Return pick trials and items whose bits per byte are −true + the seed's luck + noise + the item's difficulty."""
    rng = np.random.default_rng(seed)
    mixtures = {"natural": natural_mixture(DOMAINS), "uniform": uniform_mixture(DOMAINS)}
    rows = {name: mixtures.get(name, rng.dirichlet(np.ones(4)).round(4)) for name in true}
    difficulty = {part: 1.0 + 0.3 * rng.standard_normal(N_ITEMS) for part in ("search", "report")}
    trials, items, number = [], {}, 100
    for one in range(seeds):
        luck = 3 * noise * rng.standard_normal()
        for name, weights in rows.items():
            number += 1
            if number - 101 in skip:
                continue
            own = noise * rng.standard_normal()
            arrays = {}
            for part in ("search", "report"):
                bpb = difficulty[part] - true[name] - luck - own + 0.05 * rng.standard_normal(N_ITEMS)
                arrays[f"sciq/{part}/bpb"] = bpb.astype(np.float32)
                arrays[f"sciq/{part}/correct"] = (bpb < 1.0).astype(np.int8)
                arrays[f"text/{part}/bpb"] = bpb.astype(np.float32)
            scores = {
                "sciq": -float(arrays["sciq/search/bpb"].mean()),
                "text": -float(arrays["text/search/bpb"].mean()),
            }
            role = name if name in mixtures else "finalist"
            trials.append(make_trial(number, DOMAINS, weights, scores, role=role, seed=one + 1))
            items[number] = arrays
    return trials, items


def answer(trials: list[Trial], items: Items, metric: str = "bpb", **at_least: float) -> dict:
    """Return the answer of a pick."""
    tasks = TasksSettings(metric=metric, at_least=at_least)
    config = dataclasses.replace(Config(), tasks=tasks, pick=PickSettings(finalists=2, seeds=3))
    return pick(smooth_trials(DOMAINS, 5), trials, items, DOMAINS, config)


def test_a_clear_winner_is_found_and_said() -> None:
    given = answer(*make_picked({"finalist-1": 0.02, "finalist-2": 0.2, "natural": 0.0, "uniform": -0.1}, 0.01, 0))
    assert given["choice"] == "finalist-2"
    assert "beats the natural mixture" in given["sentence"]
    margin = given["margins"]["natural"]
    assert margin["beyond_noise"]
    assert margin["interval"][0] < 0.2 < margin["interval"][1]
    assert [row["weight"] for row in given["domains"]] == list(given["mixtures"][1]["weights"].values())
    assert sum(row["weight"] for row in given["domains"]) == pytest.approx(1.0, abs=1e-6)
    assert [mixture["name"] for mixture in given["mixtures"]] == ["finalist-1", "finalist-2", "natural", "uniform"]
    assert set(given["mixtures"][0]["report"]["tasks"]["sciq"]) == {"bpb", "accuracy", "n"}
    assert set(given["mixtures"][0]["report"]["tasks"]["text"]) == {"bpb", "n"}
    assert given["trials"] == {"search": 5, "failed": 28 - 5, "pick": 12}
    json.dumps(given, allow_nan=False)


def test_a_least_score_comes_before_the_objective() -> None:
    trials, items = make_picked({"finalist-1": 0.02, "finalist-2": 0.2, "natural": 0.0, "uniform": -0.1}, 0.01, 0)
    drop = {trial.number for trial in trials if trial.weights == trials[1].weights}  # finalist-2, the best by "sciq"
    trials = [dataclasses.replace(t, scores={**t.scores, "text": -2.0 if t.number in drop else -0.5}) for t in trials]
    given = answer(trials, items, text=-1.0)
    assert given["choice"] == "finalist-1"
    assert given["objective"]["tasks"] == {"sciq": 1.0, "text": 0.0}
    assert "text reaches -1.0000 with -0.5000" in given["sentence"]
    assert answer(trials, items, text=-3.0)["choice"] == "finalist-2"
    given = answer(trials, items, text=0.0)
    assert "text falls short of +0.0000 with -0.5000" in given["sentence"]


def test_noise_is_not_sold_as_a_gain() -> None:
    given = answer(*make_picked({"finalist-1": 0.001, "natural": 0.0, "uniform": -0.1}, 0.02, 1))
    if given["choice"] == "finalist-1":
        assert "Nothing beats the natural mixture beyond noise" in given["sentence"]
    assert not given["margins"]["natural"]["beyond_noise"]


def test_natural_is_the_answer_when_it_is_best() -> None:
    given = answer(*make_picked({"finalist-1": -0.2, "natural": 0.0, "uniform": -0.3}, 0.01, 2))
    assert given["choice"] == "natural"
    assert [row["weight"] for row in given["domains"]] == pytest.approx([row["natural"] for row in given["domains"]])
    assert set(given["margins"]) == {"uniform"}


def test_intervals_hold_the_truth() -> None:
    inside, wins, n = 0, 0, 60
    for seed in range(n):
        given = answer(*make_picked({"finalist-1": 0.03, "natural": 0.0, "uniform": -0.05}, 0.02, seed))
        if given["choice"] == "finalist-1":
            wins += 1
            low, high = given["margins"]["natural"]["interval"]
            inside += low <= 0.03 <= high
    assert wins > 40
    assert inside / wins > 0.85


def test_pairing_makes_intervals_narrower() -> None:
    trials, items = make_picked({"finalist-1": 0.05, "natural": 0.0, "uniform": 0.0}, 0.02, 4)
    margin = answer(trials, items)["margins"]["natural"]["interval"]
    own = answer(trials, items)["mixtures"][0]["report"]["interval"]
    assert margin[1] - margin[0] < own[1] - own[0]


def test_failed_seeds_leave_the_rest() -> None:
    trials, items = make_picked({"finalist-1": 0.2, "natural": 0.0, "uniform": -0.1}, 0.01, 5, skip=(1, 3))
    given = answer(trials, items)
    assert given["choice"] == "finalist-1"
    assert [len(mixture["seeds"]) for mixture in given["mixtures"]] == [2, 2, 3]
    assert given["margins"]["natural"]["beyond_noise"]


def test_one_seed_claims_nothing() -> None:
    trials, items = make_picked({"finalist-1": 0.2, "natural": 0.0, "uniform": -0.1}, 0.01, 6, seeds=1)
    given = answer(trials, items)
    assert not given["margins"]["natural"]["beyond_noise"]
    assert "one seed cannot tell" in given["sentence"]


def test_natural_that_failed_is_said() -> None:
    trials, items = make_picked({"finalist-1": 0.2, "natural": 0.0}, 0.01, 7)
    kept = [trial for trial in trials if trial.role == "finalist"]
    given = answer(kept, items)
    assert "natural" not in given["margins"]
    assert "no scores to compare" in given["sentence"]


def test_accuracy_as_the_metric() -> None:
    trials, items = make_picked({"finalist-1": 0.3, "natural": 0.0, "uniform": -0.1}, 0.01, 8)
    given = answer(trials, items, "accuracy")
    assert given["mixtures"][0]["report"]["tasks"]["sciq"]["accuracy"]["mean"] > 0.7
    assert given["margins"]["natural"]["mean"] > 0


def test_finalist_that_is_the_natural_mixture_shares_its_trials() -> None:
    trials, items = make_picked({"natural": 0.0, "uniform": -0.1}, 0.01, 9)
    renamed = [dataclasses.replace(trial, role="finalist") if trial.role == "natural" else trial for trial in trials]
    given = answer(renamed, items)
    assert [mixture["name"] for mixture in given["mixtures"]] == ["natural", "uniform"]


def test_no_trials_left() -> None:
    with pytest.raises(SearchError, match="no trial of the finalists"):
        answer([], {})


def test_no_report_items() -> None:
    trials, items = make_picked({"finalist-1": 0.2, "natural": 0.0}, 0.01, 10)
    bare = {
        number: {name: values for name, values in arrays.items() if "/search/" in name}
        for number, arrays in items.items()
    }
    with pytest.raises(SearchError, match="no report items"):
        answer(trials, bare)


def test_seed_noise_leaves_out_what_a_seed_gives_all() -> None:
    rng = np.random.default_rng(0)
    luck = rng.standard_normal(40)
    tables = [{s: i + luck[s] + 0.1 * rng.standard_normal() for s in range(40)} for i in range(6)]
    paired, freedom = seed_noise(tables, paired=True)
    single, _ = seed_noise(tables, paired=False)
    assert paired == pytest.approx(0.1, rel=0.15)
    assert single > 0.7
    assert freedom == 5 * 39


def test_student_is_the_textbook_interval() -> None:
    estimate = student(1.0, [(0.04, 4.0)])
    assert estimate.high - 1.0 == pytest.approx(2.776 * 0.2, rel=1e-3)
