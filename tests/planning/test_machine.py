"""The machine of a plan: its speed is the same from call to call, and a card is one of the table."""

import json
from pathlib import Path

import pytest

from openclimb.errors import ConfigError
from openclimb.planning import machine as machines
from openclimb.planning.machine import calibrate, card_name, core_here, find_card, machine_of
from openclimb.planning.rates import CARDS, KNOWN, at_width


@pytest.fixture
def another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A processor that no table has, and an empty cache: the file that its speed is kept in."""
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: Abacus 3000\nflags\t\t: fpu amx_bf16\n", encoding="utf-8")
    monkeypatch.setattr(machines, "CPUINFO", info)
    monkeypatch.setattr(machines, "TURNS", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openclimb" / "core.json"


def test_an_unknown_processor_is_measured_once(another: Path) -> None:
    first = core_here()
    assert first.tiles
    assert first.products > 1e8
    assert first.text > 1e5
    assert json.loads(another.read_text())["processor"] == "Abacus 3000"
    assert core_here() == core_here() == first
    kept = json.loads(another.read_text())
    another.write_text(json.dumps(kept | {"products": 5e10}))
    assert core_here().products == 5e10  # what is kept is what counts
    another.write_text("{")
    assert core_here().products != 5e10  # a damaged file is written again
    another.write_text(json.dumps(kept | {"processor": "another"}))
    assert core_here().processor == "Abacus 3000"


def test_a_cache_that_cannot_be_written_stops_nothing(another: Path) -> None:
    another.parent.parent.write_text("a file, no folder", encoding="utf-8")
    assert core_here().products > 1e8


def test_a_known_processor_is_not_measured(another: Path) -> None:
    machines.CPUINFO.write_text("model name : AMD EPYC\nflags : fpu\n", encoding="utf-8")
    assert core_here().products == KNOWN["AMD EPYC"].products
    assert not another.exists()


def test_a_calibration_is_of_this_processor() -> None:
    found = calibrate()
    assert found.products_share * 1.35e11 == pytest.approx(found.products)


def test_the_machine_is_this_one_or_the_one_that_is_described(another: Path) -> None:
    here = machine_of(3, "cpu")
    assert (here.cores, here.card, here.here) == (3, None, True)
    cores = machine_of(0, "auto", cores=64)
    assert (cores.cores, cores.gpus, cores.here, cores.described) == (64, 0, False, "64 cores")
    cards = machine_of(0, "auto", gpus=8, gpu="A100")
    assert (cards.gpus, cards.cores, cards.described) == (8, 128, "8 × NVIDIA A100, 128 cores")
    assert machine_of(0, "auto", gpu="l40s").gpus == 1
    assert machine_of(0, "auto", gpus=2, gpu="h200", cores=24).cores == 24


def test_a_card_here_counts_as_the_tables_or_is_said_to_be_unknown(
    another: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "card_here", lambda: "NVIDIA H100 80GB HBM3")
    assert machine_of(4, "auto").described == "1 × NVIDIA H100, 4 cores"
    assert machine_of(4, "cpu").card is None
    monkeypatch.setattr(machines, "card_here", lambda: "Tesla K80")
    here = machine_of(4, "auto")
    assert (here.card, here.gpus, here.unknown) == (None, 0, "Tesla K80")


def test_a_card_is_known_by_its_name() -> None:
    assert card_name("NVIDIA H100 80GB HBM3") == "h100"
    assert card_name("NVIDIA GeForce RTX 4090") == "rtx4090"
    assert card_name("NVIDIA L40S") == "l40s"
    assert card_name("Tesla K80") == ""
    assert find_card("H100") is CARDS["h100"]
    with pytest.raises(ConfigError, match="--gpu 'h10' is not known") as caught:
        find_card("h10")
    assert "a100" in caught.value.fix


def test_rates_between_two_widths_follow_the_logarithm() -> None:
    table = {64: 1.0, 256: 3.0}
    assert at_width(table, 128) == pytest.approx(2.0)
    assert at_width(table, 8) == 1.0
    assert at_width(table, 4096) == 3.0
