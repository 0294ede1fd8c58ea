"""Counts of a plan that can be worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from openclimb.config.scales import preset
from openclimb.corpus.pack import HELDOUT_TOKENS
from openclimb.planning.work import (
    BYTES_A_DOCUMENT,
    assumed_domains,
    batches,
    evaluation_flops,
    given_size,
    packed,
    proxy_of,
    tokens_a_byte,
)
from openclimb.search.selection.halving import most_trials
from openclimb.tasks.items import PartSize, check_task

DEMO = preset("demo")
PROXY = proxy_of(DEMO, DEMO.proxy)  # width 64, 2 layers, 128 tokens a sequence, 2,048 entries
HEAD = 2048 * 64
LAYERS = 2 * (4 * 64 * 64 + 3 * 64 * 168 + 2 * 64) + 64


def test_training_counts_parameters_and_attention() -> None:
    assert PROXY.parameters == HEAD + LAYERS == 228_672
    assert PROXY.training_flops == 6 * 228_672 + 12 * 2 * 64 * 128


def test_scoring_reads_all_tokens_and_multiplies_the_output_at_the_answer() -> None:
    assert PROXY.reading_flops(60, 20) == 80 * (2 * LAYERS + 4 * 2 * 64 * 80) + 20 * 2 * HEAD


def test_the_search_scores_right_options_and_the_report_all_of_them_and_held_out_text(tmp_path: Path) -> None:
    part = PartSize(items=10, gold=200, gold_contexts=600, options=800, contexts=600)
    tasks = {"t": {"search": part, "report": part}}
    rate = 0.1  # tokens a byte
    search = evaluation_flops(PROXY, tasks, DEMO.tasks, rate, report=False)
    assert search == pytest.approx(10 * PROXY.reading_flops(6, 2))
    both = evaluation_flops(PROXY, tasks, DEMO.tasks, rate, report=True)
    held_out = HELDOUT_TOKENS / 512 * PROXY.reading_flops(0, 512)
    assert both == pytest.approx(search + 10 * PROXY.reading_flops(6, 8) + held_out)
    by_accuracy = replace(DEMO.tasks, metric="accuracy")
    assert evaluation_flops(PROXY, tasks, by_accuracy, rate, report=False) == pytest.approx(
        10 * PROXY.reading_flops(6, 8)
    )


def test_a_task_is_as_large_as_its_texts(tmp_path: Path) -> None:
    rows = [{"context": f"é{i}", "options": ["a", "bcd"], "gold": i % 2} for i in range(10)]  # 3 bytes a context
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    parts = check_task("t", str(path), DEMO.tasks)
    n = {part: size.items for part, size in parts.items()}
    assert n["search"] + n["report"] == 10
    for part, size in parts.items():
        assert size.contexts == size.gold_contexts == 3 * n[part]
        assert size.options == 4 * n[part]
    assert sum(size.gold for size in parts.values()) == 5 * 1 + 5 * 3


def test_batches_are_those_of_the_search_and_of_halving() -> None:
    laptop = preset("laptop")
    assert batches(laptop) == {"replicates": [], "search": [16, 8, 4], "selection": [5, 3, 2, 9]}
    assert most_trials(laptop.selection) == 19
    repeated = replace(laptop, search=replace(laptop.search, replicates=3))
    assert batches(repeated)["replicates"] == [3]


def test_a_corpus_that_is_not_there_has_the_size_it_is_given() -> None:
    both = given_size(10**9, 4 * 10**12)
    assert (both.documents, both.text_bytes, both.file_bytes) == (1e9, 4e12, 4e12)
    assert both.head_bytes == 2000 * 1e9
    assert both.units == 62_500
    assert given_size(1000, 0).text_bytes == 1000 * BYTES_A_DOCUMENT
    assert given_size(0, 8_000_000).documents == 2000


def test_packing_takes_eight_times_what_a_trial_reads() -> None:
    config = replace(DEMO, target=replace(DEMO.target, token_budget=30_000_000))
    corpus = given_size(1_000_000, 4 * 10**9)
    domains = assumed_domains(config, 1e9)
    assert len(domains) == 10
    found = packed(config, corpus, domains)
    each = 300_000 * round(1e8) / 30_000_000  # tokens of a domain × the proxy's share of the target's budget: 1M …
    assert each > 300_000  # … which is more than a proxy reads in all
    assert found.read == 10 * 300_000
    assert found.tokens == 8 * 10 * 300_000 + HELDOUT_TOKENS
    assert 0.0276 < found.documents / 1_000_000 < 0.0276 * 1.6  # 1.15 × 24M of 1,000M tokens, and some to be sure


def test_larger_vocabularies_have_longer_tokens() -> None:
    assert 1 / tokens_a_byte(2048) == pytest.approx(2.8)
    assert 1 / tokens_a_byte(50_304) == pytest.approx(4.4, abs=0.05)
