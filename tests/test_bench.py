"""Every bench can be started: what it imports from the package is there."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "bench"


def test_every_bench_imports() -> None:
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert len(names) > 10
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
