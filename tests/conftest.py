"""A small real corpus of six kinds of text, and real tasks from passages that the corpus does not hold."""

from pathlib import Path

import pytest

from openclimb.cli import main
from tiny import TINY_CORPUS, make_tiny_tasks, make_tiny_workspace


@pytest.fixture(scope="session")
def tiny_corpus() -> Path:
    """A JSONL file with the columns text, domain and id."""
    return TINY_CORPUS


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two task files."""
    return make_tiny_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path, tiny_tasks: Path) -> Path:
    """A workspace that was run to its end. Tests that change it copy it first."""
    root = make_tiny_workspace(tmp_path_factory.mktemp("line") / "run", tiny_corpus, tiny_tasks)
    assert main(["run", str(root), "--quiet"]) == 0
    return root
