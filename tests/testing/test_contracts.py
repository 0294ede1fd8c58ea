"""The contract tests that we ship: ours pass them, and a part that breaks its contract does not."""

import sys
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openclimb.config.registry import names
from openclimb.engines.local import LocalEngine
from openclimb.quality.student import HEADS, Student, write_table
from openclimb.testing.contracts import (
    check_annotator,
    check_baseline,
    check_embedder,
    check_engine,
    check_scorer,
    check_writer,
)
from openclimb.testing.endpoint import rule_scores


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
    check_scorer(third_party(length))
    with pytest.raises(AssertionError, match="neighbours"):
        check_scorer(third_party(rank))


def graded(texts: Sequence[str]) -> list[dict[str, float]]:
    return [rule_scores(text) if text.strip() else {} for text in texts]


def above(texts: Sequence[str]) -> list[dict[str, float]]:
    return [scores and {**scores, "quality": 6} for scores in graded(texts)]


def ranked(texts: Sequence[str]) -> list[dict[str, float]]:
    return [scores and {**scores, "quality": len(texts) % 5} for scores in graded(texts)]


def test_a_sound_annotator_passes_and_others_are_told(third_party: Callable[..., str]) -> None:
    check_annotator(third_party(graded))
    with pytest.raises(AssertionError, match="out of range: quality: 6"):
        check_annotator(third_party(above))
    with pytest.raises(AssertionError, match="neighbours"):
        check_annotator(third_party(ranked))


@pytest.mark.parametrize("name", names("embedder"))
def test_every_embedder_of_ours_passes(name: str, static_model: Path, transformer_model: Path) -> None:
    models = {"model2vec": static_model, "sentence-transformers": transformer_model}
    check_embedder(name, str(models.get(name, "")))


@pytest.mark.parametrize("name", names("scorer"))
def test_every_scorer_of_ours_passes(
    name: str, write_fasttext: Callable[..., Path], make_classifier: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_fasttext("quality.bin", {"__label__0": {"junk": 8.0}, "__label__5": {"sentence": 8.0}})
    if name == "transformers":
        name = f"transformers:{make_classifier('edu', ['LABEL_0'])}"
    if name == "students":
        models = tmp_path / "students" / "models"
        models.mkdir(parents=True)
        np.savez(models / HEADS, weights=np.ones((1, 6), np.float32), intercepts=np.zeros(1, np.float32))
        students = [Student("edu", "fasttext", (0.0, 5.0), path.name), Student("ads", "head", (0.0, 5.0), HEADS)]
        path = path.rename(models / path.name)
        write_table(models, students, "")
        name = f"students:{tmp_path}"
    check_scorer(name, {"education": str(path)} if name == "fasttext" else None, letters)


@pytest.mark.parametrize("name", [name for name in names("baseline") if name != "doremi"])  # it has a run of its own
def test_every_baseline_of_ours_passes(name: str) -> None:
    check_baseline(name, 48)


@pytest.mark.parametrize("name", names("writer"))
def test_every_writer_of_ours_passes(name: str) -> None:
    check_writer(name)


@pytest.mark.parametrize("workers", [1, 2])
def test_our_engine_passes(workers: int) -> None:
    check_engine(partial(LocalEngine, workers))


class Forgetful(LocalEngine):
    """An engine that gives results without their indexes."""

    def map(self, function: Callable[..., Any], items: Sequence[Any], workers: int | None = None) -> Iterator[Any]:
        for place, (_, result) in enumerate(super().map(function, items, workers)):
            yield len(items) - 1 - place, result


def test_an_engine_that_mixes_up_results_fails() -> None:
    with pytest.raises(AssertionError, match="the item's index"):
        check_engine(partial(Forgetful, 1))
