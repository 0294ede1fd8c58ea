"""Every bench can be started, and that of the search takes tables of any kind."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gpu
from _search_tables import emulate
from openclimb.mixture import natural

FOLDER = Path(__file__).parent.parent / "bench"


def test_every_bench_imports() -> None:
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert len(names) > 10
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_parts_for_a_gpu_are_written_apart_and_gone_on_with(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "gpu.py"), str(tmp_path), "--tiny", "--part"]
    for part in ("agreement", "evaluation", "single", "single"):
        done = subprocess.run([*command, part], capture_output=True, text=True, check=False)
        assert done.returncode == 1  # other parts are not done
    assert "FLOP" not in done.stdout  # it was done before
    found = json.loads((tmp_path / "part_single.json").read_text())
    assert found["status"] == "done"
    assert {row["metric"] for row in found["rows"]} >= {"tokens/s", "FLOP/s", "bytes"}
    cases = {row["case"]: row["value"] for row in json.loads((tmp_path / "gpu.json").read_text())["rows"]}
    assert cases["single"] == cases["evaluation"] == "done"
    assert cases["stacked"] == "not run"


@pytest.mark.slow
def test_a_part_for_a_gpu_that_fails_says_why(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(FOLDER / "gpu.py"),
        str(tmp_path),
        "--tiny",
        "--part",
        "embedding",
        "--minilm",
        "none",
    ]
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 1
    found = json.loads((tmp_path / "part_embedding.json").read_text())
    assert found["status"] == "failed"
    assert "embed.model" in found["message"]


def test_a_part_for_a_gpu_that_takes_too_long_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def run(command: list[str], timeout: float, check: bool) -> None:
        begun.append(command[command.index("--only") + 1])
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(gpu, "subprocess", SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired))
    assert gpu.run_all(argparse.Namespace(out=tmp_path, tiny=True, part="", minilm="")) == 1
    assert begun == list(gpu.LIMITS)
    cases = {row["case"]: row["value"] for row in json.loads((tmp_path / "gpu.json").read_text())["rows"]}
    assert all(cases[part].startswith("out of time stopped after") for part in begun)


@pytest.mark.parametrize("kind", ["smooth", "rough"])
def test_a_table_with_few_independent_tasks_is_emulated(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(4), 25)
    score = weights @ [1.0, 0.5, 0.2, 0.0]
    write(tmp_path / "t_ratios.csv", "abcd", weights)
    write(tmp_path / "t_metrics.csv", "xyz", np.stack([score, 2 * score, np.full(25, 0.25)], axis=1))
    (tmp_path / "tables.json").write_text('{"t": "higher"}')
    problem = emulate(str(tmp_path), "t", kind)
    assert problem.regret(natural(problem.domains)) > 0
    assert all(np.isfinite(list(one.values())).all() for one in problem.observe(weights, rng))


def test_the_noise_of_a_table_with_several_seeds_is_what_they_differ_by(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(4), 200)
    luck = np.array([0.0, 5.0])[:, None, None]  # a seed's, common to all mixtures
    score = np.stack([weights @ [1.0, 0.5, 0.2, 0.0], weights @ [0.0, 1.0, 0.0, 0.3]], axis=1)
    runs = score + luck + rng.normal(0.0, [0.3, 0.1], (2, 200, 2))
    write(tmp_path / "t_ratios.csv", "abcd", weights)
    write(tmp_path / "t_metrics.csv", "xy", runs.mean(0))
    rows = [",".join(map(str, [i, seed, *runs[seed, i]])) for i in range(200) for seed in range(2)]
    (tmp_path / "t_runs.csv").write_text("\n".join(["run,seed,x,y", *rows]) + "\n")
    (tmp_path / "tables.json").write_text('{"t": "higher"}')
    root = emulate(str(tmp_path), "t", "smooth").root
    assert root is not None
    assert np.sqrt(np.diag(root @ root.T)) == pytest.approx([0.3, 0.1], rel=0.15)


def write(path: Path, names: str, rows: np.ndarray) -> None:
    lines = [",".join(["run", *names]), *(",".join(map(str, [i, *row])) for i, row in enumerate(rows.tolist()))]
    path.write_text("\n".join(lines) + "\n")
