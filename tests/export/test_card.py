"""The dataset card: what it says is right for people and for `datasets`, whatever stands in a domain's name."""

import re

import pytest

from openclimb.config.registry import names
from openclimb.config.scales import preset
from openclimb.export.card import dataset_card

ROW = {"weight": 0.5, "realised": 0.5004, "natural": 0.25, "tokens": 1234, "repetitions": 2.0}


def _card(*names: str, format: str = "parquet", **changes: object) -> str:
    facts = {
        "token_budget": 100_000,
        "format": format,
        "by_domain": False,
        "by_cluster": False,
        "counted": True,
        "labels": [],
        "tokenizer": {"own": True, "vocab_size": 512, "end": 0, "start": None},
        "tokens": 99_999,
        "documents": 12_345,
        "shards": ["one"],
        "largest_difference": 0.0004,
        "within_tolerance": True,
        "domains": [{**ROW, "name": name} for name in names],
    }
    about = [{"name": name, "n_clusters": "0", "words": ""} for name in names]
    return dataset_card({**facts, **changes}, "It beats <natural>.", preset("demo"), 3, about)


def test_names_cannot_put_markup_or_rows_on_the_card() -> None:
    card = _card("a|b\nc", "<script>`x`", "[y](http://z) &lt; *so*", "_u_ arc_easy", "\\| $e^x$ ~no~")
    rows = re.search(r"\|---\|---\|---\|---\|---\|---\|\n((?:.*\|\n)+)", card)
    assert rows
    cells = [re.split(r"(?<!\\)(?:\\\\)*\|", line) for line in rows[1].splitlines()]
    assert {len(row) for row in cells} == {8}
    names = [row[1].strip() for row in cells]
    assert names[:2] == ["a\\|b c", "\\<script>\\`x\\`"]
    assert names[2] == "\\[y](http\\://z) \\&lt; \\*so\\*"
    assert names[3] == "\\_u\\_ arc_easy"
    assert "It beats \\<natural>." in card


@pytest.mark.parametrize(("format", "files"), [("parquet", "data/*.parquet"), ("jsonl.zst", "data/*.jsonl.zst")])
def test_the_front_matter_says_size_and_files(format: str, files: str) -> None:
    import yaml

    head = yaml.safe_load(_card("a", format=format).split("---\n")[1])
    assert head["size_categories"] == ["10K<n<100K"]
    assert head["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": files}]}]


def test_shares_that_are_off_say_why() -> None:
    assert "is 0.040%.\n" in _card("a")
    assert "is 3.000%: more than 0.1%, because" in _card("a", largest_difference=0.03, within_tolerance=False)


@pytest.mark.parametrize("by_domain", [False, True])
@pytest.mark.parametrize("format", names("writer"))
def test_every_format_says_how_it_is_loaded_and_which_tokenizer_counted(format: str, by_domain: bool) -> None:
    import yaml

    card = _card("a", format=format, by_domain=by_domain)
    ours = {"own": False, "vocab_size": 70_000, "end": 9, "start": 7}
    other = _card("a", format=format, by_domain=by_domain, tokenizer=ours)
    assert "counted with the tokenizer of the search" in card
    assert "counted with the target's tokenizer" in other
    assert "of 70,000\nentries" in other
    assert ("Each shard holds one domain" in card) is by_domain
    assert ("Read in order, the shards are the mixture" in card) is not by_domain
    loading = card.partition("## Load it")[2]
    assert loading.count("```") == 2
    assert "| repetition |" in loading
    assert "seed 3, scale demo" in card
    assert "{" + "{" not in card
    assert ("configs" in yaml.safe_load(card.split("---\n")[1])) is (format in ("parquet", "jsonl.zst"))
    if format == "tokens":
        assert 'dtype="<u2"' in card
        assert 'dtype="<u4"' in other
        assert "ends with token 9 and begins with token 7. " in other


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("format", names("writer"))
def test_the_card_of_a_corpus_has_a_section_a_domain(format: str, counted: bool) -> None:
    import yaml

    more = {"folder": "web", "documents": 10, "text_bytes": 5_000, "examples": ["one *two*", "three"]}
    domains = [{**ROW, **more, "name": "web|x"}, {**ROW, **more, "name": "b", "folder": "b", "weight": 1e-5}]
    facts = {
        "by_cluster": True,
        "counted": counted,
        "text_bytes": 10**6,
        "labels": ["cluster", "distance", "hash", "q"],
    }
    tokenizer = {"own": True, "vocab_size": 512, "end": 0, "start": None}
    facts |= {"format": format, "tokenizer": tokenizer, "by_domain": False, "token_budget": 10**5, "documents": 20}
    about = [{"n_clusters": "3", "words": "cat dog", "q": "0.5"}, {"n_clusters": "1", "words": "", "q": "0.25"}]
    card = dataset_card({**facts, "tokens": 2468, "shards": ["a"], "domains": domains}, "So.", preset("demo"), 3, about)
    head = yaml.safe_load(card.split("---\n")[1])
    first = card.partition("\n## web\\|x\n")[2].partition("\n## ")[0]
    assert first == "\n3 clusters.\nTop words: cat dog.\nMean scores: q 0.5.\n\n> one \\*two\\*\n>\n> three\n"
    assert "\n1 cluster.\nMean scores: q 0.25.\n\n> one" in card
    assert "| b | 0.0010% |" in card
    assert ("documents, about 2,468 tokens" in card) is ("Tokens are estimated" in card) is not counted
    if format in ("parquet", "jsonl.zst"):
        assert [config["config_name"] for config in head["configs"]] == ["default", "web", "b"]
    assert ("| cluster, distance |" in card) is (format not in ("mds", "litdata"))
    assert ("olmo-core.yaml" in card, "nemo.json" in card) == (format == "tokens", format == "megatron")
