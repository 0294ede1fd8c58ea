"""Work is known again: equal values have equal digits in every process, and different ones differ."""

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from openclimb.config.schema import Config
from openclimb.engines.spool.identity import identity, keys

VALUES = (
    "from functools import partial; from pathlib import Path; import numpy as np, math;"
    "from openclimb.config.schema import Config;"
    "few = [1, 2.5, None, b'z'];"
    "value = partial(math.hypot, {'b', 'a', 'c'}, Path('/x'), Config(), few, np.arange(3), key={1: (2,)})"
)


@dataclass(frozen=True)
class Point:
    x: float
    y: object


class Plain:
    def __init__(self, x: int) -> None:
        self.x = x


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    code = f"{VALUES}; from openclimb.engines.spool.identity import identity; print(identity(value))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        ("1", 1),
        ((1, 2), [1, 2]),
        ([[1], 2], [[1, 2]]),
        (("ab", "c"), ("a", "bc")),
        (Path("/a"), "/a"),
        (Point(1.0, None), Point(2.0, None)),
        (Plain(1), Plain(2)),
        (partial(int, base=2), partial(int, base=8)),
        (abs, len),
        (np.zeros(4, np.float32), np.zeros(4, np.float64)),
        (np.zeros((2, 2)), np.zeros(4)),
        (np.array([0.0]), np.array([1e-300])),
        (Config(seed=0), Config(seed=1)),
        ({1: 2}, {2: 1}),
    ],
)
def test_different_values_differ_and_equal_ones_do_not(one: object, other: object) -> None:
    assert identity(one) != identity(other)
    assert identity(one) == identity(one)


def test_what_cannot_be_known_is_new_each_time() -> None:
    value = (i for i in range(3))
    assert identity(value) != identity(value)


def test_equal_items_have_keys_of_their_own_in_the_same_order() -> None:
    found = keys(["a", "b", "a"])
    assert len(set(found)) == 3
    assert found == keys(["a", "b", "a"])
    assert found[:2] == keys(["a", "b"])


def test_a_folder_that_was_made_again_is_another_item_and_a_file_more_is_none(tmp_path: Path) -> None:
    trial = tmp_path / "0001"
    trial.mkdir()
    (trial / "trial.json").write_text("{}")
    before = keys([[trial]])
    (trial / "train.jsonl").write_text("1")
    assert keys([[trial]]) == before
    (trial / "trial.json").unlink()
    (trial / "train.jsonl").unlink()
    (trial / "trial.json").write_text("{}")
    os.utime(trial / "trial.json", ns=(1, 1))
    assert keys([[trial]]) != before


def test_a_relative_path_is_where_it_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert identity(Path("a")) == identity(tmp_path / "a")
