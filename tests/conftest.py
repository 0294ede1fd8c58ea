"""A small real corpus of six kinds of text, and real tasks from passages that the corpus does not hold."""

from pathlib import Path

import pytest

from tiny import TINY_CORPUS, make_tiny_tasks


@pytest.fixture(scope="session")
def tiny_corpus() -> Path:
    """A JSONL file with the columns text, domain and id."""
    return TINY_CORPUS


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two task files."""
    return make_tiny_tasks(tmp_path_factory.mktemp("tasks"))
