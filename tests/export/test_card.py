"""The dataset card: what it says is right for people and for `datasets`, whatever stands in a domain's name."""

import re

import pytest

from openclimb.config.scales import preset
from openclimb.export.card import dataset_card, megatron_line

ROW = {"weight": 0.5, "realised": 0.5004, "natural": 0.25, "tokens": 1234, "repetitions": 2.0}


def _card(*names: str, format: str = "parquet", **changes: object) -> str:
    facts = {
        "token_budget": 100_000,
        "tokens": 99_999,
        "documents": 12_345,
        "shards": ["one"],
        "largest_difference": 0.0004,
        "within_tolerance": True,
        "domains": [{**ROW, "name": name} for name in names],
    }
    return dataset_card({**facts, **changes}, "It beats <natural>.", preset("demo"), format)


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


def test_each_domain_has_a_file_of_its_own_for_megatron_and_no_weight_is_zero() -> None:
    names = ["C", "C++", "C#", "日本語", "中文", "a b/c", "42", "Code", "code"]
    weights = [4e-7, 1e-5, *[(1 - 1e-5 - 4e-7) / 7] * 7]
    words = megatron_line([{"name": n, "weight": w} for n, w in zip(names, weights, strict=True)]).split()[1:]
    assert [float(word) for word in words[::2]] == pytest.approx(weights, rel=1e-4)
    assert len({path.lower() for path in words[1::2]}) == len(names)
    assert all(re.fullmatch(r"PREFIX/[A-Za-z0-9._-]+_text_document", path) for path in words[1::2])
    assert words[1::2][6] == "PREFIX/42_text_document"
