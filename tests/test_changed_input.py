"""Files that change after they were read: what later stages read is compared with what earlier ones counted."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.corpus.reading.units import input_fingerprint
from openclimb.errors import StaleError
from openclimb.progress import Progress
from openclimb.testing.fixtures import SETTINGS, complaint, make_tiny_workspace

BUDGET = 5000  # of a target: more than a proxy reads
VALIDATE = ["--quiet", "--against", "natural", "--seeds", "2", "--token-budget", str(BUDGET)]
PROXY = {**SETTINGS["proxy"], "token_budget": 4096}
SHORT = {"search": {"trials": [2]}, "corpus": {"domains": "column:domain"}, "proxy": PROXY}


class At(Progress):
    """Does something when a stage begins."""

    def __init__(self, label: str, act: Callable[[], None]) -> None:
        self.label, self.act = label, act

    def start(self, label: str, total: int | None = None, unit: str = "") -> None:
        if label == self.label:
            self.act()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path, tiny_tasks: Path) -> Path:
    """A workspace that was run to its end over a corpus of its own, in its folder."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copy2(tiny_corpus, folder / "corpus.jsonl")
    root = make_tiny_workspace(folder / "run", folder / "corpus.jsonl", tiny_tasks, **SHORT)
    openclimb.open(root).run()
    return root


@pytest.fixture
def corpus(ran: Path) -> Iterator[Path]:
    """The corpus of that workspace, restored afterwards."""
    path = ran.parent / "corpus.jsonl"
    data, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    yield path
    path.write_bytes(data)
    os.utime(path, ns=times)


@pytest.fixture
def root(ran: Path, corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "run"))


def blank_the_middle(path: Path) -> None:
    """Make empty lines of a file's middle; its size, its time and both of its ends stay."""
    data, info = path.read_bytes(), path.stat()
    start, stop = data.index(b"\n", 70_000), data.index(b"\n", len(data) - 70_000)
    path.write_bytes(data[:start] + b"\n" * (stop - start) + data[stop:])
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def test_a_file_that_changes_during_a_run_is_told_at_its_end(root: Path, corpus: Path) -> None:
    with pytest.raises(StaleError, match=r"corpus\.jsonl: changed"):
        openclimb.open(root).run(redo="tokens", progress=At("pack", lambda: os.utime(corpus, (1, 1))))
    assert (root / "mixture" / "record.json").is_file()  # it was told last


def test_validation_and_export_compare_with_the_labels(
    root: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = input_fingerprint(openclimb.open(root).config.corpus)
    blank_the_middle(corpus)
    assert input_fingerprint(openclimb.open(root).config.corpus) == before
    for command in (
        ["validate", str(root), *VALIDATE],
        ["export", str(root), "--tokens", "90K", "--out", str(tmp_path / "data"), "--quiet"],
        ["run", str(root), "--quiet", "--redo", "tokens"],
    ):
        assert main(command) == 1
        said = complaint(capsys.readouterr().err)
        assert "labelled documents cannot be read any more" in said, command
        assert "climb run DIR --redo corpus" in said, command


def test_a_file_that_changes_while_validation_packs_is_told(root: Path, corpus: Path) -> None:
    with pytest.raises(StaleError, match=r"corpus\.jsonl: changed"):
        validate(root, At("pack", lambda: os.utime(corpus, (1, 1))))
    packed = (root / "validation.partial").glob("tokens-*")
    assert all(path.suffix == ".partial" for path in packed)  # none is whole


def test_tokens_that_a_killed_validation_left_cut_short_are_packed_again(root: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate(root, At("targets", stop))
    packed = max((root / "validation.partial").glob("tokens-*/*.bin"), key=lambda path: path.stat().st_size)
    packed.write_bytes(packed.read_bytes()[:1000])
    validate(root, Progress())
    assert (root / "validation" / "record.json").is_file()


def validate(root: Path, progress: Progress) -> None:
    openclimb.open(root).validate(["natural"], 2, {"token_budget": BUDGET}, progress)


def test_validation_uses_no_damaged_tokens(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = max((root / "tokens").glob("*.bin"), key=lambda path: path.stat().st_size)
    packed.write_bytes(packed.read_bytes()[:-2])
    assert main(["validate", str(root), *VALIDATE]) == 1
    said = complaint(capsys.readouterr().err)
    assert f"tokens/{packed.name} has" in said
    assert "--redo tokens" in said
