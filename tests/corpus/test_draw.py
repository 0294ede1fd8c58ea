"""The sample: uniform over documents, the same whatever the files, units or workers."""

import json
from pathlib import Path

import numpy as np
import pytest

from openclimb.config.schema import CorpusSettings
from openclimb.corpus import sample as sample_module
from openclimb.corpus.reading import units as survey_units
from openclimb.corpus.reading.units import read_units, survey
from openclimb.corpus.sample import FIELDS, Smallest, draw_sample
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
    drawn = draw_sample(units, settings, 1000, 0, LocalEngine(1), Progress(), tmp_path)
    assert len(drawn) == len(drawn.shown) == 1000
    small = sum(document.text.startswith("small") for document in drawn.shown)
    assert 65 <= small <= 140  # 100 expected, standard deviation 9.5


def test_the_draw_follows_from_places_and_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [_write(tmp_path / f"{i}.jsonl", 30_000, str(i)) for i in range(2)]
    draws = {}
    for name, n_units, workers, seed in (("one", 1, 1, 0), ("many", 64, 2, 0), ("other seed", 64, 1, 1)):
        monkeypatch.setattr(survey_units, "UNIT_BYTES", n_units * 1_000_000)
        units, settings = _units(files, tmp_path)
        engine = LocalEngine(workers)
        sample = draw_sample(units, settings, 200, seed, engine, Progress(), tmp_path / name)
        draws[name] = [document.text for document in sample.shown]
        engine.release()
    assert draws["one"] == draws["many"]
    assert draws["one"] != draws["other seed"]


def test_a_corpus_smaller_than_the_sample_is_taken_whole(tmp_path: Path) -> None:
    units, settings = _units([_write(tmp_path / "a.jsonl", 50, "a")], tmp_path)
    assert len(draw_sample(units, settings, 1000, 0, LocalEngine(1), Progress(), tmp_path)) == 50


def test_blocks_hold_the_texts_of_all_in_their_places(tmp_path: Path) -> None:
    files = [_write(tmp_path / f"{i}.jsonl", 3000, str(i)) for i in range(3)]
    units, settings = _units(files, tmp_path)
    whole = draw_sample(units, settings, 700, 0, LocalEngine(1), Progress(), tmp_path / "whole")
    drawn = draw_sample(units, settings, 700, 0, LocalEngine(1), Progress(), tmp_path / "few", 50)
    assert drawn.shown == whole.shown[:50]
    texts = {}
    for block in drawn.blocks:
        texts |= dict(zip(block.places.tolist(), block.texts(), strict=True))
    assert [texts[place] for place in range(700)] == [document.text for document in whole.shown]
    assert {d.unit for block in drawn.blocks for d in block.documents()} == {unit.number for unit in units}
    assert drawn.n_bytes.tolist() == [len(document.text) for document in whole.shown]


def test_more_units_are_looked_at_where_the_first_hold_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_module, "MAX_UNITS", 2)
    units, settings = _units([_write(tmp_path / f"{i}.jsonl", 40, str(i)) for i in range(12)], tmp_path)
    few = draw_sample(units, settings, 10, 0, LocalEngine(1), Progress(), tmp_path / "few")
    assert len({document.unit for document in few.shown}) == 2
    monkeypatch.setattr(sample_module, "_guess_documents", lambda units, settings: 10**6)  # far too many
    most = draw_sample(units, settings, 400, 0, LocalEngine(1), Progress(), tmp_path / "most")
    assert len(most) == 400
    assert len(list((tmp_path / "most" / "drawn").iterdir())) == 1  # what the first looks left is gone


def test_the_smallest_are_kept_in_bounded_memory() -> None:
    rng = np.random.default_rng(0)
    smallest, all_hashes = Smallest(500), []
    for unit in range(400):
        part = np.zeros(50, dtype=FIELDS)
        part["hash"] = rng.integers(0, 2**63, 50, dtype=np.uint64)
        all_hashes.append(part["hash"].copy())
        smallest.add(unit, part)
        assert sum(map(len, smallest.parts.values())) <= 2 * 500 + 1050
    smallest.cut()
    kept = np.sort(np.concatenate([part["hash"] for part in smallest.parts.values()]))
    np.testing.assert_array_equal(kept, np.sort(np.concatenate(all_hashes))[:500])
