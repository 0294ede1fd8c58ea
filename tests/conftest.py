"""A small real corpus of six kinds of text, and real tasks from passages of the same kinds that the corpus does not hold."""

import json
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
GENRES = {"stories": ("novel", "manners"), "speech": ("scripture", "politics")}
CONTEXT_WORDS, OPTION_WORDS, N_OPTIONS = 24, 12, 4


@pytest.fixture(scope="session")
def tiny_corpus() -> Path:
    """A JSONL file with the columns text, domain and id; about 320 documents in six domains of unequal size."""
    return DATA / "corpus.jsonl"


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two task files: which continuation belongs to the beginning of a held-out passage?"""
    folder = tmp_path_factory.mktemp("tasks")
    passages = [json.loads(line) for line in (DATA / "passages.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, domains in GENRES.items():
        mine = [passage["text"].split() for passage in passages if passage["domain"] in domains]
        lines = [json.dumps(_item(mine, i)) + "\n" for i in range(len(mine))]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def _item(passages: list[list[str]], number: int) -> dict[str, object]:
    """Return the question about one passage; the wrong options continue the passages that follow it in the list."""
    end = CONTEXT_WORDS + OPTION_WORDS
    gold = number % N_OPTIONS
    options = [
        " " + " ".join(passages[(number + i - gold) % len(passages)][CONTEXT_WORDS:end]) for i in range(N_OPTIONS)
    ]
    return {"context": " ".join(passages[number][:CONTEXT_WORDS]), "options": options, "gold": gold}
