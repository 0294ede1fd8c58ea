"""`climb status` says how far the clusters can be trusted, and what limits on scores do or would do."""

from pathlib import Path

from openclimb.cli.cluster_text import cluster_lines
from openclimb.cli.planning import status
from openclimb.cli.text import status_text

NEAR = {
    "cluster": "3",
    "mean": 0.41234,
    "documents": 1,
    "tokens": 1200,
    "words": ["sheep", "wool"],
    "example": "Of sheep\x1b and their wool " + "x" * 100,
}
LIMIT = {"score": "good", "set_to": "below 0.5", "clusters": 1, "tokens": 1200, "share": 0.08}


def test_a_finished_workspace_says_it(finished: Path) -> None:
    facts = status(finished)
    said = status_text(facts)
    assert f"clusters  {facts['trust']['sentence']}" in said
    assert "scores    heuristics of clusters " in said
    assert "of the tokens)" in said


def test_a_limit_is_shown_with_the_clusters_on_both_sides() -> None:
    near = [NEAR | {"pruned": i > 2, "cluster": str(i)} for i in range(6)]
    lines = cluster_lines({"trust": {}, "pruning": {"clusters": 6, "limits": [LIMIT | {"near": near}], "unset": []}})
    assert lines[0] == "prune     good below 0.5: 1 of 6 clusters go, 1,200 tokens (8.0%); nearest to it:"
    assert [line.split()[:3] for line in lines[1:]] == [
        ["stays", "0.4123", "1"],
        ["stays", "0.4123", "2"],
        ["goes", "0.4123", "3"],
        ["goes", "0.4123", "4"],
    ]
    assert all("1 document, 1,200 tokens  sheep wool" in line and "\\x1b" in line for line in lines[1:])
    assert all(len(line) < 160 for line in lines)


def test_warnings_stand_below_the_measures() -> None:
    trust = {"sentence": "20 with 1.2% to 90.0% of the documents", "warnings": ["one cluster holds 90%"]}
    assert cluster_lines({"trust": trust, "pruning": {}}) == [
        "clusters  20 with 1.2% to 90.0% of the documents",
        "          take care: one cluster holds 90%",
    ]


def test_before_there_are_clusters_nothing_is_said() -> None:
    assert cluster_lines({"trust": {}, "pruning": {}}) == []
