"""A run that is killed at random moments and started again gives the same answer and the same dataset."""

import random
from pathlib import Path

import pytest

from _faults_kills import Workplace, kill_once

SIGNALS = 5  # moments of the run at which it is killed, whole or in part


@pytest.mark.slow
def test_killed_at_random_moments_the_result_is_the_same(tmp_path: Path, tiny_tasks: Path) -> None:
    places = []
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        places.append(Workplace(tmp_path / name, tiny_tasks))
    whole, broken = places
    seconds = {command: whole.finish(command) for command in ("run", "export")}
    rng, kills = random.Random(1), []
    for command, times in (("run", SIGNALS), ("export", 2)):
        kills += [kill_once(broken, command, 0.8 * seconds[command], rng) for _ in range(times)]
        broken.finish(command)
    assert sum(kill.hit for kill in kills) >= 3
    assert not any(kill.left for kill in kills)
    assert broken.made() == whole.made()
    assert broken.left_behind() == []
