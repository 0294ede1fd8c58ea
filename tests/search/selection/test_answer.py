"""The answer is honest: right on average, silent about noise, and whole when trials fail."""

import dataclasses
import json
from dataclasses import asdict

import numpy as np
import pytest

from openclimb.config.schema import Config, SearchSettings, SelectionSettings, TasksSettings
from openclimb.errors import SearchError
from openclimb.search.acquisition.spec import settings_weights
from openclimb.search.selection.answer import choose, group, select, sentence
from openclimb.search.selection.candidates import Candidates, confirmation, make_candidates, n_asked, next_round, stand
from openclimb.search.selection.confirm import Compared, Confirmation
from openclimb.search.selection.halving import UNIFORM_SEEDS, most_trials
from openclimb.search.space.region import natural_mixture, uniform_mixture
from openclimb.stats.compare import Margin, correct
from openclimb.stats.intervals import Estimate
from openclimb.stats.noise import seed_noise
from openclimb.tasks.measures import Items
from openclimb.testing.fixtures import make_domains, make_space, make_trial, smooth_trials
from openclimb.workspace.trials import Proposal, Trial

DOMAINS = make_domains(4)
N_ITEMS = 300
QUICK = SearchSettings(predictor="gp")


def candidates_of(
    true: dict[str, float],
    seed: int,
    thresholds: dict[str, float] | None = None,
    settings: SelectionSettings | None = None,
) -> Candidates:
    """Return the candidates that `true` names and the baselines."""
    rng = np.random.default_rng(seed)
    rows = [tuple(rng.dirichlet(np.ones(4)).round(4).tolist()) for name in true if name.startswith("finalist")]
    compared = [("finalist", row) for row in rows]
    compared += [("natural", tuple(natural_mixture(DOMAINS))), ("uniform", tuple(uniform_mixture(DOMAINS)))]
    completed = [  # of which the predictor can make nothing: what is believed follows from the contest
        dataclasses.replace(trial, scores=dict(zip(("sciq", "text"), rng.normal(-1.0, 0.3, 2).tolist(), strict=True)))
        for trial in smooth_trials(DOMAINS, 8)
    ]
    goal = settings_weights(TasksSettings(thresholds=thresholds or {}))
    space = make_space(DOMAINS, QUICK, goal, thresholds=thresholds or {})
    return make_candidates(completed, space, compared, settings or SelectionSettings(finalists=2), 0)


def play(
    true: dict[str, float],
    noise: float,
    seed: int,
    *,
    skip: tuple[str, ...] = (),
    thresholds: dict[str, float] | None = None,
    metric: str = "bpb",
    shift: dict[str, float] | None = None,
    sure: float = 0.9,
    settings: SelectionSettings | None = None,
) -> tuple[dict, list[Trial], Items]:
    """Return the answer of a selection, its trials and their items.

    A trial's bits per byte are −true + the seed's luck + noise + the item's difficulty, by the name of its mixture.
    `skip` are mixtures, or "mixture@seed", whose trials fail; `shift` moves a mixture's task "text".
    """
    settings = settings or SelectionSettings(finalists=2, sure=sure)
    candidates = candidates_of(true, seed, thresholds, settings)
    names = {tuple(row): name for name, row in zip(candidates.names, candidates.weights.tolist(), strict=True)}
    tasks = TasksSettings(metric=metric, thresholds=thresholds or {})
    config = dataclasses.replace(Config(), tasks=tasks, selection=settings)
    completed = smooth_trials(DOMAINS, 8)
    rng = np.random.default_rng([seed, 1])
    difficulty = {part: 1.0 + 0.3 * rng.standard_normal(N_ITEMS) for part in ("search", "report")}
    luck = {one: 3 * noise * rng.standard_normal() for one in range(20)}
    selected: list[Trial] = []
    items: dict = {}

    def train(proposals: list[Proposal]) -> None:
        for proposal in proposals:
            name = names[proposal.weights]
            number = 101 + len(items)
            own = noise * rng.standard_normal()
            arrays = {}
            for part in ("search", "report"):
                bpb = difficulty[part] - true.get(name, 0.0) - luck[proposal.seed] - own
                bpb = bpb + 0.05 * rng.standard_normal(N_ITEMS)
                arrays[f"sciq/{part}/bpb"] = bpb.astype(np.float32)
                arrays[f"sciq/{part}/correct"] = (bpb < 1.0).astype(np.int8)
                arrays[f"text/{part}/bpb"] = (bpb - (shift or {}).get(name, 0.0)).astype(np.float32)
            scores = {task: -float(arrays[f"{task}/search/bpb"].mean()) for task in ("sciq", "text")}
            items[number] = arrays
            if name not in skip and f"{name}@{proposal.seed}" not in skip:
                selected.append(
                    make_trial(number, DOMAINS, proposal.weights, scores, role=proposal.role, seed=proposal.seed)
                )

    while proposals := next_round(candidates, selected, 3):
        before = len(selected)
        train(proposals)
        if len(selected) == before:  # where the run would stop
            break
    train(confirmation(candidates, selected, 3))
    return asdict(select(completed, selected, items, DOMAINS, candidates, config)), selected, items


def answer(true: dict[str, float], noise: float, seed: int, **more: object) -> dict:
    """Return the answer of a selection, as its file has it."""
    return play(true, noise, seed, **more)[0]  # type: ignore[arg-type]


CLEAR = {"finalist-1": 0.02, "finalist-2": 0.2, "natural": 0.0, "uniform": -0.1}


def test_a_clear_winner_is_found_and_said() -> None:
    given, selected, _ = play(CLEAR, 0.01, 0)
    assert given["choice"] == "finalist-2"
    assert "beats the natural mixture" in given["sentence"]
    margin = given["margins"]["natural"]
    assert margin["comparison"] == "beaten"
    assert margin["interval"][0] < 0.2 < margin["interval"][1]
    assert [row["weight"] for row in given["domains"]] == list(given["mixtures"][0]["weights"].values())
    assert sum(row["weight"] for row in given["domains"]) == pytest.approx(1.0, abs=1e-6)
    assert [mixture["name"] for mixture in given["mixtures"]] == ["finalist-2", "natural", "uniform"]
    assert "both significant at 5 % after Holm" in given["sentence"]
    assert set(given["mixtures"][0]["report"]["tasks"]["sciq"]) == {"bpb", "accuracy", "n"}
    assert set(given["mixtures"][0]["report"]["tasks"]["text"]) == {"bpb", "n"}
    assert given["trials"] == {
        "search": 8,
        "external": 0,
        "transferred": 0,
        "failed": 28 - 8,
        "selection": len(selected),
    }
    json.dumps(given, allow_nan=False)


def test_the_answer_says_how_good_how_sure_and_which_weights_matter() -> None:
    given = answer(CLEAR, 0.01, 0)
    low, high = given["interval_80"]
    assert low < given["expected"] < high
    assert given["probability_best"] > 0.95
    assert 0.0 <= given["distance"] <= 1.0
    assert 1.0 <= given["effective_domains"] <= 4.0
    assert all(row["repetitions"] >= 0 for row in given["domains"])
    assert max(abs(row["loss"]) for row in given["domains"]) > 0
    assert sum(row["probability_best"] for row in given["candidates"]) == pytest.approx(1.0)


def test_the_claim_rests_on_seeds_that_chose_nothing() -> None:
    given, selected, _ = play(CLEAR, 0.01, 0)
    chose = {row["seed"] for row in given["rounds"]}
    assert chose
    assert all(set(mixture["seeds"]) == {4, 5, 6} for mixture in given["mixtures"])
    assert chose.isdisjoint({4, 5, 6})
    assert {trial.role for trial in selected if trial.seed in chose} == {"finalist", "natural", "uniform"}


def test_the_claims_seeds_never_change_the_answer() -> None:
    given, selected, _ = play(CLEAR, 0.01, 0)
    candidates = candidates_of(CLEAR, 0)
    turned = [  # the confirmation says the contrary of the rounds
        dataclasses.replace(trial, scores={task: -1.0 - trial.scores[task] for task in trial.scores})
        if trial.seed in candidates.confirmation_seeds
        else trial
        for trial in selected
    ]
    for trials in (selected, turned):
        compared, _ = group(candidates, trials)
        assert choose(candidates, stand(candidates, trials), compared).name == given["choice"] == "finalist-2"


def test_the_rounds_choose_a_baseline_that_is_better() -> None:
    given, _, _ = play({"finalist-1": -0.5, "finalist-2": -0.4, "natural": -0.3, "uniform": 0.2}, 0.01, 0)
    assert given["choice"] == "uniform"
    assert given["rounds"][-1]["left"][0] == "uniform"
    assert [mixture["name"] for mixture in given["mixtures"]] == ["natural", "uniform"]
    assert given["sentence"].startswith("The uniform mixture beats the natural mixture on report items by +0.")
    assert given["margins"]["natural"]["mean"] == pytest.approx(0.5, abs=0.03)


def test_uniform_may_have_fewer_seeds_of_the_confirmation() -> None:
    settings = SelectionSettings(finalists=2, seeds=4)
    given, selected, _ = play(CLEAR, 0.01, 0, settings=settings)
    assert [len(mixture["seeds"]) for mixture in given["mixtures"]] == [4, 4, UNIFORM_SEEDS]
    assert given["margins"]["uniform"]["comparison"] == "beaten"
    assert given["trials"]["failed"] == 28 - 8
    assert len(selected) <= most_trials(settings)


def test_rounds_say_who_was_dropped_and_stop_when_one_is_sure() -> None:
    given = answer(CLEAR, 0.001, 0, sure=0.5)
    assert len(given["rounds"]) == 1
    assert given["rounds"][0]["left"][0] == "finalist-2"
    assert given["rounds"][0]["probability_best"]["finalist-2"] >= 0.5
    alike = {**CLEAR, "finalist-2": 0.02}
    assert len(answer(alike, 0.05, 0, sure=1.0)["rounds"]) == 3
    assert set(given["rounds"][0]["expected"]) == {"finalist-1", "finalist-2", "natural", "uniform"}


def test_a_least_score_comes_before_the_objective() -> None:
    shift = {"finalist-1": 0.5, "finalist-2": -0.9}
    given = answer(CLEAR, 0.01, 0, shift=shift, thresholds={"text": -0.8})
    assert given["choice"] == "finalist-1"
    assert given["objective"]["tasks"] == {"sciq": 1.0, "text": 0.0}
    assert "text reaches -0.8000 with" in given["sentence"]
    assert answer(CLEAR, 0.01, 0, shift=shift, thresholds={"text": -3.0})["choice"] == "finalist-2"
    given = answer(CLEAR, 0.01, 0, shift=shift, thresholds={"text": 0.0})
    assert given["choice"] == "finalist-1"
    assert "text falls short of +0.0000 with" in given["sentence"]


@pytest.mark.slow
def test_noise_is_not_sold_as_a_gain() -> None:
    sold, said = 0, 0
    for seed in range(20):
        given = answer({"finalist-1": 0.001, "natural": 0.0, "uniform": -0.1}, 0.02, seed)
        if given["choice"] == "finalist-1":
            beyond = given["margins"]["natural"]["comparison"] == "beaten"
            sold += beyond
            said += "Nothing beats the natural mixture beyond noise" in given["sentence"]
            assert beyond == ("beats the natural mixture on report items" in given["sentence"])
    assert sold <= 3
    assert said >= 5


def test_natural_is_the_answer_when_it_is_best() -> None:
    given = answer({"finalist-1": -0.5, "natural": 0.0, "uniform": -0.6}, 0.001, 2)
    assert given["choice"] == "natural"
    assert [row["weight"] for row in given["domains"]] == pytest.approx([row["natural"] for row in given["domains"]])
    assert set(given["margins"]) == {"uniform"}


@pytest.mark.slow
def test_intervals_hold_the_truth() -> None:
    inside, wins, n = 0, 0, 40
    for seed in range(n):
        given = answer({"finalist-1": 0.03, "finalist-2": 0.02, "natural": 0.0, "uniform": -0.05}, 0.02, seed)
        if given["choice"].startswith("finalist"):
            wins += 1
            low, high = given["margins"]["natural"]["interval"]
            inside += low <= {"finalist-1": 0.03, "finalist-2": 0.02}[given["choice"]] <= high
    assert wins > 20
    assert inside / wins > 0.85


def test_pairing_makes_intervals_narrower() -> None:
    given = answer({"finalist-1": 0.5, "natural": 0.0, "uniform": 0.0}, 0.02, 4)
    margin = given["margins"]["natural"]["interval"]
    own = given["mixtures"][0]["report"]["interval"]
    assert margin[1] - margin[0] < own[1] - own[0]


def test_failed_seeds_leave_the_rest() -> None:
    given = answer(CLEAR, 0.01, 5, skip=("finalist-2@4", "natural@5"))
    assert given["choice"] == "finalist-2"
    assert [len(mixture["seeds"]) for mixture in given["mixtures"]] == [2, 2, 3]
    assert given["margins"]["natural"]["comparison"] == "beaten"
    assert given["trials"]["failed"] == 28 - 8 + 2


def test_a_finalist_without_scores_is_dropped() -> None:
    given = answer(CLEAR, 0.01, 5, skip=("finalist-2",))
    assert "finalist-2" in given["rounds"][0]["dropped"]
    assert all("finalist-2" not in one["left"] for one in given["rounds"])
    assert given["choice"] != "finalist-2"


def test_one_seed_claims_nothing() -> None:
    late = ("natural@5", "natural@6", "uniform@5", "uniform@6", "finalist-1@5", "finalist-1@6")
    given = answer({"finalist-1": 0.5, "natural": 0.0, "uniform": -0.1}, 0.01, 6, skip=late)
    assert given["margins"]["natural"]["comparison"] != "beaten"
    assert "one seed cannot tell" in given["sentence"]


def test_natural_that_failed_is_said() -> None:
    given = answer({"finalist-1": 0.5}, 0.01, 7, skip=("natural", "uniform"))
    assert "natural" not in given["margins"]
    assert "no scores to compare" in given["sentence"]


def test_accuracy_as_the_metric() -> None:
    given = answer({"finalist-1": 0.5, "natural": 0.0, "uniform": -0.1}, 0.01, 8, metric="accuracy")
    assert given["mixtures"][0]["report"]["tasks"]["sciq"]["accuracy"]["mean"] > 0.7
    assert given["margins"]["natural"]["mean"] > 0


def test_finalist_that_is_the_natural_mixture_shares_its_trials() -> None:
    natural, uniform = natural_mixture(DOMAINS), uniform_mixture(DOMAINS)
    compared = [("finalist", tuple(natural)), ("finalist", (1.0, 0.0, 0.0, 0.0))]
    compared += [("natural", tuple(natural)), ("uniform", tuple(uniform))]
    candidates = make_candidates(
        smooth_trials(DOMAINS, 5), make_space(DOMAINS, QUICK), compared, SelectionSettings(), 0
    )
    assert candidates.names == ("finalist-1", "natural", "uniform")
    assert {candidates.names[row] for row in candidates.playing} == {"natural", "finalist-1", "uniform"}
    assert len(next_round(candidates, [], 3)) == 3
    assert len({(proposal.weights, proposal.seed) for proposal in confirmation(candidates, [], 3)}) == len(
        confirmation(candidates, [], 3)
    )


def test_domains_of_one_size_have_one_baseline() -> None:
    row = (0.25, 0.25, 0.25, 0.25 + 1e-12)
    compared = [("finalist", (1.0, 0.0, 0.0, 0.0)), ("natural", (0.25,) * 4), ("uniform", row)]
    candidates = make_candidates(
        smooth_trials(DOMAINS, 5), make_space(DOMAINS, QUICK), compared, SelectionSettings(seeds=2), 0
    )
    assert candidates.names == ("finalist-1", "natural")
    asked = confirmation(candidates, [], 3)
    assert len(asked) == n_asked(candidates, stand(candidates, [])) == 4


def said(natural: Estimate, uniform: Estimate | None = None, **more: bool) -> str:
    """Return the sentence of margins over three seeds."""
    margins = {"natural": Margin(natural, 3)} | ({"uniform": Margin(uniform, 3)} if uniform else {})
    return sentence(Compared("finalist-1", (1.0,), ()), correct(margins), **more)


def test_an_answer_that_does_worse_is_said_to() -> None:
    given = said(Estimate(-0.06, -0.1, -0.02, 0.001))
    assert given.startswith("The found mixture does worse than the natural mixture on report items, by -0.0600")
    assert "safe" not in given
    given = said(Estimate(-0.06, -0.1, 0.02, 0.2), natural_reaches=False)
    assert "comes nearer to the thresholds" in given
    assert "safe" not in given


def test_the_two_comparisons_of_the_answer_are_corrected() -> None:
    near, far = Estimate(0.05, 0.001, 0.1, 0.04), Estimate(0.05, -0.04, 0.14, 0.3)
    assert "beats the natural mixture" in said(near)
    assert "Nothing beats the natural mixture beyond noise" in said(near, far)  # .04 of two is not significant
    given = said(Estimate(0.05, 0.01, 0.1, 0.01), near)
    assert given.endswith("0.1000, 3 seeds), both significant at 5 % after Holm.")
    given = said(Estimate(0.05, 0.01, 0.1, 0.01), far)
    assert "significant at 5 % after Holm; from the uniform mixture it differs by +0.0500" in given
    assert given.endswith("not significant.")
    worse = said(Estimate(0.05, 0.01, 0.1, 0.01), Estimate(-0.05, -0.1, -0.01, 0.01))
    assert "it does worse than the uniform mixture, by -0.0500" in worse


def test_no_trials_left() -> None:
    with pytest.raises(SearchError, match="no trial of the finalists"):
        answer({"finalist-1": 0.0}, 0.01, 0, skip=("finalist-1", "natural", "uniform"))


def test_no_report_items() -> None:
    given, selected, items = play({"finalist-1": 0.2, "natural": 0.0}, 0.01, 10)
    bare = {
        number: {name: values for name, values in arrays.items() if "/search/" in name}
        for number, arrays in items.items()
    }
    compared = [Compared(trial.role, trial.weights, (trial,)) for trial in selected]
    with pytest.raises(SearchError, match="no report items"):
        Confirmation(compared, [], bare, given["objective"]["tasks"], "bpb", 0)


def test_seed_noise_leaves_out_what_a_seed_gives_all() -> None:
    rng = np.random.default_rng(0)
    luck = rng.standard_normal(40)
    tables = [{s: i + luck[s] + 0.1 * rng.standard_normal() for s in range(40)} for i in range(6)]
    paired, freedom = seed_noise(tables, paired=True)
    single, _ = seed_noise(tables, paired=False)
    assert paired == pytest.approx(0.1, rel=0.15)
    assert single > 0.7
    assert freedom == 5 * 39


def test_as_many_trials_as_planned_at_most() -> None:
    equal = {"finalist-1": 0.0, "finalist-2": 0.0, "natural": -0.5, "uniform": -0.6}
    _, selected, _ = play(equal, 0.05, 0, sure=1.0)
    assert len(selected) == most_trials(SelectionSettings(finalists=2))
    assert most_trials(SelectionSettings(finalists=4)) == 6 + 3 + 2 + 9
    assert most_trials(SelectionSettings(finalists=1, seeds=2)) == 3 + 2 + 6
    assert most_trials(SelectionSettings(finalists=2, seeds=5)) == 4 + 4 * 2 + 13
