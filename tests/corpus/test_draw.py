"""The sample: uniform over documents, the same whatever the files, units or workers."""

import json
from pathlib import Path

import pytest

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading import units as survey_units
from openclimb.corpus.reading.units import read_units, survey
from openclimb.corpus.sample import draw_sample
from openclimb.engines.local import LocalEngine
from openclimb.progress import Progress
from openclimb.workspace.context import StageContext


def _units(paths: list[Path], tmp_path: Path, **more: int):
    settings = CorpusSettings(paths=tuple(map(str, paths)), **more)
    (tmp_path / "units").mkdir(exist_ok=True)
    survey(StageContext(tmp_path / "units", LocalEngine(1), Progress()), settings)
    return read_units(tmp_path / "units"), settings


def _write(path: Path, n: int, name: str) -> Path:
    path.write_text("".join(json.dumps({"text": f"{name} {i} " + "x" * (i % 90)}) + "\n" for i in range(n)))
    return path


def test_a_small_file_gives_its_share_and_no_more(tmp_path: Path) -> None:
    files = [_write(tmp_path / "big.jsonl", 9000, "big"), _write(tmp_path / "small.jsonl", 1000, "small")]
    units, settings = _units(files, tmp_path)
    drawn = draw_sample(units, settings, 1000, 0, LocalEngine(1), Progress())
    assert len(drawn) == 1000
    small = sum(document.text.startswith("small") for document in drawn)
    assert 65 <= small <= 140  # 100 expected, standard deviation 9.5


def test_the_draw_follows_from_places_and_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [_write(tmp_path / f"{i}.jsonl", 30_000, str(i)) for i in range(2)]
    draws = {}
    for name, n_units, workers, seed in (("one", 1, 1, 0), ("many", 64, 2, 0), ("other seed", 64, 1, 1)):
        monkeypatch.setattr(survey_units, "UNIT_BYTES", n_units * 1_000_000)
        units, settings = _units(files, tmp_path)
        engine = LocalEngine(workers)
        draws[name] = [d.text for d in draw_sample(units, settings, 200, seed, engine, Progress())]
        engine.release()
    assert draws["one"] == draws["many"]
    assert draws["one"] != draws["other seed"]


def test_a_corpus_smaller_than_the_sample_is_taken_whole(tmp_path: Path) -> None:
    units, settings = _units([_write(tmp_path / "a.jsonl", 50, "a")], tmp_path)
    assert len(draw_sample(units, settings, 1000, 0, LocalEngine(1), Progress())) == 50
