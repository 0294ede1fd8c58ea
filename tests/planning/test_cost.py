"""Rows of a plan: what trials, documents and cards cost, against what was measured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from openclimb.config.scales import preset
from openclimb.config.schema import Config, EmbedSettings, ProxySettings
from openclimb.config.sizes import derived_settings
from openclimb.planning import rates
from openclimb.planning.cost import Job, Row, beside, rows_of, total, trial_rows
from openclimb.planning.machine import Core, Machine
from openclimb.planning.work import assumed_domains, batches, given_size, proxy_of, tokens_a_byte

CORE = Core("a test's", rates.REFERENCE.products, rates.REFERENCE.text, tiles=False)
RESULTS = Path(__file__).parents[2] / "bench" / "results"


def job_of(config: Config, machine: Machine, documents: int = 10_000_000) -> Job:
    corpus, rate = given_size(documents, 4000 * documents), tokens_a_byte(config.tokens.vocab_size)
    proxy = proxy_of(config, config.proxy)
    domains = assumed_domains(config, rate * corpus.text_bytes)
    return Job(config, machine, proxy, corpus, tuple(domains), {}, rate, batches(config))


def rows(config: Config, machine: Machine, documents: int = 10_000_000) -> dict[str, Row]:
    return {row.stage: row for row in rows_of(job_of(config, machine, documents))}


def sized(size: str, trials: int, tokens: int) -> Config:
    derived = derived_settings(size)
    laptop = preset("laptop")
    return replace(
        laptop,
        proxy=ProxySettings(**derived["proxy"], token_budget=tokens),
        tokens=replace(laptop.tokens, vocab_size=derived["tokens"]["vocab_size"]),
        search=replace(laptop.search, trials=(trials,)),
    )


def gpu_rate(case: str) -> float:
    found = json.loads((RESULTS / "gpu.json").read_text())
    rows = [row for row in found["rows"] if row["case"].startswith(case) and row["metric"] == "tokens/s"]
    return max(float(row["value"]) for row in rows)


@pytest.mark.parametrize(
    ("size", "models", "case"),
    [
        ("1M", 64, "stacked: 1M, 64"),
        ("5M", 64, "stacked: 5M, 64"),
        ("62M", 1, "single: 62M"),
        ("350M", 1, "single: 350M"),
    ],
)
def test_a_card_trains_as_fast_as_was_measured_on_it(size: str, models: int, case: str) -> None:
    tokens = 10**9
    row = trial_rows(job_of(sized(size, models, tokens), Machine(CORE, 16, rates.CARDS["h100"], 1)))[0]
    seconds = row.seconds - rates.CARD_COMPILE - rates.START
    assert models * tokens / seconds == pytest.approx(gpu_rate(case), rel=0.05)
    assert row.gpu_hours == pytest.approx(row.hours)


def test_one_small_model_alone_is_held_up_by_its_steps() -> None:
    row = trial_rows(job_of(sized("1M", 1, 10**8), Machine(CORE, 16, rates.CARDS["h100"], 1)))[0]
    seconds = row.seconds - rates.CARD_COMPILE - rates.START
    assert 10**8 / seconds == pytest.approx(171_802, rel=0.05)  # gpu.json: one 1M by itself


def test_a_card_that_was_not_measured_reaches_the_same_share_of_its_peak() -> None:
    config = sized("62M", 1, 10**9)
    one, other = (trial_rows(job_of(config, Machine(CORE, 16, rates.CARDS[name], 1)))[0] for name in ("h100", "a100"))
    waited = rates.CARD_COMPILE + rates.START
    assert (other.seconds - waited) / (one.seconds - waited) == pytest.approx(989 / 312, rel=1e-6)
    assert [card for card, about in rates.CARDS.items() if about.measured] == ["h100"]


def test_trials_of_a_batch_wait_for_the_last_of_them() -> None:
    demo = preset("demo")  # batches of 8, 5 and 3; then 3, 2, 2, 2 and 11
    two, many = ({row.stage: row for row in trial_rows(job_of(demo, Machine(CORE, n)))} for n in (2, 100))
    proxy = proxy_of(demo, demo.proxy)
    one = 300_000 // 128 * 128 * proxy.training_flops / rates.TRAIN[64]
    assert two["search"].seconds == pytest.approx(rates.START + (4 + 3 + 2) * one)
    assert many["search"].seconds == pytest.approx(rates.START + 3 * one)
    assert two["selection"].trials == 20
    assert two["search"].flops == 16 * (300_000 // 128 * 128) * proxy.training_flops


def test_bf16_tiles_and_a_faster_core_shorten_trials() -> None:
    demo = preset("demo")
    tiles = replace(CORE, tiles=True)
    fast = replace(CORE, products=2 * rates.REFERENCE.products)
    plain, low, quick = (
        trial_rows(job_of(demo, Machine(core, 1)))[0].seconds - rates.START for core in (CORE, tiles, fast)
    )
    assert plain / low == pytest.approx(rates.TILES[64])
    assert plain / quick == pytest.approx(2)


def test_documents_take_cores_and_transformers_take_cards() -> None:
    laptop = preset("laptop")
    few, many = (rows(laptop, Machine(CORE, cores)) for cores in (2, 32))
    assert few["labels"].hours / many["labels"].hours == pytest.approx(16, rel=0.05)
    assert few["labels"].gpu_hours == 0
    node = replace(
        preset("node"), embed=EmbedSettings("sentence-transformers", "sentence-transformers/all-MiniLM-L6-v2")
    )
    one, eight = (rows(node, Machine(CORE, 128, rates.CARDS["h100"], n)) for n in (1, 8))
    assert one["labels"].gpu_hours == pytest.approx(eight["labels"].gpu_hours, rel=0.01)
    # gpu.json: 2,072 documents of 2,000 characters a second with four processes; here they are as long or longer.
    assert 10_000_000 / one["labels"].seconds == pytest.approx(2072, rel=0.05)


def test_the_sum_adds_hours_and_disk_and_takes_the_largest_memory() -> None:
    found = rows_of(job_of(preset("laptop"), Machine(CORE, 4)))
    whole = total(found)
    assert whole.seconds == pytest.approx(sum(row.seconds for row in found))
    assert whole.disk == pytest.approx(sum(row.disk for row in found))
    assert whole.memory == max(row.memory for row in found)
    assert whole.trials == 28 + 19


def test_memory_does_not_grow_with_the_corpus_and_labels_on_disk_do() -> None:
    machine = Machine(CORE, 4)
    small, large = (rows(preset("laptop"), machine, n) for n in (10**6, 10**8))
    assert large["labels"].memory == small["labels"].memory
    assert large["labels"].disk == pytest.approx(100 * small["labels"].disk)
    assert large["clusters"].memory == small["clusters"].memory  # of the sample


def test_pieces_that_do_not_divide_wait_for_the_last() -> None:
    assert beside(4, 2) == 0.5
    assert beside(5, 2) == pytest.approx(3 / 5)
    assert beside(1, 64) == 1.0


def test_looking_for_near_duplicates_costs_time() -> None:
    config, machine = preset("laptop"), Machine(CORE, 16, None, 0)
    n = 10_000_000
    near = rows(replace(config, corpus=replace(config.corpus, dedup="near")), machine, n)["labels"]
    none = rows(config, machine, n)["labels"]
    exact = rows(replace(config, corpus=replace(config.corpus, dedup="exact")), machine, n)["labels"]
    assert exact == none
    assert near.seconds - none.seconds == pytest.approx(4000 * n / rates.SIGN / 16, rel=0.1)
