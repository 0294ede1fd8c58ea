"""The built page in a real browser: headless Chromium's dump of the page after its scripts ran."""

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_the_page_draws_its_figures(finished: Path, tmp_path: Path) -> None:
    page = finished / "report" / "index.html"
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command += ["--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    asked = page.read_text().count('class="chart"')
    drawn = done.stdout.count('<svg class="main-svg"')
    assert asked >= 1
    assert drawn >= asked, "a figure was not drawn"
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "rror" in line]
    assert not errors
