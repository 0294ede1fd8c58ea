"""The contract tests that we ship: ours pass them, and a part that breaks its contract does not."""

import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from openclimb.testing.contracts import check_embedder, check_scorer


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], str]:
    """Install a function as a third-party one part; return its name in the settings."""

    def install(function: Callable[..., Any]) -> str:
        module = types.ModuleType("third_partys_part")
        monkeypatch.setitem(sys.modules, "third_partys_part", module)
        setattr(module, function.__name__, function)
        return f"third_partys_part:{function.__name__}"

    return install


def letters(texts: Sequence[str]) -> Any:
    counts = np.array([[1 + text.count(c) for c in "aeinot"] for text in texts], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def relative(texts: Sequence[str]) -> Any:
    counts = letters(texts)
    return counts - counts.mean(0) + np.eye(6, dtype=np.float32)[0]


def length(texts: Sequence[str]) -> Any:
    return [len(text) for text in texts]


def rank(texts: Sequence[str]) -> Any:
    return np.argsort(np.argsort([len(text) for text in texts]))


def test_a_sound_embedder_passes_and_one_that_looks_at_neighbours_fails(third_party: Callable[..., str]) -> None:
    check_embedder(third_party(letters))
    with pytest.raises(AssertionError, match="neighbours"):
        check_embedder(third_party(relative))


def test_a_sound_scorer_passes_and_one_that_looks_at_neighbours_fails(third_party: Callable[..., str]) -> None:
    check_scorer("heuristics")
    check_scorer(third_party(length))
    with pytest.raises(AssertionError, match="neighbours"):
        check_scorer(third_party(rank))
