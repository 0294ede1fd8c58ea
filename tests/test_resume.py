"""Kill −9 in every stage, run again each time: the same mixture and the same exported bytes."""

import random
from pathlib import Path

from kill import fingerprint_tree, killed_run, run_and_export, stage_seconds
from openclimb.testing.fixtures import make_tiny_workspace


def test_killed_at_random_moments_the_result_is_the_same(tmp_path: Path, tiny_corpus: Path, tiny_tasks: Path) -> None:
    whole, broken = (
        make_tiny_workspace(tmp_path / name / "run", tiny_corpus, tiny_tasks) for name in ("whole", "broken")
    )
    outs = [root.parent / "out" / "data" for root in (whole, broken)]
    run_and_export(whole, outs[0], "100K")
    seconds = stage_seconds(whole) | {"export": 2.0}
    moments = ["clusters", "labels", "tokens", "mixture", "mixture", "export"]
    kills = killed_run(broken, outs[1], "100K", seconds, moments, random.Random(1))
    assert len({kill.stage for kill in kills if kill.hit}) >= 3
    assert fingerprint_tree(whole / "mixture", outs[0]) == fingerprint_tree(broken / "mixture", outs[1])
