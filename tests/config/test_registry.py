"""The registry is the one place of built-in names: all of them load, and the settings offer exactly these."""

import dataclasses
import re
from pathlib import Path

import pytest

from openclimb.baselines.baseline import Baseline, find_baseline
from openclimb.config.load import from_dict
from openclimb.config.registry import REGISTRY, load, names
from openclimb.config.schema import SECTIONS
from openclimb.errors import ConfigError
from openclimb.export.writers.writer import Writer, find_writer
from openclimb.validation.compare import BASELINES

OFFERED = {  # setting → seam
    ("embed", "embedder"): "embedder",
    ("search", "proposer"): "proposer",
    ("search", "predictor"): "predictor",
    ("search", "low_fidelity"): "low_fidelity",
}
SOURCE = Path(__file__).parents[2] / "src" / "openclimb"
TESTS = Path(__file__).parents[1]
SETTINGS = [(section, field.name) for section, of in SECTIONS.items() for field in dataclasses.fields(of)]


@pytest.mark.parametrize(("seam", "name"), [(seam, name) for seam, built_in in REGISTRY.items() for name in built_in])
def test_every_built_in_loads(seam: str, name: str) -> None:
    pytest.importorskip("lightgbm") if name in ("lightgbm", "recipe", "regmix") else None
    found = load(seam, name)
    kind = {"baseline": Baseline, "writer": Writer}.get(seam)
    assert isinstance(found, kind) if kind else callable(found)


@pytest.mark.parametrize(("place", "seam"), OFFERED.items())
def test_the_settings_offer_what_the_registry_has(place: tuple[str, str], seam: str) -> None:
    section, setting = place
    field = next(one for one in dataclasses.fields(SECTIONS[section]) if one.name == setting)
    assert set(field.metadata["choices"]) - {""} == set(names(seam))
    for name in names(seam):
        from_dict({section: {setting: name}})
    with pytest.raises(ConfigError, match="is not known"):
        from_dict({section: {setting: "no-such-thing"}})


def test_validation_offers_every_baseline_and_each_but_doremi_can_propose() -> None:
    assert set(BASELINES) == set(names("baseline"))
    assert set(names("baseline")) - set(names("proposer")) == {"doremi"}


def test_what_is_no_part_of_its_kind_is_told() -> None:
    for find, kind in ((find_baseline, "Baseline"), (find_writer, "Writer")):
        with pytest.raises(ConfigError, match=f"is a type, not a {kind}"):
            find("openclimb.mixture:Domain")


def test_a_name_of_ones_own_is_loaded_and_a_wrong_one_names_the_nearest() -> None:
    assert load("predictor", "openclimb.search.predictors.gp:GaussianProcess") is load("predictor", "gp")
    with pytest.raises(ConfigError, match="did you mean 'power_law'"):
        load("predictor", "power_lw")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load("predictor", "openclimb.nothing:here")


@pytest.mark.parametrize(("section", "name"), SETTINGS)
def test_every_setting_is_read_by_the_code_and_changed_by_a_test(section: str, name: str) -> None:
    read = re.compile(rf"\.{name}\b|\"{name}\"")
    code = [path for path in SOURCE.rglob("*.py") if path.parent.name != "config"]
    assert any(read.search(path.read_text(encoding="utf-8")) for path in code), f"{section}.{name} is read nowhere"
    changed = re.compile(rf"\b{name}=|\"{name}\": |{section}\.{name}=|{name} = ")
    tests = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    assert any(changed.search(path.read_text(encoding="utf-8")) for path in tests), f"no test changes {section}.{name}"
