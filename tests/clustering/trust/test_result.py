"""What is said of the measures: a sentence, and a warning for each that is poor."""

from dataclasses import replace
from pathlib import Path

import pytest

from openclimb.clustering.trust.result import (
    FILE,
    Intruder,
    Spread,
    Trust,
    read_trust,
    trust_facts,
    trust_sentence,
    trust_warnings,
    write_trust,
)

LATIN = Spread("Latin", 2700, 0.9, 15.0, 3, 0.1, 1.0)
CYRILLIC = Spread("Cyrillic", 150, 0.05, 1.2, 7, 0.95, 0.4)
UNKNOWN = Spread("", 6, 0.002, 3.0, 1, 0.5, 0.1)
GOOD = Trust(20, 0.012, 0.11, 0.72, 20_000, 20_000, Intruder(0.93, 0.92, 0.94, 5000, 3, 0.8), UNKNOWN, [LATIN])


def test_good_clusters_are_described_without_a_warning() -> None:
    assert trust_warnings(GOOD) == []
    assert trust_sentence(GOOD) == (
        "20 with 1.2% to 11.0% of the documents; two halves of the sample agree to 0.72 (adjusted mutual information); "
        "the odd one of three is found in 93% (chance: 33%); 0.2% of the documents have hardly a known word"
    )


def test_what_was_not_measured_is_left_out() -> None:
    bare = replace(GOOD, agreement=None, intruder=None, unknown=None, scripts=[])
    assert trust_sentence(bare) == "20 with 1.2% to 11.0% of the documents"
    assert trust_warnings(bare) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"largest": 0.9}, "one cluster holds 90% of the documents"),
        ({"agreement": 0.1}, "halves of the sample agree to 0.10 only"),
        ({"intruder": Intruder(0.34, 0.33, 0.36, 5000, None, None)}, "found in 34% (chance: 33%)"),
        ({"unknown": replace(UNKNOWN, share=0.2)}, "20% of the documents have hardly a word"),
        ({"scripts": [LATIN, CYRILLIC]}, "Cyrillic (5.0%)"),
    ],
)
def test_each_poor_measure_is_warned_of(changes: dict[str, object], said: str) -> None:
    (warning,) = trust_warnings(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert said in warning


@pytest.mark.parametrize("other", [replace(CYRILLIC, in_home=0.3), replace(CYRILLIC, of_home=0.9)])
def test_a_script_that_spreads_or_has_a_cluster_to_itself_is_not_warned_of(other: Spread) -> None:
    assert trust_warnings(replace(GOOD, scripts=[LATIN, other])) == []


def test_the_file_holds_what_was_written(tmp_path: Path) -> None:
    assert read_trust(tmp_path) is None
    assert trust_facts(tmp_path) == {}
    (tmp_path / FILE).parent.mkdir()
    write_trust((tmp_path / FILE).parent, GOOD)
    assert read_trust(tmp_path) == GOOD
    assert trust_facts(tmp_path)["sentence"] == trust_sentence(GOOD)
