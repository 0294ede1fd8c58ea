"""The docs say what the code does: every command and setting stands in them, and the reference is up to date."""

import runpy
from pathlib import Path

import pytest

from openclimb.cli.main import COMMANDS
from openclimb.workspace.records import STAGES

ROOT = Path(__file__).parent.parent


def test_the_reference_is_what_the_code_says() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["reference"]()
    assert (ROOT / "docs" / "reference.md").read_text() == made, "run python docs/make_reference.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_shown_to_a_newcomer(command: str) -> None:
    tutorial = (ROOT / "docs" / "tutorial.md").read_text()
    assert f"climb {command}" in tutorial


def test_every_stage_is_explained() -> None:
    concepts = (ROOT / "docs" / "concepts.md").read_text()
    assert all(f"**{stage}**" in concepts for stage in STAGES)


def test_links_inside_the_repository_lead_somewhere() -> None:
    import re

    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
