"""The contract tests that we ship: ours pass them, and a part that breaks its contract does not."""

import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from openclimb.testing import check_embedder, check_scorer


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], str]:
    """Install a function as a stranger's part; return its name in the settings."""

    def install(function: Callable[..., Any]) -> str:
        module = types.ModuleType("strangers_part")
        monkeypatch.setitem(sys.modules, "strangers_part", module)
        setattr(module, function.__name__, function)
        return f"strangers_part:{function.__name__}"

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


def test_a_sound_embedder_passes_and_one_that_looks_at_neighbours_fails(stranger: Callable[..., str]) -> None:
    check_embedder(stranger(letters))
    with pytest.raises(AssertionError, match="neighbours"):
        check_embedder(stranger(relative))


def test_a_sound_scorer_passes_and_one_that_looks_at_neighbours_fails(stranger: Callable[..., str]) -> None:
    check_scorer("rules")
    check_scorer(stranger(length))
    with pytest.raises(AssertionError, match="neighbours"):
        check_scorer(stranger(rank))
