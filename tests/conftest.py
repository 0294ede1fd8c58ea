"""A small real corpus of six kinds of text, and real tasks from passages that the corpus does not hold."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

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


@pytest.fixture
def with_start() -> Callable[[Path], int]:
    """Return a function that gives a tokenizer.json a token to put first, as Llama's have it, and returns its id."""

    def change(path: Path) -> int:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.add_special_tokens(["<|start|>"])
        start = int(tokenizer.token_to_id("<|start|>"))
        first = processors.TemplateProcessing(single="<|start|> $A", special_tokens=[("<|start|>", start)])
        tokenizer.post_processor = first
        tokenizer.save(str(path))
        return start

    return change


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path, tiny_tasks: Path) -> Path:
    """A workspace that was run to its end. Tests that change it copy it first."""
    root = make_tiny_workspace(tmp_path_factory.mktemp("line") / "run", tiny_corpus, tiny_tasks)
    assert main(["run", str(root), "--quiet"]) == 0
    return root
